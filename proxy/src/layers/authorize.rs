//! Inbound: may this caller make this request? The policy in force is asked for each request, so that a change holds
//! from the next request on, on connections that are already open. Whoever may is counted against the rate limits: a
//! stranger's flood takes nothing from those who are allowed.

use super::{Below, Call};
use crate::connection::Connection;
use crate::discover::InboundHandle;
use crate::error::{Error, ErrorKind};
use crate::http::{Attribution, Request, Response, validate};
use crate::policy::RateRule;
use crate::policy::rates::Bound;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};
use weft_proxy_api::policy::inbound::{AllowedBy, Verdict};
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
    /// Where the requests of this connection are counted against rate limits.
    rates: Bound,
}

impl AuthorizeLayer {
    /// Denials are counted on `edge`.
    pub fn new(policy: InboundHandle, conn: Arc<Connection>, edge: Attribution) -> Self {
        Self { policy, conn, edge }
    }

    fn judge(&self, request: &Request, rates: &mut Bound) -> Result<(), Error> {
        let plan = self.policy.load().ok_or(ErrorKind::PolicyUnknown)?;
        let host = validate::host(request);
        let view = RequestView {
            method: request.method().as_str(),
            path: request.uri().path(),
            host: &host,
            headers: request.headers(),
        };
        match plan.request(self.conn.caller(), self.conn.target.port(), &view) {
            // The kubelet asks as often as it was told to.
            Verdict::Allow(AllowedBy::Probe) => Ok(()),
            Verdict::Allow(_) | Verdict::Audit(_) => {
                let client = (self.conn.peer.identity(), self.conn.target.port());
                rates.take(plan.rates(), client, &view).map_err(refused)
            }
            Verdict::Deny(reason) => {
                self.edge.denied();
                Err(Error::new(ErrorKind::Denied).with_detail(reason.explain()))
            }
        }
    }
}

fn refused((rule, wait): (Arc<RateRule>, Duration)) -> Error {
    Error::new(ErrorKind::RateLimited)
        .with_detail(rule.detail.clone())
        .worth_after(wait)
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            layer: self.clone(),
            rates: Bound::default(),
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
        match self.layer.judge(&request, &mut self.rates) {
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
