//! What each setting of a Service does to the choice.

use super::super::super::ring::{key_of, mix};
use super::*;
use weft_proxy_api::policy::settings::{BalancerPolicy, HashKey};

fn by(policy: BalancerPolicy) -> Balancer {
    Balancer {
        policy,
        ..Balancer::default()
    }
}

pub(super) fn with(specs: Vec<outbound::Endpoint>, balancer: &Balancer) -> Arc<EndpointSet> {
    let set = EndpointSet::new("shop/web:80", Arc::default());
    set.configure(balancer, Ejection::default());
    set.update(specs);
    set
}

fn weighted(weights: &[u32]) -> Vec<outbound::Endpoint> {
    let spec = |(n, weight): (u8, &u32)| outbound::Endpoint {
        weight: *weight,
        ..spec(n)
    };
    (0..).zip(weights).map(spec).collect()
}

pub(super) fn many(n: u32, zone: impl Fn(u32) -> &'static str) -> Vec<outbound::Endpoint> {
    let spec = |n: u32| outbound::Endpoint {
        address: SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 8080)),
        zone: zone(n).into(),
        ..spec(0)
    };
    (0..n).map(spec).collect()
}

/// Eight failures, as nobody else answered.
pub(super) fn eject(endpoint: &Arc<Endpoint>, now: u64) {
    for _ in 0..8 {
        let failed = endpoint.begin(now, false);
        failed.done_at(now, Outcome::Failure, Duration::from_millis(1));
    }
}

pub(super) fn at(pick: &Pick) -> SocketAddr {
    pick.endpoint().spec.address
}

#[test]
fn round_robin_takes_turns_by_weight() {
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 5], &[100, 300]] {
        let set = with(weighted(weights), &by(BalancerPolicy::RoundRobin));
        let sum: u32 = weights.iter().sum();
        let mut simulation = Simulation::new(set);
        let picks = simulation.run(MS, u64::from(sum * 3) * MS, |_| (50 * MS, false));
        let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
        assert_eq!(picks[..weights.len()], expected);
    }
}

#[test]
fn round_robin_passes_over_who_is_set_aside() {
    let set = with(weighted(&[1, 1, 1]), &by(BalancerPolicy::RoundRobin));
    eject(&set.endpoints()[1], SECOND);
    let picks = Simulation::new(set).run(MS, 300 * MS, |_| (MS, false));
    assert!(picks[1] == 0 && picks[0] > 100 && picks[2] > 100);
}

#[test]
fn who_is_to_prove_itself_does_so_however_new_and_whatever_it_asked_for() {
    let slow_start = Duration::from_secs(3600);
    for policy in [BalancerPolicy::Ewma, BalancerPolicy::RoundRobin] {
        let settings = Balancer {
            slow_start,
            ..by(policy.clone())
        };
        for seed in 0..20 {
            let set = with(weighted(&[1, 1, 1]), &settings);
            set.update_at(SECOND, weighted(&[1, 1, 1, 1]));
            let new = set.endpoints()[3].clone();
            eject(&new, 2 * SECOND);
            new.push_back(2 * SECOND, Duration::from_secs(60));
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pick = || set.pick_with(10 * SECOND, Wish::default(), &mut random);
            let picks: Vec<_> = (0..100).map(|_| pick().unwrap()).collect();
            let probes = picks.iter().filter(|pick| pick.in_flight.is_probe());
            assert_eq!(probes.count(), 1, "{policy:?} {seed}");
        }
    }
}

#[test]
fn least_request_looks_at_requests_under_way_and_not_at_latency() {
    let set = with(weighted(&[1, 1, 1]), &by(BalancerPolicy::LeastRequest));
    let mut simulation = Simulation::new(set.clone());
    let picks = simulation.run(100 * MS, 60 * SECOND, |n| {
        (if n == 0 { 40 * MS } else { 2 * MS }, false)
    });
    assert!(share(&picks, 0) > 0.25, "idle ones are equal");
    let held: Vec<_> = (0..50).map(|_| set.endpoints()[0].start()).collect();
    let picks = simulation.run(100 * MS, 10 * SECOND, |_| (2 * MS, false));
    assert_eq!(picks[0], 0);
    drop(held);
}

#[test]
fn weights_hold_whether_busy_or_idle() {
    for policy in [BalancerPolicy::Ewma, BalancerPolicy::LeastRequest] {
        for every in [MS, 200 * MS] {
            let mut simulation = Simulation::new(with(weighted(&[1, 3]), &by(policy.clone())));
            let picks = simulation.run(every, 2000 * every, |_| (50 * MS, false));
            let share = share(&picks, 1);
            assert!((0.6..0.9).contains(&share), "{policy:?} {every}: {share}");
        }
    }
}

fn owners(set: &EndpointSet, keys: u64) -> Vec<SocketAddr> {
    let owner = |n| {
        let key = Some(mix(n));
        at(&set.pick(SECOND, Wish { tried: &[], key }).unwrap())
    };
    (0..keys).map(owner).collect()
}

fn ring() -> Balancer {
    by(BalancerPolicy::RingHash(HashKey::Header("x-user".into())))
}

/// Prints how even a ring is and how many keys move.
#[test]
fn only_the_keys_of_who_comes_or_goes_move() {
    println!("endpoints  max/mean  moved by one less  by one more");
    for n in [2_u32, 3, 5, 10, 50, 200] {
        let all = many(n + 1, |_| "");
        let set = with(all[..n as usize].to_vec(), &ring());
        let before = owners(&set, 10_000);
        set.update(all[1..n as usize].to_vec());
        let (gone, less) = (all[0].address, owners(&set, 10_000));
        let of_gone = before.iter().filter(|at| **at == gone).count();
        let moved_less = before.iter().zip(&less).filter(|(a, b)| a != b).count();
        assert_eq!(moved_less, of_gone, "{n}: nobody else's keys move");
        set.update(all.clone());
        let (new, more) = (all[n as usize].address, owners(&set, 10_000));
        let pairs = before.iter().zip(&more);
        let moved: Vec<_> = pairs.filter(|(a, b)| a != b).collect();
        assert!(
            moved.iter().all(|(_, b)| **b == new),
            "{n}: only to the new"
        );
        let most = all[..n as usize]
            .iter()
            .map(|spec| before.iter().filter(|at| **at == spec.address).count())
            .max()
            .unwrap();
        let uneven = most as f64 / (10_000.0 / f64::from(n));
        println!("{n:9}  {uneven:8.2}  {moved_less:17}  {:11}", moved.len());
        assert!(uneven < 1.8, "{n}: {uneven}");
        assert!((moved.len() as f64) < 1.6 * 10_000.0 / f64::from(n + 1));
    }
}

#[test]
fn a_key_has_one_endpoint_until_that_is_set_aside() {
    let set = with(many(5, |_| ""), &ring());
    let key = Some(key_of(b"ada"));
    let pick = |tried: &[u64]| set.pick(SECOND, Wish { tried, key }).unwrap();
    let first = pick(&[]).endpoint().clone();
    assert!((0..50).all(|_| pick(&[]).endpoint().id == first.id));
    let second = pick(&[first.id]).endpoint().id;
    assert!(second != first.id, "a retry goes on");
    eject(&first, SECOND);
    assert!((0..50).all(|_| pick(&[]).endpoint().id == second));
    let other = with(many(5, |_| ""), &ring());
    let same = at(&other.pick(SECOND, Wish { tried: &[], key }).unwrap());
    assert_eq!(same, first.spec.address, "every proxy finds the same");
    let without = (0..200).map(|_| set.pick(SECOND, Wish::default()).unwrap().endpoint().id);
    let spread: std::collections::HashSet<_> = without.collect();
    assert!(spread.len() > 2, "without a key as by latency");
}

fn zoned(failover: &[&str]) -> Arc<EndpointSet> {
    let place = Place::new("a", "shop/client");
    let set = EndpointSet::placed("shop/web:80", Arc::default(), place, Arc::default());
    let balancer = Balancer {
        prefer_zone: true,
        failover_zones: failover.iter().map(|zone| (*zone).to_owned()).collect(),
        ..Balancer::default()
    };
    let ejection = Ejection {
        min_healthy_percent: 0,
        ..Ejection::default()
    };
    set.configure(&balancer, ejection);
    set.update(many(30, |n| ["a", "b", "c"][n as usize / 10]));
    set
}

/// Requests of a thousand to each zone.
fn by_zone(set: &EndpointSet) -> [u32; 3] {
    let mut found = [0; 3];
    for _ in 0..1000 {
        let pick = set.pick(SECOND, Wish::default()).unwrap();
        found[match pick.endpoint().spec.zone.as_str() {
            "a" => 0,
            "b" => 1,
            _ => 2,
        }] += 1;
    }
    found
}

/// Prints where requests go while more and more of the own zone is set aside.
#[test]
fn the_own_zone_spills_to_the_next_and_never_to_nothing() {
    let set = zoned(&["c"]);
    println!("set aside in a  share of a  b  c (per mille)");
    let mut last = 1001;
    for aside in 0..=10 {
        let [a, b, c] = by_zone(&set);
        println!("{aside:14}  {a:10}  {b}  {c}");
        assert_eq!(b, 0, "the failover zone comes first");
        if aside <= 3 {
            assert_eq!(a, 1000, "{aside}: enough are healthy");
        } else {
            let expected = f64::from(10 - aside) / 7.0 * 1000.0;
            assert!((f64::from(a) - expected).abs() < 70.0, "{aside}: {a}");
        }
        assert!(a < last + 70);
        last = a;
        if let Some(next) = set.endpoints().get(aside as usize) {
            eject(next, SECOND);
        }
    }
    for endpoint in &set.endpoints()[20..] {
        eject(endpoint, SECOND);
    }
    assert_eq!(by_zone(&set)[1], 1000, "then all others");
}

#[test]
fn a_zone_that_is_well_again_gets_its_requests_back() {
    let set = zoned(&[]);
    for endpoint in &set.endpoints()[..10] {
        eject(endpoint, SECOND);
    }
    assert_eq!(by_zone(&set)[0], 0);
    let mut simulation = Simulation::new(set);
    simulation.run(MS, 60 * SECOND, |_| (MS, false));
    assert_eq!(simulation.ejected(), 0);
    assert_eq!(by_zone(&simulation.set)[0], 1000);
}

/// Prints the share of a fifth endpoint that has just come.
#[test]
fn a_new_endpoint_starts_slowly() {
    let balancer = Balancer {
        slow_start: Duration::from_secs(30),
        ..Balancer::default()
    };
    let set = with((0..4).map(spec).collect(), &balancer);
    assert!(
        set.endpoints().iter().all(|at| at.since == 0),
        "where all are new nobody is"
    );
    let mut simulation = Simulation::new(set.clone());
    simulation.run(MS, 10 * SECOND, |_| (2 * MS, false));
    set.update_at(simulation.now, (0..5).map(spec).collect());
    println!("seconds  share (of a fifth)");
    let mut shares = Vec::new();
    for second in 0..8 {
        let picks = simulation.run(MS, 5 * SECOND, |_| (2 * MS, false));
        shares.push(share(&picks, 4));
        println!("{:7}  {:.2}", second * 5, share(&picks, 4) * 5.0);
    }
    assert!(shares[0] < 0.08 && shares[7] > 0.12, "{shares:?}");
}

#[test]
fn who_asks_to_be_left_alone_is_left_alone() {
    let policies = [
        BalancerPolicy::Ewma,
        BalancerPolicy::LeastRequest,
        BalancerPolicy::RoundRobin,
    ];
    for policy in policies {
        let set = with((0..3).map(spec).collect(), &by(policy.clone()));
        let mut simulation = Simulation::new(set.clone());
        simulation.run(MS, SECOND, |_| (2 * MS, false));
        set.endpoints()[1].push_back(simulation.now, Duration::from_secs(5));
        let picks = simulation.run(MS, 5 * SECOND, |_| (2 * MS, false));
        // In the last moments it costs no more than the others.
        assert!(picks[1] <= 3, "{policy:?}: {}", picks[1]);
        let picks = simulation.run(MS, 10 * SECOND, |_| (2 * MS, false));
        assert!(share(&picks, 1) > 0.1, "{policy:?}: {}", share(&picks, 1));
        for endpoint in set.endpoints() {
            endpoint.push_back(simulation.now, Duration::MAX);
        }
        let picks = simulation.run(MS, SECOND, |_| (2 * MS, false));
        assert_eq!(picks.iter().sum::<u32>(), 1000, "somebody answers");
        simulation.run(SECOND, 300 * SECOND, |_| (2 * MS, false));
        let late = set.endpoints()[0].is_pushed_back(simulation.now);
        assert!(!late, "what was asked for is capped");
    }
}

#[test]
fn who_is_busy_is_avoided_and_not_set_aside() {
    let set = set(3);
    let mut simulation = Simulation::new(set.clone());
    simulation.run(MS, SECOND, |_| (2 * MS, false));
    for _ in 0..20 {
        let now = simulation.now;
        let busy = set.endpoints()[0].begin(now, false);
        busy.done_at(now, Outcome::Busy, Duration::from_micros(100));
    }
    assert_eq!(simulation.ejected(), 0);
    let picks = simulation.run(MS, SECOND, |_| (2 * MS, false));
    assert!(share(&picks, 0) < 0.1, "{}", share(&picks, 0));
}

#[test]
fn settings_decide_how_many_may_be_set_aside() {
    for (percent, most) in [(0, 4), (25, 3), (50, 2), (75, 1), (100, 0)] {
        let set = set(4);
        let ejection = Ejection {
            min_healthy_percent: percent,
            ..Ejection::default()
        };
        set.configure(&Balancer::default(), ejection);
        set.endpoints().iter().for_each(|at| eject(at, SECOND));
        assert_eq!(set.health.ejected(), most, "{percent}");
        let picked = set.pick(SECOND, Wish::default()).map(|_| ());
        let expected = if percent == 0 {
            Err(Refusal::AllEjected)
        } else {
            Ok(())
        };
        assert_eq!(picked, expected, "{percent}");
        set.configure(&Balancer::default(), Ejection::default());
        assert!(
            set.health.ejected() <= 2,
            "and a change is in force at once"
        );
    }
}

#[test]
fn what_is_known_survives_a_change_of_settings() {
    let set = set(4);
    eject(&set.endpoints()[0], SECOND);
    let before = set.endpoints();
    set.configure(&ring(), Ejection::default());
    let after = set.endpoints();
    assert!(before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(after[0].is_ejected());
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let limits = Limits::new(Arc::default());
    let set = EndpointSet::placed("web", Arc::default(), Place::default(), limits.clone());
    set.update((0..2).map(spec).collect());
    limits.configure(&weft_proxy_api::policy::settings::Breaker {
        requests: Some(1),
        ..Default::default()
    });
    let first = set.pick_for(SECOND, Wish::default()).map_err(drop).unwrap();
    let refused = set.pick_for(SECOND, Wish::default()).map(|_| ());
    assert_eq!(refused, Err(Refusal::Full(Limit::Requests)));
    drop(first);
    assert!(set.pick_for(SECOND, Wish::default()).is_ok());
}
