//! Metrics in another detail than the policy says: asked of the proxies of some pods, for a while. Kept here, so that a
//! proxy that comes back is told again; gone with the controller.

use crate::pod_ref::PodRef;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use weft_proxy_api::policy::MetricsTier;
use weft_proxy_api::wire::encode;
use weft_proxy_api::wire::generated as pb;

/// Longest time it may be asked for.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// What was asked of whom.
#[derive(Debug)]
pub struct TiersAsked {
    asked: Mutex<BTreeMap<PodRef, Asked>>,
    changed: watch::Sender<()>,
}

/// What was asked of one proxy, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    tier: MetricsTier,
    until: Instant,
}

impl Default for TiersAsked {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl TiersAsked {
    /// Asks the proxies of these pods; `None`: they are to do as the policy says.
    pub fn ask(&self, pods: &BTreeSet<PodRef>, wanted: Option<(MetricsTier, Duration)>) {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        asked.retain(|_, at| at.until > now);
        for pod in pods {
            match wanted {
                Some((tier, time)) => {
                    let until = now + time.min(LONGEST);
                    asked.insert(pod.clone(), Asked { tier, until });
                }
                None => drop(asked.remove(pod)),
            }
        }
        drop(asked);
        self.changed.send_replace(());
    }

    /// Tells when something was asked.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What the proxy of a pod is to be told, if it was told `told` last. That is kept in step.
    pub fn next_command(
        &self,
        pod: &PodRef,
        told: &mut Option<Asked>,
        now: Instant,
    ) -> Option<pb::observe_command::Command> {
        let asked = self.asked.lock().get(pod).copied();
        let asked = asked.filter(|at| at.until > now);
        if asked == *told {
            return None;
        }
        *told = asked;
        let left = |at: Asked| u32::try_from((at.until - now).as_secs_f64().ceil() as u64);
        let command = pb::MetricsFor {
            tier: asked.map_or(0, |at| encode::metrics_tier(at.tier)),
            seconds: asked.map_or(0, |at| left(at).unwrap_or(u32::MAX)),
        };
        Some(pb::observe_command::Command::Metrics(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::observe_command::Command;

    #[test]
    fn proxies_are_told_once_and_again_when_they_come_back() {
        let (tiers, pod) = (TiersAsked::default(), PodRef::new("shop", "web-1"));
        let other = PodRef::new("shop", "api-1");
        let minute = Duration::from_secs(60);
        let pods = BTreeSet::from([pod.clone()]);
        tiers.ask(&pods, Some((MetricsTier::Endpoints, minute)));
        let now = Instant::now();
        let mut told = None;
        let expected = Command::Metrics(pb::MetricsFor {
            tier: pb::MetricsTier::Endpoints.into(),
            seconds: 60,
        });
        assert_eq!(tiers.next_command(&other, &mut None, now), None);
        let first = tiers.next_command(&pod, &mut told, now);
        assert_eq!(first.as_ref(), Some(&expected));
        assert_eq!(tiers.next_command(&pod, &mut told, now), None);
        assert_eq!(tiers.next_command(&pod, &mut None, now), first);
        // Over: taken back, and nothing to say to whoever comes later.
        let later = now + 2 * minute;
        assert_eq!(tiers.next_command(&pod, &mut None, later), None);
        tiers.ask(&pods, None);
        let back = Command::Metrics(pb::MetricsFor::default());
        assert_eq!(tiers.next_command(&pod, &mut told, now), Some(back));
        assert_eq!(tiers.next_command(&pod, &mut told, now), None);
    }
}
