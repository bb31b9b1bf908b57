//! So many requests in flight and no more: beyond, an answer at once is better than a queue; and none where they would need
//! more memory than there is. Each worker counts for itself; only one that has more than its share looks at what the
//! others have.

use super::{Below, Call};
use crate::error::{Error, ErrorKind};
use crate::http::body::Permit;
use crate::http::{Request, Response};
use crate::metrics::Flights;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

mod memory;

pub use memory::Memory;

/// Requests in flight in one direction, over all workers.
pub const MAX_IN_FLIGHT: usize = 100_000;
/// A worker below this part of the limit does not look at the others.
const PARTS: usize = 64;
/// A worker with fewer does not look at the memory.
const FEW: usize = 256;

/// Refuses above a limit.
#[derive(Debug, Clone)]
pub struct LimitLayer {
    counter: Arc<AtomicUsize>,
    all: Arc<Flights>,
    limit: usize,
    memory: Arc<Memory>,
}

/// Refuses above a limit.
#[derive(Debug, Clone)]
pub struct Limit<S> {
    inner: S,
    layer: LimitLayer,
}

impl LimitLayer {
    /// `counter`: this worker's, of `all`; all stacks under them share the limit.
    pub fn new(
        counter: Arc<AtomicUsize>,
        all: Arc<Flights>,
        limit: usize,
        memory: Arc<Memory>,
    ) -> Self {
        Self {
            counter,
            all,
            limit,
            memory,
        }
    }

    fn permit(&self) -> Option<Permit> {
        if let Some(permit) = Permit::acquire(&self.counter, FEW.min(self.limit / PARTS)) {
            return Some(permit);
        }
        if self.memory.is_short() {
            return None;
        }
        if let Some(permit) = Permit::acquire(&self.counter, self.limit / PARTS) {
            return Some(permit);
        }
        let room = self.all.total() < self.limit;
        room.then(|| Permit::acquire(&self.counter, usize::MAX))
            .flatten()
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Limit<S> {
    type Response = Response;
    type Error = Error;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let permit = self.layer.permit();
        let inner = match &permit {
            Some(_) => Call::Below {
                inner: self.inner.call(request),
            },
            None => Call::refused(Error::new(ErrorKind::Overloaded)),
        };
        Limited { inner, permit }
    }
}

pin_project! {
    /// A request in flight; its response takes the permit along.
    pub struct Limited<F> {
        #[pin]
        inner: Call<F>,
        permit: Option<Permit>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Limited<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(permit) = this.permit.take() {
            response.body_mut().permit(permit);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;
    use tower::service_fn;

    #[tokio::test]
    async fn a_request_counts_until_its_response_has_ended() {
        let below = service_fn(async |_: Request| Ok::<_, Error>(Response::new(Body::full("x"))));
        let all = Arc::new(Flights::default());
        let mut stack = LimitLayer::new(all.join(), all.clone(), 1, Arc::default()).layer(below);
        let mut other = LimitLayer::new(all.join(), all.clone(), 1, Arc::default()).layer(below);
        let first = stack.call(Request::new(Body::empty())).await.unwrap();
        let refused = stack.call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        let refused = other.call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "another worker");
        assert_eq!(all.total(), 1);
        drop(first);
        assert_eq!(all.total(), 0);
        stack.call(Request::new(Body::empty())).await.unwrap();
    }
}
