//! Which replica writes status: the one that holds a Lease (`coordination.k8s.io`).
//!
//! The clocks of two machines are never compared: a Lease is free when it has not changed for its duration *as seen from
//! here* ([`Watch`], pure). A write names the version that was read, so of two that take it at once one fails. Whoever
//! cannot renew in time stops before anybody else can have taken it.

use crate::views::findings::codes::Code;
use anyhow::Result;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long others wait for a holder that is silent.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long holds it no more: well before others may think so.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks or renewals.
const EVERY: Duration = Duration::from_secs(2);
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are; another for each process.
    pub identity: String,
}

/// What to do about a Lease as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Write our name into it, as a new holder or the same.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// What was seen of the Lease, and when it last changed as seen from here.
#[derive(Debug, Default)]
struct Watch {
    seen: Option<(Option<LeaseSpec>, Instant)>,
}

impl Watch {
    fn step(&mut self, spec: Option<&LeaseSpec>, identity: &str, now: Instant) -> Step {
        let same = |seen: &&(Option<LeaseSpec>, Instant)| seen.0.as_ref() == spec;
        let since = match self.seen.as_ref().filter(same) {
            Some((_, since)) => *since,
            None => {
                self.seen = Some((spec.cloned(), now));
                now
            }
        };
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        match holder {
            None | Some("") => Step::Take,
            Some(holder) if holder == identity => Step::Take,
            Some(_) if now.duration_since(since) >= duration => Step::Take,
            Some(_) => Step::Wait,
        }
    }
}

/// Stands for election until the receiver of `leading` is gone, and says through it whether we lead.
pub async fn stand(client: Client, candidate: Candidate, leading: watch::Sender<bool>) {
    let api: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let (mut watch, mut renewed) = (Watch::default(), None::<Instant>);
    let mut told = None;
    loop {
        let asked = Instant::now();
        match timeout(CALL_LIMIT, attempt(&api, &candidate, &mut watch)).await {
            // What counts is when it was asked: the answer may have taken its time.
            Ok(Ok(true)) => renewed = Some(asked),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => match lasting(&error, &candidate) {
                Some(why) if told.as_ref() != Some(&why) => {
                    let row = Code::NoStatus.row();
                    tracing::error!("{} {}: {why}", row.number, row.name);
                    told = Some(why);
                }
                _ => tracing::debug!("the Lease {}: {error:#}", candidate.name),
            },
            Err(_) => tracing::debug!("the Lease {}: no answer", candidate.name),
        }
        let leads = renewed.is_some_and(|at| at.elapsed() < DEADLINE);
        let changed =
            leading.send_if_modified(|leading| std::mem::replace(leading, leads) != leads);
        if changed {
            let what = if leads {
                "is now written"
            } else {
                "is no longer written"
            };
            tracing::info!("status {what} by {}", candidate.identity);
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = leading.closed() => return,
        }
    }
}

/// What time alone does not mend, in words; `None`: it may be better the next time.
fn lasting(error: &anyhow::Error, candidate: &Candidate) -> Option<String> {
    let Candidate {
        namespace, name, ..
    } = candidate;
    let Some(kube::Error::Api(status)) = error.downcast_ref() else {
        return None;
    };
    match status.code {
        // Looking for it found nothing; making it found no place.
        404 => Some(format!(
            "there is no namespace {namespace} for the Lease {name}"
        )),
        403 => Some(format!("the Lease {name}: {}", status.message)),
        _ => None,
    }
}

/// Gives the Lease back, so that the next holder need not wait. Best effort.
pub async fn give_back(client: Client, candidate: &Candidate) {
    let api: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let params = PostParams::default();
    let release = async {
        loop {
            let mut lease = api.get(&candidate.name).await?;
            let ours = |spec: &&mut LeaseSpec| {
                spec.holder_identity.as_deref() == Some(candidate.identity.as_str())
            };
            let Some(spec) = lease.spec.as_mut().filter(ours) else {
                return Ok::<_, kube::Error>(());
            };
            spec.holder_identity = None;
            match api.replace(&candidate.name, &params, &lease).await {
                // A renewal that was under way when we were told to stop came first.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(drop),
            }
        }
    };
    let _ = timeout(CALL_LIMIT, release).await; // it runs out by itself
}

/// Reads the Lease and takes it if it may be; true if it is ours now.
async fn attempt(api: &Api<Lease>, candidate: &Candidate, watch: &mut Watch) -> Result<bool> {
    let params = PostParams::default();
    let Some(mut lease) = api.get_opt(&candidate.name).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(candidate.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(held(None, &candidate.identity)),
        };
        return won(api.create(&params, &lease).await);
    };
    let spec = lease.spec.take();
    match watch.step(spec.as_ref(), &candidate.identity, Instant::now()) {
        Step::Wait => Ok(false),
        Step::Take => {
            lease.spec = Some(held(spec, &candidate.identity));
            // Its resourceVersion goes back with it: a Lease that changed meanwhile is not overwritten.
            won(api.replace(&candidate.name, &params, &lease).await)
        }
    }
}

fn won(result: Result<Lease, kube::Error>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The Lease in our hands.
fn held(before: Option<LeaseSpec>, identity: &str) -> LeaseSpec {
    let before = before.unwrap_or_default();
    let now = MicroTime(jiff::Timestamp::now());
    let ours = before.holder_identity.as_deref() == Some(identity);
    let transitions = before.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: before.acquire_time.filter(|_| ours).or(Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if ours {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_silent_holder_is_waited_for_as_seen_from_here() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let theirs = held(None, "them");
        let almost = start + DURATION - Duration::from_millis(1);
        // Its times may be of a clock that is years away: only that it changes counts.
        assert_eq!(watch.step(Some(&theirs), "us", start), Step::Wait);
        assert_eq!(watch.step(Some(&theirs), "us", almost), Step::Wait);
        let mut renewed = theirs.clone();
        renewed.renew_time = Some(MicroTime(jiff::Timestamp::from_second(1).unwrap()));
        assert_eq!(watch.step(Some(&renewed), "us", almost), Step::Wait);
        assert_eq!(
            watch.step(Some(&renewed), "us", start + DURATION),
            Step::Wait
        );
        assert_eq!(
            watch.step(Some(&renewed), "us", almost + DURATION),
            Step::Take
        );
    }

    #[test]
    fn what_time_does_not_mend_is_told() {
        let candidate = Candidate {
            namespace: "n".into(),
            name: "l".into(),
            identity: "us".into(),
        };
        let of = |code| {
            let status = kube::core::Status::failure("no", "x").with_code(code);
            lasting(&kube::Error::Api(status.boxed()).into(), &candidate)
        };
        assert_eq!(of(404).unwrap(), "there is no namespace n for the Lease l");
        assert_eq!(of(403).unwrap(), "the Lease l: no");
        assert_eq!(of(500), None);
        assert_eq!(lasting(&anyhow::anyhow!("no answer"), &candidate), None);
    }

    #[test]
    fn what_nobody_holds_or_we_hold_is_taken() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let mut free = held(None, "them");
        free.holder_identity = None;
        assert_eq!(watch.step(None, "us", now), Step::Take);
        assert_eq!(watch.step(Some(&free), "us", now), Step::Take);
        assert_eq!(watch.step(Some(&held(None, "us")), "us", now), Step::Take);
    }

    #[test]
    fn changes_of_hands_are_counted_and_the_time_of_the_first_is_kept() {
        let ours = held(None, "us");
        let renewed = held(Some(ours.clone()), "us");
        assert_eq!(renewed.acquire_time, ours.acquire_time);
        assert_eq!(
            (ours.lease_transitions, renewed.lease_transitions),
            (Some(1), Some(1))
        );
        assert_eq!(held(Some(renewed), "them").lease_transitions, Some(2));
    }
}
