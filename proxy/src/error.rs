//! What can fail on the way of a request or connection, on whose side, and whether trying again may help. The table of
//! codes, statuses and texts is `weft_proxy_api::errors`; this is the value that travels up the stack to `respond`.

use crate::balance::Limit;
use crate::http::{Attribution, Request};
use crate::policy::BackendPlan;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
pub use weft_proxy_api::errors::ErrorKind;

/// Any error below ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure: what kind, what is known about it, and what it was made of.
pub struct Error {
    kind: ErrorKind,
    replay: Replay,
    own_delay: bool,
    detail: Option<Cow<'static, str>>,
    source: Option<BoxError>,
    request: Option<Box<Request>>,
    attribution: Option<Attribution>,
    endpoint: Option<u64>,
    backend: Option<Arc<BackendPlan>>,
    /// HTTP status and gRPC code instead of the table's.
    answer: Option<(http::StatusCode, u8)>,
    retry_after: Option<std::time::Duration>,
    denied_by: Option<Box<http::HeaderValue>>,
}

/// A failure as all are told who waited for the same attempt.
#[derive(Debug, Clone)]
pub struct Told {
    kind: ErrorKind,
    own_delay: bool,
    detail: String,
}

impl Told {
    /// What failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind,
            own_delay: error.own_delay,
            detail: error.to_string(),
        }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Self {
        Self {
            own_delay: told.own_delay,
            ..Error::new(told.kind).with_detail(told.detail)
        }
    }
}

/// May the request be sent again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replay {
    /// It may have been processed.
    No,
    /// It was probably not processed; sending it again is right if that does no harm.
    IfIdempotent,
    /// It was certainly processed by nobody.
    Always,
}

impl Error {
    /// A failure of this kind. What never leaves this proxy is known to be unprocessed.
    pub fn new(kind: ErrorKind) -> Self {
        let replay = if unprocessed(kind) {
            Replay::Always
        } else {
            Replay::No
        };
        Self {
            kind,
            replay,
            own_delay: false,
            detail: None,
            source: None,
            request: None,
            attribution: None,
            endpoint: None,
            backend: None,
            answer: None,
            retry_after: None,
            denied_by: None,
        }
    }

    /// Answered with these instead of the status and the gRPC code of the table.
    pub fn answered_with(mut self, status: http::StatusCode, grpc: u8) -> Self {
        self.answer = Some((status, grpc));
        self
    }

    /// Which rule, identity and object decided, for a client that may know.
    pub fn denied_by(mut self, words: http::HeaderValue) -> Self {
        self.denied_by = Some(Box::new(words));
        self
    }

    /// Takes out what the client is told about who decided.
    pub fn take_denied_by(&mut self) -> Option<http::HeaderValue> {
        self.denied_by.take().map(|words| *words)
    }

    /// Worth trying again after this time.
    pub fn worth_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// After what time it is worth trying again, if that is known.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        self.retry_after
    }

    /// The breaker of the Service is open: as much is under way as this limit allows.
    pub fn breaker_open(limit: Limit) -> Self {
        Self::new(ErrorKind::BreakerOpen).with_detail(match limit {
            Limit::Connections => {
                "as many connections to the service are open as its breaker allows"
            }
            Limit::Pending => {
                "as many requests to the service wait for a connection as its breaker allows"
            }
            Limit::Requests => {
                "as many requests to the service are under way as its breaker allows"
            }
        })
    }

    /// With the error it was made of.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With a sentence for the client, instead of the table's meaning.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With the request itself, which nobody has read from: it can be sent again as it is.
    pub fn with_request(mut self, request: Request) -> Self {
        self.request = Some(Box::new(request));
        self
    }

    /// The peer said that it did not process the request (REFUSED_STREAM, GOAWAY), or it was never written.
    pub fn never_processed(mut self) -> Self {
        self.replay = Replay::Always;
        self
    }

    /// It was written to a connection that had been idle and was closed instead of answering: most likely the peer
    /// closed it for being idle at that very moment.
    pub fn raced_with_close(mut self) -> Self {
        if self.kind == ErrorKind::UpstreamReset && self.replay == Replay::No {
            self.replay = Replay::IfIdempotent;
        }
        self
    }

    /// Its time ran out long before we looked: it was we who stood still, and nobody else is to be blamed.
    pub fn of_own_delay(mut self) -> Self {
        self.own_delay = true;
        self
    }

    /// Is it our own standing still that it tells of?
    pub fn is_of_own_delay(&self) -> bool {
        self.own_delay
    }

    /// Counted there instead of at the destination as a whole. The first one stays.
    pub fn attributed_to(mut self, to: Attribution) -> Self {
        self.attribution.get_or_insert(to);
        self
    }

    /// The same failure told as another kind: where it happened and is counted stays.
    pub fn turned_into(self, kind: ErrorKind) -> Self {
        Self {
            attribution: self.attribution,
            endpoint: self.endpoint,
            backend: self.backend,
            ..Self::new(kind)
        }
    }

    /// It happened on the way to the endpoint with this id.
    pub fn sent_to(mut self, endpoint: u64) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// It happened to a request that was given to this backend.
    pub fn within(mut self, backend: Option<Arc<BackendPlan>>) -> Self {
        self.backend = backend;
        self
    }

    /// Takes out the backend it happened at: another try stays there, as weights are about requests, not tries.
    pub fn take_backend(&mut self) -> Option<Arc<BackendPlan>> {
        self.backend.take()
    }

    /// Id of the endpoint it happened at.
    pub fn tried(&self) -> Option<u64> {
        self.endpoint
    }

    /// Can [`Self::take_request`] give the request back?
    pub fn holds_request(&self) -> bool {
        self.request.is_some()
    }

    /// What failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// `E104`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// `no-endpoints`.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Status of the answer to an HTTP client.
    pub fn status(&self) -> http::StatusCode {
        match self.answer {
            Some((status, _)) => status,
            None => http::StatusCode::from_u16(self.kind.http_status())
                .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// Status of the answer to a gRPC client.
    pub fn grpc_status(&self) -> u8 {
        self.answer
            .map_or(self.kind.grpc_status(), |(_, code)| code)
    }

    /// Value of the metric label `error`.
    pub fn label(&self) -> &'static str {
        self.kind.name()
    }

    /// Certainly processed by nobody: any request may be sent again.
    pub fn retry_is_safe(&self) -> bool {
        self.replay == Replay::Always
    }

    /// Requests with an idempotent method may be sent again.
    pub fn retry_is_safe_if_idempotent(&self) -> bool {
        self.replay != Replay::No
    }

    /// The endpoint (or the way to it) is at fault, not the client, the policy or this proxy.
    pub fn is_upstream(&self) -> bool {
        use ErrorKind::*;
        matches!(
            self.kind,
            ConnectFailed
                | ConnectTimeout
                | PeerIdentity
                | TlsHandshake
                | UpstreamReset
                | UpstreamProtocol
                | ResponseTimeout
                | TryTimeout
        )
    }

    /// A sentence about what happened.
    pub fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or(self.kind.row().meaning)
    }

    /// Takes the untouched request out.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take().map(|request| *request)
    }

    /// Takes out where it is to be counted.
    pub fn take_attribution(&mut self) -> Option<Attribution> {
        self.attribution.take()
    }
}

/// Kinds that can only happen before a byte of the request has left.
fn unprocessed(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(
        kind,
        ConnectFailed | ConnectTimeout | PeerIdentity | TlsHandshake | NoIdentity
    )
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code(), self.name(), self.detail())?;
        // The whole chain, as the outermost text of a library alone rarely says what happened.
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("detail", &self.detail)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_status_label_and_code() {
        let rows = [
            (ErrorKind::BadRequest, "E101", 400, 13, false),
            (ErrorKind::NoEndpoints, "E104", 503, 14, false),
            (ErrorKind::ConnectFailed, "E106", 502, 14, true),
            (ErrorKind::ConnectTimeout, "E107", 504, 14, true),
            (ErrorKind::PeerIdentity, "E108", 502, 14, true),
            (ErrorKind::Denied, "E111", 403, 7, false),
            (ErrorKind::RequestTimeout, "E116", 504, 4, false),
            (ErrorKind::UpstreamReset, "E117", 502, 14, false),
        ];
        for (kind, code, status, grpc, safe) in rows {
            let error = Error::new(kind);
            assert_eq!(
                (error.code(), error.status().as_u16(), error.grpc_status()),
                (code, status, grpc)
            );
            assert_eq!(error.retry_is_safe(), safe, "{kind:?}");
            assert_eq!(error.label(), kind.name());
        }
    }

    #[test]
    fn a_reset_is_safe_to_retry_only_when_the_peer_said_so() {
        assert!(!Error::new(ErrorKind::UpstreamReset).retry_is_safe());
        assert!(
            Error::new(ErrorKind::UpstreamReset)
                .never_processed()
                .retry_is_safe()
        );
    }

    #[test]
    fn the_text_names_the_whole_chain() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused by 10.0.0.1");
        let text = Error::new(ErrorKind::ConnectFailed)
            .with_detail("no luck")
            .with_source(io)
            .to_string();
        assert_eq!(text, "E106 connect-failed: no luck: refused by 10.0.0.1");
    }
}
