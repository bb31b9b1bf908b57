//! The part of a large set that one worker keeps to, so that nobody opens a connection to each of a thousand endpoints. It
//! is as wide as it has to be: whoever has more under way than there are endpoints in it takes twice as many, and so on,
//! and gives them back when it is quiet. So an endpoint that carries much carries it for many clients, and how unevenly
//! they chose matters little; and no more connections are open than requests need anyway.
//!
//! Each worker chooses for itself, by hashing its own name with each endpoint's. That many clients together then are as
//! uneven as chance is: with 100 of them, 20 of 1,000 endpoints each, the fullest is asked by 3.9 times the mean. Nothing
//! that a client knows by itself makes it better: a place on a ring, or a rendezvous, is as random as this one. What does
//! is to deal the endpoints out by the client's number among all clients (Twitter's deterministic aperture), and that
//! number is known to the controller alone, and is another one for half of them whenever a client comes or goes, with the
//! connections that follow. It would be paid for by busy clients, which widen and are even, for the sake of idle ones.

use super::endpoint::Endpoint;
use super::group::{Ask, Found, Group};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How often it may double.
const STEPS: usize = 16;
/// Requests under way for each endpoint, from which on there are too few of them…
const CROWDED: f64 = 1.0;
/// …and below which half of them would do.
const QUIET: f64 = 0.25;
/// How long it stays as wide as it is at least before it narrows, nanoseconds: connections are not opened for a moment.
const PATIENCE: u64 = 10_000_000_000;

/// Part of a group, from a place in its order on.
pub(super) struct Subset {
    from: usize,
    least: usize,
    /// By how often it has doubled; made when first used.
    groups: [OnceLock<Group>; STEPS],
    step: AtomicUsize,
    /// When it was last too narrow or changed.
    since: AtomicU64,
    /// Picks since it was last looked at.
    picks: AtomicU32,
}

impl Subset {
    /// `least` members at least, from the one at `from` on.
    pub(super) fn new(from: usize, least: usize) -> Self {
        Self {
            from,
            least,
            groups: Default::default(),
            step: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            picks: AtomicU32::new(0),
        }
    }

    /// `whole` is always the same.
    pub(super) fn choose<'a>(
        &'a self,
        whole: &'a Group,
        ask: Ask<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<Found<'a>> {
        let group = self.group(whole, ask);
        let picks = self.picks.fetch_add(1, Relaxed);
        // One look at each member for as many picks: next to nothing for each.
        if usize::try_from(picks).is_ok_and(|picks| picks >= group.members.len()) {
            self.picks.store(0, Relaxed);
            self.fit(group, whole, ask.now);
        }
        group.choose(ask, random)
    }

    fn group<'a>(&'a self, whole: &'a Group, ask: Ask<'_>) -> &'a Group {
        let step = self.step.load(Relaxed);
        let width = self.width(step);
        match self.groups.get(step) {
            Some(group) if width < whole.members.len() => group.get_or_init(|| {
                let from = whole.members.iter().cycle().skip(self.from);
                Group::new(from.take(width).cloned().collect(), ask.policy)
            }),
            _ => whole,
        }
    }

    fn width(&self, step: usize) -> usize {
        self.least.saturating_mul(1 << step.min(STEPS))
    }

    /// Wider where it is crowded, narrower where it has long been quiet.
    fn fit(&self, group: &Group, whole: &Group, now: u64) {
        let step = self.step.load(Relaxed);
        let all: f64 = group.members.iter().map(|at| Endpoint::queue(at)).sum();
        let each = all / group.members.len().max(1) as f64;
        let quiet_for = now.saturating_sub(self.since.load(Relaxed));
        if each >= CROWDED && step < STEPS && self.width(step) < whole.members.len() {
            self.step.store(step + 1, Relaxed);
        } else if each < QUIET && step > 0 && quiet_for > PATIENCE {
            self.step.store(step - 1, Relaxed);
        } else if each < QUIET {
            return;
        }
        self.since.store(now, Relaxed);
    }
}
