//! How small and large a setting may be: what the controller accepts from people, and a proxy from the controller.

use std::ops::RangeInclusive;

/// A time that is a limit or a wait, milliseconds: up to a day.
pub const TIME_MS: RangeInclusive<u32> = 1..=86_400_000;
/// Tries beyond the first.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=10;
/// HTTP statuses that may be asked for again or answered on purpose: those that end an exchange.
pub const STATUS: RangeInclusive<u32> = 200..=599;
/// gRPC codes that are failures.
pub const GRPC_CODE: RangeInclusive<u32> = 1..=16;
/// Most ranges of statuses.
pub const MAX_STATUSES: usize = 32;
/// Most methods named.
pub const MAX_METHODS: usize = 16;
/// Tries beyond the first, per hundred requests.
pub const BUDGET_PERCENT: RangeInclusive<u32> = 0..=1_000;
/// Numbers of requests, connections, failures or endpoints.
pub const COUNT: RangeInclusive<u32> = 1..=1_000_000;
/// A share in hundredths.
pub const PERCENT: RangeInclusive<u32> = 0..=100;
/// Time over which successes are counted, milliseconds.
pub const WINDOW_MS: RangeInclusive<u32> = 1_000..=600_000;
/// Most zones to fail over to.
pub const MAX_ZONES: usize = 32;
/// Time in which the requests of a rate limit are counted, milliseconds: up to an hour. With [`COUNT`] requests at most, the
/// distance between two of them is at least a nanosecond, and that of a whole burst fits 63 bits of nanoseconds.
pub const PER_MS: RangeInclusive<u32> = 1..=3_600_000;
/// Most rules of one Service, and rate limits of one workload.
pub const MAX_RULES: usize = 256;

/// The bits of a mask of gRPC codes that stand for failures.
pub const fn grpc_mask() -> u32 {
    // Bits 1 to 16.
    (1 << (*GRPC_CODE.end() + 1)) - (1 << *GRPC_CODE.start())
}

/// Is it a token (RFC 9110 §5.6.2), as names of cookies must be?
pub fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}
