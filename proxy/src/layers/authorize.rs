//! Inbound: may this caller make this request? The policy in force is asked for each request, so that a change holds
//! from the next request on, on connections that are already open.

use super::{Below, Call};
use crate::connection::Connection;
use crate::discover::InboundHandle;
use crate::error::{Error, ErrorKind};
use crate::http::{Attribution, Request, Response, validate};
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};
use weft_proxy_api::policy::inbound::Verdict;
use weft_proxy_api::policy::matching::RequestView;

/// Judges the requests of one connection.
#[derive(Clone)]
pub struct AuthorizeLayer {
    policy: InboundHandle,
    conn: Arc<Connection>,
    edge: Attribution,
}

/// Judges requests.
#[derive(Clone)]
pub struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
}

impl AuthorizeLayer {
    /// Denials are counted on `edge`.
    pub fn new(policy: InboundHandle, conn: Arc<Connection>, edge: Attribution) -> Self {
        Self { policy, conn, edge }
    }

    fn judge(&self, request: &Request) -> Result<(), Error> {
        let plan = self.policy.load().ok_or(ErrorKind::PolicyUnknown)?;
        let host = validate::host(request);
        let view = RequestView {
            method: request.method().as_str(),
            path: request.uri().path(),
            host: &host,
            headers: request.headers(),
        };
        match plan.request(self.conn.caller(), self.conn.target.port(), &view) {
            Verdict::Allow(_) | Verdict::Audit(_) => Ok(()),
            Verdict::Deny(reason) => {
                self.edge.denied();
                Err(Error::new(ErrorKind::Denied).with_detail(reason.explain()))
            }
        }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Authorize<S> {
    type Response = Response;
    type Error = Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.layer.judge(&request) {
            Ok(()) => {
                request.body_mut().count_request(&self.layer.edge);
                Call::Below {
                    inner: self.inner.call(request),
                }
            }
            Err(error) => Call::refused(error),
        }
    }
}
