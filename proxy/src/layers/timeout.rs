//! Inbound: the time a peer proxy says is left for the request. Nobody waits for an answer that comes later.

use super::{Below, Call};
use crate::error::{Error, ErrorKind};
use crate::http::{Request, Response, headers};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tower::{Layer, Service};

/// Ends requests whose time is up. Expects that reserved names of strangers are gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeoutLayer;

/// Ends requests whose time is up.
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner }
    }
}

impl<S: Below> Service<Request> for Timeout<S> {
    type Response = Response;
    type Error = Error;
    type Future = Timed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let left = request
            .headers_mut()
            .remove(headers::DEADLINE)
            .and_then(|left| milliseconds(&left));
        let inner = match left {
            Some(Duration::ZERO) => Call::refused(Error::new(ErrorKind::RequestTimeout)),
            _ => Call::Below {
                inner: self.inner.call(request),
            },
        };
        // Boxed only where somebody set a deadline.
        Timed {
            inner,
            deadline: left.map(|left| Box::pin(tokio::time::sleep(left))),
        }
    }
}

fn milliseconds(value: &http::HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

pin_project! {
    /// A request with a deadline, perhaps.
    pub struct Timed<F> {
        #[pin]
        inner: Call<F>,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Timed<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.inner.poll(cx) {
            return Poll::Ready(done);
        }
        let late = this
            .deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            Poll::Ready(Err(Error::new(ErrorKind::RequestTimeout)))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;
    use tower::service_fn;

    fn request(deadline: &str) -> Request {
        http::Request::builder()
            .header("weft-deadline-ms", deadline)
            .body(Body::empty())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_a_peer_ends_the_request() {
        let below = service_fn(async |request: Request| {
            assert!(!request.headers().contains_key("weft-deadline-ms"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, Error>(Response::new(Body::empty()))
        });
        let mut stack = TimeoutLayer.layer(below);
        for (deadline, kept) in [("99", false), ("101", true), ("0", false), ("soon", true)] {
            let answer = stack.call(request(deadline)).await;
            assert_eq!(answer.is_ok(), kept, "{deadline}");
            if let Err(error) = answer {
                assert_eq!(error.kind(), ErrorKind::RequestTimeout);
            }
        }
    }
}
