//! Sends a request again. Always where that is safe: the connection could not be opened, the peer refused the stream, or
//! closed an idle connection at the moment it was used. And where the policy of the called Service says so: by status, by
//! gRPC code, by method, with the body kept for it. Stands above routing, so that another endpoint is chosen; within the
//! same backend, so that the shares of a split stay exact. A budget keeps retries from making an outage worse, no try
//! begins that cannot end in time, and an answer that has begun to pass is never taken back.

use super::budget::Budget;
use super::{Below, Outgoing};
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::replay::Replay;
use crate::http::{Body, Request, Response};
use crate::metrics::Metrics;
use crate::policy::{BackendPlan, Terms};
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use http_body::Body as _;
use judge::Judge;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tower::{Layer, Service};

mod judge;
#[cfg(test)]
mod tests;

/// Tries after the first that need no policy, as they are safe.
pub const MAX_RETRIES: u32 = 2;
/// Endpoints remembered as tried; of more, the last ones.
const REMEMBERED: usize = 4;

/// One try at a request.
pub struct Attempt {
    /// What to send.
    pub request: Request,
    /// What the policy says of it.
    pub terms: Option<Arc<Terms>>,
    /// Where it was sent before.
    pub tried: Tried,
    /// The backend that was chosen for it before; chosen once for all tries.
    pub backend: Option<Arc<BackendPlan>>,
    /// When the head of its answer must be there; later is the endpoint's failure.
    pub head: Option<(Instant, ErrorKind)>,
    /// When everything must be over.
    pub whole: Option<Instant>,
}

impl Attempt {
    /// The same without its request, which may come back.
    pub(super) fn without_request(&self) -> Self {
        Self {
            request: Request::default(),
            terms: self.terms.clone(),
            tried: Tried::default(),
            backend: None,
            ..*self
        }
    }
}

/// Endpoints that were tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    ids: [u64; REMEMBERED],
    len: usize,
}

impl Tried {
    /// Their ids.
    pub fn ids(&self) -> &[u64] {
        &self.ids[..self.len.min(REMEMBERED)]
    }

    fn add(&mut self, id: u64) {
        self.ids[self.len % REMEMBERED] = id;
        self.len += 1;
    }
}

/// Retries within a budget.
#[derive(Clone)]
pub struct RetryLayer {
    budget: Arc<Budget>,
    counts: Arc<Counts>,
}

/// Where it is said how retries fare. They are rare enough to look their series up.
struct Counts {
    metrics: Arc<Metrics>,
    direction: Direction,
    service: String,
}

impl Counts {
    fn count(&self, result: &'static str) {
        self.metrics
            .retries(self.direction, &self.service, result)
            .inc();
    }

    fn late(&self) {
        self.metrics.timeouts(self.direction, "try").inc();
    }
}

/// Retries.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
}

impl RetryLayer {
    /// All stacks of a destination share its budget. `service`: what the destination is called, if it is a Service.
    pub fn new(
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
        direction: Direction,
        service: String,
    ) -> Self {
        let counts = Arc::new(Counts {
            metrics,
            direction,
            service,
        });
        Self { budget, counts }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below<Attempt> + Clone> Service<Outgoing> for Retry<S> {
    type Response = Response;
    type Error = Error;
    type Future = Retried<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut outgoing: Outgoing) -> Self::Future {
        self.layer.budget.deposit();
        let again = Again::new(&mut outgoing);
        let call = self
            .inner
            .call(again.attempt(outgoing.request, None, Duration::ZERO));
        Retried {
            call,
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            again,
        }
    }
}

/// What is needed to write a request once more. Hardly ever used, so it is made as cheaply as can be: a list of the
/// fields, which share their bytes with the request, and no map of them.
struct Spare {
    client: u64,
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(request: &Request) -> Self {
        let fields = request.headers().iter();
        Self {
            client: request.body().client().unwrap_or(0),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: fields.map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }

    fn request(&self, body: Body) -> Request {
        let mut request = Request::new(body);
        request.body_mut().set_client(self.client);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        for (name, value) in &self.fields {
            request.headers_mut().append(name.clone(), value.clone());
        }
        request
    }
}

/// What is kept for another try.
struct Again {
    /// The head, for a request that can be written twice.
    spare: Option<Box<Spare>>,
    tried: Tried,
    retries: u32,
    head: Option<(Instant, ErrorKind)>,
    whole: Option<Instant>,
    /// What only a policy asks for.
    policy: Option<Box<Policy>>,
}

/// What a policy asks for.
struct Policy {
    terms: Arc<Terms>,
    /// Which answers are asked for again; `None`: none of this request.
    judge: Option<Judge>,
    replay: Option<Replay>,
    /// The next try, and what it waits for.
    waiting: Option<(Pin<Box<Sleep>>, Attempt)>,
}

/// What follows from how a try ended.
enum Next {
    /// Up it goes.
    Done(Result<Response, Error>),
    /// Again, at once.
    Now(Box<Attempt>),
    /// Again, after a wait.
    Later,
}

impl Again {
    fn new(outgoing: &mut Outgoing) -> Self {
        let request = &mut outgoing.request;
        let whole = request.body().is_end_stream();
        let policy = outgoing.terms.take().map(|terms| {
            let retry = terms.retry.as_ref();
            let judge = retry.and_then(|retry| Judge::new(retry, request));
            // Bodies are kept only where an answer may be asked for again.
            let keep = judge.is_some() && !whole;
            Box::new(Policy {
                judge,
                replay: keep.then(|| Replay::of(request.body_mut())).flatten(),
                waiting: None,
                terms,
            })
        });
        let kept = policy
            .as_ref()
            .is_some_and(|policy| policy.replay.is_some());
        Self {
            spare: (whole || kept).then(|| Box::new(Spare::of(request))),
            tried: Tried::default(),
            retries: 0,
            head: outgoing.head,
            whole: outgoing.whole,
            policy,
        }
    }

    /// A try that begins after `wait`.
    fn attempt(
        &self,
        request: Request,
        backend: Option<Arc<BackendPlan>>,
        wait: Duration,
    ) -> Attempt {
        let terms = self.policy.as_ref().map(|policy| policy.terms.clone());
        let per_try = terms.as_ref().and_then(|terms| terms.timeouts.per_try);
        let per_try =
            per_try.and_then(|most| Instant::now().checked_add(wait.saturating_add(most)));
        let per_try = per_try.map(|at| (at, ErrorKind::TryTimeout));
        let head = per_try.into_iter().chain(self.head);
        Attempt {
            request,
            terms,
            tried: self.tried,
            backend,
            head: head.min_by_key(|(at, _)| *at),
            whole: self.whole,
        }
    }

    /// Nothing is known of the request that could matter to its answer: most are like this.
    fn is_plain(&self) -> bool {
        self.policy.is_none() && self.retries == 0
    }

    /// What to do now that a try has ended so.
    fn after(
        &mut self,
        mut result: Result<Response, Error>,
        layer: &RetryLayer,
        cx: &mut Context<'_>,
    ) -> Next {
        if let Err(error) = &result
            && error.kind() == ErrorKind::TryTimeout
        {
            layer.counts.late();
        }
        let asked = self.asked(&mut result, cx);
        let Some(asked) = asked else {
            if self.retries > 0 && result.is_ok() {
                layer.counts.count("succeeded");
            }
            return Next::Done(result);
        };
        match self.prepare(asked, &mut result, &layer.budget) {
            Ok((wait, attempt)) => {
                layer.counts.count("tried");
                if let Ok(response) = result {
                    response.into_body().read_away();
                }
                match (&mut self.policy, wait) {
                    (Some(policy), Some(wait)) => {
                        policy.waiting = Some((Box::pin(tokio::time::sleep(wait)), attempt));
                        Next::Later
                    }
                    _ => Next::Now(Box::new(attempt)),
                }
            }
            Err(why) => {
                layer.counts.count(why);
                Next::Done(result)
            }
        }
    }

    /// Should there be another try, and why?
    fn asked(&self, result: &mut Result<Response, Error>, cx: &mut Context<'_>) -> Option<Asked> {
        let judge = self
            .policy
            .as_ref()
            .and_then(|policy| policy.judge.as_ref());
        match result {
            Ok(response) => judge?.answer(response, cx).then_some(Asked::ByPolicy),
            Err(error) => {
                let idempotent = self
                    .spare
                    .as_ref()
                    .is_some_and(|spare| spare.method.is_idempotent());
                let safe =
                    error.retry_is_safe() || (idempotent && error.retry_is_safe_if_idempotent());
                if safe {
                    return Some(Asked::AsItIsSafe);
                }
                judge?.error(error).then_some(Asked::ByPolicy)
            }
        }
    }

    /// The next try and the wait before it; or why there is none.
    fn prepare(
        &mut self,
        asked: Asked,
        result: &mut Result<Response, Error>,
        budget: &Budget,
    ) -> Result<(Option<Duration>, Attempt), &'static str> {
        let retry = self
            .policy
            .as_ref()
            .and_then(|policy| policy.terms.retry.as_ref());
        let named = retry.map_or(0, |retry| retry.attempts);
        let (most, wait) = match asked {
            Asked::AsItIsSafe => (named.max(MAX_RETRIES), None),
            Asked::ByPolicy => (
                named,
                retry.map(|retry| judge::backoff(retry, self.retries)),
            ),
        };
        if self.retries >= most {
            return Err("attempts");
        }
        let ends = self
            .head
            .map(|(at, _)| at)
            .into_iter()
            .chain(self.whole)
            .min();
        if ends.is_some_and(|ends| Instant::now() + wait.unwrap_or_default() >= ends) {
            return Err("late");
        }
        let given_back = match result {
            Err(error) => error.take_request(),
            Ok(_) => None,
        };
        let again = self.request(given_back).ok_or("not_replayable")?;
        if !budget.withdraw() {
            return Err("budget");
        }
        self.retries += 1;
        let (tried, backend) = match result {
            Ok(response) => (
                response.body().endpoint(),
                response.body_mut().take_backend(),
            ),
            Err(error) => (error.tried(), error.take_backend()),
        };
        if let Some(id) = tried {
            self.tried.add(id);
        }
        Ok((wait, self.attempt(again, backend, wait.unwrap_or_default())))
    }

    /// The request once more: as it was kept, or as it was given back untouched.
    fn request(&self, given_back: Option<Request>) -> Option<Request> {
        let replay = self
            .policy
            .as_ref()
            .and_then(|policy| policy.replay.as_ref());
        match (&self.spare, replay) {
            (Some(spare), Some(replay)) => Some(spare.request(replay.again()?)),
            (Some(spare), None) => Some(spare.request(Body::empty())),
            (None, _) => given_back,
        }
    }

    /// The next try, when its wait is over; `None`: none waits.
    fn waited(&mut self, cx: &mut Context<'_>) -> Poll<Option<Attempt>> {
        let Some(policy) = &mut self.policy else {
            return Poll::Ready(None);
        };
        if let Some((sleep, _)) = &mut policy.waiting {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(policy.waiting.take().map(|(_, attempt)| attempt))
    }
}

/// Why there should be another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    AsItIsSafe,
    ByPolicy,
}

pin_project! {
    /// A request that may be tried again.
    pub struct Retried<S, F> {
        #[pin]
        call: F,
        inner: S,
        layer: RetryLayer,
        again: Again,
    }
}

impl<S: Below<Attempt, Future = F>, F: Future<Output = Result<Response, Error>>> Future
    for Retried<S, F>
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(attempt) = ready!(this.again.waited(cx)) {
                this.call.set(this.inner.call(attempt));
            }
            let result = ready!(this.call.as_mut().poll(cx));
            if result.is_ok() && this.again.is_plain() {
                return Poll::Ready(result);
            }
            match this.again.after(result, this.layer, cx) {
                Next::Done(result) => return Poll::Ready(result),
                Next::Now(attempt) => this.call.set(this.inner.call(*attempt)),
                Next::Later => {}
            }
        }
    }
}
