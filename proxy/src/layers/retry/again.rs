//! What is kept of a request for another try, and whether there is one.

use super::judge::{self, Judge};
use super::{Attempt, MAX_RETRIES, RetryLayer, Tried};
use crate::error::{Error, ErrorKind};
use crate::http::replay::Replay;
use crate::http::watch::Upload;
use crate::http::{Body, Request, Response, headers};
use crate::layers::Outgoing;
use crate::layers::budget::Budget;
use crate::policy::{BackendPlan, Terms};
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use http_body::Body as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

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
pub(super) struct Again {
    /// The head, for a request that can be written twice.
    spare: Option<Box<Spare>>,
    tried: Tried,
    retries: u32,
    head: Option<(Instant, ErrorKind)>,
    whole: Option<Instant>,
    upload: Option<Arc<Upload>>,
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
pub(super) enum Next {
    /// Up it goes.
    Done(Result<Response, Error>),
    /// Again, at once.
    Now(Box<Attempt>),
    /// Again, after a wait.
    Later,
}

impl Again {
    pub(super) fn new(outgoing: &mut Outgoing) -> Self {
        let request = &mut outgoing.request;
        // A tunnel cannot be written twice: its protocol is not among its fields.
        let tunnel = request.method() == Method::CONNECT;
        let whole = request.body().is_end_stream() && !tunnel;
        let policy = outgoing.terms.take().map(|terms| {
            let retry = terms.retry.as_ref();
            let judge = retry.and_then(|retry| Judge::new(retry, request));
            // Bodies are kept only where an answer may be asked for again.
            let keep = judge.is_some() && !whole && !tunnel;
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
            upload: outgoing.upload.take(),
            policy,
        }
    }

    /// A try that begins after `wait`.
    pub(super) fn attempt(
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
            upload: self.upload.clone(),
        }
    }

    /// Nothing is known of the request that could matter to its answer: most are like this.
    pub(super) fn is_plain(&self) -> bool {
        self.policy.is_none() && self.retries == 0
    }

    /// What to do now that a try has ended so.
    pub(super) fn after(
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
            Ok(response) if reached_nobody(response) => Some(Asked::AsItIsSafe),
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
    pub(super) fn waited(&mut self, cx: &mut Context<'_>) -> Poll<Option<Attempt>> {
        let Some(policy) = &mut self.policy else {
            return Poll::Ready(None);
        };
        if let Some((sleep, _)) = &mut policy.waiting {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(policy.waiting.take().map(|(_, attempt)| attempt))
    }
}

/// Says the server's proxy that its application took no connection? So it is while a pod ends and not everybody has heard
/// of it. Only a proxy can have said it: from anybody else the field has been taken away.
pub(super) fn reached_nobody(response: &Response) -> bool {
    if !matches!(response.status().as_u16(), 502 | 504) {
        return false;
    }
    let said = response.headers().get(headers::ERROR);
    said.and_then(|said| said.as_bytes().split(|byte| *byte == b' ').next())
        .is_some_and(|code| {
            [ErrorKind::ConnectFailed, ErrorKind::ConnectTimeout]
                .iter()
                .any(|kind| kind.row().code.as_bytes() == code)
        })
}

/// Why there should be another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    AsItIsSafe,
    ByPolicy,
}
