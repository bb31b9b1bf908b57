//! How long to wait after a failure: longer each time, and not all at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
/// Short enough that a server which is back is met within seconds.
const LONGEST: Duration = Duration::from_secs(4);

/// Failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    failures: u32,
}

impl Pause {
    /// One more failure: whether it is the first, and how long to wait.
    pub(crate) fn next(&mut self) -> (bool, Duration) {
        let wait = FIRST * 2u32.pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        (self.failures == 1, jitter(wait.min(LONGEST)))
    }

    /// It works; true if it did not before.
    pub(crate) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

/// Between half of the time and all of it.
pub(crate) fn jitter(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_each_time_up_to_a_bound() {
        let mut pause = Pause::default();
        assert!(!pause.reset());
        let (first, wait) = pause.next();
        assert!(first && wait <= FIRST && wait >= FIRST / 2);
        for _ in 0..100 {
            let (first, wait) = pause.next();
            assert!(!first && wait <= LONGEST);
        }
        assert!(pause.next().1 >= LONGEST / 2);
        assert!(pause.reset());
        assert!(pause.next().0);
    }
}
