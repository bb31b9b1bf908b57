//! Sends a request again. Always where that is safe: the connection could not be opened, the peer refused the stream, or
//! closed an idle connection at the moment it was used. And where the policy of the called Service says so: by status, by
//! gRPC code, by method, with the body kept for it. Stands above routing, so that another endpoint is chosen; within the
//! same backend, so that the shares of a split stay exact. A budget keeps retries from making an outage worse, no try
//! begins that cannot end in time, and an answer that has begun to pass is never taken back.

use super::budget::Budget;
use super::{Below, Outgoing};
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::watch::Upload;
use crate::http::{Request, Response};
use crate::metrics::Metrics;
use crate::policy::{BackendPlan, Terms};
use again::{Again, Next};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Layer, Service};

mod again;
mod judge;
#[cfg(test)]
mod tests;

/// Tries after the first that need no policy, as they are safe.
pub const MAX_RETRIES: u32 = 2;
/// Endpoints remembered as tried; of more, the last ones.
const REMEMBERED: usize = 4;

/// One try at a request.
pub struct Attempt {
    /// What to send.
    pub request: Request,
    /// What the policy says of it.
    pub terms: Option<Arc<Terms>>,
    /// Where it was sent before.
    pub tried: Tried,
    /// The backend that was chosen for it before; chosen once for all tries.
    pub backend: Option<Arc<BackendPlan>>,
    /// When the head of its answer must be there; later is the endpoint's failure.
    pub head: Option<(Instant, ErrorKind)>,
    /// When everything must be over.
    pub whole: Option<Instant>,
    /// How its body fares, where time is limited.
    pub upload: Option<Arc<Upload>>,
}

impl Attempt {
    /// The same without its request, which may come back.
    pub(super) fn without_request(&self) -> Self {
        Self {
            request: Request::default(),
            terms: self.terms.clone(),
            tried: Tried::default(),
            backend: None,
            upload: self.upload.clone(),
            ..*self
        }
    }
}

/// Endpoints that were tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    ids: [u64; REMEMBERED],
    len: usize,
}

impl Tried {
    /// Their ids.
    pub fn ids(&self) -> &[u64] {
        &self.ids[..self.len.min(REMEMBERED)]
    }

    fn add(&mut self, id: u64) {
        self.ids[self.len % REMEMBERED] = id;
        self.len += 1;
    }
}

/// Retries within a budget.
#[derive(Clone)]
pub struct RetryLayer {
    budget: Arc<Budget>,
    counts: Arc<Counts>,
}

/// Where it is said how retries fare. They are rare enough to look their series up.
struct Counts {
    metrics: Arc<Metrics>,
    direction: Direction,
    service: String,
}

impl Counts {
    fn count(&self, result: &'static str) {
        self.metrics
            .retries(self.direction, &self.service, result)
            .inc();
    }

    fn late(&self) {
        self.metrics.timeouts(self.direction, "try").inc();
    }
}

/// Retries.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
}

impl RetryLayer {
    /// All stacks of a destination share its budget. `service`: what the destination is called, if it is a Service.
    pub fn new(
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
        direction: Direction,
        service: String,
    ) -> Self {
        let counts = Arc::new(Counts {
            metrics,
            direction,
            service,
        });
        Self { budget, counts }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below<Attempt> + Clone> Service<Outgoing> for Retry<S> {
    type Response = Response;
    type Error = Error;
    type Future = Retried<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut outgoing: Outgoing) -> Self::Future {
        self.layer.budget.deposit();
        let again = Again::new(&mut outgoing);
        let call = self
            .inner
            .call(again.attempt(outgoing.request, None, Duration::ZERO));
        Retried {
            call,
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            again,
        }
    }
}

pin_project! {
    /// A request that may be tried again.
    pub struct Retried<S, F> {
        #[pin]
        call: F,
        inner: S,
        layer: RetryLayer,
        again: Again,
    }
}

impl<S: Below<Attempt, Future = F>, F: Future<Output = Result<Response, Error>>> Future
    for Retried<S, F>
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(attempt) = ready!(this.again.waited(cx)) {
                this.call.set(this.inner.call(attempt));
            }
            let result = ready!(this.call.as_mut().poll(cx));
            if let Ok(response) = &result
                && this.again.is_plain()
                && !again::reached_nobody(response)
            {
                return Poll::Ready(result);
            }
            match this.again.after(result, this.layer, cx) {
                Next::Done(result) => return Poll::Ready(result),
                Next::Now(attempt) => this.call.set(this.inner.call(*attempt)),
                Next::Later => {}
            }
        }
    }
}
