//! What the status of an object says. Pure; [`super::writer`] writes it.

use crate::source::kube::ledger::Condition;
use jiff::Timestamp;

/// The object is understood.
pub const ACCEPTED: &str = "Accepted";
/// What it refers to exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// The proxies obey it.
pub const PROGRAMMED: &str = "Programmed";

/// What is known of an object and of the proxies.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Which generation of the object.
    pub generation: i64,
    /// Why it is not accepted.
    pub rejected: Option<String>,
    /// What it refers to in vain.
    pub unresolved: Option<String>,
    /// Proxies that are connected.
    pub proxies: usize,
    /// Of these, those that acknowledged the current policy.
    pub current: usize,
    /// There is a controller that has not said of its proxies whether they did.
    pub unheard: bool,
    /// Why no proxy can obey it.
    pub unsupported: Option<String>,
}

/// Does what its status says of it not depend on the proxies any more?
pub fn is_settled(facts: &Facts, before: &[Condition]) -> bool {
    let programmed = before.iter().find(|it| it.type_ == PROGRAMMED);
    facts.rejected.is_some() || facts.unsupported.is_some() || kept(facts, programmed).is_some()
}

/// What the status should say; `None`: what it says is right.
pub fn conditions(facts: &Facts, before: &[Condition], now: Timestamp) -> Option<Vec<Condition>> {
    let last = |type_: &str| before.iter().find(|condition| condition.type_ == type_);
    let wanted = [
        accepted(facts),
        resolved(facts),
        programmed(facts, last(PROGRAMMED)),
    ];
    let mut after: Vec<Condition> = wanted
        .into_iter()
        .map(|wanted| {
            let last = last(wanted.type_).filter(|last| last.status == wanted.status);
            Condition {
                type_: wanted.type_.to_owned(),
                status: wanted.status.to_owned(),
                observed_generation: facts.generation,
                last_transition_time: last.map_or(now, |last| last.last_transition_time),
                reason: wanted.reason.to_owned(),
                message: wanted.message,
            }
        })
        .collect();
    // What somebody else says of the object stays, in whatever order: a list is only ever written as a whole.
    let is_ours = |it: &&Condition| [ACCEPTED, RESOLVED_REFS, PROGRAMMED].contains(&&*it.type_);
    after.extend(before.iter().filter(|it| !is_ours(it)).cloned());
    let is_right = after.len() == before.len() && after.iter().all(|it| before.contains(it));
    (!is_right).then_some(after)
}

struct Wanted {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn wanted(
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: impl Into<String>,
) -> Wanted {
    Wanted {
        type_,
        status,
        reason,
        message: message.into(),
    }
}

fn accepted(facts: &Facts) -> Wanted {
    match &facts.rejected {
        Some(why) => wanted(ACCEPTED, "False", "Invalid", why),
        None => wanted(ACCEPTED, "True", "Accepted", "the object is valid"),
    }
}

fn resolved(facts: &Facts) -> Wanted {
    match (&facts.rejected, &facts.unresolved) {
        (Some(_), _) => wanted(
            RESOLVED_REFS,
            "Unknown",
            "Invalid",
            "the object is not valid",
        ),
        (None, Some(what)) => wanted(RESOLVED_REFS, "False", "RefNotFound", what),
        (None, None) => wanted(
            RESOLVED_REFS,
            "True",
            "ResolvedRefs",
            "everything it names exists",
        ),
    }
}

/// Once a generation was in force everywhere it stays so: who connects later gets it before anything else, and a status
/// that followed every proxy that comes and goes would be written all the time.
fn kept<'a>(facts: &Facts, last: Option<&'a Condition>) -> Option<&'a Condition> {
    last.filter(|last| {
        let same = last.observed_generation == facts.generation;
        last.status == "True" && same && facts.rejected.is_none() && facts.unsupported.is_none()
    })
}

fn programmed(facts: &Facts, last: Option<&Condition>) -> Wanted {
    let (proxies, current) = (facts.proxies, facts.current);
    if facts.rejected.is_some() {
        let what = "the last valid state of the object, if any, stays in force";
        return wanted(PROGRAMMED, "False", "Invalid", what);
    }
    if let Some(why) = &facts.unsupported {
        return wanted(PROGRAMMED, "False", "Unsupported", why);
    }
    if let Some(kept) = kept(facts, last) {
        return wanted(PROGRAMMED, "True", "Programmed", &kept.message);
    }
    if facts.unheard {
        let what = "not every controller has said whether its proxies acknowledged";
        return wanted(PROGRAMMED, "False", "Pending", what);
    }
    if proxies == 0 {
        return wanted(PROGRAMMED, "Unknown", "NoProxies", "no proxy is connected");
    }
    if current == proxies {
        let message = format!("{current} of {proxies} proxies acknowledged");
        return wanted(PROGRAMMED, "True", "Programmed", message);
    }
    // Without numbers: they would be written anew with each proxy that acknowledges.
    wanted(
        PROGRAMMED,
        "False",
        "Pending",
        "not every proxy has acknowledged yet",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(generation: i64) -> Facts {
        Facts {
            generation,
            proxies: 3,
            current: 3,
            ..Facts::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        conditions
            .iter()
            .map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str()))
            .collect()
    }

    #[test]
    fn what_each_state_of_an_object_says() {
        let good = ("Accepted", "True", "Accepted");
        let resolved = ("ResolvedRefs", "True", "ResolvedRefs");
        let table = [
            (
                facts(1),
                [good, resolved, ("Programmed", "True", "Programmed")],
            ),
            (
                Facts {
                    current: 2,
                    ..facts(1)
                },
                [good, resolved, ("Programmed", "False", "Pending")],
            ),
            (
                Facts {
                    unheard: true,
                    ..facts(1)
                },
                [good, resolved, ("Programmed", "False", "Pending")],
            ),
            (
                Facts {
                    unsupported: Some("the proxies carry no UDP".into()),
                    ..facts(1)
                },
                [good, resolved, ("Programmed", "False", "Unsupported")],
            ),
            (
                Facts {
                    proxies: 0,
                    current: 0,
                    ..facts(1)
                },
                [good, resolved, ("Programmed", "Unknown", "NoProxies")],
            ),
            (
                Facts {
                    unresolved: Some("no Service".into()),
                    ..facts(1)
                },
                [
                    good,
                    ("ResolvedRefs", "False", "RefNotFound"),
                    ("Programmed", "True", "Programmed"),
                ],
            ),
            (
                Facts {
                    rejected: Some("spec.x: is missing".into()),
                    ..facts(1)
                },
                [
                    ("Accepted", "False", "Invalid"),
                    ("ResolvedRefs", "Unknown", "Invalid"),
                    ("Programmed", "False", "Invalid"),
                ],
            ),
        ];
        for (facts, expected) in table {
            let after = conditions(&facts, &[], at(1)).unwrap();
            assert_eq!(told(&after), expected, "{facts:?}");
            assert_eq!(
                conditions(&facts, &after, at(2)),
                None,
                "nothing is written twice"
            );
            let waits = matches!(after[2].reason.as_str(), "Pending" | "NoProxies");
            assert_eq!(is_settled(&facts, &after), !waits, "{facts:?}");
        }
    }

    #[test]
    fn what_others_say_stays() {
        let foreign = Condition {
            type_: "Audited".into(),
            status: "True".into(),
            observed_generation: 1,
            last_transition_time: at(1),
            reason: "Audited".into(),
            message: String::new(),
        };
        let first = conditions(&facts(1), &[], at(1)).unwrap();
        let mut both = vec![foreign.clone()];
        both.extend(first);
        assert_eq!(conditions(&facts(1), &both, at(2)), None);
        let second = conditions(&facts(2), &both, at(2)).unwrap();
        assert_eq!((second.len(), &second[3]), (4, &foreign));
        assert_eq!(conditions(&facts(2), &second, at(3)), None);
    }

    #[test]
    fn numbers_and_times_change_only_with_the_state() {
        let first = conditions(&facts(1), &[], at(1)).unwrap();
        assert_eq!(first[2].message, "3 of 3 proxies acknowledged");
        let restarted = Facts {
            proxies: 5,
            current: 1,
            ..facts(1)
        };
        assert_eq!(conditions(&restarted, &first, at(2)), None);
        let second = conditions(
            &Facts {
                current: 0,
                ..facts(2)
            },
            &first,
            at(3),
        )
        .unwrap();
        assert!(
            second
                .iter()
                .all(|condition| condition.observed_generation == 2)
        );
        assert_eq!(second[0].last_transition_time, at(1), "still accepted");
        assert_eq!(
            (second[2].status.as_str(), second[2].last_transition_time),
            ("False", at(3))
        );
    }
}
