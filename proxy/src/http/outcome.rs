//! How a request went, as its answer says: by status, by gRPC code in head or trailers, and by how the body ended. Pure.

use super::body::End;
use crate::balance::Outcome;
use crate::error::{Error, ErrorKind};
use crate::metrics::Code;
use http::HeaderMap;
use http::header::HeaderValue;

/// The gRPC code of who has too much to do.
const RESOURCE_EXHAUSTED: u8 = 8;

/// A gRPC call that ends without a status ended with UNKNOWN, by gRPC's own rules.
pub(super) fn code(status: u16, is_grpc: bool, grpc: Option<u8>) -> Code {
    match grpc {
        Some(code) if status == 200 => Code::Grpc(code),
        None if is_grpc && status == 200 => Code::Grpc(2),
        _ => Code::Http(status),
    }
}

pub(super) fn broken(is_grpc: bool) -> Code {
    if is_grpc {
        Code::Grpc(14)
    } else {
        Code::Http(502)
    }
}

/// The time of an answer was up before its end.
pub(super) fn late(is_grpc: bool) -> Code {
    if is_grpc {
        Code::Grpc(4)
    } else {
        Code::Http(504)
    }
}

/// How a body has ended that failed so. An answer that its own request took along is nobody's failure but the client's.
pub(super) fn end_of(error: &Error) -> End {
    match error.kind() {
        ErrorKind::ClientGone | ErrorKind::BadRequest => End::Dropped,
        ErrorKind::RequestTimeout | ErrorKind::IdleTimeout => End::Late,
        _ => End::Broken,
    }
}

pub(super) fn final_outcome(head: Outcome, grpc: Option<u8>, end: End) -> Outcome {
    match (end, grpc) {
        // Whoever has little time says nothing about the endpoint; long streams end this way, too.
        (End::Dropped | End::Late, _) if head == Outcome::Success => Outcome::Cancelled,
        (End::Broken, _) => Outcome::Failure,
        (_, Some(code)) if grpc_failed(code) => Outcome::Failure,
        (_, Some(RESOURCE_EXHAUSTED)) if head == Outcome::Success => Outcome::Busy,
        _ => head,
    }
}

/// gRPC codes that count against the endpoint.
pub fn grpc_failed(code: u8) -> bool {
    matches!(code, 2 | 4 | 7 | 13 | 14 | 15)
}

pub(super) fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get("grpc-status").map(HeaderValue::as_bytes)?;
    // What is not a number is "unknown".
    Some(
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(2),
    )
}

/// What the head of a response says about how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    pub(super) status: u16,
    pub(super) is_grpc: bool,
    pub(super) grpc: Option<u8>,
}

impl ResponseHead {
    /// Reads it.
    pub fn of(response: &super::Response) -> Self {
        let is_grpc = super::is_grpc(response.headers());
        let grpc = if is_grpc {
            grpc_status(response.headers())
        } else {
            None
        };
        Self {
            status: response.status().as_u16(),
            is_grpc,
            grpc,
        }
    }

    /// Is it an answer to a gRPC call?
    pub(crate) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Its gRPC code, where the head has one.
    pub(crate) fn grpc(&self) -> Option<u8> {
        self.grpc
    }

    /// Is it one with which an endpoint may ask to be left alone for a while?
    pub fn may_push_back(&self) -> bool {
        matches!(self.status, 429 | 503) || self.grpc.is_some_and(|code| code != 0)
    }

    /// What is known before the body.
    pub fn outcome(&self) -> Outcome {
        let failed = self.status >= 500 || self.grpc.is_some_and(grpc_failed);
        if failed {
            Outcome::Failure
        } else if self.status == 429 || self.grpc == Some(RESOURCE_EXHAUSTED) {
            Outcome::Busy
        } else {
            Outcome::Success
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_breaks_off_is_not_the_failure_of_who_answers() {
        use ErrorKind::*;
        for (kind, end, outcome) in [
            (UpstreamReset, End::Broken, Outcome::Failure),
            (UpstreamProtocol, End::Broken, Outcome::Failure),
            (Internal, End::Broken, Outcome::Failure),
            (ClientGone, End::Dropped, Outcome::Cancelled),
            (BadRequest, End::Dropped, Outcome::Cancelled),
            (RequestTimeout, End::Late, Outcome::Cancelled),
            (IdleTimeout, End::Late, Outcome::Cancelled),
        ] {
            let found = end_of(&Error::new(kind));
            assert_eq!(found, end, "{kind:?}");
            assert_eq!(final_outcome(Outcome::Success, None, found), outcome);
        }
    }
}
