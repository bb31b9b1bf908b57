//! The one body type. It passes frames through, counts their bytes, and knows what has to happen once at its end: count
//! the request, tell the balancer, give the connection back. The end of a body is the end of the exchange, and gRPC says
//! only there how it went.

use super::h1::client::Answer;
use super::h1::wire::Asked;
use super::outcome::{ResponseHead, broken, code, end_of, final_outcome, grpc_status, late};
use super::pool::Stream;
use super::pushback;
use super::replay::Reader;
use super::watch::Watch;
use crate::balance::{self, InFlight, Outcome};
use crate::error::{Error, ErrorKind};
use crate::metrics::EdgeMetrics;
use crate::policy::BackendPlan;
use crate::tap::Followed;
use crate::tell::Story;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use source::Source;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

mod source;

/// The series something is counted in.
pub type Attribution = Arc<EdgeMetrics>;

/// Longest body, bytes, that is read for no one's sake but its connection's.
const MOST_READ_AWAY: u64 = 64 * 1024;
/// And how long that may take.
const READ_AWAY_TIME: Duration = Duration::from_secs(1);

/// A request or response body.
#[derive(Default)]
pub struct Body {
    source: Source,
    bytes: u64,
    grpc: Option<u8>,
    clean_trailers: bool,
    /// Key of the client's address, of a request; 0: unknown.
    client: u64,
    /// Apart, so that what is moved from layer to layer stays small; absent in a request without a body.
    at_end: Option<Box<AtEnd>>,
    /// Where time is limited.
    watch: Option<Box<Watch>>,
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
    /// Its time was up.
    Late,
}

/// What happens when the body ends; each at most once.
#[derive(Default)]
struct AtEnd {
    attribution: Option<Attribution>,
    direction: Counting,
    flight: Option<Flight>,
    lease: Option<Stream>,
    permit: Option<Permit>,
    backend: Option<Arc<BackendPlan>>,
    followed: Option<Box<Followed>>,
    story: Option<Box<Story>>,
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

    /// A request's body, from a client's HTTP/1 connection.
    pub(super) fn asked(asked: Asked) -> Self {
        Self::of(Source::Asked(asked))
    }

    /// A request's body, from a client's HTTP/2 connection.
    pub fn request(incoming: Incoming) -> Self {
        Self::incoming(incoming, ErrorKind::ClientGone)
    }

    /// A response's body, from an HTTP/1 connection to an endpoint.
    pub(super) fn answer(answer: Box<Answer>) -> Self {
        Self::of(Source::Answer(answer))
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
            client: 0,
            at_end: None,
            watch: None,
        }
    }

    /// One sending of a body that is kept.
    pub(super) fn replayed(reader: Reader) -> Self {
        Self::of(Source::Replay(reader))
    }

    /// Ends the body when its time is up.
    pub(crate) fn limit(&mut self, watch: Box<Watch>) {
        if !http_body::Body::is_end_stream(self) {
            self.watch = Some(watch);
        }
    }

    /// Reads what nobody wants, so that its connection can be used again; not much, and not for long.
    pub(crate) fn read_away(self) {
        let length = http_body::Body::size_hint(&self).upper();
        let short = length.is_some_and(|length| length <= MOST_READ_AWAY);
        if !short || http_body::Body::is_end_stream(&self) {
            return;
        }
        let all = http_body_util::BodyExt::collect(self);
        tokio::spawn(tokio::time::timeout(READ_AWAY_TIME, all));
    }

    /// The gRPC code, if the body is nothing but trailers and they are there already. Nothing is waited for, and nothing
    /// is lost.
    pub(crate) fn peek_grpc(&mut self, cx: &mut Context<'_>) -> Option<u8> {
        let Poll::Ready(next) = self.source.poll_frame(cx) else {
            return None;
        };
        let trailers = match &next {
            Some(Ok(frame)) => frame.trailers_ref(),
            _ => None,
        };
        let code = trailers.and_then(grpc_status);
        let rest = std::mem::take(&mut self.source);
        self.source = Source::Ahead(Box::new((next, rest)));
        code
    }

    /// The endpoint an answer comes from, by id.
    pub(crate) fn endpoint(&self) -> Option<u64> {
        let flight = self.at_end.as_ref()?.flight.as_ref()?;
        Some(flight.guard.endpoint().id)
    }

    /// Says which backend an answer comes from.
    pub(crate) fn sent_within(&mut self, backend: Option<Arc<BackendPlan>>) {
        self.at_end().backend = backend;
    }

    /// Takes out the backend an answer comes from: another try stays there.
    pub(crate) fn take_backend(&mut self) -> Option<Arc<BackendPlan>> {
        self.at_end.as_mut()?.backend.take()
    }

    /// Frames one after the other; an error ends them.
    #[cfg(test)]
    pub(crate) fn frames(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Error>>) -> Self {
        Self::of(Source::Frames(frames.into_iter().collect(), true))
    }

    /// Frames one after the other, and then no end.
    #[cfg(test)]
    pub(crate) fn frames_then_nothing(
        frames: impl IntoIterator<Item = Result<Frame<Bytes>, Error>>,
    ) -> Self {
        Self::of(Source::Frames(frames.into_iter().collect(), false))
    }

    /// So many frames, each after this time, and then no end.
    #[cfg(test)]
    pub(crate) fn ticking(every: Duration, times: u32) -> Self {
        let first = tokio::time::Instant::now() + every;
        Self::of(Source::Ticking(
            tokio::time::interval_at(first, every),
            times,
        ))
    }

    /// Bytes passed so far.
    pub fn passed(&self) -> u64 {
        self.bytes
    }

    /// Says from which client a request comes: see [`balance::key_of_ip`].
    pub fn set_client(&mut self, key: u64) {
        self.client = key;
    }

    /// Key of the client a request comes from.
    pub fn client(&self) -> Option<u64> {
        (self.client != 0).then_some(self.client)
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

    /// Counts the stream the body comes on as taken until it has ended.
    pub(super) fn lease(&mut self, lease: Stream) {
        self.at_end().lease = Some(lease);
    }

    /// Held until the body has ended.
    pub fn permit(&mut self, permit: Permit) {
        self.at_end().permit = Some(permit);
    }

    /// Shows the end of the exchange to who looks at it.
    pub fn follow(&mut self, followed: Box<Followed>) {
        self.at_end().followed = Some(followed);
    }

    /// Tells the story of the exchange when it has ended.
    pub(crate) fn tell(&mut self, story: Box<Story>) {
        self.at_end().story = Some(story);
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
            if let Some(wait) = pushback::of_grpc(self.grpc, trailers)
                && let Some(flight) = self.at_end.as_ref().and_then(|end| end.flight.as_ref())
            {
                flight.guard.endpoint().push_back(balance::now(), wait);
            }
            if self.clean_trailers {
                super::headers::remove_reserved(trailers);
            }
        }
    }

    /// Breaks off, or says so in the way of gRPC, whose status comes last.
    fn too_late(&mut self, kind: ErrorKind) -> Result<Frame<Bytes>, Error> {
        let grpc = self.watch.take().is_some_and(|watch| watch.grpc);
        self.source = Source::Empty;
        self.end(End::Late);
        let error = Error::new(kind);
        if grpc {
            Ok(Frame::trailers(crate::layers::respond::trailers(&error)))
        } else {
            Err(error)
        }
    }

    fn end(&mut self, end: End) {
        let Some(at_end) = self.at_end.take() else {
            return;
        };
        let at_end = *at_end;
        // Read once, for the balancer and for the latency.
        let now = Instant::now();
        drop(at_end.lease);
        if let Some(Flight {
            guard,
            latency,
            outcome,
        }) = at_end.flight
        {
            let outcome = final_outcome(outcome, self.grpc, end);
            guard.done_at(balance::at(now), outcome, latency);
        }
        if let Some(followed) = at_end.followed {
            followed.ended(end, self.bytes, self.grpc, now);
        }
        if let Some(story) = at_end.story {
            story.ended(self.bytes, self.grpc, Some(end));
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
                    End::Late => edge.answered(late(is_grpc), took),
                    End::Complete => edge.answered(code(status, is_grpc, grpc), took),
                }
            }
        }
    }
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
        let polled = match this.source.poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                let kind = match &mut this.watch {
                    Some(watch) => {
                        watch.asked(true);
                        ready!(watch.poll(cx))
                    }
                    None => return Poll::Pending,
                };
                return Poll::Ready(Some(this.too_late(kind)));
            }
        };
        if let Some(watch) = &this.watch {
            watch.asked(false);
        }
        let mut frame = match polled {
            None => {
                this.source = Source::Empty;
                this.end(End::Complete);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                this.source = Source::Empty;
                this.end(end_of(&error));
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(watch) = &this.watch {
            // What is last is worth more than the limit.
            if frame.is_data() && !this.source.is_end_stream() && watch.is_over() {
                watch.late(ErrorKind::RequestTimeout);
                return Poll::Ready(Some(this.too_late(ErrorKind::RequestTimeout)));
            }
            watch.heard();
        }
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
        self.source.size_hint()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.source.label();
        write!(f, "Body({kind}, {} bytes passed)", self.bytes)
    }
}
