//! Which part of a large Service a client uses, how wide that is, and how even many of them are together.

use super::policies::{at, eject, many, with};
use super::*;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// A set of its own for one of many clients.
fn of_client(client: u32, balancer: &Balancer, all: &[outbound::Endpoint]) -> Arc<EndpointSet> {
    let place = Place::new("", &format!("shop/client-{client}"));
    let set = EndpointSet::placed("shop/web:80", Arc::default(), place, Arc::default());
    set.configure(balancer, Ejection::default());
    set.update(all.to_vec());
    set
}

/// Prints how even the load is that many clients, each with a subset of its own, put on a large Service.
#[test]
fn subsets_of_many_clients_spread_evenly() {
    println!("clients  endpoints  subset  max/mean load  endpoints asked by one worker");
    for (clients, endpoints, subset) in [(50, 100, 20), (200, 100, 20), (100, 1000, 20)] {
        let all = many(endpoints, |_| "");
        let mut load = HashMap::<SocketAddr, u32>::new();
        let mut widest = 0;
        for client in 0..clients {
            let balancer = Balancer {
                subset,
                ..Balancer::default()
            };
            let set = of_client(client, &balancer, &all);
            let mut asked = HashSet::new();
            for _ in 0..200 {
                let pick = set.pick(SECOND, Wish::default()).unwrap();
                asked.insert(at(&pick));
                *load.entry(at(&pick)).or_default() += 1;
                pick.in_flight
                    .done_at(SECOND, Outcome::Success, Duration::from_millis(1));
            }
            widest = widest.max(asked.len());
        }
        let mean = f64::from(clients * 200) / f64::from(endpoints);
        let uneven = f64::from(*load.values().max().unwrap()) / mean;
        println!("{clients:7}  {endpoints:9}  {subset:6}  {uneven:13.2}  {widest}");
        assert!(widest <= subset as usize, "{widest}");
        // Chosen independently, a subset more or less of few decides: of a thousand endpoints with two each in the mean,
        // one in a hundred runs has one with eleven. Nine deviations are as good as never.
        let bound = 1.0 + 9.0 / (f64::from(clients * subset) / f64::from(endpoints)).sqrt();
        assert!(uneven < bound, "{uneven} {bound}");
    }
}

/// Prints how wide subsets are and how even the load is, when clients have so many requests under way.
#[test]
fn a_subset_is_as_wide_as_its_load_asks_for() {
    println!(
        "clients  endpoints  under way of each client  endpoints it uses  max/mean load  most on one endpoint"
    );
    for (clients, endpoints, held) in [
        (50, 100, 10),
        (50, 100, 40),
        (50, 100, 200),
        (50, 1000, 10),
        (50, 1000, 100),
        (50, 1000, 400),
    ] {
        let all = many(endpoints, |_| "");
        let mut load = HashMap::<SocketAddr, u32>::new();
        let mut widest = 0;
        for client in 0..clients {
            let set = of_client(client, &Balancer::default(), &all);
            for endpoint in set.endpoints() {
                let known = endpoint.begin(SECOND, false);
                known.done_at(SECOND, Outcome::Success, Duration::from_millis(1));
            }
            let mut under_way = VecDeque::new();
            let pick = || set.pick(SECOND, Wish::default()).unwrap();
            for _ in 0..held {
                under_way.push_back(pick());
            }
            // Long enough for it to become as wide as it has to be.
            for _ in 0..20 * held {
                under_way.push_back(pick());
                let done = under_way.pop_front().unwrap().in_flight;
                done.done_at(SECOND, Outcome::Success, Duration::from_millis(1));
            }
            let used: HashSet<_> = under_way.iter().map(at).collect();
            widest = widest.max(used.len());
            for pick in &under_way {
                *load.entry(at(pick)).or_default() += 1;
            }
        }
        let mean = f64::from(clients * held) / f64::from(endpoints);
        let most = *load.values().max().unwrap();
        let uneven = f64::from(most) / mean;
        println!("{clients:7}  {endpoints:9}  {held:24}  {widest:17}  {uneven:13.2}  {most}");
        // As uneven as so many requests would be that choose by themselves, or less.
        let bound = mean + 6.0 * mean.sqrt() + 2.0;
        assert!(f64::from(most) < bound, "{most} {bound}");
        assert!(widest <= (4 * held as usize).max(20), "{widest}");
    }
}

#[test]
fn a_subset_narrows_when_it_has_long_been_quiet() {
    let set = with(many(1000, |_| ""), &Balancer::default());
    let held: Vec<_> = (0..400)
        .map(|_| set.pick(SECOND, Wish::default()).unwrap())
        .collect();
    let asked = |now: u64| -> HashSet<SocketAddr> {
        let ask = |_| {
            let pick = set.pick(now, Wish::default()).unwrap();
            let address = at(&pick);
            let latency = Duration::from_millis(1);
            pick.in_flight.done_at(now, Outcome::Success, latency);
            address
        };
        (0..4000).map(ask).collect()
    };
    drop(held);
    assert!(asked(2 * SECOND).len() > 200, "a lull does not count");
    (1..8).for_each(|round| drop(asked((2 + 11 * round) * SECOND)));
    assert!(asked(90 * SECOND).len() <= 20);
}

#[test]
fn a_subset_is_filled_up_when_somebody_goes() {
    let all = many(100, |_| "");
    let set = with(all.clone(), &Balancer::default());
    let asked = |set: &EndpointSet| -> BTreeSet<SocketAddr> {
        (0..2000)
            .map(|_| at(&set.pick(SECOND, Wish::default()).unwrap()))
            .collect()
    };
    let before = asked(&set);
    assert_eq!(before.len(), 20);
    let gone = *before.first().unwrap();
    set.update(
        all.iter()
            .filter(|at| at.address != gone)
            .cloned()
            .collect(),
    );
    let after = asked(&set);
    assert_eq!(after.len(), 20);
    assert!(
        after.difference(&before).count() <= 1 + 1,
        "the others stay"
    );
    let whole = Balancer {
        subset: 0,
        ..Balancer::default()
    };
    set.configure(&whole, Ejection::default());
    assert!(asked(&set).len() > 90, "0 is all");
}

#[test]
fn a_subset_that_is_set_aside_borrows_from_the_whole() {
    let all = many(100, |_| "");
    let set = with(all, &Balancer::default());
    let mut found = HashSet::new();
    for _ in 0..2000 {
        let pick = set.pick(SECOND, Wish::default()).unwrap();
        found.insert(pick.endpoint().id);
    }
    let subset = set
        .endpoints()
        .into_iter()
        .filter(|at| found.contains(&at.id));
    subset.for_each(|at| eject(&at, SECOND));
    let pick = set.pick(SECOND, Wish::default()).unwrap();
    assert!(!found.contains(&pick.endpoint().id));
}
