//! So many in a second, spread over the second: each that fits has the same chance, judged by how many fitted in the
//! second before. Time and chance come as arguments.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

const SECOND: u64 = 1_000_000_000;

/// Bounds what is taken. Threads may share it; a race costs one more or less.
#[derive(Debug)]
pub struct Limit {
    per_second: u32,
    /// How many more altogether.
    left: AtomicI64,
    second: AtomicU64,
    fitted: AtomicU32,
    taken: AtomicU32,
    /// Of 2³², the share that is taken in this second.
    share: AtomicU32,
}

impl Limit {
    /// `per_second` in a second, and `most` altogether (0: without end).
    pub fn new(per_second: u32, most: u32) -> Self {
        let left = if most == 0 { i64::MAX } else { most.into() };
        Self {
            per_second,
            left: AtomicI64::new(left),
            second: AtomicU64::new(0),
            fitted: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            share: AtomicU32::new(u32::MAX),
        }
    }

    /// One that fits, at `now` nanoseconds: is it taken? `chance` is any number.
    pub fn takes(&self, now: u64, chance: u32) -> bool {
        let second = now / SECOND;
        if self.second.swap(second, Relaxed) != second {
            let before = self.fitted.swap(0, Relaxed);
            self.taken.store(0, Relaxed);
            let wanted = u64::from(self.per_second) << 32;
            let share = wanted / u64::from(before.max(1));
            let share = u32::try_from(share).unwrap_or(u32::MAX);
            self.share.store(share, Relaxed);
        }
        self.fitted.fetch_add(1, Relaxed);
        chance <= self.share.load(Relaxed)
            && self.taken.fetch_add(1, Relaxed) < self.per_second
            && self.left.fetch_sub(1, Relaxed) > 0
    }

    /// Nothing more will be taken.
    pub fn is_over(&self) -> bool {
        self.left.load(Relaxed) <= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_in_a_second_has_its_chance() {
        let limit = Limit::new(100, 0);
        let mut halves = [0; 2];
        let mut random = fastrand::Rng::with_seed(7);
        for n in 0..20_000_u64 {
            // 10,000 in each of two seconds.
            let takes = limit.takes(SECOND + n * SECOND / 10_000, random.u32(..));
            if takes && n >= 10_000 {
                halves[usize::from(n % 10_000 >= 5_000)] += 1;
            }
        }
        assert!(halves[0] + halves[1] <= 100);
        assert!(halves.iter().all(|half| *half > 20), "{halves:?}");
    }

    #[test]
    fn few_are_all_taken_until_there_were_enough() {
        let limit = Limit::new(10, 3);
        let taken: Vec<bool> = (0..5).map(|n| limit.takes(n * SECOND, u32::MAX)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(limit.is_over());
    }
}
