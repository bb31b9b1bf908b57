//! Series of one shape: found by their labels, bounded in number, forgotten some time after nobody counts them any more.

use super::labels::Key;
use foldhash::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Most bundles of one family; then everything new counts as one.
pub(super) const CAP: usize = 1_000;
/// How long a series stays after its last user went: long enough for scrapes and for what comes back.
const KEEP: Duration = Duration::from_secs(3600);
/// The same when the family is more than half full.
const KEEP_CROWDED: Duration = Duration::from_secs(600);

/// Bundles `M` by labels `K`.
pub(super) struct Family<K, M> {
    /// Label of the family's own metrics.
    pub(super) name: &'static str,
    series: Mutex<HashMap<K, Entry<M>>>,
    dropped: AtomicU64,
    cap: usize,
}

struct Entry<M> {
    bundle: Arc<M>,
    unused_since: Option<Instant>,
}

impl<K: Key, M: Default> Family<K, M> {
    pub(super) fn new(name: &'static str, cap: usize) -> Self {
        Self {
            name,
            series: Mutex::default(),
            dropped: AtomicU64::new(0),
            cap,
        }
    }

    /// The bundle of these labels; over the cap, that of the rest.
    pub(super) fn get(&self, key: K) -> Arc<M> {
        let mut series = self.series.lock();
        if let Some(entry) = series.get_mut(&key) {
            return entry.bundle.clone();
        }
        let full = series.len() >= self.cap;
        if full {
            self.dropped.fetch_add(1, Relaxed);
        }
        let key = if full { key.overflow() } else { key };
        let entry = series.entry(key).or_insert_with(|| Entry {
            bundle: Arc::default(),
            unused_since: None,
        });
        entry.bundle.clone()
    }

    /// The labels of a bundle.
    pub(super) fn key_of(&self, bundle: &Arc<M>) -> Option<K> {
        let series = self.series.lock();
        let mut all = series.iter();
        all.find(|(_, entry)| Arc::ptr_eq(&entry.bundle, bundle))
            .map(|(key, _)| key.clone())
    }

    /// Forgets what nobody has used for long. A series that something still counts through is never touched.
    pub(super) fn sweep(&self, now: Instant) {
        let mut series = self.series.lock();
        let keep = if series.len() > self.cap / 2 {
            KEEP_CROWDED
        } else {
            KEEP
        };
        series.retain(|_, entry| {
            if Arc::strong_count(&entry.bundle) > 1 {
                entry.unused_since = None;
                return true;
            }
            now.duration_since(*entry.unused_since.get_or_insert(now)) < keep
        });
    }

    /// All bundles in a stable order.
    pub(super) fn all(&self) -> Vec<(K, Arc<M>)> {
        let series = self.series.lock();
        let mut all: Vec<_> = series
            .iter()
            .map(|(key, entry)| (key.clone(), entry.bundle.clone()))
            .collect();
        drop(series);
        all.sort_by(|a, b| a.0.order(&b.0));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.series.lock().len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::OTHER;
    use super::*;

    fn family() -> Family<Arc<str>, AtomicU64> {
        Family::new("test", 2)
    }

    #[test]
    fn equal_labels_are_one_series() {
        let family = family();
        family.get("a".into()).fetch_add(1, Relaxed);
        family.get("a".into()).fetch_add(1, Relaxed);
        assert_eq!(family.get("a".into()).load(Relaxed), 2);
    }

    #[test]
    fn beyond_the_cap_everything_is_one_other_series() {
        let family = family();
        for name in ["a", "b", "c", "d", "e"] {
            family.get(name.into()).fetch_add(1, Relaxed);
        }
        let all = family.all();
        assert_eq!(all.len(), 3);
        assert_eq!((&*all[0].0, all[0].1.load(Relaxed)), (OTHER, 3));
        assert_eq!(family.dropped(), 3);
    }

    #[test]
    fn a_series_goes_only_after_its_users_and_some_time() {
        let (family, start) = (
            Family::<Arc<str>, AtomicU64>::new("test", 100),
            Instant::now(),
        );
        let held = family.get("held".into());
        family.get("left".into());
        family.sweep(start);
        family.sweep(start + KEEP / 2);
        assert_eq!(family.len(), 2, "still remembered");
        family.sweep(start + KEEP);
        assert_eq!(family.len(), 1);
        drop(held);
        family.sweep(start + 2 * KEEP);
        assert_eq!(
            family.len(),
            1,
            "its time begins when it is first seen unused"
        );
        family.sweep(start + 3 * KEEP);
        assert_eq!(family.len(), 0);
    }
}
