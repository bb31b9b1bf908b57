//! Which proxies have what is in force.

use super::Live;
use crate::live::fresh::Fresh;
use crate::manifest::{ObjectKey, Severity};
use crate::peers::{Controllers, Everybody};
use crate::serve::proxies::{Lacking, ProxyStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How a change stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Standing {
    /// All that is written has been read; false: perhaps not.
    pub up_to_date: bool,
    /// The object that was asked about, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectStanding>,
    /// The proxies.
    pub proxies: ProxiesStanding,
}

/// How an object stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStanding {
    /// It is in force: as it is written, or, where that is not valid, as it was before.
    pub in_force: bool,
    /// Why it is not in force as it is written.
    pub rejected: Vec<String>,
}

/// How the proxies stand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxiesStanding {
    /// Connected to a controller that answered.
    pub connected: usize,
    /// Of these, those that hold the current version of all they subscribed to.
    pub synced: usize,
    /// The others, and those that ought to be connected.
    pub behind: Vec<Behind>,
    /// Which controllers had a say; absent: there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controllers: Option<Controllers>,
}

/// A proxy that has not what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Behind {
    /// `namespace/name`; or an object that is not said to be with every proxy.
    pub pod: String,
    /// Why.
    pub why: String,
}

impl Live {
    /// How things stand, once the source has been read by each controller. Who lacks only what came in this `recent` time lacks
    /// nothing: where endpoints come and go all the time, there is no moment at which every proxy has everything.
    pub(super) async fn standing(&self, key: Option<&ObjectKey>, recent: Duration) -> Standing {
        let everybody = self.peers.everybody(true).await;
        Standing {
            up_to_date: everybody.up_to_date,
            object: key.map(|key| self.object(key)),
            proxies: self.proxies(everybody, recent),
        }
    }

    fn object(&self, key: &ObjectKey) -> ObjectStanding {
        let name = key.to_string();
        let problems = self.overview.file_problems().into_iter();
        let wrong = problems
            .filter(|it| it.severity == Severity::Error && it.object.as_ref() == Some(&name));
        ObjectStanding {
            in_force: self.overview.has(key),
            rejected: wrong.map(|it| it.to_string()).collect(),
        }
    }

    pub(super) fn proxies(&self, everybody: Everybody, recent: Duration) -> ProxiesStanding {
        let alone = self.shared.fresh.get().is_some_and(Fresh::is_alone);
        // Whoever knows of no other controller knows nothing of the proxies that others have.
        let expected = match alone || !self.peers.is_alone() {
            true => self.overview.expected(),
            false => BTreeSet::new(),
        };
        let expected = expected.iter().map(ToString::to_string).collect();
        stand(everybody, expected, recent)
    }
}

/// `SYNCED` or `STALE`.
pub fn state(proxy: &ProxyStatus) -> &'static str {
    match proxy.synced() {
        true => "SYNCED",
        false => "STALE",
    }
}

/// `expected`: pods (`namespace/name`) whose proxies ought to be connected.
fn stand(
    everybody: Everybody,
    mut expected: BTreeSet<String>,
    recent: Duration,
) -> ProxiesStanding {
    let Everybody {
        proxies,
        controllers,
        ..
    } = everybody;
    let began = Instant::now().checked_sub(recent);
    let mut behind = Vec::new();
    for proxy in &proxies {
        let pod = proxy.pod.to_string();
        expected.remove(&pod);
        let is_older = |it: &Lacking| !began.is_some_and(|began| it.is_only_after(began));
        if let Some(lacking) = proxy.lacking().filter(is_older) {
            let for_ms = lacking.since.elapsed().as_millis();
            let refusal = proxy.last_nack.as_ref().map(|it| format!(": {it}"));
            let why = format!(
                "has not taken over what was sent {for_ms} ms ago{}",
                refusal.unwrap_or_default()
            );
            behind.push(Behind { pod, why });
        }
    }
    let synced = proxies.len() - behind.len();
    let missing = controllers.as_ref().and_then(Controllers::missing);
    let why = match missing {
        None => "is not connected to the controller".to_owned(),
        Some(missing) => format!("is not connected to a controller that answers: {missing}"),
    };
    behind.extend(expected.into_iter().map(|pod| Behind {
        pod,
        why: why.clone(),
    }));
    behind.sort();
    ProxiesStanding {
        connected: proxies.len(),
        synced,
        behind,
        controllers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Silent;
    use crate::pod_ref::PodRef;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn who_is_stale_or_missing_is_behind() {
        let long_ago = || {
            Instant::now()
                .checked_sub(2 * LONG)
                .unwrap_or_else(Instant::now)
        };
        let proxy = |name: &str, stale: bool| ProxyStatus {
            pod: PodRef::new("a", name),
            zone: String::new(),
            version: String::new(),
            connected: long_ago(),
            stale_since: stale.then(Instant::now),
            subscriptions: 1,
            last_nack: stale.then(|| "no such field".to_owned()),
        };
        let expected = ["a/p", "a/q", "a/r"].map(str::to_owned).into();
        let everybody = |proxies, controllers| Everybody {
            proxies,
            controllers,
            up_to_date: true,
        };
        let both = || vec![proxy("p", false), proxy("q", true)];
        let recent = stand(everybody(both(), None), BTreeSet::new(), LONG);
        assert_eq!((recent.synced, recent.behind.len()), (2, 0));
        let standing = stand(everybody(both(), None), expected, Duration::ZERO);
        assert_eq!((standing.connected, standing.synced), (2, 1));
        let behind: Vec<_> = standing.behind.iter().map(|it| it.pod.as_str()).collect();
        assert_eq!(behind, ["a/q", "a/r"]);
        assert!(standing.behind[0].why.ends_with(": no such field"));
        let none = stand(everybody(vec![], None), BTreeSet::new(), Duration::ZERO);
        assert_eq!(none, ProxiesStanding::default());
        // A controller that is silent matters to those proxies only that it may have.
        let silent = Controllers {
            known: 2,
            answered: 1,
            silent: vec![Silent {
                controller: "10.0.0.2:8086".into(),
                why: "no answer".into(),
            }],
        };
        let expected = || ["a/p"].map(str::to_owned).into();
        let known = everybody(vec![proxy("p", false)], Some(silent.clone()));
        assert!(stand(known, expected(), Duration::ZERO).behind.is_empty());
        let unknown = stand(everybody(vec![], Some(silent)), expected(), Duration::ZERO);
        assert!(unknown.behind[0].why.contains("10.0.0.2:8086"));
    }
}
