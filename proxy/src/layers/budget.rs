//! How many tries beyond the first: a share of the requests and a few per second, so that retries never make an outage
//! much worse. One number, changed without a lock, shared by all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;
use weft_proxy_api::policy::settings;

/// The tries beyond the first of one destination. In any span of time they are at most `percent` of the requests in it,
/// `min_per_second` for each second, and what was saved before: at most [`Budget::SAVED`], and one second's worth.
#[derive(Debug)]
pub struct Budget {
    /// High half: milliseconds since `start`; low half: what is left, in hundredths of a try.
    packed: AtomicU64,
    percent: AtomicU32,
    per_second: AtomicU32,
    start: Instant,
}

const TRY: u64 = 100;
const LOW: u64 = u32::MAX as u64;
/// Beyond these a budget bounds nothing.
const MOST_PERCENT: u32 = 10_000;
const MOST_PER_SECOND: u32 = 100_000;

impl Budget {
    /// Most tries that requests pay in advance.
    pub const SAVED: u64 = 100;

    /// As it is for a destination nobody has called yet: one second's worth.
    pub fn new(settings: settings::Budget) -> Arc<Self> {
        let per_second = settings.min_per_second.min(MOST_PER_SECOND);
        Arc::new(Self {
            packed: AtomicU64::new(u64::from(per_second) * TRY),
            percent: AtomicU32::new(settings.percent.min(MOST_PERCENT)),
            per_second: AtomicU32::new(per_second),
            start: Instant::now(),
        })
    }

    /// Puts other settings in force; what is left stays.
    pub fn set(&self, settings: settings::Budget) {
        self.percent
            .store(settings.percent.min(MOST_PERCENT), Relaxed);
        self.per_second
            .store(settings.min_per_second.min(MOST_PER_SECOND), Relaxed);
    }

    /// A request pays in.
    pub fn deposit(&self) {
        let now = self.packed.load(Relaxed);
        let (left, most) = (now & LOW, self.most());
        // Mostly it is full, and nothing is written. A deposit lost to another one at the same moment is no harm.
        if left < most {
            let pays = u64::from(self.percent.load(Relaxed)).min(most - left);
            let _ = self
                .packed
                .compare_exchange(now, now + pays, Relaxed, Relaxed);
        }
    }

    /// A try pays; false: it cannot.
    pub fn withdraw(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) & LOW;
        let per_second = u64::from(self.per_second.load(Relaxed)) * TRY;
        let paid = self.packed.fetch_update(Relaxed, Relaxed, |packed| {
            let (then, left) = (packed >> 32, packed & LOW);
            // The clock has 32 bits, and begins anew after 49 days.
            let earned = (now.wrapping_sub(then) & LOW) * per_second / 1000;
            // Time alone fills up to a second's worth, and takes nothing away from what requests have paid.
            let left = left.saturating_add(earned).min(per_second.max(left));
            // The clock moves only with what it earned, so that no fraction of a try is lost.
            let then = if earned > 0 || per_second == 0 {
                now
            } else {
                then
            };
            Some(then << 32 | left.checked_sub(TRY)?)
        });
        paid.is_ok()
    }

    fn most(&self) -> u64 {
        (u64::from(self.per_second.load(Relaxed)) + Self::SAVED) * TRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn budget(percent: u32, min_per_second: u32) -> Arc<Budget> {
        Budget::new(settings::Budget {
            percent,
            min_per_second,
        })
    }

    fn spend(budget: &Budget) -> u64 {
        std::iter::from_fn(|| budget.withdraw().then_some(())).count() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_a_share_of_the_requests_and_a_rate() {
        let budget = budget(20, 10);
        assert_eq!(spend(&budget), 10, "a second's worth at the start");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(spend(&budget), 10, "ten per second");
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget), 20, "a fifth of the requests");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(
            spend(&budget),
            10,
            "an hour of silence saves a second's worth"
        );
        (0..1_000_000).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget), 110, "never more than this at once");
        budget.set(settings::Budget {
            percent: 0,
            min_per_second: 0,
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget), 0);
    }

    /// Everything fails, requests come at random: whatever the settings, tries stay within the bound.
    #[tokio::test(start_paused = true)]
    async fn whatever_comes_the_bound_holds() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (percent, rate) = (random.u32(0..150), random.u32(0..30));
            let budget = budget(percent, rate);
            let began = Instant::now();
            let (mut requests, mut tries) = (0_u64, 0_u64);
            for _ in 0..random.u32(1..2000) {
                tokio::time::advance(Duration::from_micros(random.u64(0..20_000))).await;
                requests += 1;
                budget.deposit();
                let wanted = random.u32(0..5);
                tries += (0..wanted).filter(|_| budget.withdraw()).count() as u64;
                let seconds = began.elapsed().as_secs_f64();
                let most = requests as f64 * f64::from(percent) / 100.0
                    + f64::from(rate) * (seconds + 1.0);
                assert!(
                    tries as f64 <= most + 1e-6,
                    "{tries} tries for {requests} requests in {seconds} s at {percent} % and {rate}/s"
                );
            }
        }
    }
}
