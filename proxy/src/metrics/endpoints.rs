//! Requests by endpoint, one by one: only where that is asked for, as a large Service has many.

use super::family::{CAP, Family};
use super::histogram::Histogram;
use super::labels::{Key, OTHER};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How requests to an endpoint end, as labels; same order as the counters.
pub(super) const OUTCOMES: [&str; 5] =
    ["success", "failure", "connect_failure", "busy", "cancelled"];

/// Which endpoint, of which backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EndpointLabels {
    /// `namespace/name:port`.
    pub(super) backend: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) pod: Arc<str>,
}

/// What was sent to one endpoint.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    pub(super) outcomes: [AtomicU64; OUTCOMES.len()],
    pub(super) latency: Histogram,
    pub(super) in_flight: AtomicI64,
}

/// All endpoints that were counted one by one.
pub(super) struct EndpointFamily(pub(super) Family<EndpointLabels, EndpointMetrics>);

/// The endpoints of one backend.
pub(super) struct OneByOne {
    pub(super) all: Arc<EndpointFamily>,
    pub(super) backend: Arc<str>,
}

impl Default for EndpointFamily {
    fn default() -> Self {
        Self(Family::new("endpoints", CAP))
    }
}

impl std::fmt::Debug for OneByOne {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.backend)
    }
}

impl OneByOne {
    pub(super) fn endpoint(&self, namespace: &str, pod: &str) -> Arc<EndpointMetrics> {
        self.all.0.get(EndpointLabels {
            backend: self.backend.clone(),
            namespace: namespace.into(),
            pod: pod.into(),
        })
    }
}

impl EndpointMetrics {
    /// A request is on its way. Count its end with [`Self::ended`].
    pub(crate) fn started(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// One ended, `outcome` being its place in the list of outcomes; `took`: until its answer began, where there was one.
    pub(crate) fn ended(&self, outcome: usize, took: Option<Duration>) {
        self.in_flight.fetch_sub(1, Relaxed);
        if let Some(count) = self.outcomes.get(outcome) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(took) = took {
            self.latency.record(took);
        }
    }
}

impl Key for EndpointLabels {
    fn overflow(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            backend: other.clone(),
            namespace: other.clone(),
            pod: other,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}
