//! Which endpoint answers: power of two choices over peak-EWMA, with failing endpoints set aside. Endpoint sets are
//! snapshots written by discovery only; a request reads two endpoints' atomics and takes no lock.

pub mod breaker;
pub mod endpoint;
pub mod ewma;
pub mod p2c;

pub use endpoint::{Endpoint, InFlight, Outcome};
pub use p2c::{EndpointSet, Pick};

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
