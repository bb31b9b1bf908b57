//! In how much detail a scrape says what was counted: as the policy says, or for a while as somebody asked.

use parking_lot::Mutex;
use tokio::sync::watch;
use weft_proxy_api::policy::MetricsTier;

/// The tier in force, and who said so.
#[derive(Debug)]
pub(super) struct Tiers {
    said: Mutex<Said>,
    in_force: watch::Sender<MetricsTier>,
}

#[derive(Debug, Default)]
struct Said {
    policy: MetricsTier,
    /// Counts more than the policy.
    asked: Option<MetricsTier>,
}

impl Default for Tiers {
    fn default() -> Self {
        Self {
            said: Mutex::default(),
            in_force: watch::Sender::new(MetricsTier::default()),
        }
    }
}

impl Tiers {
    pub(super) fn policy(&self, tier: MetricsTier) {
        self.say(|said| said.policy = tier);
    }

    pub(super) fn asked(&self, tier: Option<MetricsTier>) {
        self.say(|said| said.asked = tier);
    }

    pub(super) fn in_force(&self) -> MetricsTier {
        *self.in_force.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<MetricsTier> {
        self.in_force.subscribe()
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        let mut said = self.said.lock();
        change(&mut said);
        let tier = said.asked.unwrap_or(said.policy);
        self.in_force
            .send_if_modified(|before| std::mem::replace(before, tier) != tier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_counts_until_it_is_taken_back() {
        let tiers = Tiers::default();
        let mut watch = tiers.watch();
        assert_eq!(tiers.in_force(), MetricsTier::Routes);
        tiers.policy(MetricsTier::Edges);
        tiers.asked(Some(MetricsTier::Endpoints));
        tiers.policy(MetricsTier::Routes);
        assert_eq!(*watch.borrow_and_update(), MetricsTier::Endpoints);
        tiers.asked(None);
        assert_eq!(tiers.in_force(), MetricsTier::Routes);
        watch.mark_unchanged();
        tiers.policy(MetricsTier::Routes);
        assert_eq!(watch.has_changed().ok(), Some(false), "nothing changed");
    }
}
