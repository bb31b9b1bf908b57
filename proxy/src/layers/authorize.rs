//! Inbound: may this caller make this request? The policy in force is asked for each request, so that a change holds
//! from the next request on, on connections that are already open. What allowed a request is the route it is counted on.
//! Whoever may is counted against the rate limits: a stranger's flood takes nothing from those who are allowed.

use super::{Below, Call};
use crate::connection::Connection;
use crate::discover::InboundHandle;
use crate::error::{Error, ErrorKind};
use crate::http::{Attribution, Request, Response, validate};
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::policy::rates::Bound;
use crate::policy::{InboundPlan, RateRule};
use http::HeaderValue;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower::{Layer, Service};
use weft_proxy_api::policy::inbound::{AllowedBy, DenyReason, Verdict};
use weft_proxy_api::policy::matching::RequestView;

/// Routes of one connection whose series are kept at hand.
const ROUTES_AT_HAND: usize = 32;

/// Judges the requests of one connection.
#[derive(Clone)]
pub struct AuthorizeLayer {
    policy: InboundHandle,
    conn: Arc<Connection>,
    edge: Attribution,
    metrics: Arc<Metrics>,
    lines: Arc<Lines>,
}

/// Judges requests.
#[derive(Clone)]
pub struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
    routes: Routes,
    /// Where the requests of this connection are counted against rate limits.
    rates: Bound,
}

/// The series of the routes that this connection's requests took: few, found by comparing numbers.
#[derive(Clone, Default)]
struct Routes {
    /// Of the policy they belong to.
    version: u64,
    known: Vec<(AllowedBy, Attribution)>,
}

impl AuthorizeLayer {
    /// Denials, and what no route describes, are counted on `edge`.
    pub fn new(
        policy: InboundHandle,
        conn: Arc<Connection>,
        edge: Attribution,
        metrics: Arc<Metrics>,
        lines: Arc<Lines>,
    ) -> Self {
        Self {
            policy,
            conn,
            edge,
            metrics,
            lines,
        }
    }

    /// Where the request is counted, if not on the connection's own edge.
    fn judge(
        &self,
        request: &Request,
        routes: &mut Routes,
        rates: &mut Bound,
    ) -> Result<Option<Attribution>, Error> {
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
            Verdict::Allow(AllowedBy::Probe) => Ok(None),
            verdict @ (Verdict::Allow(_) | Verdict::Audit(_)) => {
                let route = match verdict {
                    Verdict::Allow(by) => routes.of(by, &plan, self),
                    _ => None,
                };
                let client = (self.conn.peer.identity(), self.conn.target.port());
                match rates.take(plan.rates(), client, &view) {
                    Ok(()) => Ok(route),
                    Err(beyond) => Err(refused(beyond, route)),
                }
            }
            Verdict::Deny(reason) => {
                self.edge.denied(reason);
                Err(self.deny(&plan, reason))
            }
        }
    }

    /// Says who decided: in the log as often as lines may be written, to the client where the policy says that it may know.
    fn deny(&self, plan: &InboundPlan, reason: DenyReason) -> Error {
        let error = Error::new(ErrorKind::Denied).with_detail(reason.explain());
        let port = self.conn.target.port();
        let denial = plan.inbound.denial(self.conn.caller(), port, reason);
        if self.lines.take() {
            tracing::info!(client = %self.conn.client, %denial, "request denied");
        }
        if !plan.inbound.explain_denials {
            return error;
        }
        match HeaderValue::from_str(&denial.to_string()) {
            Ok(words) => error.denied_by(words),
            Err(_) => error,
        }
    }
}

fn refused((rule, wait): (Arc<RateRule>, Duration), route: Option<Attribution>) -> Error {
    let error = Error::new(ErrorKind::RateLimited)
        .with_detail(rule.detail.clone())
        .worth_after(wait);
    match route {
        Some(route) => error.attributed_to(route),
        None => error,
    }
}

impl Routes {
    fn of(
        &mut self,
        by: AllowedBy,
        plan: &InboundPlan,
        layer: &AuthorizeLayer,
    ) -> Option<Attribution> {
        let AllowedBy::Request { .. } = by else {
            return None;
        };
        if self.version != plan.version || self.known.len() >= ROUTES_AT_HAND {
            *self = Self {
                version: plan.version,
                known: Vec::new(),
            };
        }
        if let Some((_, edge)) = self.known.iter().find(|(known, _)| *known == by) {
            return Some(edge.clone());
        }
        let route = plan.inbound.route(by)?;
        let name = format!("{} {}", route.object, route.name);
        let edge = layer
            .metrics
            .inbound_route(layer.conn.peer.identity(), &name);
        self.known.push((by, edge.clone()));
        Some(edge)
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            layer: self.clone(),
            routes: Routes::default(),
            rates: Bound::default(),
        }
    }
}

impl<S: Below> Service<Request> for Authorize<S> {
    type Response = Response;
    type Error = Error;
    type Future = Judged<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (routes, rates) = (&mut self.routes, &mut self.rates);
        match self.layer.judge(&request, routes, rates) {
            Ok(route) => {
                let edge = route.as_ref().unwrap_or(&self.layer.edge);
                request.body_mut().count_request(edge);
                let inner = self.inner.call(request);
                Judged {
                    inner: Call::Below { inner },
                    route,
                }
            }
            Err(error) => Judged {
                inner: Call::refused(error),
                route: None,
            },
        }
    }
}

pin_project! {
    /// A request that was judged; its answer is counted on its route.
    pub struct Judged<F> {
        #[pin]
        inner: Call<F>,
        route: Option<Attribution>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Judged<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        Poll::Ready(match this.route.take() {
            None => answer,
            Some(route) => match answer {
                Ok(mut response) => {
                    response.body_mut().attribute(route);
                    Ok(response)
                }
                Err(error) => Err(error.attributed_to(route)),
            },
        })
    }
}
