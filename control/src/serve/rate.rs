//! How often one may ask: the generic cell rate algorithm (GCRA), on values; time comes in as an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// So many at once, and then one for each interval.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// After which time one more may come.
    pub interval: Duration,
}

/// Remembers for each key when its last allowed call will be paid off.
#[derive(Debug)]
pub struct Limiter<K> {
    rate: Rate,
    paid_off: HashMap<K, Instant>,
    sweep_at: usize,
}

/// Keys kept before those that owe nothing are swept out for the first time.
const FIRST_SWEEP: usize = 1024;

impl<K: Eq + Hash> Limiter<K> {
    /// A limiter where nobody has called yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            paid_off: HashMap::new(),
            sweep_at: FIRST_SWEEP,
        }
    }

    /// Counts one call, or says how long to wait.
    pub fn check(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        self.sweep(now);
        let paid_off = self.paid_off.get(&key).map_or(now, |at| (*at).max(now));
        let credit = self.rate.interval * self.rate.burst.saturating_sub(1);
        match (paid_off - now).checked_sub(credit) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.paid_off.insert(key, paid_off + self.rate.interval);
                Ok(())
            }
        }
    }

    /// Takes one call back that was counted.
    pub fn give_back(&mut self, key: &K, now: Instant) {
        let before = self.paid_off.get(key);
        match before.and_then(|at| at.checked_sub(self.rate.interval)) {
            Some(at) if at > now => drop(self.paid_off.get_mut(key).map(|it| *it = at)),
            _ => drop(self.paid_off.remove(key)),
        }
    }

    /// Is anything owed by this key?
    pub fn knows(&self, key: &K) -> bool {
        self.paid_off.contains_key(key)
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.paid_off.len()
    }

    /// Nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.paid_off.is_empty()
    }

    /// Keys that owe nothing are the same as unknown ones.
    pub fn forget(&mut self, now: Instant) {
        self.paid_off.retain(|_, at| *at > now);
    }

    /// The next sweep comes when what is left has doubled.
    fn sweep(&mut self, now: Instant) {
        if self.paid_off.len() >= self.sweep_at {
            self.forget(now);
            self.sweep_at = (self.paid_off.len() * 2).max(FIRST_SWEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        interval: Duration::from_secs(1),
    };

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let (mut limiter, start) = (Limiter::new(RATE), Instant::now());
        let allowed = |limiter: &mut Limiter<u8>, at: u64| {
            limiter.check(1, start + Duration::from_millis(at)).is_ok()
        };
        let seen: Vec<bool> = [0, 0, 0, 0, 999, 1000, 1001, 2000, 9000, 9000, 9000, 9000]
            .into_iter()
            .map(|at| allowed(&mut limiter, at))
            .collect();
        assert_eq!(
            seen,
            [
                true, true, true, false, false, true, false, true, true, true, true, false
            ]
        );
    }

    #[test]
    fn one_key_does_not_use_up_anothers() {
        let (mut limiter, now) = (Limiter::new(RATE), Instant::now());
        while limiter.check("greedy", now).is_ok() {}
        assert_eq!(limiter.check("greedy", now), Err(Duration::from_secs(1)));
        assert_eq!(limiter.check("other", now), Ok(()));
    }

    #[test]
    fn what_is_given_back_may_be_used_again() {
        let (mut limiter, now) = (Limiter::new(RATE), Instant::now());
        for _ in 0..9 {
            assert_eq!(limiter.check("a", now), Ok(()));
            limiter.give_back(&"a", now);
        }
        assert!(limiter.is_empty(), "nothing is owed");
        while limiter.check("a", now).is_ok() {}
        limiter.give_back(&"a", now);
        assert_eq!(limiter.check("a", now), Ok(()));
        assert!(limiter.check("a", now).is_err());
    }

    #[test]
    fn keys_that_owe_nothing_are_forgotten() {
        let (mut limiter, now) = (Limiter::new(RATE), Instant::now());
        for key in 0..100_000u64 {
            assert!(
                limiter
                    .check(key, now + Duration::from_millis(key * 10))
                    .is_ok()
            );
        }
        assert!(limiter.paid_off.len() <= FIRST_SWEEP);
    }
}
