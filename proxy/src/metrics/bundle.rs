//! Handles that are counted through together. A bundle is shared by everything that counts the same edge, and owned by
//! the registry as long as anyone does.

use super::endpoints::{EndpointMetrics, OneByOne};
use super::histogram::{Histogram, Snapshot};
use super::statuses::{SLOTS, slot};
use crate::balance::limits::{Limit, Permit};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use weft_proxy_api::policy::inbound::DenyReason;

/// Number of the next series that begins.
static NEXT_SERIES: AtomicU64 = AtomicU64::new(1);

/// A counter.
#[derive(Debug, Clone, Default)]
pub struct Count(pub(super) Arc<AtomicU64>);

/// A gauge: the bits of an `f64`.
#[derive(Debug, Clone, Default)]
pub struct Level(pub(super) Arc<AtomicU64>);

/// How many there are of something, e.g. of requests in flight, each worker counting for itself.
#[derive(Debug, Default)]
pub struct Flights(Mutex<Vec<Weak<AtomicUsize>>>);

impl Flights {
    /// The counter of one more worker; forgotten with it.
    pub fn join(&self) -> Arc<AtomicUsize> {
        let counter = Arc::default();
        let mut all = self.0.lock();
        all.retain(|counter| counter.strong_count() > 0);
        all.push(Arc::downgrade(&counter));
        counter
    }

    /// Over all workers.
    pub fn total(&self) -> usize {
        let all = self.0.lock();
        let counters = all.iter().filter_map(Weak::upgrade);
        counters.map(|counter| counter.load(Relaxed)).sum()
    }
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// By an HTTP status.
    Http(u16),
    /// By a gRPC code (the HTTP status was 200).
    Grpc(u8),
}

/// Everything counted between this workload and one peer.
#[derive(Debug)]
pub struct EdgeMetrics {
    /// Unique in this process: whoever remembers totals sees by it that they began anew.
    pub(super) series: u64,
    pub(super) requests: AtomicU64,
    pub(super) answers: [AtomicU64; SLOTS],
    pub(super) cancelled: AtomicU64,
    /// Same order as [`DenyReason::ALL`].
    pub(super) denied: [AtomicU64; DenyReason::ALL.len()],
    pub(super) connections: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) latency: Histogram,
}

/// Everything counted about one kind of connection.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) duration: Histogram,
}

/// A connection counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    metrics: Arc<ConnectionMetrics>,
    since: Instant,
    _permit: Option<Permit>,
}

/// State of one endpoint set, kept by the balancer.
#[derive(Debug, Default)]
pub struct BackendMetrics {
    pub(super) endpoints: AtomicI64,
    pub(super) ejected: AtomicI64,
    pub(super) ejections: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) full: [AtomicU64; 3],
    pub(super) refused: [AtomicU64; 3],
    pub(super) fallbacks: AtomicU64,
    pub(super) one_by_one: OnceLock<OneByOne>,
}

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Level {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Raises or lowers it.
    pub fn change(&self, by: f64) {
        let changed = |bits| Some((f64::from_bits(bits) + by).to_bits());
        let _ = self.0.fetch_update(Relaxed, Relaxed, changed);
    }

    /// Its value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl EdgeMetrics {
    /// A request came in.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A request was answered to its end after `took`.
    pub fn answered(&self, code: Code, took: Duration) {
        self.answers[slot(code)].fetch_add(1, Relaxed);
        self.latency.record(took);
    }

    /// The client went away before the answer was complete: nobody's failure.
    pub fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// A request or connection was denied (its answer is counted besides).
    pub fn denied(&self, reason: DenyReason) {
        let at = DenyReason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = at.and_then(|at| self.denied.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A connection of bytes (not HTTP) was opened.
    pub fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Payload bytes: `received` from the client, `sent` to it.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.bytes_in.fetch_add(received, Relaxed);
        self.bytes_out.fetch_add(sent, Relaxed);
    }

    /// Durations as counted.
    pub fn latency(&self) -> Snapshot {
        self.latency.snapshot()
    }
}

impl Default for EdgeMetrics {
    fn default() -> Self {
        Self {
            series: NEXT_SERIES.fetch_add(1, Relaxed),
            requests: AtomicU64::new(0),
            answers: std::array::from_fn(|_| AtomicU64::new(0)),
            cancelled: AtomicU64::new(0),
            denied: Default::default(),
            connections: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            latency: Histogram::default(),
        }
    }
}

impl ConnectionMetrics {
    /// A connection was opened. Count its end with [`Self::closed`].
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// A connection ended after `lived`.
    pub fn closed(&self, lived: Duration) {
        self.closed.fetch_add(1, Relaxed);
        self.duration.record(lived);
    }

    /// Bytes read from and written to the socket.
    pub fn bytes(&self, read: u64, written: u64) {
        self.bytes_read.fetch_add(read, Relaxed);
        self.bytes_written.fetch_add(written, Relaxed);
    }

    /// How many are open.
    pub fn open(&self) -> u64 {
        self.opened
            .load(Relaxed)
            .saturating_sub(self.closed.load(Relaxed))
    }
}

impl OpenConnection {
    /// Counted from now on.
    pub fn new(metrics: Arc<ConnectionMetrics>) -> Self {
        metrics.opened();
        Self {
            metrics,
            since: Instant::now(),
            _permit: None,
        }
    }

    /// Counted against the breaker of its Service as well.
    pub(crate) fn within(mut self, permit: Permit) -> Self {
        self._permit = Some(permit);
        self
    }

    /// Its series.
    pub fn metrics(&self) -> &Arc<ConnectionMetrics> {
        &self.metrics
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.closed(self.since.elapsed());
    }
}

impl BackendMetrics {
    pub(crate) fn endpoints(&self, known: usize) {
        self.endpoints
            .store(i64::try_from(known).unwrap_or(i64::MAX), Relaxed);
    }

    /// So many more are set aside. Several sets may share this: a Service called by itself, and through another.
    pub(crate) fn ejected(&self, more: i64) {
        self.ejected.fetch_add(more, Relaxed);
    }

    pub(crate) fn ejection(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    pub(crate) fn connect_failure(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    /// A limit of the Service's breaker is used up, or has room again.
    pub(crate) fn breaker_full(&self, limit: Limit, full: bool) {
        self.full[limit as usize].store(full.into(), Relaxed);
    }

    pub(crate) fn breaker_refused(&self, limit: Limit) {
        self.refused[limit as usize].fetch_add(1, Relaxed);
    }

    /// The series of one of its endpoints, where the tier asks for that; `None`: it belongs to no registry.
    pub(crate) fn endpoint(&self, namespace: &str, pod: &str) -> Option<Arc<EndpointMetrics>> {
        let all = self.one_by_one.get()?;
        Some(all.endpoint(namespace, pod))
    }

    /// Somebody else was asked instead of the Service.
    pub(crate) fn fallback(&self) {
        self.fallbacks.fetch_add(1, Relaxed);
    }
}
