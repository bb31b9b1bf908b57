//! Which endpoint answers, with failing endpoints set aside. Endpoint sets are snapshots written by discovery only; a request
//! reads two endpoints' atomics and takes no lock.
//!
//! | file | what it decides |
//! |---|---|
//! | `set.rs` | what a set is, and what survives its updates |
//! | `layout.rs` | a set laid out once for picking: zones, subsets, weights |
//! | `subset.rs` | how much of a large set one worker keeps to |
//! | `group.rs` | one endpoint of a group, by policy: power of two choices, in turn, by key |
//! | `ring.rs` | which endpoints belong to a key |
//! | `endpoint.rs` | what is known about one endpoint |
//! | `ewma.rs` | how slow it is |
//! | `breaker.rs` | when it is set aside and comes back |
//! | `health.rs` | how many may be set aside |
//! | `limits.rs` | how much is asked of a Service at once |

pub mod breaker;
pub mod endpoint;
pub mod ewma;
mod group;
mod health;
mod layout;
pub mod limits;
mod ring;
pub mod set;
mod subset;

pub use endpoint::{Endpoint, InFlight, Outcome};
pub use layout::Place;
pub use limits::{Limit, Limits};
pub use ring::{key_of, key_of_ip};
pub use set::{EndpointSet, Pick, Refusal, Wish};

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds of a monotonic clock, since the first call. What balancing calls `now`.
pub fn now() -> u64 {
    at(Instant::now())
}

/// A moment that was read from the clock already, in the same terms.
pub fn at(moment: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| moment);
    // Never 0, which stands for "never" in the atomics.
    u64::try_from(moment.saturating_duration_since(start).as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}
