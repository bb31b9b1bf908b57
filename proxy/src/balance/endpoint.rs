//! One endpoint and what is known about it: how many requests are under way, how slow it is, whether it is set aside.

use super::breaker::{Admission, Breaker};
use super::ewma::Ewma;
use super::health::Health;
use super::limits::{Limits, Permit};
use crate::metrics::{EndpointMetrics, Group};
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use weft_proxy_api::policy::outbound;
use weft_proxy_api::policy::settings::Ejection;

/// What one request under way adds to an endpoint about which nothing is known, nanoseconds: the first answer is
/// awaited before more is sent.
pub(super) const UNKNOWN: f64 = 1e9;
/// Longest time that an endpoint may ask to be left alone: what it says is not to be trusted for ever.
const MOST_PUSHBACK: Duration = Duration::from_secs(300);

/// How a request (or connection) to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered well.
    Success,
    /// Answered badly, or not at all: counts against the endpoint.
    Failure,
    /// The connection could not be opened: counts against the endpoint.
    ConnectFailure,
    /// It said that it has too much to do: avoided for a while, but nothing is wrong with it.
    Busy,
    /// Ended from our side; says nothing about the endpoint.
    Cancelled,
}

/// An endpoint with its state. Survives updates of its set as long as its description stays the same.
pub struct Endpoint {
    /// What discovery said.
    pub spec: outbound::Endpoint,
    /// Unique in the process: the key of its connection pool.
    pub id: u64,
    /// Labels.
    pub group: Group,
    in_flight: AtomicU32,
    /// Of those in flight, how many wait for their answer to begin, and since when one waits with nothing heard.
    waiting: AtomicU32,
    silent_since: AtomicU64,
    ewma: Ewma,
    breaker: Breaker,
    /// Until when it asked to be left alone.
    pushback: AtomicU64,
    /// When it joined a set that had others; 0: it is as old as the set.
    pub(super) since: u64,
    health: Arc<Health>,
    /// Found when it is first counted by itself.
    counts: OnceLock<Option<Arc<EndpointMetrics>>>,
    gone: AtomicBool,
    left: Notify,
}

/// Something under way to an endpoint. Dropping it without [`InFlight::done`] means cancelled.
///
/// Whoever has to do with more than short answers says [`InFlight::answered`] when the answer begins, or
/// [`InFlight::succeeded`] when a stream of bytes is up: as long as nothing is heard, the endpoint looks slower and slower.
#[must_use]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    probe: bool,
    answered: bool,
    succeeded: bool,
    done: bool,
    /// Of the Service's breaker.
    permit: Option<Permit>,
    /// Apart, as it is rare: what is under way should be small.
    counted: Option<Box<Counted>>,
}

/// A request counted with its endpoint alone.
struct Counted {
    counts: Arc<EndpointMetrics>,
    ended: Outcome,
    latency: Option<Duration>,
}

impl Endpoint {
    /// A new endpoint about which nothing is known, alone in its set: for pods called by their own address.
    pub fn new(spec: outbound::Endpoint) -> Arc<Self> {
        let health = Health::new(Arc::default(), Arc::default());
        health.resize(1);
        Self::of_set(spec, health, 0)
    }

    pub(super) fn of_set(spec: outbound::Endpoint, health: Arc<Health>, since: u64) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let group = Group::new(&spec.namespace, &spec.workload, spec.identity.is_some());
        Arc::new(Self {
            spec,
            id: NEXT.fetch_add(1, Relaxed),
            group,
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            silent_since: AtomicU64::new(0),
            ewma: Ewma::default(),
            breaker: Breaker::default(),
            pushback: AtomicU64::new(0),
            since,
            health,
            counts: OnceLock::new(),
            gone: AtomicBool::new(false),
            left: Notify::new(),
        })
    }

    /// Counts one more in flight.
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.begin(super::now(), false)
    }

    /// True once discovery dropped it: its pooled connections should not be kept.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Waits until it is gone.
    pub async fn gone(&self) {
        let left = self.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        if !self.is_gone() {
            left.await;
        }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Set aside by its breaker now.
    pub fn is_ejected(&self) -> bool {
        self.breaker.is_open()
    }

    /// Limits of the Service it serves.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.health.limits
    }

    /// It asked to be left alone for so long. It costs at least that meanwhile, so that others are preferred; where all
    /// have asked for it, somebody answers all the same.
    pub fn push_back(&self, now: u64, wait: Duration) {
        let until = now.saturating_add(nanos(wait.min(MOST_PUSHBACK)));
        self.pushback.fetch_max(until, Relaxed);
    }

    /// How much a request to it costs: latency × requests under way, these by weight.
    pub(super) fn load(&self, now: u64) -> f64 {
        let queue = self.queue();
        match self.latency(now) {
            Some(latency) => latency * (queue + 1.0),
            None => UNKNOWN * queue,
        }
    }

    /// Requests under way, by weight.
    pub(super) fn queue(&self) -> f64 {
        f64::from(self.in_flight()) / f64::from(self.spec.weight.max(1))
    }

    /// The average, how long it has kept someone waiting without a word, or how long it asked to be left alone, whichever
    /// is longest: a frozen endpoint gives no samples.
    fn latency(&self, now: u64) -> Option<f64> {
        let known = self.ewma.cost(now)?;
        let aside = self.pushback.load(Relaxed).saturating_sub(now);
        let known = known.max(aside as f64);
        if self.waiting.load(Relaxed) == 0 {
            return Some(known);
        }
        let silence = now.saturating_sub(self.silent_since.load(Relaxed));
        Some(known.max(silence as f64))
    }

    /// Is it left alone at its own wish?
    pub(super) fn is_pushed_back(&self, now: u64) -> bool {
        self.pushback.load(Relaxed) > now
    }

    pub(super) fn admit(&self, now: u64) -> Admission {
        self.breaker.admit(now)
    }

    pub(super) fn begin(self: &Arc<Self>, now: u64, probe: bool) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.silent_since.store(now, Relaxed);
        }
        InFlight {
            endpoint: self.clone(),
            probe,
            answered: false,
            succeeded: false,
            done: false,
            permit: None,
            counted: self
                .health
                .one_by_one
                .load(Relaxed)
                .then(|| self.count())
                .flatten(),
        }
    }

    /// Counted by itself, where there is a registry to count in.
    fn count(&self) -> Option<Box<Counted>> {
        let spec = &self.spec;
        let find = || self.health.metrics.endpoint(&spec.namespace, &spec.pod);
        let counts = self.counts.get_or_init(find).clone()?;
        counts.started();
        Some(Box::new(Counted {
            counts,
            ended: Outcome::Cancelled,
            latency: None,
        }))
    }

    /// Takes it back, whatever its breaker thinks (its set has become too small to leave it out).
    pub(super) fn readmit(&self, now: u64) {
        if self.breaker.close(now) {
            self.health.returned();
        }
    }

    /// Nobody routes here any more: its connections need not be kept.
    pub(crate) fn retire(&self) {
        self.gone.store(true, Relaxed);
        // Whoever sets it aside at this moment looks afterwards whether it is gone: one of us gives its place back.
        fence(SeqCst);
        if self.breaker.close(0) {
            self.health.returned();
        }
        self.left.notify_waiters();
    }

    fn heard(&self, now: u64) {
        self.waiting.fetch_sub(1, Relaxed);
        self.silent_since.store(now, Relaxed);
    }

    fn succeeded(&self, now: u64, probe: bool) {
        self.breaker.succeeded(now, self.health.slot());
        if probe && self.breaker.close(now) {
            self.health.returned();
        }
    }

    fn failed(&self, now: u64, latency: u64, probe: bool) {
        self.ewma.failed(now, latency);
        let rules = self.health.rules();
        let trips = self.breaker.failed(now, &rules);
        if probe {
            self.breaker.probe_failed(now, &rules, fastrand::f64());
        } else if trips && !self.is_gone() && self.health.may_eject() {
            self.eject(now, &rules);
        }
    }

    /// It lives, and has too much to do.
    fn busy(&self, now: u64, latency: u64, probe: bool) {
        self.ewma.failed(now, latency);
        if probe && self.breaker.close(now) {
            self.health.returned();
        }
    }

    /// The place among the ejected is already taken in `health`.
    fn eject(&self, now: u64, rules: &Ejection) {
        if self.breaker.open(now, rules, fastrand::f64()) {
            self.health.metrics.ejection();
            self.health.changed();
            fence(SeqCst);
            if self.is_gone() {
                self.readmit(now);
            }
        } else {
            self.health.returned();
        }
    }
}

impl InFlight {
    /// Where.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// True if this request decides whether the endpoint comes back.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Counted against the Service's breaker until it is done.
    pub(super) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// The answer began after `latency`: the sample that counts for balancing. Optional; without it, the whole time until
    /// [`InFlight::done`] does, which makes long answers look slow.
    pub fn answered(&mut self, latency: Duration) {
        self.answered_at(super::now(), latency);
    }

    /// It is known to go well after `latency`, though it is not over: a connection of bytes is up.
    pub fn succeeded(&mut self, latency: Duration) {
        self.succeeded_at(super::now(), latency);
    }

    /// It ended.
    pub fn done(self, outcome: Outcome, latency: Duration) {
        self.done_at(super::now(), outcome, latency);
    }

    /// [`InFlight::answered`], where the clock was read already.
    pub fn answered_at(&mut self, now: u64, latency: Duration) {
        if !self.answered {
            self.answered = true;
            if let Some(counted) = &mut self.counted {
                counted.latency = Some(latency);
            }
            self.endpoint.heard(now);
            self.endpoint.ewma.answered(now, nanos(latency));
        }
    }

    fn succeeded_at(&mut self, now: u64, latency: Duration) {
        self.answered_at(now, latency);
        if !std::mem::replace(&mut self.succeeded, true) {
            self.endpoint.succeeded(now, self.probe);
            // What it had to prove is proven; how it ends is another matter.
            self.probe = false;
        }
    }

    /// [`InFlight::done`], where the clock was read already.
    pub fn done_at(mut self, now: u64, outcome: Outcome, latency: Duration) {
        let endpoint = self.endpoint.clone();
        if let Some(counted) = &mut self.counted {
            counted.ended = outcome;
        }
        match outcome {
            Outcome::Success => self.succeeded_at(now, latency),
            Outcome::Failure => endpoint.failed(now, nanos(latency), self.probe),
            Outcome::ConnectFailure => {
                endpoint.health.metrics.connect_failure();
                endpoint.failed(now, nanos(latency), self.probe);
            }
            Outcome::Busy => endpoint.busy(now, nanos(latency), self.probe),
            // Said by the drop.
            Outcome::Cancelled => return,
        }
        self.finish(now);
    }

    fn finish(&mut self, now: u64) {
        if self.done {
            return;
        }
        self.done = true;
        self.permit = None;
        if let Some(counted) = self.counted.take() {
            let outcome = counted.ended as usize;
            counted.counts.ended(outcome, counted.latency);
        }
        if !self.answered {
            self.endpoint.heard(now);
        }
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.done {
            let now = super::now();
            if self.probe {
                self.endpoint.breaker.probe_void(now);
            }
            self.finish(now);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
