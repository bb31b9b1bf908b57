//! What happens to a request on its way, one file each. Concrete in request, response and error; generic only in what
//! is below. Nothing queues, so everything is always ready; what cannot be served is refused at once.

pub mod authorize;
pub mod budget;
pub mod check;
pub mod fault;
pub mod limit;
pub mod record;
pub mod respond;
pub mod retry;
pub mod route;
pub mod tell;
pub mod timeout;

use crate::error::{Error, ErrorKind};
use crate::http::watch::Upload;
use crate::http::{Request, Response};
use crate::policy::Terms;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// What every layer expects below it.
pub trait Below<R = Request>: tower::Service<R, Response = Response, Error = Error> {}

impl<S, R> Below<R> for S where S: tower::Service<R, Response = Response, Error = Error> {}

/// A request on its way out, and what holds for it.
pub struct Outgoing {
    /// The request.
    pub request: Request,
    /// What its Service's policy says of it.
    pub terms: Option<Arc<Terms>>,
    /// When the head of the answer must be there, as the policy has it: whoever keeps it waiting longer is at fault.
    pub head: Option<(Instant, ErrorKind)>,
    /// When everything must be over, whoever said so.
    pub whole: Option<Instant>,
    /// How its body fares, where time is limited.
    pub upload: Option<Arc<Upload>>,
}

impl From<Request> for Outgoing {
    fn from(request: Request) -> Self {
        Self {
            request,
            terms: None,
            head: None,
            whole: None,
            upload: None,
        }
    }
}

impl Outgoing {
    /// How much time is left; `None`: no limit.
    pub fn left(&self) -> Option<Duration> {
        Some(self.whole?.saturating_duration_since(Instant::now()))
    }
}

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
