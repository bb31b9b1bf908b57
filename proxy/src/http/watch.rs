//! Watches the time of one exchange: its answer's head, its whole, and the silence in it. Travels with the answer, from
//! the wait for its head to the end of its body. Only exchanges with a limit have one.

use crate::error::ErrorKind;
use crate::metrics::{Count, Metrics};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Far enough to mean never.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// When what must have happened.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The answer's head.
    pub head: Option<Instant>,
    /// Everything.
    pub whole: Option<Instant>,
    /// The next byte.
    pub idle: Option<Arc<Idle>>,
}

/// The silence of an exchange, seen from both of its bodies.
#[derive(Debug)]
pub struct Idle {
    most: Duration,
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

/// A request's body, seen from whoever waits for the answer.
#[derive(Debug, Default)]
pub struct Upload(AtomicBool);

/// How often time ran out, by what it was given for; tries are counted where they are made.
#[derive(Debug, Clone)]
pub struct TimeoutCounts {
    request: Count,
    response: Count,
    idle: Count,
}

/// Says when it is late.
pub(crate) struct Watch {
    limits: Limits,
    sleep: Pin<Box<Sleep>>,
    /// Where it is counted; `None`: the other body's watch does.
    counts: Option<Arc<TimeoutCounts>>,
    /// Of a request's body.
    upload: Option<Arc<Upload>>,
    /// A late answer ends with a status, as gRPC has it, instead of breaking off.
    pub(super) grpc: bool,
}

impl Limits {
    /// Nothing is limited.
    pub fn is_none(&self) -> bool {
        self.head.is_none() && self.whole.is_none() && self.idle.is_none()
    }

    /// The limit that is reached first.
    fn next(&self) -> Option<(Instant, ErrorKind)> {
        [
            (self.whole, ErrorKind::RequestTimeout),
            (self.head, ErrorKind::ResponseTimeout),
            (
                self.idle.as_ref().map(|idle| idle.ends()),
                ErrorKind::IdleTimeout,
            ),
        ]
        .into_iter()
        .filter_map(|(at, kind)| Some((at?, kind)))
        .min_by_key(|(at, _)| *at)
    }
}

impl Upload {
    /// Is it the client that keeps everybody waiting, and not whoever reads?
    pub fn waits_for_client(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Idle {
    /// Silence begins now.
    pub fn new(most: Duration) -> Arc<Self> {
        Arc::new(Self {
            most,
            start: Instant::now(),
            last: AtomicU64::new(0),
        })
    }

    fn heard(&self) {
        let since = self.start.elapsed().as_millis();
        self.last
            .store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
    }

    fn ends(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Relaxed)) + self.most
    }
}

impl TimeoutCounts {
    /// Binds them.
    pub fn new(metrics: &Metrics, direction: crate::connection::Direction) -> Arc<Self> {
        let count = |kind| metrics.timeouts(direction, kind);
        Arc::new(Self {
            request: count("request"),
            response: count("response"),
            idle: count("idle"),
        })
    }

    /// Counts it if it is one.
    pub fn late(&self, kind: ErrorKind) {
        match kind {
            ErrorKind::RequestTimeout => self.request.inc(),
            ErrorKind::ResponseTimeout => self.response.inc(),
            ErrorKind::IdleTimeout => self.idle.inc(),
            _ => {}
        }
    }
}

impl Watch {
    pub(crate) fn new(limits: Limits, counts: Option<Arc<TimeoutCounts>>, grpc: bool) -> Box<Self> {
        let first = limits.next().map(|(at, _)| at);
        let first = first.unwrap_or_else(|| Instant::now() + FAR);
        Box::new(Self {
            limits,
            sleep: Box::pin(tokio::time::sleep_until(first)),
            counts,
            upload: None,
            grpc,
        })
    }

    /// Tells from now on whether the body waits for its client.
    pub(crate) fn tell(&mut self, upload: Arc<Upload>) {
        self.upload = Some(upload);
    }

    /// The body was asked for more: there is nothing yet, or there was something.
    pub(super) fn asked(&self, nothing_yet: bool) {
        if let Some(upload) = &self.upload {
            upload.0.store(nothing_yet, Relaxed);
        }
    }

    /// The head has come: only the body is left.
    pub(crate) fn head_came(&mut self) {
        self.limits.head = None;
        self.heard();
    }

    /// Counts a failure that is a matter of time.
    pub(crate) fn late(&self, kind: ErrorKind) {
        if let Some(counts) = &self.counts {
            counts.late(kind);
        }
    }

    /// Is the time for everything up? Where bytes go by without a pause, or the reader makes the pauses, nobody waits for them,
    /// and so nobody sees it.
    pub(crate) fn is_over(&self) -> bool {
        self.limits.whole.is_some_and(|at| at <= Instant::now())
    }

    /// A byte went by.
    pub(super) fn heard(&self) {
        if let Some(idle) = &self.limits.idle {
            idle.heard();
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ErrorKind> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            match self.limits.next() {
                Some((at, kind)) if at <= Instant::now() => {
                    self.late(kind);
                    return Poll::Ready(kind);
                }
                // What was waited for has come, or was put off.
                Some((at, _)) => self.sleep.as_mut().reset(at),
                None => self.sleep.as_mut().reset(Instant::now() + FAR),
            }
        }
    }
}
