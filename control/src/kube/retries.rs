//! What an API server refused to take, and when it is offered again: later each time, and after what was never refused. So an
//! object whose status nobody can write (a definition of another product has none) holds up no other.

use crate::manifest::ObjectKey;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Until the second try.
const FIRST: Duration = Duration::from_millis(500);
/// So often the time is doubled: half a minute is the longest.
const DOUBLED: u32 = 6;

/// Objects that were refused.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<ObjectKey, Refused>);

#[derive(Debug)]
struct Refused {
    /// In a row.
    times: u32,
    /// Not offered before.
    until: Instant,
}

impl Retries {
    /// It was refused; how many times in a row by now.
    pub(super) fn refused(&mut self, key: &ObjectKey, now: Instant) -> u32 {
        let refused = self.0.entry(key.clone()).or_insert(Refused {
            times: 0,
            until: now,
        });
        refused.until = now + FIRST * 2u32.pow(refused.times.min(DOUBLED));
        refused.times = refused.times.saturating_add(1);
        refused.times
    }

    /// It was taken.
    pub(super) fn taken(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Is it too early to offer it again?
    pub(super) fn waits(&self, key: &ObjectKey, now: Instant) -> bool {
        self.0.get(key).is_some_and(|refused| now < refused.until)
    }

    /// How many times in a row it was refused.
    pub(super) fn times(&self, key: &ObjectKey) -> u32 {
        self.0.get(key).map_or(0, |refused| refused.times)
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, stays: impl Fn(&ObjectKey) -> bool) {
        self.0.retain(|key, _| stays(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;

    #[test]
    fn what_is_refused_is_offered_later_each_time() {
        let (mut retries, start) = (Retries::default(), Instant::now());
        let key = ObjectKey::new(Kind::TrafficSplit, "shop", "web");
        assert!(!retries.waits(&key, start));
        for (times, wait) in [(1, 500), (2, 1_000), (3, 2_000)] {
            assert_eq!(retries.refused(&key, start), times);
            let wait = Duration::from_millis(wait);
            assert!(retries.waits(&key, start + wait - Duration::from_millis(1)));
            assert!(!retries.waits(&key, start + wait));
        }
        for _ in 0..100 {
            retries.refused(&key, start);
        }
        assert!(!retries.waits(&key, start + Duration::from_secs(32)));
        assert_eq!(retries.times(&key), 103);
        retries.taken(&key);
        assert!(!retries.waits(&key, start));
        assert_eq!(retries.times(&key), 0);
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let [gone, there] = ["a", "b"].map(|name| ObjectKey::new(Kind::TrafficSplit, "shop", name));
        retries.refused(&gone, now);
        retries.refused(&there, now);
        retries.keep(|key| *key == there);
        assert_eq!((retries.times(&gone), retries.times(&there)), (0, 1));
    }
}
