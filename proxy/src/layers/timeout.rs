//! Limits of time, from the head of a request to the end of its answer: what the policy of the called Service says, what
//! a gRPC client says itself, and, inbound, what the calling proxy says is left. Nobody waits for an answer that comes
//! later, and nobody below works for it.

use super::{Below, Call, Outgoing};
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::watch::{Idle, Limits, TimeoutCounts, Upload, Watch};
use crate::http::{HttpVersion, Request, Response, headers, is_grpc};
use crate::metrics::Metrics;
use crate::policy::{Destination, OutboundPlan};
use http::HeaderValue;
use http_body::Body as _;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Layer, Service};

/// Ends requests whose time is up. Expects that reserved names of strangers are gone.
#[derive(Clone)]
pub struct TimeoutLayer {
    /// Outbound: whose policy holds.
    to: Option<Arc<Destination>>,
    counts: Arc<TimeoutCounts>,
}

/// Ends requests whose time is up.
#[derive(Clone)]
pub struct Timeout<S> {
    inner: S,
    layer: TimeoutLayer,
}

impl TimeoutLayer {
    /// Requests to the application.
    pub fn inbound(metrics: &Metrics) -> Self {
        Self {
            to: None,
            counts: TimeoutCounts::new(metrics, Direction::Inbound),
        }
    }

    /// Requests to a destination.
    pub fn outbound(metrics: &Metrics, to: Arc<Destination>) -> Self {
        Self {
            to: Some(to),
            counts: TimeoutCounts::new(metrics, Direction::Outbound),
        }
    }

    /// The request with its terms.
    fn outgoing(&self, request: Request) -> Outgoing {
        let mut outgoing = Outgoing::from(request);
        if let Some(to) = &self.to
            && let OutboundPlan::Service(plan) = &**to.plan()
        {
            let settings = &plan.service.settings;
            outgoing.terms = plan.terms.of(settings, &outgoing.request).cloned();
        }
        outgoing
    }

    /// What limits it. Time is read only where there is a limit.
    fn limit(&self, outgoing: &mut Outgoing) -> Limits {
        let said = self.said(&mut outgoing.request);
        let timeouts = outgoing.terms.as_ref().map(|terms| terms.timeouts);
        let timeouts = timeouts.unwrap_or_default();
        if said.is_none() && timeouts == Default::default() {
            return Limits::default();
        }
        let now = Instant::now();
        // What is too far to be reckoned with limits nothing.
        let at = |after: Option<Duration>| now.checked_add(after?);
        let head = [
            (at(timeouts.response), ErrorKind::ResponseTimeout),
            (at(timeouts.request), ErrorKind::RequestTimeout),
        ];
        let head = head.into_iter().filter_map(|(at, kind)| Some((at?, kind)));
        outgoing.head = head.min_by_key(|(at, _)| *at);
        outgoing.whole = at(earlier(said, timeouts.request));
        Limits {
            head: at(timeouts.response),
            whole: outgoing.whole,
            idle: timeouts.idle.map(Idle::new),
        }
    }

    /// What the sender says is left. The header of a peer proxy goes no further: the application has no use for it.
    fn said(&self, request: &mut Request) -> Option<Duration> {
        let by_peer = match self.to {
            None => request.headers_mut().remove(headers::DEADLINE),
            Some(_) => None,
        };
        let by_client = match HttpVersion::of(request.version()) {
            HttpVersion::Http2 => request.headers().get(GRPC_TIMEOUT).and_then(grpc_timeout),
            HttpVersion::Http1 => None,
        };
        earlier(by_peer.as_ref().and_then(milliseconds), by_client)
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below<Outgoing>> Service<Request> for Timeout<S> {
    type Response = Response;
    type Error = Error;
    type Future = Timed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut outgoing = self.layer.outgoing(request);
        let limits = self.layer.limit(&mut outgoing);
        // Boxed only where there is a limit.
        let watch = (!limits.is_none()).then(|| {
            let request = &mut outgoing.request;
            let grpc = is_grpc(request.headers());
            if !request.body().is_end_stream() {
                let mut limits = limits.clone();
                limits.head = None;
                let (mut watch, upload) =
                    (Watch::new(limits, None, false), Arc::<Upload>::default());
                watch.tell(upload.clone());
                request.body_mut().limit(watch);
                outgoing.upload = Some(upload);
            }
            Watch::new(limits, Some(self.layer.counts.clone()), grpc)
        });
        let inner = match outgoing.left() {
            Some(Duration::ZERO) => Call::refused(Error::new(ErrorKind::RequestTimeout)),
            _ => Call::Below {
                inner: self.inner.call(outgoing),
            },
        };
        Timed { inner, watch }
    }
}

/// How long a gRPC client waits.
pub(crate) const GRPC_TIMEOUT: http::HeaderName = http::HeaderName::from_static("grpc-timeout");

fn milliseconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// At most eight digits and a unit, as gRPC's own specification has it. What is anything else limits nothing.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Tells whoever comes next how much time is left: a peer proxy by its own header, gRPC in its own way.
pub(crate) fn tell(request: &mut Request, left: Duration, peer: bool) {
    let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    let grpc = is_grpc(request.headers());
    let fields = request.headers_mut();
    if peer {
        fields.insert(headers::DEADLINE, HeaderValue::from(milliseconds));
    }
    if grpc {
        let text = match milliseconds {
            0..=99_999_999 => format!("{milliseconds}m"),
            _ => format!("{}S", (milliseconds / 1000).min(99_999_999)),
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            fields.insert(GRPC_TIMEOUT, value);
        }
    }
}

pin_project! {
    /// A request with a limit of time, perhaps.
    pub struct Timed<F> {
        #[pin]
        inner: Call<F>,
        watch: Option<Box<Watch>>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Timed<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.poll(cx) {
            Poll::Ready(Ok(mut response)) => {
                if let Some(mut watch) = this.watch.take() {
                    watch.head_came();
                    response.body_mut().limit(watch);
                }
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(mut error)) => {
                if let Some(watch) = &this.watch {
                    if watch.is_over() && is_of_waiting(&error) {
                        error = error.turned_into(ErrorKind::RequestTimeout);
                    }
                    watch.late(error.kind());
                }
                Poll::Ready(Err(error))
            }
            Poll::Pending => match this.watch {
                Some(watch) => watch.poll(cx).map(|kind| Err(Error::new(kind))),
                None => Poll::Pending,
            },
        }
    }
}

/// Can it follow from the end of the time? Both bodies and every try have timers of their own, and any may be the first.
fn is_of_waiting(error: &Error) -> bool {
    use ErrorKind::{ClientGone, IdleTimeout};
    error.is_upstream() || matches!(error.kind(), ClientGone | IdleTimeout)
}

#[cfg(test)]
mod tests;
