//! The one body type. It passes frames through, counts their bytes, and knows what has to happen once at its end: count
//! the request, tell the balancer, give the connection back. The end of a body is the end of the exchange, and gRPC says
//! only there how it went.

use super::outcome::{ResponseHead, broken, code, final_outcome, grpc_status};
use super::pool::Lease;
use crate::balance::{self, InFlight, Outcome};
use crate::error::{Error, ErrorKind};
use crate::metrics::EdgeMetrics;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The series something is counted in.
pub type Attribution = Arc<EdgeMetrics>;

/// A request or response body.
#[derive(Default)]
pub struct Body {
    source: Source,
    bytes: u64,
    grpc: Option<u8>,
    clean_trailers: bool,
    /// Apart, so that what is moved from layer to layer stays small; absent in a request without a body.
    at_end: Option<Box<AtEnd>>,
}

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Full(Bytes),
    /// From a connection; the kind says whose fault it is when it breaks.
    Incoming(Incoming, ErrorKind),
    #[cfg(test)]
    Frames(std::collections::VecDeque<Result<Frame<Bytes>, Error>>),
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was passed on.
    Complete,
    /// It broke.
    Broken,
    /// Nobody wanted the rest.
    Dropped,
}

/// What happens when the body ends; each at most once.
#[derive(Default)]
struct AtEnd {
    attribution: Option<Attribution>,
    direction: Counting,
    flight: Option<Flight>,
    lease: Option<Lease>,
    permit: Option<Permit>,
}

/// What the attribution is told.
#[derive(Default)]
enum Counting {
    #[default]
    Nothing,
    /// A request body: its bytes.
    Request,
    /// A response body: its bytes and the answer.
    Response {
        started: Instant,
        status: u16,
        grpc: bool,
    },
}

/// An exchange under way to an endpoint.
struct Flight {
    guard: InFlight,
    /// Time to the head of the response: a long stream is not a slow endpoint.
    latency: Duration,
    /// Known from the head; gRPC may turn out worse.
    outcome: Outcome,
}

/// One of a bounded number of requests in flight.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Full(bytes.into()))
    }

    /// A request's body, from the connection of a client.
    pub fn request(incoming: Incoming) -> Self {
        Self::incoming(incoming, ErrorKind::ClientGone)
    }

    /// A response's body, from the connection to an endpoint.
    pub fn response(incoming: Incoming) -> Self {
        Self::incoming(incoming, ErrorKind::UpstreamReset)
    }

    fn incoming(incoming: Incoming, broken: ErrorKind) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            return Self::empty();
        }
        Self::of(Source::Incoming(incoming, broken))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            bytes: 0,
            grpc: None,
            clean_trailers: false,
            at_end: None,
        }
    }

    /// Frames one after the other; an error ends them.
    #[cfg(test)]
    pub(crate) fn frames(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Error>>) -> Self {
        Self::of(Source::Frames(frames.into_iter().collect()))
    }

    /// Bytes passed so far.
    pub fn passed(&self) -> u64 {
        self.bytes
    }

    fn at_end(&mut self) -> &mut AtEnd {
        self.at_end.get_or_insert_default()
    }

    /// Counts the bytes of a request there.
    pub fn count_request(&mut self, to: &Attribution) {
        // Most requests have no body, and need nothing.
        if !matches!(self.source, Source::Empty) {
            let at_end = self.at_end();
            at_end.attribution = Some(to.clone());
            at_end.direction = Counting::Request;
        }
    }

    /// Says where the response is to be counted, unless that is known already.
    pub fn attribute(&mut self, to: Attribution) {
        self.at_end().attribution.get_or_insert(to);
    }

    /// Counts the response to a request that came at `started`; `otherwise` where nobody called [`Self::attribute`].
    /// Returns where it will be counted.
    pub fn count_response(
        &mut self,
        head: &ResponseHead,
        started: Instant,
        otherwise: &Attribution,
    ) -> &Attribution {
        self.grpc = self.grpc.or(head.grpc);
        let at_end = self.at_end();
        at_end.direction = Counting::Response {
            started,
            status: head.status,
            grpc: head.is_grpc,
        };
        at_end.attribution.get_or_insert_with(|| otherwise.clone())
    }

    /// Tells the balancer how it went when the response has ended.
    pub fn in_flight(&mut self, guard: InFlight, latency: Duration, head: &ResponseHead) {
        self.grpc = self.grpc.or(head.grpc);
        self.at_end().flight = Some(Flight {
            guard,
            latency,
            outcome: head.outcome(),
        });
    }

    /// Gives the connection back when the body has ended.
    pub(super) fn lease(&mut self, lease: Lease) {
        self.at_end().lease = Some(lease);
    }

    /// Held until the body has ended.
    pub fn permit(&mut self, permit: Permit) {
        self.at_end().permit = Some(permit);
    }

    /// Removes reserved names from the trailers: whoever sends them is not a peer proxy.
    pub fn remove_reserved_trailers(&mut self) {
        self.clean_trailers = true;
    }

    fn passed_frame(&mut self, frame: &mut Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_mut() {
            self.grpc = grpc_status(trailers).or(self.grpc);
            if self.clean_trailers {
                super::headers::remove_reserved(trailers);
            }
        }
    }

    fn end(&mut self, end: End) {
        let Some(at_end) = self.at_end.take() else {
            return;
        };
        let at_end = *at_end;
        // Read once, for the balancer and for the latency.
        let now = Instant::now();
        if let Some(lease) = at_end.lease {
            lease.end(end);
        }
        if let Some(Flight {
            guard,
            latency,
            outcome,
        }) = at_end.flight
        {
            let outcome = final_outcome(outcome, self.grpc, end);
            guard.done_at(balance::at(now), outcome, latency);
        }
        if let Some(edge) = at_end.attribution {
            let answer = (self.bytes, self.grpc, end);
            at_end.direction.count(&edge, answer, now);
        }
    }
}

impl Counting {
    fn count(self, edge: &EdgeMetrics, (bytes, grpc, end): (u64, Option<u8>, End), now: Instant) {
        match self {
            Counting::Nothing => {}
            Counting::Request if bytes == 0 => {}
            Counting::Request => edge.bytes(bytes, 0),
            Counting::Response {
                started,
                status,
                grpc: is_grpc,
            } => {
                if bytes > 0 {
                    edge.bytes(0, bytes);
                }
                let took = now.saturating_duration_since(started);
                match end {
                    End::Dropped => edge.cancelled(),
                    // The status was sent, yet the client did not get its answer.
                    End::Broken => edge.answered(broken(is_grpc), took),
                    End::Complete => edge.answered(code(status, is_grpc, grpc), took),
                }
            }
        }
    }
}

/// A body that breaks the rules is not the same as one that stops.
fn broken_body(kind: ErrorKind, error: hyper::Error) -> Error {
    use std::error::Error as _;
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let malformed = cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData
        )
    });
    let kind = match kind {
        ErrorKind::ClientGone if malformed => ErrorKind::BadRequest,
        ErrorKind::UpstreamReset if malformed => ErrorKind::UpstreamProtocol,
        kind => kind,
    };
    Error::new(kind).with_source(error)
}

impl Permit {
    /// One of `limit`, counted in `counter`; `None`: all are taken.
    pub fn acquire(counter: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        if counter.fetch_add(1, Ordering::Relaxed) >= limit {
            counter.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(counter.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A server does not ask an ended body for one more frame; it just drops it.
        let end = if http_body::Body::is_end_stream(self) {
            End::Complete
        } else {
            End::Dropped
        };
        self.end(end);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut frame = match ready!(this.source.poll_frame(cx)) {
            None => {
                this.source = Source::Empty;
                this.end(End::Complete);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                this.source = Source::Empty;
                this.end(End::Broken);
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        this.passed_frame(&mut frame);
        if frame.is_trailers() || this.source.is_end_stream() {
            this.end(End::Complete);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Incoming(incoming, _) => incoming.size_hint(),
            #[cfg(test)]
            Source::Frames(_) => SizeHint::default(),
        }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        use http_body::Body as _;
        match self {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let data = std::mem::take(bytes);
                *self = Source::Empty;
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
            Source::Incoming(incoming, kind) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|e| broken_body(*kind, e))))
            }
            #[cfg(test)]
            Source::Frames(frames) => Poll::Ready(frames.pop_front()),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Incoming(incoming, _) => http_body::Body::is_end_stream(incoming),
            #[cfg(test)]
            Source::Frames(frames) => frames.is_empty(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.source {
            Source::Empty => "empty",
            Source::Full(_) => "full",
            Source::Incoming(..) => "incoming",
            #[cfg(test)]
            Source::Frames(_) => "frames",
        };
        write!(f, "Body({kind}, {} bytes passed)", self.bytes)
    }
}
