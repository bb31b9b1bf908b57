//! Sends a request again that certainly, or harmlessly, was not processed: the connection could not be opened, the peer
//! refused the stream, or closed an idle connection at the moment it was used. Stands above routing, so that another
//! endpoint is chosen; within the same backend, so that the shares of a split stay exact. A budget keeps retries from
//! making an outage worse.

use super::Below;
use crate::error::Error;
use crate::http::{Body, Request, Response};
use crate::policy::BackendPlan;
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use http_body::Body as _;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower::{Layer, Service};

/// Tries after the first.
pub const MAX_RETRIES: usize = 2;

/// One try at a request.
pub struct Attempt {
    /// What to send.
    pub request: Request,
    /// Where it was sent before.
    pub tried: Tried,
    /// The backend that was chosen for it before; chosen once for all tries.
    pub backend: Option<Arc<BackendPlan>>,
}

/// Endpoints that were tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    ids: [u64; MAX_RETRIES],
    len: usize,
}

impl Tried {
    /// Their ids.
    pub fn ids(&self) -> &[u64] {
        &self.ids[..self.len]
    }

    fn add(&mut self, id: u64) {
        if let Some(free) = self.ids.get_mut(self.len) {
            *free = id;
            self.len += 1;
        }
    }
}

/// 20 % of the requests, and ten per second: the retries of one destination. One number, changed without a lock.
#[derive(Debug)]
pub struct Budget {
    /// High half: milliseconds since `start`; low half: what is left, in hundredths of a retry.
    packed: AtomicU64,
    start: Instant,
}

impl Budget {
    const RETRY: u64 = 100;
    const REQUEST: u64 = 20;
    /// Ten retries per second are one hundredth of a retry per millisecond.
    const PER_MILLISECOND: u64 = 1;
    const MOST: u64 = 1000 * Self::RETRY;
    const AT_START: u64 = 10 * Self::RETRY;

    /// As it is for a destination nobody has called yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            packed: AtomicU64::new(Self::AT_START),
            start: Instant::now(),
        })
    }

    /// A request pays in.
    pub fn deposit(&self) {
        let now = self.packed.load(Relaxed);
        let left = now & u64::from(u32::MAX);
        // Mostly it is full. A deposit lost to another one at the same moment is no harm.
        if left + Self::REQUEST <= Self::MOST {
            let _ = self
                .packed
                .compare_exchange(now, now + Self::REQUEST, Relaxed, Relaxed);
        }
    }

    /// A retry pays; false: it cannot.
    pub fn withdraw(&self) -> bool {
        self.withdraw_at(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn withdraw_at(&self, now: u64) -> bool {
        let now = now & u64::from(u32::MAX);
        let paid = self.packed.fetch_update(Relaxed, Relaxed, |packed| {
            let (then, left) = (packed >> 32, packed & u64::from(u32::MAX));
            let earned = now
                .saturating_sub(then)
                .saturating_mul(Self::PER_MILLISECOND);
            let left = left.saturating_add(earned).min(Self::MOST);
            Some(now << 32 | left.checked_sub(Self::RETRY)?)
        });
        paid.is_ok()
    }
}

/// Retries within a budget.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    budget: Arc<Budget>,
}

/// Retries.
#[derive(Debug, Clone)]
pub struct Retry<S> {
    inner: S,
    budget: Arc<Budget>,
}

impl RetryLayer {
    /// All stacks of a destination share its budget.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            budget: self.budget.clone(),
        }
    }
}

impl<S: Below<Attempt> + Clone> Service<Request> for Retry<S> {
    type Response = Response;
    type Error = Error;
    type Future = Retried<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.budget.deposit();
        let spare = spare(&request);
        let call = self.inner.call(Attempt {
            request,
            tried: Tried::default(),
            backend: None,
        });
        let again = Again {
            spare,
            tried: Tried::default(),
            retries: 0,
        };
        Retried {
            call,
            inner: self.inner.clone(),
            budget: self.budget.clone(),
            again,
        }
    }
}

/// A request without a body can be written twice.
fn spare(request: &Request) -> Option<Box<Spare>> {
    request
        .body()
        .is_end_stream()
        .then(|| Box::new(Spare::of(request)))
}

/// What is needed to write a request once more. Hardly ever used, so it is made as cheaply as can be: a list of the
/// fields, which share their bytes with the request, and no map of them.
struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(request: &Request) -> Self {
        let fields = request.headers().iter();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: fields.map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }

    fn request(&self) -> Request {
        let mut request = Request::new(Body::empty());
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
    spare: Option<Box<Spare>>,
    tried: Tried,
    retries: usize,
}

impl Again {
    /// The request to send again, if that is right.
    fn after(&mut self, error: &mut Error, budget: &Budget) -> Option<Attempt> {
        if self.retries >= MAX_RETRIES {
            return None;
        }
        let idempotent = self
            .spare
            .as_ref()
            .is_some_and(|spare| spare.method.is_idempotent());
        let may = error.retry_is_safe() || (idempotent && error.retry_is_safe_if_idempotent());
        if !may {
            return None;
        }
        if error.holds_request() || self.spare.is_some() {
            if !budget.withdraw() {
                return None;
            }
            self.retries += 1;
            if let Some(id) = error.tried() {
                self.tried.add(id);
            }
        }
        let request = match &self.spare {
            Some(spare) => spare.request(),
            None => error.take_request()?,
        };
        Some(Attempt {
            request,
            tried: self.tried,
            backend: error.take_backend(),
        })
    }
}

pin_project! {
    /// A request that may be tried again.
    pub struct Retried<S, F> {
        #[pin]
        call: F,
        inner: S,
        budget: Arc<Budget>,
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
            match ready!(this.call.as_mut().poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(mut error) => match this.again.after(&mut error, this.budget) {
                    Some(attempt) => this.call.set(this.inner.call(attempt)),
                    None => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::atomic::AtomicUsize;
    use tower::service_fn;

    /// Fails `times` times with what `fail` makes; tells how often it was called.
    async fn tries(
        method: &str,
        body: Body,
        times: usize,
        fail: fn(Request) -> Error,
    ) -> (usize, bool) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let below = service_fn(move |attempt: Attempt| {
            let call = counted.fetch_add(1, Relaxed);
            assert_eq!(attempt.tried.ids().len(), call);
            async move {
                if call < times {
                    Err(fail(attempt.request).sent_to(call as u64))
                } else {
                    Ok(Response::new(Body::empty()))
                }
            }
        });
        let mut stack = RetryLayer::new(Budget::new()).layer(below);
        let request = http::Request::builder().method(method).body(body).unwrap();
        let answer = stack.call(request).await;
        (calls.load(Relaxed), answer.is_ok())
    }

    #[tokio::test]
    async fn only_what_was_not_processed_is_sent_again() {
        let connect = |request| Error::new(ErrorKind::ConnectFailed).with_request(request);
        let raced = |_| Error::new(ErrorKind::UpstreamReset).raced_with_close();
        let refused = |_| Error::new(ErrorKind::UpstreamReset).never_processed();
        let reset = |_| Error::new(ErrorKind::UpstreamReset);
        type Row = (
            &'static str,
            &'static str,
            usize,
            fn(Request) -> Error,
            (usize, bool),
        );
        let rows: [Row; 9] = [
            ("GET", "", 1, connect, (2, true)),
            ("POST", "body", 1, connect, (2, true)),
            ("GET", "", 2, connect, (3, true)),
            ("GET", "", 3, connect, (3, false)),
            ("GET", "", 1, raced, (2, true)),
            ("POST", "", 1, raced, (1, false)),
            ("POST", "", 1, refused, (2, true)),
            ("POST", "body", 1, refused, (1, false)),
            ("GET", "", 1, reset, (1, false)),
        ];
        for (at, (method, body, times, fail, expected)) in rows.into_iter().enumerate() {
            let body = if body.is_empty() {
                Body::empty()
            } else {
                Body::full(body)
            };
            assert_eq!(tries(method, body, times, fail).await, expected, "row {at}");
        }
    }

    #[test]
    fn the_budget_is_a_share_of_the_requests_and_a_rate() {
        let budget = Budget::new();
        let spent = |now| std::iter::from_fn(|| budget.withdraw_at(now).then_some(())).count();
        assert_eq!(spent(0), 10, "what there is at the start");
        assert_eq!(spent(1000), 10, "ten per second");
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!(spent(1000), 20, "a fifth of the requests");
        assert_eq!(spent(10_000_000), 1000, "never more than this at once");
    }
}
