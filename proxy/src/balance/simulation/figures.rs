//! The figures that the balancer is held to, printed: `cargo test -p weft-proxy --lib figures -- --nocapture`.

use super::*;

fn percentile(mut latencies: Vec<u64>, percent: usize) -> f64 {
    latencies.sort_unstable();
    let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
    latencies[at] as f64 / MS as f64
}

#[test]
fn figures_one_of_five_fails() {
    println!("one of five fails from a moment on, 60 s at 1000/s:");
    println!("latency of the failure  requests it got  before it was set aside");
    for latency in [MS / 10, MS, 20 * MS] {
        let mut simulation = Simulation::new(set(5));
        simulation.run(MS, 10 * SECOND, |_| (2 * MS, false));
        let behaviour: Behaviour = match latency {
            20_000_000 => |n| (if n == 3 { 20 * MS } else { 2 * MS }, n == 3),
            1_000_000 => |n| (if n == 3 { MS } else { 2 * MS }, n == 3),
            _ => |n| (if n == 3 { MS / 10 } else { 2 * MS }, n == 3),
        };
        let (mut first, mut all) = (0, 0);
        for _ in 0..60_000 {
            all += simulation.run(MS, MS, behaviour)[3];
            if simulation.ejected() == 0 {
                first = all;
            }
        }
        println!("{:19} ms  {all:15}  {first}", latency as f64 / MS as f64);
        assert!(first <= 10 && all <= 60, "{first} {all}");
    }
}

#[test]
fn figures_one_of_ten_is_slow() {
    let mut simulation = Simulation::new(set(10));
    simulation.run(MS, 10 * SECOND, |_| (2 * MS, false));
    let slow: Behaviour = |n| (if n == 4 { 20 * MS } else { 2 * MS }, false);
    let first = simulation.run(MS, SECOND, slow);
    let later = simulation.run(MS, 60 * SECOND, slow);
    let p99 = percentile(simulation.latencies.clone(), 99);
    println!("one of ten becomes ten times slower (2 ms, 20 ms), at 1000/s:");
    println!(
        "  its share in the first second  {:.1} %",
        share(&first, 4) * 100.0
    );
    println!(
        "  its share in the next minute   {:.1} %",
        share(&later, 4) * 100.0
    );
    println!("  p99 of the client              {p99:.1} ms");
    assert!(share(&later, 4) < 0.03 && p99 < 20.0);
}

#[test]
fn figures_one_of_three_freezes() {
    println!("one of three is frozen, at so many requests per second:");
    println!("rate  requests stuck in 30 s  p99 of the others");
    for every in [MS / 2, MS, 10 * MS] {
        let mut simulation = Simulation::new(set(3));
        simulation.run(every, 10 * SECOND, |_| (2 * MS, false));
        let frozen: Behaviour = |n| (if n == 1 { 3_600 * SECOND } else { 2 * MS }, false);
        let picks = simulation.run(every, 30 * SECOND, frozen);
        let p99 = percentile(simulation.latencies.clone(), 99);
        println!("{:4}  {:22}  {p99:.1} ms", SECOND / every, picks[1]);
        assert!(picks[1] <= 16 && p99 < 10.0, "{} {p99}", picks[1]);
    }
}

#[test]
fn figures_what_a_pick_costs() {
    println!("a pick and its end, nanoseconds (a debug build tells only how they compare):");
    for n in [1, 3, 10, 20, 100] {
        let set = EndpointSet::new("shop/web:80", Arc::default());
        set.update((0..n).map(spec).collect());
        let mut random = fastrand::Rng::with_seed(7);
        let rounds = 20_000;
        let start = std::time::Instant::now();
        for round in 0..rounds {
            let now = SECOND + round * MS;
            let pick = set.pick_with(now, Wish::default(), &mut random).unwrap();
            pick.in_flight
                .done_at(now, Outcome::Success, Duration::from_millis(1));
        }
        let each = start.elapsed().as_nanos() / u128::from(rounds);
        println!("{n:4} endpoints  {each}");
    }
}
