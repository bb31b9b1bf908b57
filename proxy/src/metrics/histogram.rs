//! Latency in fixed buckets: one addition to a bucket and one to the sum. Nothing is stored per sample.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
pub use weft_proxy_api::latency::{BOUNDS_US, BUCKETS};

/// Durations, counted by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Per bucket, not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum of all samples, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Snapshot {
        let mut buckets = [0; BUCKETS];
        for (to, from) in buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Relaxed);
        }
        Snapshot {
            buckets,
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

impl Snapshot {
    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what another one held.
    pub(super) fn add(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        self.sum_us += other.sum_us;
    }
}

/// The bucket of a duration: the number of bounds it exceeds. Sixteen comparisons without a branch.
fn bucket(us: u64) -> usize {
    BOUNDS_US.iter().map(|bound| usize::from(us > *bound)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (at, bound) in BOUNDS_US.iter().enumerate() {
            assert_eq!(bucket(*bound), at);
            assert_eq!(bucket(bound + 1), at + 1);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_sum_and_the_count_agree_with_what_was_recorded() {
        let histogram = Histogram::default();
        for ms in [1, 1, 40] {
            histogram.record(Duration::from_millis(ms));
        }
        let seen = histogram.snapshot();
        assert_eq!((seen.count(), seen.sum_us, seen.buckets[2]), (3, 42_000, 2));
    }
}
