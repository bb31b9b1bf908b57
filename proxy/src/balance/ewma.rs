//! How slow an endpoint is: an average that jumps up at once and comes down slowly (peak-EWMA), so that trouble is
//! avoided fast. Failures count as slowness, so that an endpoint that fails fast does not look attractive.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time after which an old sample has lost about two thirds of its influence, nanoseconds.
const DECAY: f64 = 5e9;
/// A failure costs at least this, nanoseconds…
const FAILURE_LEAST: f64 = 10e6;
/// …at least so many times what the endpoint cost before…
const FAILURE_FACTOR: f64 = 10.0;
/// …this, where nothing has ever gone well: there is nothing to compare with, and the others may be slow…
const FAILURE_FIRST: f64 = 1e9;
/// …and never more than this.
const FAILURE_MOST: f64 = 10e9;

/// A peak-EWMA of latencies, nanoseconds. Written by whoever gets an answer, read by whoever picks.
#[derive(Debug, Default)]
pub(crate) struct Ewma {
    /// Bits of an `f64`; 0: no sample yet.
    cost: AtomicU64,
    /// When `cost` was written.
    at: AtomicU64,
}

impl Ewma {
    /// Adds an answer that took `latency`.
    pub(crate) fn answered(&self, now: u64, latency: u64) {
        self.update(now, |cost, age| after_answer(cost, age, latency as f64));
    }

    /// Adds a failure noticed after `latency`.
    pub(crate) fn failed(&self, now: u64, latency: u64) {
        self.update(now, |cost, age| after_failure(cost, age, latency as f64));
    }

    /// The cost at `now`; `None`: nothing is known. A cost nobody refreshes fades, so that everyone is tried again.
    pub(crate) fn cost(&self, now: u64) -> Option<f64> {
        let cost = f64::from_bits(self.cost.load(Relaxed));
        (cost > 0.0).then(|| cost * fade(now.saturating_sub(self.at.load(Relaxed))))
    }

    fn update(&self, now: u64, next: impl Fn(f64, u64) -> f64) {
        let age = now.saturating_sub(self.at.load(Relaxed));
        let next = |bits| Some(next(f64::from_bits(bits), age).max(1.0).to_bits());
        // Two writers at once see the same age: the second sample then weighs a little more. Harmless.
        let _ = self.cost.fetch_update(Relaxed, Relaxed, next);
        self.at.store(now, Relaxed);
    }
}

/// What remains of an influence after `age` nanoseconds.
fn fade(age: u64) -> f64 {
    if age < 1_000_000 {
        1.0
    } else {
        (-(age as f64) / DECAY).exp()
    }
}

fn after_answer(cost: f64, age: u64, latency: f64) -> f64 {
    if latency >= cost {
        return latency;
    }
    let old = (-(age as f64) / DECAY).exp();
    cost * old + latency * (1.0 - old)
}

fn after_failure(cost: f64, age: u64, latency: f64) -> f64 {
    let least = if cost > 0.0 {
        FAILURE_LEAST
    } else {
        FAILURE_FIRST
    };
    let penalty = (cost * fade(age) * FAILURE_FACTOR).clamp(least, FAILURE_MOST);
    latency.max(penalty)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    #[test]
    fn up_at_once_and_down_slowly() {
        let ewma = Ewma::default();
        assert_eq!(ewma.cost(SECOND), None);
        ewma.answered(SECOND, MS);
        ewma.answered(SECOND, 50 * MS);
        assert_eq!(ewma.cost(SECOND), Some(50e6));
        ewma.answered(SECOND + 100 * MS, MS);
        let soon = ewma.cost(SECOND + 100 * MS).unwrap();
        assert!(soon > 45e6 && soon < 50e6, "{soon}");
        for at in 0..1000 {
            ewma.answered(2 * SECOND + at * 30 * MS, MS);
        }
        assert!(ewma.cost(32 * SECOND).unwrap() < 2e6);
    }

    #[test]
    fn what_nobody_refreshes_fades() {
        let ewma = Ewma::default();
        ewma.answered(1, 100 * MS);
        let costs = [1, 5, 30].map(|s| ewma.cost(s * SECOND).unwrap());
        assert!(
            costs[0] > 80e6 && costs[1] < 40e6 && costs[2] < 1e6,
            "{costs:?}"
        );
    }

    #[test]
    fn failing_fast_costs_more_than_being_slow() {
        let ewma = Ewma::default();
        ewma.answered(SECOND, MS / 10);
        let mut last = 0.0;
        for (failures, least) in [(1, 10e6), (2, 100e6), (3, 1e9), (4, 10e9), (5, 10e9)] {
            ewma.failed(SECOND, 1_000);
            last = ewma.cost(SECOND).unwrap();
            assert!(last >= least * 0.99, "{failures} failures: {last}");
        }
        assert!(last <= 10e9);
    }

    #[test]
    fn failing_from_the_start_costs_more_than_others_can() {
        let ewma = Ewma::default();
        ewma.failed(SECOND, 1_000);
        assert_eq!(ewma.cost(SECOND), Some(1e9));
    }
}
