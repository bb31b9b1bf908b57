//! For how long an endpoint asks to be left alone: `Retry-After` (RFC 9110 §10.2.3) with 429 and 503, and
//! `grpc-retry-pushback-ms` (gRPC A6) with the codes that mean the same. Pure.

use super::outcome::ResponseHead;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use std::time::{Duration, SystemTime};

/// What a response asks for with its head.
pub fn of(head: &ResponseHead, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    of_grpc(head.grpc, headers).or_else(|| of_head(head.status, headers, now))
}

fn of_head(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !matches!(status, 429 | 503) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // What is too long for a number is as long as can be; the balancer has a limit of its own.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    until.duration_since(now).ok()
}

/// What the trailers of a gRPC call (or its only head) ask for. A negative number is about retries, not about waiting.
pub(super) fn of_grpc(code: Option<u8>, fields: &HeaderMap) -> Option<Duration> {
    // RESOURCE_EXHAUSTED, UNAVAILABLE
    if !matches!(code, Some(8 | 14)) {
        return None;
    }
    let text = fields.get("grpc-retry-pushback-ms")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let rows = [
            (503, "5", Some(5)),
            (429, " 120 ", Some(120)),
            (429, "99999999999999999999999", Some(u64::MAX)),
            (503, "Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            (503, "Sun, 06 Nov 1994 08:48:37 GMT", None),
            (503, "-5", None),
            (503, "", None),
            (503, "soon", None),
            (500, "5", None),
            (200, "5", None),
        ];
        for (status, value, expected) in rows {
            let found = of_head(status, &fields("retry-after", value), now);
            assert_eq!(found.map(|d| d.as_secs()), expected, "{status} {value:?}");
        }
        assert_eq!(of_head(503, &HeaderMap::new(), now), None);
    }

    #[test]
    fn grpc_says_it_in_milliseconds() {
        let rows = [
            (Some(14), "1500", Some(1500)),
            (Some(8), "0", Some(0)),
            (Some(8), "-1", None),
            (Some(0), "1500", None),
            (None, "1500", None),
            (Some(8), "x", None),
        ];
        for (code, value, expected) in rows {
            let found = of_grpc(code, &fields("grpc-retry-pushback-ms", value));
            assert_eq!(
                found,
                expected.map(Duration::from_millis),
                "{code:?} {value}"
            );
        }
    }
}
