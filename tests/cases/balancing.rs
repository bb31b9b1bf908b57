//! The balancer before slow and failing endpoints, judged by counts; `faults slow failing all-failing` judges latencies, too.

use crate::Case;
use anyhow::{bail, ensure};
use harness::balancing::{self, Asked, PATIENT};

pub(crate) const CASES: &[Case] = &[
    ("a_slow_endpoint_of_ten_gets_little", &["curl"], slow),
    (
        "a_failing_endpoint_of_five_is_set_aside_and_nobody_notices",
        &["curl"],
        failing,
    ),
    (
        "if_all_five_fail_tries_stay_within_the_budget",
        &["curl"],
        all,
    ),
];

fn slow() -> anyhow::Result<()> {
    let mut all = Vec::new();
    // Whatever waits while the machine stands still looks slow, too: then it is judged by another look. By chance, without a
    // balancer that knows better, a tenth would go there.
    for _ in 0..5 {
        // Slow beyond what a busy machine adds to every request, and few at once: the difference stays to be seen.
        let seen = balancing::slow_of_ten(Asked {
            seconds: 6,
            connections: 8,
            slow: 1000,
            patience: PATIENT,
        })?;
        println!("{seen:?}");
        if (seen.to_slow as f64) < 0.03 * seen.requests as f64 {
            return Ok(());
        }
        all.push(seen);
    }
    bail!("{all:?}")
}

fn failing() -> anyhow::Result<()> {
    let seen = balancing::failing_of_five(10, PATIENT)?;
    println!("{seen:?}");
    ensure!(seen.before_ejection <= 10, "{seen:?}");
    ensure!(seen.good * 1000 >= seen.requests * 999, "{seen:?}");
    Ok(())
}

fn all() -> anyhow::Result<()> {
    let seen = balancing::all_of_five(10, PATIENT)?;
    println!("{seen:?}");
    ensure!(seen.served <= seen.most(), "{seen:?}");
    Ok(())
}
