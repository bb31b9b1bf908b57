//! Outbound: where does this request go? Route, then a backend by weight, then the better of two endpoints; all read
//! from the plan in force. Says where the request is counted, and tells the balancer how it went.

use super::retry::Attempt;
use super::timeout;
use crate::balance::{self, InFlight, Outcome, Refusal, Wish};
use crate::connect::OWN_DELAY;
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::headers::{self, Trust};
use crate::http::outcome::ResponseHead;
use crate::http::watch::Upload;
use crate::http::{Attribution, HttpService, Request, Response, ServiceFuture, pushback, validate};
use crate::policy::{BackendPlan, Destination, OutboundPlan, ServicePlan};
use crate::stack::{self, Shared};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};
use tower::Service;
use weft_proxy_api::policy::matching::RequestView;

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
            OutboundPlan::Unknown => Err(self.shared.inbound.unanswered().into()),
            OutboundPlan::Refused(why) => {
                Err(Error::new(ErrorKind::RefusedTarget).with_detail(why.clone()))
            }
        }
    }

    fn service(&self, plan: &Arc<ServicePlan>, attempt: Attempt) -> Result<Routed, Error> {
        let backend = match &attempt.backend {
            Some(before) => before.clone(),
            None => backend(plan, &attempt.request)?,
        };
        let refusal = match choose(plan, &backend, &attempt) {
            Ok(chosen) if plan.fallback.is_none() => {
                return chosen.send(&self.shared, attempt).map(Routed::Sent);
            }
            Ok(chosen) => {
                let again = attempt.without_request();
                let sent = chosen.send(&self.shared, attempt)?;
                return Ok(self.with_fallback(plan.clone(), &backend, sent, again));
            }
            Err(refusal) => refusal,
        };
        // Only what the choice itself said counts: a moment later the endpoints may have become known.
        let known = refusal != Refusal::Unknown;
        if known && plan.fallback.is_none() {
            return Err(refused(&self.shared, &backend, refusal));
        }
        // Only the first requests to a new backend, and those that need the fallback, come here.
        let (shared, plan) = (self.shared.clone(), plan.clone());
        Ok(Routed::Waiting(Box::pin(async move {
            let chosen = match known {
                true => Err(refusal),
                false => choose_known(&plan, &backend, &attempt).await,
            };
            match chosen {
                Ok(chosen) => chosen.send(&shared, attempt)?.await,
                Err(refusal) => {
                    let error = refused(&shared, &backend, refusal);
                    instead(&shared, &plan, &backend, attempt, error).await
                }
            }
        })))
    }

    /// The breaker may turn out to be open only where a connection is looked for.
    fn with_fallback(
        &self,
        plan: Arc<ServicePlan>,
        backend: &Arc<BackendPlan>,
        sent: Sent,
        mut again: Attempt,
    ) -> Routed {
        let (shared, backend) = (self.shared.clone(), backend.clone());
        Routed::Waiting(Box::pin(async move {
            let mut error = match sent.await {
                Err(error) if error.kind() == ErrorKind::BreakerOpen => error,
                ended => return ended,
            };
            let Some(request) = error.take_request() else {
                return Err(error);
            };
            again.request = request;
            instead(&shared, &plan, &backend, again, error).await
        }))
    }
}

/// Asks the fallback, if there is one that was not asked already; else it is as `error` says.
async fn instead(
    shared: &Arc<Shared>,
    plan: &ServicePlan,
    backend: &Arc<BackendPlan>,
    attempt: Attempt,
    error: Error,
) -> Result<Response, Error> {
    let Some(fallback) = &plan.fallback else {
        return Err(error);
    };
    if Arc::ptr_eq(&fallback.backend, backend) {
        return Err(error);
    }
    match choose_known(plan, &fallback.backend, &attempt).await {
        Ok(chosen) => {
            fallback.counts.fallback();
            chosen.send(shared, attempt)?.await
        }
        Err(_) => Err(error),
    }
}

/// Chooses as soon as anything is known about the endpoints.
async fn choose_known(
    plan: &ServicePlan,
    backend: &Arc<BackendPlan>,
    attempt: &Attempt,
) -> Result<Chosen, Refusal> {
    backend.endpoints.known_soon().await;
    choose(plan, backend, attempt)
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

fn choose(
    plan: &ServicePlan,
    backend: &Arc<BackendPlan>,
    attempt: &Attempt,
) -> Result<Chosen, Refusal> {
    // The one clock read for choosing, and for the latency of what is chosen.
    let started = Instant::now();
    let wish = Wish {
        tried: attempt.tried.ids(),
        key: plan.key.as_ref().and_then(|key| key.key(&attempt.request)),
    };
    let pick = backend.endpoints.pick_for(balance::at(started), wish)?;
    let edge = backend.edge(pick.endpoint());
    Ok(Chosen {
        started,
        in_flight: pick.in_flight,
        edge,
        backend: Some(backend.clone()),
    })
}

fn refused(shared: &Shared, backend: &BackendPlan, refusal: Refusal) -> Error {
    let error = match refusal {
        Refusal::Unknown => shared.inbound.unanswered().into(),
        Refusal::Nobody => {
            let name = &backend.backend.name;
            let detail = format!("the service {name} has no ready endpoint");
            Error::new(ErrorKind::NoEndpoints).with_detail(detail)
        }
        Refusal::AllEjected => ErrorKind::Ejected.into(),
        Refusal::Full(limit) => Error::breaker_open(limit),
    };
    error.attributed_to(backend.metrics.clone())
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
        sent.upload = attempt.upload;
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
    upload: Option<Arc<Upload>>,
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
            upload: None,
        }
    }

    /// Whoever keeps its caller waiting longer than the policy says has failed.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &mut self.late {
            Some((sleep, kind)) => sleep.as_mut().poll(cx).map(|()| Error::new(*kind)),
            None => Poll::Pending,
        }
    }

    /// Its time was up long ago, and only now we see it.
    fn is_own_delay(&self, kind: ErrorKind) -> bool {
        let now = tokio::time::Instant::now();
        let late = |(sleep, why): &(Pin<Box<tokio::time::Sleep>>, ErrorKind)| {
            *why == kind && now > sleep.deadline() + OWN_DELAY
        };
        self.late.as_ref().is_some_and(late)
    }

    /// Its time was up while it waited for the rest of the request. A client that says more only once it has heard
    /// something looks the same.
    fn is_clients_delay(&self, kind: ErrorKind) -> bool {
        use ErrorKind::{RequestTimeout, ResponseTimeout, TryTimeout};
        let upload = self.upload.as_ref();
        matches!(kind, RequestTimeout | ResponseTimeout | TryTimeout)
            && upload.is_some_and(|upload| upload.waits_for_client())
    }

    fn answered(&mut self, mut response: Response) -> Response {
        headers::clean_response(&mut response, self.trust);
        let head = ResponseHead::of(&response);
        response.body_mut().attribute(self.edge.clone());
        if let Some(mut guard) = self.in_flight.take() {
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.started);
            guard.answered_at(balance::at(now), latency);
            if head.may_push_back()
                && let Some(wait) = pushback::of(&head, response.headers(), SystemTime::now())
            {
                guard.endpoint().push_back(balance::at(now), wait);
            }
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
        let took = self.started.elapsed();
        let excused = self.is_own_delay(error.kind()) || self.is_clients_delay(error.kind());
        let outcome = match excused {
            true => Outcome::Cancelled,
            false => outcome(&error),
        };
        guard.done(outcome, took);
        error.sent_to(id).within(self.backend.take())
    }
}

/// What an error says of the endpoint where it happened.
pub(crate) fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        _ if error.is_of_own_delay() => Outcome::Cancelled,
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
