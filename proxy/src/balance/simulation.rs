//! Endpoint sets under a made-up load on a made-up clock, with a seeded random: the same run every time.
#![allow(clippy::unwrap_used)]

use super::super::endpoint::Outcome;
use super::*;
use std::collections::BinaryHeap;
use std::time::Duration;
use weft_proxy_api::policy::Protocol;

#[path = "simulation/figures.rs"]
mod figures;
#[path = "simulation/policies.rs"]
mod policies;
#[path = "simulation/subsets.rs"]
mod subsets;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn spec(n: u8) -> outbound::Endpoint {
    outbound::Endpoint {
        address: SocketAddr::from(([10, 0, 0, n], 8080)),
        identity: None,
        namespace: "shop".into(),
        pod: format!("web-{n}"),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Http1,
    }
}

fn set(n: u8) -> Arc<EndpointSet> {
    let set = EndpointSet::new("shop/web:80", Arc::default());
    set.update((0..n).map(spec).collect());
    set
}

fn except(tried: &[u64]) -> Wish<'_> {
    Wish { tried, key: None }
}

/// How an endpoint behaves: latency and whether it fails.
type Behaviour = fn(u8) -> (u64, bool);

struct Simulation {
    set: Arc<EndpointSet>,
    now: u64,
    random: fastrand::Rng,
    running: BinaryHeap<Running>,
    next: u64,
    picks: Vec<u32>,
    /// Of what ended since the last run began.
    latencies: Vec<u64>,
}

struct Running {
    ends: u64,
    order: u64,
    latency: u64,
    failed: bool,
    pick: Pick,
}

impl Simulation {
    fn new(set: Arc<EndpointSet>) -> Self {
        let random = fastrand::Rng::with_seed(7);
        Self {
            picks: vec![0; 256],
            set,
            now: SECOND,
            random,
            running: BinaryHeap::new(),
            next: 0,
            latencies: Vec::new(),
        }
    }

    /// One request every `every`, for `long`; then how often each endpoint was chosen meanwhile.
    fn run(&mut self, every: u64, long: u64, behaviour: Behaviour) -> Vec<u32> {
        self.picks.fill(0);
        self.latencies.clear();
        let end = self.now + long;
        while self.now < end {
            self.finish_due();
            self.send(behaviour);
            self.now += every;
        }
        self.picks.clone()
    }

    fn send(&mut self, behaviour: Behaviour) {
        let pick = self
            .set
            .pick_with(self.now, Wish::default(), &mut self.random)
            .unwrap();
        let n = number(pick.endpoint());
        self.picks[usize::from(n)] += 1;
        let (mean, failed) = behaviour(n);
        // Between half and one and a half of the mean.
        let latency = mean / 2 + self.random.u64(..=mean);
        self.next += 1;
        self.running.push(Running {
            ends: self.now + latency,
            order: self.next,
            latency,
            failed,
            pick,
        });
    }

    fn finish_due(&mut self) {
        while self
            .running
            .peek()
            .is_some_and(|first| first.ends <= self.now)
        {
            let Running {
                ends,
                latency,
                failed,
                pick,
                ..
            } = self.running.pop().unwrap();
            let outcome = if failed {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            self.latencies.push(latency);
            pick.in_flight
                .done_at(ends, outcome, Duration::from_nanos(latency));
        }
    }

    fn ejected(&self) -> usize {
        self.set
            .endpoints()
            .iter()
            .filter(|at| at.is_ejected())
            .count()
    }
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Running {}
impl PartialOrd for Running {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Running {
    /// The earliest end is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.ends, other.order).cmp(&(self.ends, self.order))
    }
}

fn number(endpoint: &Endpoint) -> u8 {
    match endpoint.spec.address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!(),
    }
}

fn share(picks: &[u32], n: usize) -> f64 {
    f64::from(picks[n]) / f64::from(picks.iter().sum::<u32>())
}

#[test]
fn equal_endpoints_get_equal_shares() {
    let mut simulation = Simulation::new(set(5));
    simulation.run(MS, 5 * SECOND, |_| (2 * MS, false));
    let picks = simulation.run(MS, 60 * SECOND, |_| (2 * MS, false));
    for n in 0..5 {
        let share = share(&picks, n);
        assert!((0.12..0.28).contains(&share), "{n}: {share}");
    }
}

#[test]
fn a_slow_endpoint_among_ten_gets_little() {
    let mut simulation = Simulation::new(set(10));
    let slow: Behaviour = |n| (if n == 0 { 20 * MS } else { 2 * MS }, false);
    simulation.run(MS, 5 * SECOND, slow);
    let picks = simulation.run(MS, 30 * SECOND, slow);
    assert!(share(&picks, 0) < 0.03, "{}", share(&picks, 0));
    assert!(picks[0] > 0, "it is tried again now and then");
}

#[test]
fn a_failing_endpoint_is_set_aside_within_ten_requests() {
    // One request at a time and all equally fast: failing must not attract. Alone the penalty would starve it, and
    // a starved endpoint is as good as one set aside.
    let mut simulation = Simulation::new(set(5));
    simulation.run(MS, 5 * SECOND, |_| (MS, false));
    let picks = simulation.run(MS, 30 * SECOND, |n| {
        (if n == 3 { MS / 10 } else { MS }, n == 3)
    });
    assert!(picks[3] <= 10, "{} requests lost", picks[3]);
    assert!(simulation.ejected() <= 1, "only the failing one");
}

#[test]
fn a_failing_endpoint_comes_back_when_it_is_well() {
    let mut simulation = Simulation::new(set(5));
    simulation.run(MS, 30 * SECOND, |n| (MS, n == 3));
    simulation.run(MS, 90 * SECOND, |_| (MS, false));
    assert_eq!(simulation.ejected(), 0);
    let picks = simulation.run(MS, 30 * SECOND, |_| (MS, false));
    assert!(share(&picks, 3) > 0.1, "{}", share(&picks, 3));
}

#[test]
fn if_all_fail_half_are_kept() {
    for (n, most) in [(1, 0), (2, 1), (3, 1), (5, 2), (10, 5)] {
        let mut simulation = Simulation::new(set(n));
        for _ in 0..300 {
            simulation.run(MS, SECOND / 10, |_| (MS, true));
            assert!(
                simulation.ejected() <= most,
                "{n} endpoints, {} ejected",
                simulation.ejected()
            );
        }
        assert_eq!(simulation.set.health.ejected(), simulation.ejected(), "{n}");
        let picks = simulation.run(MS, SECOND, |_| (MS, true));
        assert_eq!(picks.iter().sum::<u32>(), 1000, "there is always an answer");
    }
}

#[test]
fn a_frozen_endpoint_holds_few_requests() {
    let mut simulation = Simulation::new(set(3));
    simulation.run(3 * MS, 10 * SECOND, |_| (2 * MS, false));
    let picks = simulation.run(3 * MS, 30 * SECOND, |n| {
        (if n == 1 { 3_600 * SECOND } else { 2 * MS }, false)
    });
    assert!(picks[1] <= 4, "{} requests stuck", picks[1]);
}

#[test]
fn a_connection_that_is_up_proves_its_endpoint_before_it_ends() {
    let set = set(2);
    let (now, latency) = (SECOND, Duration::from_millis(1));
    let fail = || {
        set.endpoints()[0]
            .begin(now, false)
            .done_at(now, Outcome::ConnectFailure, latency)
    };
    (0..5).for_each(|_| fail());
    assert!(set.endpoints()[0].is_ejected());
    let mut up: Vec<Pick> = Vec::new();
    for second in 2..4 {
        let mut pick = set
            .pick(second * SECOND, except(&[set.endpoints()[1].id]))
            .unwrap();
        pick.in_flight.succeeded(latency);
        up.push(pick);
    }
    assert!(!set.endpoints()[0].is_ejected() && set.health.ejected() == 0);
    assert_eq!(
        set.endpoints()[0].in_flight(),
        2,
        "but it still carries them"
    );
    drop(up);
    assert_eq!(set.endpoints()[0].in_flight(), 0);
}

#[test]
fn long_answers_are_not_silence() {
    let set = set(1);
    let endpoint = set.endpoints()[0].clone();
    endpoint
        .begin(SECOND, false)
        .done_at(SECOND, Outcome::Success, Duration::from_millis(1));
    let mut long = endpoint.begin(SECOND, false);
    let waiting = endpoint.load(3 * SECOND);
    long.answered_at(3 * SECOND, Duration::from_millis(1));
    assert!(
        waiting >= 4e9 && endpoint.load(9 * SECOND) < 3e6,
        "{waiting} {}",
        endpoint.load(9 * SECOND)
    );
}

#[test]
fn weights_shift_load() {
    let set = EndpointSet::new("shop/web:80", Arc::default());
    set.update(vec![
        spec(0),
        outbound::Endpoint {
            weight: 3,
            ..spec(1)
        },
    ]);
    let mut simulation = Simulation::new(set);
    // Busy enough that queues tell.
    let picks = simulation.run(MS, 20 * SECOND, |_| (50 * MS, false));
    assert!(
        (0.65..0.85).contains(&share(&picks, 1)),
        "{}",
        share(&picks, 1)
    );
}

#[test]
fn a_retry_goes_elsewhere_while_there_is_elsewhere() {
    let set = set(3);
    let ids: Vec<u64> = set.endpoints().iter().map(|at| at.id).collect();
    for _ in 0..50 {
        assert_eq!(
            set.pick(1, except(&ids[..2])).unwrap().endpoint().id,
            ids[2]
        );
    }
    assert!(set.pick(1, except(&ids)).is_ok());
    assert!(
        EndpointSet::new("empty", Arc::default())
            .pick(1, Wish::default())
            .is_err()
    );
}

#[test]
fn what_is_described_as_before_survives_an_update() {
    let set = set(3);
    let before = set.endpoints();
    set.update(vec![spec(2), spec(1), spec(7)]);
    let after = set.endpoints();
    assert!(Arc::ptr_eq(&before[2], &after[0]) && Arc::ptr_eq(&before[1], &after[1]));
    assert!(before[0].is_gone() && !before[1].is_gone());
    set.update(vec![outbound::Endpoint {
        workload: "deploy/other".into(),
        ..spec(1)
    }]);
    assert!(before[1].is_gone() && !Arc::ptr_eq(&before[1], &set.endpoints()[0]));
}

#[test]
fn a_set_that_shrinks_keeps_half() {
    let mut simulation = Simulation::new(set(6));
    simulation.run(MS, 20 * SECOND, |n| (MS, n < 3));
    let aside: Vec<_> = simulation
        .set
        .endpoints()
        .iter()
        .filter(|at| at.is_ejected())
        .map(|at| at.spec.clone())
        .collect();
    simulation.set.update(aside.clone());
    assert!(simulation.ejected() <= aside.len() / 2);
    assert_eq!(simulation.set.health.ejected(), simulation.ejected());
}

#[tokio::test]
async fn a_set_is_known_once_discovery_spoke_even_of_nothing() {
    let set = EndpointSet::new("shop/web:80", Arc::default());
    let waiting = tokio::spawn({
        let set = set.clone();
        async move { set.known().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    set.update(Vec::new());
    waiting.await.unwrap();
    assert!(set.is_known() && set.is_empty() && set.pick(1, Wish::default()).is_err());
}
