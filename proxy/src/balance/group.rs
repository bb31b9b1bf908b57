//! One endpoint out of a group, by the policy of its Service. Of two endpoints drawn at random the less loaded one
//! answers: nobody herds towards the single best one, and no list is sorted. Takes no lock and allocates nothing.

use super::breaker::Admission;
use super::endpoint::{Endpoint, UNKNOWN};
use super::ring::Ring;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use weft_proxy_api::policy::settings::BalancerPolicy;
use weft_proxy_api::policy::weights::Alias;

/// Draws before the search for a candidate becomes a walk. At least half of a set is hardly ever ejected, so that this
/// many misses are rare.
const DRAWS: usize = 8;
/// Points of a ring that are looked at before a key is given up.
const MOST_STEPS: usize = 512;
/// Turns of a weighted round, at most, besides one for each endpoint.
const MOST_TURNS: u64 = 4096;
/// What a new endpoint begins with.
const FIRST_SHARE: f64 = 0.1;

/// How one is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Ewma,
    LeastRequest,
    RoundRobin,
    Ring,
}

/// Endpoints among which a policy chooses.
#[derive(Default)]
pub(super) struct Group {
    pub(super) members: Vec<Arc<Endpoint>>,
    /// Where their weights differ.
    weights: Option<Alias>,
    /// Where they take turns and their weights differ.
    turns: Vec<u32>,
    turn: AtomicUsize,
    ring: Option<Ring>,
}

/// What a pick wants.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) now: u64,
    /// Ids of endpoints that were tried already.
    pub(super) tried: &'a [u64],
    /// What ties the request to others.
    pub(super) key: Option<u64>,
    pub(super) policy: Policy,
    /// Nanoseconds in which a new endpoint's share grows; 0: at once.
    pub(super) slow_start: u64,
}

/// A chosen endpoint, and whether it is to prove itself.
pub(super) type Found<'a> = (&'a Arc<Endpoint>, bool);

impl Policy {
    pub(super) fn of(policy: &BalancerPolicy) -> Self {
        match policy {
            BalancerPolicy::Ewma => Policy::Ewma,
            BalancerPolicy::LeastRequest => Policy::LeastRequest,
            BalancerPolicy::RoundRobin => Policy::RoundRobin,
            BalancerPolicy::RingHash(_) => Policy::Ring,
        }
    }
}

impl Group {
    pub(super) fn new(members: Vec<Arc<Endpoint>>, policy: Policy) -> Self {
        let weight = |at: &Arc<Endpoint>| u64::from(at.spec.weight.max(1));
        let weights: Vec<u64> = members.iter().map(weight).collect();
        let differ = weights.windows(2).any(|pair| pair[0] != pair[1]);
        let turns = match policy {
            Policy::RoundRobin if differ => turns(&weights),
            _ => Vec::new(),
        };
        Self {
            weights: if differ { Alias::new(&weights) } else { None },
            turns,
            // Proxies that start together do not walk together.
            turn: AtomicUsize::new(fastrand::usize(..)),
            ring: (policy == Policy::Ring).then(|| Ring::new(&members)),
            members,
        }
    }

    pub(super) fn choose(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        match (ask.policy, &self.ring, ask.key) {
            (Policy::RoundRobin, ..) => self.next(ask, random),
            (Policy::Ring, Some(ring), Some(key)) => {
                let mut near = ring.from(key).take(MOST_STEPS);
                near.find_map(|at| self.check(at, ask, None))
                    .or_else(|| self.two(ask, random))
            }
            _ => self.two(ask, random),
        }
    }

    /// Any, whatever is known about it.
    pub(super) fn any(&self, random: &mut fastrand::Rng) -> Option<&Arc<Endpoint>> {
        (!self.members.is_empty()).then(|| &self.members[random.usize(..self.members.len())])
    }

    /// One drawn at random, if it is set aside and it is time for it to prove itself.
    pub(super) fn due(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        let drawn = self.any(random)?;
        let due = drawn.is_ejected()
            && !ask.tried.contains(&drawn.id)
            && drawn.admit(ask.now) == Admission::Probe;
        due.then_some((drawn, true))
    }

    /// The less loaded of two. An endpoint whose time to prove itself has come is taken at once, as a probe.
    fn two(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        let first = self.draw(ask, random)?;
        if first.1 {
            return Some(first);
        }
        let price = cost(ask, first.0);
        let (found, price) = match self.draw_another(ask, first.0, random) {
            Some(second) if second.1 => return Some(second),
            Some(second) if cost(ask, second.0) < price => (second, cost(ask, second.0)),
            _ => (first, price),
        };
        if price < UNKNOWN || ask.policy != Policy::Ewma {
            return Some(found);
        }
        Some(self.cheaper(price, ask, random).unwrap_or(found))
    }

    /// Both draws are in trouble, or their first answer is still awaited: one of a few others may be better. Where many
    /// requests come at once, those after the first would else go where nothing is known, or where nothing works.
    #[cold]
    fn cheaper(&self, price: f64, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        let all = self.members.len();
        let start = random.usize(..all.max(1));
        let few = (start..all).chain(0..start).take(DRAWS);
        let mut best = (None, price);
        for at in few {
            let Some(found) = self.check(at, ask, None) else {
                continue;
            };
            if found.1 {
                return Some(found);
            }
            let price = cost(ask, found.0);
            if price < best.1 && self.has_grown(at, ask, random) {
                best = (Some(found), price);
            }
        }
        best.0
    }

    fn draw(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        if self.members.len() > 2 || self.weights.is_some() || ask.slow_start > 0 {
            for _ in 0..DRAWS {
                let at = self.at_random(random);
                let drawn = self.check(at, ask, None);
                if drawn.is_some_and(|(_, probe)| probe || self.has_grown(at, ask, random)) {
                    return drawn;
                }
            }
        }
        self.walk(ask, None, random)
    }

    /// A second one to compare with. By weight it may be the same: then it is heavy, and that decides.
    fn draw_another(
        &self,
        ask: Ask<'_>,
        first: &Arc<Endpoint>,
        random: &mut fastrand::Rng,
    ) -> Option<Found<'_>> {
        let by_weight = self.weights.is_some();
        if self.members.len() > 2 || by_weight || ask.slow_start > 0 {
            for _ in 0..DRAWS {
                let at = self.at_random(random);
                if by_weight && self.members[at].id == first.id {
                    return None;
                }
                let drawn = self.check(at, ask, Some(first.id));
                if drawn.is_some() {
                    return drawn.filter(|(_, probe)| *probe || self.has_grown(at, ask, random));
                }
            }
        }
        self.walk(ask, Some(first.id), random)
    }

    fn at_random(&self, random: &mut fastrand::Rng) -> usize {
        match &self.weights {
            None if self.members.is_empty() => 0,
            None => random.usize(..self.members.len()),
            Some(weights) => weights.pick(random.u64(..), random.u64(..)),
        }
    }

    fn walk(
        &self,
        ask: Ask<'_>,
        except: Option<u64>,
        random: &mut fastrand::Rng,
    ) -> Option<Found<'_>> {
        let all = self.members.len();
        let start = if all == 0 { 0 } else { random.usize(..all) };
        (start..all)
            .chain(0..start)
            .find_map(|at| self.check(at, ask, except))
    }

    /// One after the other; who is refused is passed over.
    fn next(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        let round = match self.turns.len() {
            0 => self.members.len(),
            turns => turns,
        };
        for _ in 0..round {
            let turn = self.turn.fetch_add(1, Relaxed) % round;
            let at = match self.turns.get(turn) {
                Some(at) => usize::try_from(*at).unwrap_or(0),
                None => turn,
            };
            let found = self.check(at, ask, None);
            let fits = |(endpoint, probe): Found<'_>| {
                let left_alone = endpoint.is_pushed_back(ask.now);
                probe || (!left_alone && self.has_grown(at, ask, random))
            };
            if found.is_some_and(fits) {
                return found;
            }
        }
        self.walk(ask, None, random)
    }

    /// The endpoint, if it may be taken. One that is to prove itself is told so once: whoever finds it takes it, or nobody
    /// does for a while.
    fn check(&self, at: usize, ask: Ask<'_>, except: Option<u64>) -> Option<Found<'_>> {
        let endpoint = self.members.get(at)?;
        if except == Some(endpoint.id) || ask.tried.contains(&endpoint.id) {
            return None;
        }
        match endpoint.admit(ask.now) {
            Admission::Closed => Some((endpoint, false)),
            Admission::Probe => Some((endpoint, true)),
            Admission::Open => None,
        }
    }

    /// False for a new endpoint, as often as it still lacks of its whole share.
    fn has_grown(&self, at: usize, ask: Ask<'_>, random: &mut fastrand::Rng) -> bool {
        if ask.slow_start == 0 {
            return true;
        }
        let since = self.members[at].since;
        let age = ask.now.saturating_sub(since);
        if since == 0 || age >= ask.slow_start {
            return true;
        }
        random.f64() < (age as f64 / ask.slow_start as f64).max(FIRST_SHARE)
    }
}

fn cost(ask: Ask<'_>, at: &Endpoint) -> f64 {
    match ask.policy {
        Policy::LeastRequest if at.is_pushed_back(ask.now) => f64::MAX,
        Policy::LeastRequest => at.queue(),
        _ => at.load(ask.now),
    }
}

/// A round in which each has turns by its weight, spread evenly over it.
fn turns(weights: &[u64]) -> Vec<u32> {
    let sum: u64 = weights.iter().sum();
    let scale = |weight: u64| {
        if sum <= MOST_TURNS {
            return weight;
        }
        let scaled = u128::from(weight) * u128::from(MOST_TURNS) / u128::from(sum);
        u64::try_from(scaled).unwrap_or(1).max(1)
    };
    let mut all: Vec<(f64, u32)> = Vec::new();
    for (index, weight) in (0u32..).zip(weights) {
        let own = scale(*weight);
        all.extend((0..own).map(|n| ((n as f64 + 0.5) / own as f64, index)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_spreads_turns_by_weight() {
        assert_eq!(turns(&[1, 2]), [1, 0, 1]);
        assert_eq!(turns(&[3, 1]), [0, 0, 1, 0]);
        let many = turns(&[u64::from(u32::MAX), 1]);
        assert!(many.contains(&1) && many.len() <= 4097);
    }
}
