//! Everything counted so far, as values: what the controller is told. Read now and then on the control thread; counting
//! knows nothing of it.

use super::bundle::EdgeMetrics;
use super::catalogue::{Kind, Metric};
use super::histogram::Snapshot;
use super::labels::{ConnectionLabels, EdgeLabels};
use super::registry::Metrics;
use super::statuses::{self, SLOTS};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use weft_proxy_api::policy::inbound::DenyReason;

/// One edge. Totals since the series began.
#[derive(Debug, Clone)]
pub struct EdgeSummary {
    /// Whose.
    pub labels: EdgeLabels,
    /// Number of the series: under another one the totals began anew.
    pub series: u64,
    /// Requests received.
    pub requests: u64,
    /// Answers that count as success.
    pub success: u64,
    /// Answers that count as failure.
    pub failure: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
    /// Answers by slot of [`statuses`].
    pub answers: [u64; SLOTS],
    /// Requests and connections denied.
    pub denied: u64,
    /// The same by reason; same order as [`DenyReason::ALL`].
    pub denied_by: [u64; DenyReason::ALL.len()],
    /// Latency by bucket.
    pub latency: Snapshot,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
    /// Connections that carried bytes rather than HTTP.
    pub connections: u64,
}

/// One kind of connection. Totals.
#[derive(Debug, Clone)]
pub struct ConnectionSummary {
    /// Which kind.
    pub labels: ConnectionLabels,
    /// Connections opened.
    pub opened: u64,
    /// Of these, ended.
    pub closed: u64,
    /// Bytes read from the sockets.
    pub bytes_read: u64,
    /// Bytes written to them.
    pub bytes_written: u64,
}

/// One endpoint set.
#[derive(Debug, Clone)]
pub struct BackendSummary {
    /// `namespace/name:port`.
    pub name: Arc<str>,
    /// Endpoints known.
    pub endpoints: u32,
    /// Of these, set aside now.
    pub ejected: u32,
    /// Times one was set aside.
    pub ejections: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
}

/// A metric without a bundle.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which.
    pub metric: &'static Metric,
    /// Values of its labels.
    pub labels: Vec<Arc<str>>,
    /// Its value.
    pub value: f64,
}

impl EdgeSummary {
    fn of(labels: EdgeLabels, edge: &EdgeMetrics) -> Self {
        let answers: [u64; SLOTS] = std::array::from_fn(|slot| edge.answers[slot].load(Relaxed));
        let answered = |success: bool| {
            let slots = answers.iter().enumerate();
            let wanted = slots.filter(|(slot, _)| statuses::name(*slot).success == success);
            wanted.map(|(_, count)| count).sum()
        };
        let denied_by: [u64; DenyReason::ALL.len()] =
            std::array::from_fn(|at| edge.denied[at].load(Relaxed));
        Self {
            labels,
            series: edge.series,
            requests: edge.requests.load(Relaxed),
            success: answered(true),
            failure: answered(false),
            cancelled: edge.cancelled.load(Relaxed),
            answers,
            denied: denied_by.iter().sum(),
            denied_by,
            latency: edge.latency.snapshot(),
            bytes_in: edge.bytes_in.load(Relaxed),
            bytes_out: edge.bytes_out.load(Relaxed),
            connections: edge.connections.load(Relaxed),
        }
    }

    /// Adds what another edge counted; its labels and its number are left aside.
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.success, other.success),
            (&mut self.failure, other.failure),
            (&mut self.cancelled, other.cancelled),
            (&mut self.denied, other.denied),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.connections, other.connections),
        ];
        let answers = self.answers.iter_mut().zip(other.answers);
        let denied = self.denied_by.iter_mut().zip(other.denied_by);
        let all = pairs.into_iter().chain(answers).chain(denied);
        all.for_each(|(sum, more)| *sum += more);
        self.latency.add(&other.latency);
    }

    /// Grows with everything that is counted: equal means that nothing was.
    pub fn activity(&self) -> u64 {
        let counted = [
            self.requests,
            self.success,
            self.failure,
            self.cancelled,
            self.denied,
            self.bytes_in,
            self.bytes_out,
            self.connections,
        ];
        counted.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }
}

impl Metrics {
    /// Tells this process from the one before it in the same pod.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// How long the process has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }

    /// Every edge.
    pub fn summary(&self) -> Vec<EdgeSummary> {
        self.sweep(Instant::now());
        let all = self.edges.all().into_iter();
        all.map(|(labels, edge)| EdgeSummary::of(labels, &edge))
            .collect()
    }

    /// Every kind of connection.
    pub fn connection_summary(&self) -> Vec<ConnectionSummary> {
        let all = self.connections.all().into_iter();
        all.map(|(labels, at)| ConnectionSummary {
            labels,
            opened: at.opened.load(Relaxed),
            closed: at.closed.load(Relaxed),
            bytes_read: at.bytes_read.load(Relaxed),
            bytes_written: at.bytes_written.load(Relaxed),
        })
        .collect()
    }

    /// Every endpoint set.
    pub fn backend_summary(&self) -> Vec<BackendSummary> {
        let number = |gauge: i64| u32::try_from(gauge).unwrap_or(0);
        let all = self.backends.all().into_iter();
        all.map(|(name, at)| BackendSummary {
            name,
            endpoints: number(at.endpoints.load(Relaxed)),
            ejected: number(at.ejected.load(Relaxed)),
            ejections: at.ejections.load(Relaxed),
            connect_failures: at.connect_failures.load(Relaxed),
        })
        .collect()
    }

    /// Every other value.
    pub fn readings(&self) -> Vec<Reading> {
        let all = self.singles().into_iter();
        all.map(|(key, value)| {
            let bits = value.load(Relaxed);
            let value = match key.metric.kind {
                Kind::Counter => bits as f64,
                Kind::Gauge | Kind::Histogram => f64::from_bits(bits),
            };
            Reading {
                metric: key.metric,
                labels: key.values,
                value,
            }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::bundle::Code;
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_summarised() {
        let metrics = Metrics::new("shop");
        let edge = metrics.inbound_edge(None);
        edge.request();
        edge.request();
        edge.answered(Code::Http(200), Duration::from_millis(3));
        edge.answered(Code::Grpc(14), Duration::from_millis(700));
        edge.denied(DenyReason::NotASource);
        edge.bytes(10, 20);
        let all = metrics.summary();
        let seen = &all[0];
        assert_eq!((all.len(), seen.requests), (1, 2));
        assert_eq!((seen.success, seen.failure, seen.denied), (1, 1, 1));
        assert_eq!(seen.denied_by, [0, 1, 0, 0]);
        assert_eq!((seen.bytes_in, seen.bytes_out), (10, 20));
        assert_eq!((seen.latency.buckets[4], seen.latency.buckets[11]), (1, 1));
        assert_eq!(seen.latency.sum_us, 703_000);
    }

    #[test]
    fn a_series_that_begins_anew_has_another_number() {
        let (first, second) = (EdgeMetrics::default(), EdgeMetrics::default());
        assert_ne!(first.series, second.series);
    }

    #[test]
    fn readings_say_counters_and_gauges_alike() {
        let metrics = Metrics::new("shop");
        metrics.identity_expiry().set(12.5);
        metrics.identity_renewals("ok").add(3);
        let values: Vec<_> = metrics.readings().iter().map(|at| at.value).collect();
        assert_eq!(values, [12.5, 3.0]);
    }
}
