//! Figures that are measured in ways of their own.

use harness::balancing::{self, Asked, PROMPT};
use harness::upgrade;

/// One of them.
pub(crate) struct Other {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) promise: &'static str,
    /// Figures, and whether the promise is kept. Longer where it is asked for.
    pub(crate) run: fn(bool) -> anyhow::Result<(String, bool)>,
}

pub(crate) const ALL: &[Other] = &[
    Other {
        name: "slow",
        what: "one endpoint of ten becomes ten times slower (20 ms, 200 ms), 100 requests/s",
        promise: "less than 3 % of the requests after the first second go to it, p99 of the client < 200 ms",
        run: |full| {
            let slow = balancing::slow_of_ten(Asked {
                seconds: if full { 60 } else { 20 },
                connections: 32,
                slow: balancing::SLOW,
                patience: PROMPT,
            })?;
            let share = slow.to_slow as f64 * 100.0 / slow.requests as f64;
            Ok((
                format!(
                    "{} of {} requests ({share:.2} %), p99 of the client {} ms",
                    slow.to_slow, slow.requests, slow.p99
                ),
                share < 3.0 && slow.p99 < balancing::SLOW,
            ))
        },
    },
    Other {
        name: "failing",
        what: "one endpoint of five begins to answer 500; retries on",
        promise: "set aside within 10 requests, >= 99.9 % answered well",
        run: |full| {
            let seen = balancing::failing_of_five(if full { 60 } else { 20 }, PROMPT)?;
            let percent = seen.good as f64 * 100.0 / seen.requests as f64;
            Ok((
                format!(
                    "set aside after {} requests; {} of {} answered well ({percent:.2} %)",
                    seen.before_ejection, seen.good, seen.requests
                ),
                seen.before_ejection <= 10 && percent >= 99.9,
            ))
        },
    },
    Other {
        name: "all-failing",
        what: "all five endpoints answer 500; retries on, budget 20 % + 10/s",
        promise: "tries within the budget, failures told at once (p99 <= 1 s)",
        run: |full| {
            let seen = balancing::all_of_five(if full { 60 } else { 20 }, PROMPT)?;
            Ok((
                format!(
                    "{} tries for {} requests in {} s (at most {}), p99 {} ms",
                    seen.served,
                    seen.requests,
                    seen.seconds,
                    seen.most(),
                    seen.p99
                ),
                seen.served <= seen.most() && seen.p99 <= 1000,
            ))
        },
    },
    Other {
        name: "upgrade",
        what: "ten hot upgrades of both proxies under load (kept connections, new ones, HTTP/2), a long stream open",
        promise: "no request lost, the stream goes on",
        run: |_| {
            let all = upgrade::ten()?;
            let figures: Vec<String> = all
                .iter()
                .map(|seen| {
                    format!(
                        "{}: {} of {} lost on {} connections",
                        seen.kind, seen.failures, seen.requests, seen.connections
                    )
                })
                .collect();
            let kept = all.iter().all(|seen| seen.failures == 0);
            Ok((figures.join("; "), kept))
        },
    },
];
