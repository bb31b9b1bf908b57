//! Outbound: where does this request go? Route, then a backend by weight, then the better of two endpoints; all read
//! from the plan in force. Says where the request is counted, and tells the balancer how it went.

use super::retry::Attempt;
use super::timeout;
use crate::balance::{self, InFlight, Outcome};
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::headers::{self, Trust};
use crate::http::outcome::ResponseHead;
use crate::http::{Attribution, HttpService, Request, Response, ServiceFuture, validate};
use crate::policy::{BackendPlan, Destination, OutboundPlan, ServicePlan};
use crate::stack::{self, Shared};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tower::Service;
use weft_proxy_api::policy::matching::RequestView;

/// How long the first request to a backend waits to hear of its endpoints.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(1);

/// The bottom of the outbound stack.
#[derive(Clone)]
pub struct Route {
    shared: Arc<Shared>,
    to: Arc<Destination>,
}

impl Route {
    /// Follows the plan of a destination.
    pub fn new(shared: Arc<Shared>, to: Arc<Destination>) -> Self {
        Self { shared, to }
    }

    fn send(&self, attempt: Attempt) -> Result<Routed, Error> {
        match &**self.to.plan() {
            OutboundPlan::Service(plan) => self.service(plan, attempt),
            OutboundPlan::Endpoint(plan) => {
                let chosen = Chosen {
                    started: Instant::now(),
                    in_flight: plan.endpoint.start(),
                    edge: plan.metrics.clone(),
                    backend: None,
                };
                chosen.send(&self.shared, attempt).map(Routed::Sent)
            }
            OutboundPlan::PassThrough(edge) => {
                let outside = HttpService::at_seam(
                    self.shared.pools.plain(Direction::Outbound, self.to.target),
                );
                Ok(Routed::Sent(Sent::new(
                    &outside,
                    attempt.request,
                    edge.clone(),
                    Trust::Nobody,
                    Instant::now(),
                )))
            }
            OutboundPlan::Refused(_) if self.to.version() == 0 => {
                Err(ErrorKind::PolicyUnknown.into())
            }
            OutboundPlan::Refused(why) => {
                Err(Error::new(ErrorKind::RefusedTarget).with_detail(why.clone()))
            }
        }
    }

    fn service(&self, plan: &ServicePlan, attempt: Attempt) -> Result<Routed, Error> {
        let backend = match &attempt.backend {
            Some(before) => before.clone(),
            None => backend(plan, &attempt.request)?,
        };
        if let Some(chosen) = choose(&backend, &attempt) {
            return chosen.send(&self.shared, attempt).map(Routed::Sent);
        }
        if backend.endpoints.is_known() {
            return Err(no_endpoints(&backend));
        }
        // Only the first requests to a new backend come here.
        let shared = self.shared.clone();
        Ok(Routed::Waiting(Box::pin(async move {
            // Too late is the same as empty.
            let _ = tokio::time::timeout(ENDPOINTS_TIMEOUT, backend.endpoints.known()).await;
            match choose(&backend, &attempt) {
                Some(chosen) => chosen.send(&shared, attempt)?.await,
                None => Err(no_endpoints(&backend)),
            }
        })))
    }
}

fn backend(plan: &ServicePlan, request: &Request) -> Result<Arc<BackendPlan>, Error> {
    let route = if plan.routes.len() == 1 {
        &plan.routes[0]
    } else {
        let host = validate::host(request);
        let (method, path, headers) = (
            request.method().as_str(),
            request.uri().path(),
            request.headers(),
        );
        plan.route_http(&RequestView {
            method,
            path,
            host: &host,
            headers,
        })
    };
    let all_zero = || Error::new(ErrorKind::AllWeightsZero).attributed_to(route.metrics.clone());
    route.choose().cloned().ok_or_else(all_zero)
}

fn choose(backend: &Arc<BackendPlan>, attempt: &Attempt) -> Option<Chosen> {
    // The one clock read for choosing, and for the latency of what is chosen.
    let started = Instant::now();
    let pick = backend
        .endpoints
        .pick_except(balance::at(started), attempt.tried.ids())?;
    let edge = backend.edge(pick.endpoint());
    Some(Chosen {
        started,
        in_flight: pick.in_flight,
        edge,
        backend: Some(backend.clone()),
    })
}

fn no_endpoints(backend: &BackendPlan) -> Error {
    let detail = format!("the service {} has no ready endpoint", backend.backend.name);
    Error::new(ErrorKind::NoEndpoints)
        .with_detail(detail)
        .attributed_to(backend.metrics.clone())
}

/// An endpoint, and where requests to it are counted.
struct Chosen {
    started: Instant,
    in_flight: InFlight,
    edge: Attribution,
    backend: Option<Arc<BackendPlan>>,
}

impl Chosen {
    fn send(self, shared: &Arc<Shared>, mut attempt: Attempt) -> Result<Sent, Error> {
        let endpoint = self.in_flight.endpoint();
        let trust = if endpoint.spec.identity.is_some() {
            Trust::Peer
        } else {
            Trust::Nobody
        };
        if let Some(whole) = attempt.whole {
            let left = whole.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::RequestTimeout.into());
            }
            timeout::tell(&mut attempt.request, left, trust == Trust::Peer);
        }
        let service = stack::endpoint(shared, endpoint);
        let mut sent = Sent::new(&service, attempt.request, self.edge, trust, self.started);
        sent.in_flight = Some(self.in_flight);
        sent.backend = self.backend;
        // Boxed only where there is a limit.
        sent.late = attempt
            .head
            .map(|(at, kind)| (Box::pin(tokio::time::sleep_until(at)), kind));
        Ok(sent)
    }
}

impl Service<Attempt> for Route {
    type Response = Response;
    type Error = Error;
    type Future = Routed;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Routed {
        self.send(attempt)
            .unwrap_or_else(|error| Routed::Refused(Some(error)))
    }
}

/// A request on its way.
pub enum Routed {
    /// To an endpoint.
    Sent(Sent),
    /// Waits to hear of endpoints.
    Waiting(ServiceFuture),
    /// Goes nowhere; the error is taken by the first poll.
    Refused(Option<Error>),
}

/// A request sent to an endpoint.
pub struct Sent {
    inner: ServiceFuture,
    started: Instant,
    in_flight: Option<InFlight>,
    edge: Attribution,
    trust: Trust,
    backend: Option<Arc<BackendPlan>>,
    late: Option<(Pin<Box<tokio::time::Sleep>>, ErrorKind)>,
}

impl Sent {
    fn new(
        service: &HttpService,
        mut request: Request,
        edge: Attribution,
        trust: Trust,
        started: Instant,
    ) -> Self {
        request.body_mut().count_request(&edge);
        Self {
            inner: service.send(request),
            started,
            in_flight: None,
            edge,
            trust,
            backend: None,
            late: None,
        }
    }

    /// Whoever keeps its caller waiting longer than the policy says has failed.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &mut self.late {
            Some((sleep, kind)) => sleep.as_mut().poll(cx).map(|()| Error::new(*kind)),
            None => Poll::Pending,
        }
    }

    fn answered(&mut self, mut response: Response) -> Response {
        headers::clean_response(&mut response, self.trust);
        let head = ResponseHead::of(&response);
        response.body_mut().attribute(self.edge.clone());
        if let Some(mut guard) = self.in_flight.take() {
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.started);
            guard.answered_at(balance::at(now), latency);
            response.body_mut().in_flight(guard, latency, &head);
            response.body_mut().sent_within(self.backend.take());
        }
        response
    }

    fn failed(&mut self, error: Error) -> Error {
        let error = error.attributed_to(self.edge.clone());
        let Some(guard) = self.in_flight.take() else {
            return error;
        };
        let id = guard.endpoint().id;
        guard.done(outcome(&error), self.started.elapsed());
        error.sent_to(id).within(self.backend.take())
    }
}

fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectFailed | ErrorKind::ConnectTimeout => Outcome::ConnectFailure,
        // A refused stream or a connection closed while idle says nothing about how requests fare there.
        ErrorKind::RequestTimeout => Outcome::Failure,
        _ if error.is_upstream() && !error.retry_is_safe_if_idempotent() => Outcome::Failure,
        ErrorKind::PeerIdentity | ErrorKind::TlsHandshake => Outcome::ConnectFailure,
        _ => Outcome::Cancelled,
    }
}

impl Future for Sent {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.inner.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Ok(self.answered(response)),
            Poll::Ready(Err(error)) => Err(self.failed(error)),
            Poll::Pending => {
                let error = ready!(self.poll_late(cx));
                Err(self.failed(error))
            }
        })
    }
}

impl Future for Routed {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Routed::Sent(sent) => Pin::new(sent).poll(cx),
            Routed::Waiting(waiting) => waiting.as_mut().poll(cx),
            Routed::Refused(error) => error
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}
