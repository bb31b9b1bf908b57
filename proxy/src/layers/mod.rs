//! What happens to a request on its way, one file each. Concrete in request, response and error; generic only in what
//! is below. Nothing queues, so everything is always ready; what cannot be served is refused at once.

pub mod authorize;
pub mod check;
pub mod limit;
pub mod record;
pub mod respond;
pub mod retry;
pub mod route;
pub mod timeout;

use crate::error::Error;
use crate::http::{Request, Response};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What every layer expects below it.
pub trait Below<R = Request>: tower::Service<R, Response = Response, Error = Error> {}

impl<S, R> Below<R> for S where S: tower::Service<R, Response = Response, Error = Error> {}

pin_project! {
    /// The answer from below, or a refusal that never went there (taken by the first poll).
    #[allow(missing_docs)] // The macro takes no comments on pinned fields.
    #[project = CallProjection]
    pub enum Call<F> {
        Below { #[pin] inner: F },
        Refused { error: Option<Error> },
    }
}

impl<F> Call<F> {
    fn refused(error: Error) -> Self {
        Call::Refused { error: Some(error) }
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Call<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CallProjection::Below { inner } => inner.poll(cx),
            CallProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}
