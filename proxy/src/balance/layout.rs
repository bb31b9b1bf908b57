//! A set laid out for picking, made anew whenever its endpoints or settings change: all of it, and, where that is asked for,
//! its zones in order of preference and the part of a large one that each worker keeps to.

use super::endpoint::Endpoint;
use super::group::{Ask, Found, Group, Policy};
use super::health::Health;
use super::ring::{address_key, mix};
use super::subset::Subset;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use weft_proxy_api::policy::settings::{Balancer, MILLION};

/// Subsets made of a large set. Workers beyond share them: their connections are apart all the same.
const SUBSETS: usize = 8;
/// Healthy endpoints of a zone, per hundred, that can carry all that is meant for it.
const ENOUGH: u64 = 70;
/// Zones told apart; what comes after them counts as "others".
const MOST_ZONES: usize = 7;

/// Where this proxy is, and what makes its choice of a subset its own.
#[derive(Debug, Clone, Default)]
pub struct Place {
    zone: String,
    seed: u64,
}

/// The layout.
pub(super) struct Layout {
    pub(super) all: Group,
    /// Empty: neither zones nor subsets.
    levels: Vec<Level>,
    policy: Policy,
    slow_start: u64,
}

/// Endpoints of the same preference.
struct Level {
    whole: Group,
    /// One per worker; empty: the whole is small enough.
    subsets: Vec<Subset>,
    /// Requests that go here or to a level before, in parts per million.
    up_to: AtomicU32,
}

impl Place {
    /// `who` is the proxy's own name, e.g. `namespace/pod`.
    pub fn new(zone: &str, who: &str) -> Self {
        let (zone, seed) = (zone.to_owned(), super::key_of(who.as_bytes()));
        Self { zone, seed }
    }

    /// How much an endpoint is preferred: 0 is best.
    fn level(&self, settings: &Balancer, zone: &str) -> usize {
        if !settings.prefer_zone || (!zone.is_empty() && zone == self.zone) {
            return 0;
        }
        let failover = settings.failover_zones.iter().take(MOST_ZONES - 1);
        let found = failover.clone().position(|other| other == zone);
        1 + found.unwrap_or(failover.len())
    }
}

impl Layout {
    pub(super) fn new(members: Vec<Arc<Endpoint>>, settings: &Balancer, place: &Place) -> Self {
        let policy = Policy::of(&settings.policy);
        let subset = match policy {
            // Equal keys would go to different endpoints from different workers.
            Policy::Ring => 0,
            _ => usize::try_from(settings.subset).unwrap_or(0),
        };
        let mut by_level: Vec<Vec<Arc<Endpoint>>> = vec![Vec::new(); MOST_ZONES + 1];
        for member in &members {
            by_level[place.level(settings, &member.spec.zone)].push(member.clone());
        }
        by_level.retain(|level| !level.is_empty());
        let large = |level: &Vec<Arc<Endpoint>>| subset > 0 && level.len() > subset;
        if by_level.len() < 2 && !by_level.iter().any(large) {
            by_level.clear();
        }
        let level = |members| Level::new(members, subset, policy, place.seed);
        let levels: Vec<Level> = by_level.into_iter().map(level).collect();
        let layout = Self {
            all: Group::new(members, policy),
            levels,
            policy,
            slow_start: nanos(settings.slow_start),
        };
        layout.share_out();
        layout
    }

    /// One that is not set aside and was not tried.
    pub(super) fn choose(
        &self,
        (now, tried, key): (u64, &[u64], Option<u64>),
        health: &Health,
        random: &mut fastrand::Rng,
    ) -> Option<Found<'_>> {
        let ask = Ask {
            now,
            tried,
            key,
            policy: self.policy,
            slow_start: self.slow_start,
        };
        if self.levels.is_empty() {
            return self.all.choose(ask, random);
        }
        self.choose_level(ask, health, random)
            .or_else(|| self.all.choose(ask, random))
    }

    fn choose_level(
        &self,
        ask: Ask<'_>,
        health: &Health,
        random: &mut fastrand::Rng,
    ) -> Option<Found<'_>> {
        if health.take_changed() {
            self.share_out();
        }
        // A zone that gets no requests would never get one to prove itself with.
        if health.ejected() > 0
            && let Some(due) = self.all.due(ask, random)
        {
            return Some(due);
        }
        let at = match ask.key {
            // Mixed once more: keys of one zone must still cover its whole ring.
            Some(key) => (mix(key) % u64::from(MILLION)) as u32,
            None => random.u32(..MILLION),
        };
        let fits = |level: &&Level| at < level.up_to.load(Relaxed);
        let level = self
            .levels
            .iter()
            .find(fits)
            .or_else(|| self.levels.last())?;
        level.choose(ask, random)
    }

    /// Gives each level what it can carry, and the next what is left. What nobody can carry all bear alike.
    fn share_out(&self) {
        let healthy = |level: &Level| {
            let members = &level.whole.members;
            let healthy = members.iter().filter(|at| !at.is_ejected()).count();
            (healthy as u64, members.len() as u64)
        };
        let counts: Vec<_> = self.levels.iter().map(healthy).collect();
        for (level, up_to) in self.levels.iter().zip(shares(&counts)) {
            level.up_to.store(up_to, Relaxed);
        }
    }
}

impl Level {
    fn new(mut members: Vec<Arc<Endpoint>>, subset: usize, policy: Policy, seed: u64) -> Self {
        let mut subsets = Vec::new();
        if subset > 0 && members.len() > subset {
            // The proxy's own order of the endpoints: who goes is followed by the next, and nobody else moves.
            members.sort_by_cached_key(|at| mix(address_key(at.spec.address) ^ seed));
            let apart = subset.max(members.len() / SUBSETS);
            subsets.extend((0..SUBSETS).map(|worker| Subset::new(worker * apart, subset)));
        }
        Self {
            whole: Group::new(members, policy),
            subsets,
            up_to: AtomicU32::new(MILLION),
        }
    }

    fn choose(&self, ask: Ask<'_>, random: &mut fastrand::Rng) -> Option<Found<'_>> {
        match self.subsets.get(worker() % SUBSETS) {
            // A subset of which nobody is left borrows from the whole.
            Some(subset) => subset.choose(&self.whole, ask, random),
            None => None,
        }
        .or_else(|| self.whole.choose(ask, random))
    }
}

/// For levels with so many healthy endpoints out of so many: the share of requests that goes to each or to one before it.
fn shares(counts: &[(u64, u64)]) -> Vec<u32> {
    let million = u64::from(MILLION);
    let carries = |(healthy, all): &(u64, u64)| {
        (healthy * million * 100 / (ENOUGH * (*all).max(1))).min(million)
    };
    let mut sum = 0;
    let up_to: Vec<u64> = counts
        .iter()
        .map(|count| {
            sum = (sum + carries(count)).min(million);
            sum
        })
        .collect();
    let scale = |up_to: &u64| match sum {
        0 => million,
        sum => up_to * million / sum,
    };
    up_to.iter().map(|up_to| scale(up_to) as u32).collect()
}

/// A number for this thread, counted from 0.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Relaxed));
    NUMBER.with(|number| *number)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_spill_gradually() {
        for (counts, expected) in [
            (&[(10, 10), (10, 10)][..], &[MILLION, MILLION][..]),
            (&[(7, 10), (10, 10)], &[MILLION, MILLION]),
            (&[(35, 100), (10, 10)], &[500_000, MILLION]),
            (&[(0, 10), (10, 10)], &[0, MILLION]),
            (
                &[(35, 100), (35, 200), (9, 9)],
                &[500_000, 750_000, MILLION],
            ),
            // Nobody can carry it all: as much as each can.
            (&[(7, 100), (7, 100)], &[500_000, MILLION]),
            (&[(0, 10), (0, 10)], &[MILLION, MILLION]),
        ] {
            assert_eq!(shares(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn zones_are_asked_in_order() {
        let place = Place::new("a", "shop/client");
        let settings = Balancer {
            prefer_zone: true,
            failover_zones: vec!["c".into(), "b".into()],
            ..Balancer::default()
        };
        let levels = ["a", "b", "c", "d", ""].map(|zone| place.level(&settings, zone));
        assert_eq!(levels, [0, 2, 1, 3, 3]);
        let unknown = Place::new("", "shop/client");
        assert_eq!(unknown.level(&settings, ""), 3, "no zone is no own zone");
        assert_eq!(place.level(&Balancer::default(), "b"), 0, "not asked for");
    }
}
