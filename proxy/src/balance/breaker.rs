//! When an endpoint is set aside, for how long, and how it comes back: so many failures in a row, or too few successes
//! over a window, open the breaker; after a growing while one request tries; its outcome decides. The settings come with
//! each call, so that they may change while the state stays.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use weft_proxy_api::policy::settings::Ejection;

const SECOND: u64 = 1_000_000_000;
/// Parts of the window.
const SLOTS: u64 = 5;
/// Length of a part where nobody asked for anything: known when compiled, so that dividing by it is cheap.
const USUAL_SLOT: u64 = 2 * SECOND;
/// A breaker closed for so long has forgotten its past.
const FORGIVEN: u64 = 60 * SECOND;
/// How long a probe may take before another request may probe.
const PROBE_PATIENCE: u64 = 10 * SECOND;

/// State of one endpoint's breaker. Closed while `until` is 0.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    consecutive: AtomicU32,
    window: Window,
    /// When the next probe may go; 0: closed.
    until: AtomicU64,
    /// How often it opened without having been forgiven.
    opened: AtomicU32,
    closed_at: AtomicU64,
}

/// Successes and failures of the window, in five slots. Each slot is one word: its epoch (24 bits), successes (20),
/// failures (20).
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS as usize]);

/// What a pick may do with the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Take it.
    Closed,
    /// Set aside.
    Open,
    /// Set aside, but it is time to try: take it as the one probe.
    Probe,
}

impl Breaker {
    /// May the endpoint be picked? `Probe` is told to one caller only.
    pub(crate) fn admit(&self, now: u64) -> Admission {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return Admission::Closed;
        }
        if now < until {
            return Admission::Open;
        }
        match self
            .until
            .compare_exchange(until, now + PROBE_PATIENCE, Relaxed, Relaxed)
        {
            Ok(_) => Admission::Probe,
            Err(_) => Admission::Open,
        }
    }

    /// Is it set aside?
    pub(crate) fn is_open(&self) -> bool {
        self.until.load(Relaxed) != 0
    }

    /// Counts a success; `slot` is the length of a part of the window.
    pub(crate) fn succeeded(&self, now: u64, slot: u64) {
        if self.consecutive.load(Relaxed) != 0 {
            self.consecutive.store(0, Relaxed);
        }
        self.window.add(now, slot, true);
    }

    /// Counts a failure; true: the breaker should open.
    pub(crate) fn failed(&self, now: u64, rules: &Ejection) -> bool {
        let consecutive = self.consecutive.fetch_add(1, Relaxed).saturating_add(1);
        let slot = slot(rules);
        self.window.add(now, slot, false);
        let (good, bad) = self.window.sums(now, slot);
        trips(rules, consecutive, good, bad)
    }

    /// Opens it. `random` is uniform in 0..1. False: it was open already.
    pub(crate) fn open(&self, now: u64, rules: &Ejection, random: f64) -> bool {
        let before = self.severity(now);
        let until = now + backoff(rules, before, random);
        let opened = self
            .until
            .compare_exchange(0, until, Relaxed, Relaxed)
            .is_ok();
        if opened {
            self.opened.store(before.saturating_add(1), Relaxed);
        }
        opened
    }

    /// The probe failed: aside again, for longer.
    pub(crate) fn probe_failed(&self, now: u64, rules: &Ejection, random: f64) {
        let before = self.opened.load(Relaxed);
        if self.put_off(now + backoff(rules, before, random)) {
            self.opened.store(before.saturating_add(1), Relaxed);
        }
    }

    /// The probe said nothing: the next request may try.
    pub(crate) fn probe_void(&self, now: u64) {
        self.put_off(now);
    }

    /// Says when the next probe may go. False: it was taken back meanwhile, by a later probe or by its set, and counts as
    /// one that is in use.
    fn put_off(&self, until: u64) -> bool {
        let open = |was: u64| (was != 0).then_some(until);
        self.until.fetch_update(Relaxed, Relaxed, open).is_ok()
    }

    /// Takes it back with a clean slate, but remembering how often it was opened. False: it was not open.
    pub(crate) fn close(&self, now: u64) -> bool {
        self.consecutive.store(0, Relaxed);
        self.window.clear();
        self.closed_at.store(now, Relaxed);
        self.until.swap(0, Relaxed) != 0
    }

    /// How often it opened lately; what is long ago does not count.
    fn severity(&self, now: u64) -> u32 {
        let forgiven = now.saturating_sub(self.closed_at.load(Relaxed)) > FORGIVEN;
        if forgiven {
            0
        } else {
            self.opened.load(Relaxed)
        }
    }
}

/// Length of a part of the window, at least a nanosecond.
pub(crate) fn slot(rules: &Ejection) -> u64 {
    (nanos(rules.window) / SLOTS).max(1)
}

/// The rule.
fn trips(rules: &Ejection, consecutive: u32, good: u32, bad: u32) -> bool {
    let all = good + bad;
    let in_a_row = rules.consecutive > 0
        && (consecutive >= rules.consecutive || (good == 0 && consecutive >= alone(rules)));
    let by_share = rules.success_percent > 0
        && all >= rules.min_requests.max(1)
        && u64::from(good) * 100 < u64::from(all) * u64::from(rules.success_percent);
    in_a_row || by_share
}

/// Failures in a row that are enough where nothing at all has gone well for a whole window: three of seven. An endpoint
/// that fails is avoided by its cost and hardly gets as many requests as it would take otherwise.
fn alone(rules: &Ejection) -> u32 {
    let share = u64::from(rules.consecutive) * 3;
    u32::try_from(share.div_ceil(7))
        .unwrap_or(u32::MAX)
        .max(rules.consecutive.min(3))
}

/// Time aside after `before` earlier times: doubling, and up to a quarter less, so that a set does not come back at once.
fn backoff(rules: &Ejection, before: u32, random: f64) -> u64 {
    let full = nanos(rules.min_time)
        .saturating_mul(1 << before.min(32))
        .min(nanos(rules.max_time));
    full - (full as f64 * 0.25 * random) as u64
}

fn nanos(duration: Duration) -> u64 {
    // A century is long enough, and sums with it do not overflow.
    u64::try_from(duration.as_nanos())
        .unwrap_or(u64::MAX)
        .min(100 * 365 * 86_400 * SECOND)
}

impl Window {
    fn add(&self, now: u64, slot: u64, good: bool) {
        let (at, epoch) = place(now, slot);
        let one = if good { 1 << 20 } else { 1 };
        let add = |word: u64| {
            let word = if word >> 40 == epoch {
                word
            } else {
                epoch << 40
            };
            let count = if good { word >> 20 } else { word } & COUNT;
            // Full: enough is known.
            (count < COUNT).then_some(word + one)
        };
        let _ = self.0[at].fetch_update(Relaxed, Relaxed, add);
    }

    /// Successes and failures of the window that ends now.
    fn sums(&self, now: u64, slot: u64) -> (u32, u32) {
        let (_, epoch) = place(now, slot);
        let mut sums = (0, 0);
        for slot in &self.0 {
            let word = slot.load(Relaxed);
            if (epoch.wrapping_sub(word >> 40) & EPOCH) < SLOTS && word != 0 {
                sums.0 += ((word >> 20) & COUNT) as u32;
                sums.1 += (word & COUNT) as u32;
            }
        }
        sums
    }

    fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

const COUNT: u64 = (1 << 20) - 1;
const EPOCH: u64 = (1 << 24) - 1;

/// Slot and epoch of a moment.
fn place(now: u64, slot: u64) -> (usize, u64) {
    let epoch = match slot {
        USUAL_SLOT => now / USUAL_SLOT,
        slot => now / slot,
    };
    ((epoch % SLOTS) as usize, epoch & EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Ejection {
        Ejection::default()
    }

    #[test]
    fn the_rule() {
        for (consecutive, good, bad, expected) in [
            (6, 1000, 6, false),
            (7, 1000, 7, true),
            (1, 3, 1, false), // too few to judge
            (1, 4, 1, false), // exactly 80 %
            (1, 79, 21, true),
            (2, 0, 2, false),
            (3, 0, 3, true), // nothing else went well
            (3, 1, 3, false),
        ] {
            assert_eq!(
                trips(&usual(), consecutive, good, bad),
                expected,
                "{consecutive} {good} {bad}"
            );
        }
    }

    #[test]
    fn settings_change_the_rule() {
        let none = Ejection {
            consecutive: 0,
            success_percent: 0,
            ..usual()
        };
        assert!(!trips(&none, 1_000, 0, 1_000));
        let share = Ejection {
            success_percent: 50,
            min_requests: 20,
            ..none
        };
        assert!(!trips(&share, 19, 0, 19) && trips(&share, 1, 9, 11) && !trips(&share, 1, 10, 10));
        for (consecutive, expected) in [(1, 1), (2, 2), (3, 3), (7, 3), (10, 5), (100, 43)] {
            let rules = Ejection {
                consecutive,
                ..none
            };
            assert_eq!(alone(&rules), expected, "{consecutive}");
            assert!(trips(&rules, expected, 0, expected) && !trips(&rules, expected - 1, 0, 99));
            assert!(trips(&rules, consecutive, 99, consecutive));
            assert!(!trips(&rules, consecutive - 1, 1, 99));
        }
        assert_eq!(slot(&usual()), USUAL_SLOT);
    }

    #[test]
    fn the_window_forgets_after_ten_seconds() {
        let window = Window::default();
        for s in 100..120 {
            window.add(s * SECOND, USUAL_SLOT, true);
            window.add(s * SECOND, USUAL_SLOT, false);
        }
        assert_eq!(window.sums(119 * SECOND, USUAL_SLOT), (10, 10));
        assert_eq!(window.sums(121 * SECOND, USUAL_SLOT), (8, 8));
        assert_eq!(window.sums(200 * SECOND, USUAL_SLOT), (0, 0));
    }

    #[test]
    fn the_time_aside_doubles_up_to_a_minute() {
        let all: Vec<u64> = (0..40)
            .map(|n| backoff(&usual(), n, 0.0) / SECOND)
            .collect();
        assert_eq!(all[..7], [1, 2, 4, 8, 16, 32, 60]);
        assert!(all[7..].iter().all(|s| *s == 60));
        assert_eq!(backoff(&usual(), 2, 1.0), 3 * SECOND);
    }

    #[test]
    fn one_probe_decides() {
        let breaker = Breaker::default();
        let mut now = 100 * SECOND;
        assert!((0..2).all(|_| !breaker.failed(now, &usual())) && breaker.failed(now, &usual()));
        assert!(breaker.open(now, &usual(), 0.0) && !breaker.open(now, &usual(), 0.0));
        assert_eq!(breaker.admit(now), Admission::Open);
        now += SECOND;
        assert_eq!(breaker.admit(now), Admission::Probe);
        assert_eq!(breaker.admit(now), Admission::Open, "only one");
        breaker.probe_failed(now, &usual(), 0.0);
        assert_eq!(breaker.admit(now + SECOND), Admission::Open, "longer now");
        now += 2 * SECOND;
        assert_eq!(breaker.admit(now), Admission::Probe);
        breaker.probe_void(now);
        assert_eq!(
            breaker.admit(now),
            Admission::Probe,
            "a probe that says nothing is repeated"
        );
        assert!(breaker.close(now));
        assert_eq!(breaker.admit(now), Admission::Closed);
        assert!(!breaker.failed(now, &usual()), "a clean slate");
    }

    #[test]
    fn a_probe_that_ends_after_another_has_closed_it_opens_nothing() {
        let late: [fn(&Breaker); 2] = [
            |breaker| breaker.probe_failed(20 * SECOND, &usual(), 0.0),
            |breaker| breaker.probe_void(20 * SECOND),
        ];
        for late in late {
            let breaker = Breaker::default();
            breaker.open(SECOND, &usual(), 0.0);
            assert_eq!(breaker.admit(3 * SECOND), Admission::Probe);
            assert_eq!(breaker.admit(3 * SECOND + PROBE_PATIENCE), Admission::Probe);
            assert!(breaker.close(14 * SECOND));
            late(&breaker);
            assert_eq!(breaker.admit(20 * SECOND), Admission::Closed);
        }
    }

    #[test]
    fn a_probe_that_never_ends_does_not_keep_it_aside_for_good() {
        let breaker = Breaker::default();
        breaker.open(SECOND, &usual(), 0.0);
        assert_eq!(breaker.admit(3 * SECOND), Admission::Probe);
        assert_eq!(breaker.admit(3 * SECOND + PROBE_PATIENCE), Admission::Probe);
    }
}
