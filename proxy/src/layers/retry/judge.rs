//! Which answers are asked for again, and after what wait.

use crate::error::{Error, ErrorKind};
use crate::http::outcome::ResponseHead;
use crate::http::{Request, Response, is_grpc};
use crate::policy::terms::Allowed;
use std::task::Context;
use std::time::Duration;
use weft_proxy_api::policy::settings::Retry;

/// Judges the answers to one request.
pub(super) struct Judge {
    retry: Retry,
    allowed: Allowed,
    grpc: bool,
}

impl Judge {
    /// `None`: no answer to this request is asked for again.
    pub(super) fn new(retry: &Retry, request: &Request) -> Option<Self> {
        Some(Self {
            allowed: Allowed::of(retry, request)?,
            grpc: is_grpc(request.headers()),
            retry: retry.clone(),
        })
    }

    /// Is an answer asked for again? What has no gRPC code in its head is judged by its trailers if they are there
    /// already; nothing waits for them, as a stream may have nothing to say for long.
    pub(super) fn answer(&self, response: &mut Response, cx: &mut Context<'_>) -> bool {
        let head = ResponseHead::of(response);
        if self.allowed.status && self.retry.has_status(response.status().as_u16()) {
            return true;
        }
        if !self.allowed.grpc || !head.is_grpc() {
            return false;
        }
        let code = head.grpc().or_else(|| response.body_mut().peek_grpc(cx));
        code.is_some_and(|code| self.retry.has_grpc(code.into()))
    }

    /// Is a failure asked for again, as if the service had answered what the client is about to get?
    pub(super) fn error(&self, error: &Error) -> bool {
        use ErrorKind::{FaultInjected, ResponseTimeout};
        let judged = error.is_upstream() || error.kind() == FaultInjected;
        if !judged || error.kind() == ResponseTimeout {
            return false;
        }
        if self.grpc {
            self.allowed.grpc && self.retry.has_grpc(error.grpc_status().into())
        } else {
            self.allowed.status && self.retry.has_status(error.status().as_u16())
        }
    }
}

/// The wait before the next try, `done` of which went before: doubled each time, and shortened at random to half of it at
/// most, so that clients do not come back all at once.
pub(super) fn backoff(retry: &Retry, done: u32) -> Duration {
    let whole = retry
        .backoff
        .saturating_mul(1_u32.checked_shl(done).unwrap_or(u32::MAX))
        .min(retry.max_backoff);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}
