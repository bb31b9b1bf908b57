//! Refuses what is ambiguous, brings the rest into its one form, and removes what the sender may not say. Stands above
//! everything that looks into a request: what is judged is what is forwarded.

use super::{Below, Call};
use crate::connection::{Connection, Direction, Peer};
use crate::error::Error;
use crate::http::headers::{self, Trust};
use crate::http::{Request, Response, validate};
use http::HeaderValue;
use pin_project_lite::pin_project;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// Who sends requests, and who answers.
#[derive(Debug, Clone)]
pub struct CheckLayer {
    target: SocketAddr,
    sender: Trust,
    /// Set on every request, for the application.
    client_id: Option<HeaderValue>,
    /// What may be in responses; `None`: whoever is below cleans them.
    answerer: Option<Trust>,
}

/// Checks and cleans.
#[derive(Debug, Clone)]
pub struct Check<S> {
    inner: S,
    layer: CheckLayer,
}

impl CheckLayer {
    /// Requests to the application: a peer proxy may use reserved names, the application may not.
    pub fn inbound(conn: &Connection) -> Self {
        debug_assert_eq!(conn.direction, Direction::Inbound);
        let (sender, id) = match &conn.peer {
            Peer::Mutual(id) => (Trust::Peer, HeaderValue::from_str(id.as_str()).ok()),
            Peer::Plain(_) => (Trust::Nobody, None),
        };
        Self {
            target: conn.target,
            sender,
            client_id: id,
            answerer: Some(Trust::Nobody),
        }
    }

    /// Requests of the application. Responses are cleaned where the endpoint is known.
    pub fn outbound(target: SocketAddr) -> Self {
        Self {
            target,
            sender: Trust::Nobody,
            client_id: None,
            answerer: None,
        }
    }

    fn check(&self, request: &mut Request) -> Result<(), Error> {
        validate::request(request, self.target)?;
        headers::clean_request(request, self.sender);
        if let Some(id) = &self.client_id {
            request.headers_mut().insert(headers::CLIENT_ID, id.clone());
        }
        Ok(())
    }
}

impl<S> Layer<S> for CheckLayer {
    type Service = Check<S>;

    fn layer(&self, inner: S) -> Check<S> {
        Check {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Check<S> {
    type Response = Response;
    type Error = Error;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let inner = match self.layer.check(&mut request) {
            Ok(()) => Call::Below {
                inner: self.inner.call(request),
            },
            Err(error) => Call::refused(error),
        };
        Checked {
            inner,
            answerer: self.layer.answerer,
        }
    }
}

pin_project! {
    /// A request that was checked, and whose response will be.
    pub struct Checked<F> {
        #[pin]
        inner: Call<F>,
        answerer: Option<Trust>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Checked<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(trust) = this.answerer {
            headers::clean_response(&mut response, *trust);
        }
        Poll::Ready(Ok(response))
    }
}
