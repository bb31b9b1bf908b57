//! What a scrape says: the catalogue's metrics with the values of every series.

use super::bundle::{BackendMetrics, ConnectionMetrics};
use super::catalogue::{self as names, Kind, Metric, Tier};
use super::endpoints::{EndpointLabels, OUTCOMES};
use super::format::Format;
use super::labels::{ConnectionLabels, EdgeLabels, yes_no};
use super::process::Process;
use super::registry::Metrics;
use super::statuses;
use super::summary::EdgeSummary;
use super::text::{Label, Text};
use crate::balance::Limit;
use crate::connection::Direction;
use foldhash::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::UNIX_EPOCH;
use weft_proxy_api::policy::MetricsTier;
use weft_proxy_api::policy::inbound::DenyReason;

/// Microseconds in a second: own durations are said in seconds.
const SECOND_US: u64 = 1_000_000;

/// One consistent look at the registry.
pub(super) struct Scrape<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) workload: Arc<String>,
    pub(super) edges: Vec<EdgeSummary>,
    pub(super) connections: Vec<(ConnectionLabels, Arc<ConnectionMetrics>)>,
    backends: Vec<(Arc<str>, Arc<BackendMetrics>)>,
}

/// The whole text.
pub(super) fn render(metrics: &Metrics, format: Format) -> String {
    let scrape = Scrape {
        metrics,
        workload: metrics.workload.load_full(),
        edges: edges(metrics),
        connections: metrics.connections.all(),
        backends: metrics.backends.all(),
    };
    let mut text = Text::new(format);
    scrape.edges(&mut text);
    scrape.connections(&mut text);
    scrape.backends(&mut text);
    if metrics.tier() >= MetricsTier::Endpoints {
        scrape.endpoints(&mut text);
    }
    scrape.rare(&mut text);
    scrape.own(&mut text);
    scrape.process(&mut text);
    if metrics.aliases.load(Relaxed) {
        super::render_alias::render(&scrape, &mut text);
    }
    text.finish()
}

/// Every edge, as the tier in force says it: what is counted by route is added up where routes are not to be said.
fn edges(metrics: &Metrics) -> Vec<EdgeSummary> {
    let all = metrics.summary();
    if metrics.tier() >= MetricsTier::Routes {
        return all;
    }
    let mut sums: Vec<EdgeSummary> = Vec::new();
    let mut known: HashMap<EdgeLabels, usize> = HashMap::default();
    for mut edge in all {
        edge.labels.route = Arc::default();
        match known.get(&edge.labels) {
            Some(at) => sums[*at].add(&edge),
            None => {
                known.insert(edge.labels.clone(), sums.len());
                sums.push(edge);
            }
        }
    }
    sums
}

impl Scrape<'_> {
    fn edges(&self, text: &mut Text) {
        self.each_edge(text, &names::REQUESTS, |edge| edge.requests);
        self.answers(text);
        text.head(&names::LATENCY);
        for edge in &self.edges {
            text.histogram(
                names::LATENCY.name,
                &self.edge(&edge.labels),
                &edge.latency,
                SECOND_US,
            );
        }
        self.each_edge(text, &names::CANCELLED, |edge| edge.cancelled);
        self.denied(text);
        self.each_edge(text, &names::STREAMS, |edge| edge.connections);
        self.each_edge(text, &names::RECEIVED, |edge| edge.bytes_in);
        self.each_edge(text, &names::SENT, |edge| edge.bytes_out);
    }

    fn each_edge(&self, text: &mut Text, metric: &Metric, value: fn(&EdgeSummary) -> u64) {
        text.head(metric);
        for edge in &self.edges {
            text.sample(metric.name, &self.edge(&edge.labels), value(edge));
        }
    }

    fn answers(&self, text: &mut Text) {
        text.head(&names::RESPONSES);
        for edge in &self.edges {
            for (slot, count) in edge.answers.iter().enumerate() {
                if *count == 0 {
                    continue;
                }
                let name = statuses::name(slot);
                let mut all = self.edge(&edge.labels).to_vec();
                all.push(("classification", name.classification()));
                all.extend([("status", name.status), ("grpc_status", name.grpc)]);
                text.sample(names::RESPONSES.name, &all, count);
            }
        }
    }

    fn denied(&self, text: &mut Text) {
        text.head(&names::DENIED);
        for edge in &self.edges {
            for (reason, count) in DenyReason::ALL.iter().zip(&edge.denied_by) {
                if *count > 0 {
                    let mut all = self.edge(&edge.labels).to_vec();
                    all.push(("reason", reason.label()));
                    text.sample(names::DENIED.name, &all, count);
                }
            }
        }
    }

    fn edge<'b>(&'b self, labels: &'b EdgeLabels) -> [Label<'b>; 9] {
        [
            ("direction", labels.direction.label()),
            ("namespace", &self.metrics.namespace),
            ("workload", &self.workload),
            ("peer_namespace", &labels.peer.namespace),
            ("peer_workload", &labels.peer.workload),
            ("service", &labels.service),
            ("backend", &labels.backend),
            ("route", &labels.route),
            ("tls", yes_no(labels.peer.tls)),
        ]
    }

    fn connections(&self, text: &mut Text) {
        self.each_connection(text, &names::OPENED, |at| at.opened.load(Relaxed));
        self.each_connection(text, &names::CLOSED, |at| at.closed.load(Relaxed));
        self.each_connection(text, &names::OPEN, ConnectionMetrics::open);
        text.head(&names::LIFETIME);
        for (labels, at) in &self.connections {
            text.histogram(
                names::LIFETIME.name,
                &self.connection(labels),
                &at.duration.snapshot(),
                SECOND_US,
            );
        }
        self.each_connection(text, &names::READ, |at| at.bytes_read.load(Relaxed));
        self.each_connection(text, &names::WRITTEN, |at| at.bytes_written.load(Relaxed));
    }

    fn each_connection(
        &self,
        text: &mut Text,
        metric: &Metric,
        value: fn(&ConnectionMetrics) -> u64,
    ) {
        text.head(metric);
        for (labels, at) in &self.connections {
            text.sample(metric.name, &self.connection(labels), value(at));
        }
    }

    fn connection<'b>(&'b self, labels: &'b ConnectionLabels) -> [Label<'b>; 9] {
        [
            ("direction", labels.direction.label()),
            ("namespace", &self.metrics.namespace),
            ("workload", &self.workload),
            ("side", labels.side.label()),
            ("peer_namespace", &labels.peer.namespace),
            ("peer_workload", &labels.peer.workload),
            ("tls", yes_no(labels.no_tls.is_empty())),
            ("no_tls_reason", labels.no_tls),
            ("protocol", labels.protocol),
        ]
    }

    fn backends(&self, text: &mut Text) {
        self.each_backend(text, &names::ENDPOINTS, |at| at.endpoints.load(Relaxed));
        self.each_backend(text, &names::EJECTED, |at| at.ejected.load(Relaxed).max(0));
        self.each_backend(text, &names::EJECTIONS, |at| {
            at.ejections.load(Relaxed).cast_signed()
        });
        self.each_backend(text, &names::CONNECT_FAILURES, |at| {
            at.connect_failures.load(Relaxed).cast_signed()
        });
        self.each_limit(text, &names::BREAKER_FULL, |at| &at.full);
        self.each_limit(text, &names::BREAKER_REFUSED, |at| &at.refused);
        self.each_backend(text, &names::FALLBACKS, |at| {
            at.fallbacks.load(Relaxed).cast_signed()
        });
    }

    /// Nothing is said where nothing was ever limited.
    fn each_limit(
        &self,
        text: &mut Text,
        metric: &Metric,
        values: fn(&BackendMetrics) -> &[AtomicU64; 3],
    ) {
        text.head(metric);
        for (name, at) in &self.backends {
            for limit in Limit::ALL {
                if at.refused[limit as usize].load(Relaxed) == 0
                    && at.full[limit as usize].load(Relaxed) == 0
                {
                    continue;
                }
                let labels = [
                    ("namespace", self.metrics.namespace.as_str()),
                    ("workload", &self.workload),
                    ("backend", name),
                    ("limit", limit.label()),
                ];
                let value = values(at)[limit as usize].load(Relaxed);
                text.sample(metric.name, &labels, value);
            }
        }
    }

    fn each_backend(&self, text: &mut Text, metric: &Metric, value: fn(&BackendMetrics) -> i64) {
        text.head(metric);
        for (name, at) in &self.backends {
            let labels = [
                ("namespace", self.metrics.namespace.as_str()),
                ("workload", &self.workload),
                ("backend", name),
            ];
            text.sample(metric.name, &labels, value(at));
        }
    }

    fn endpoints(&self, text: &mut Text) {
        let all = self.metrics.endpoints.0.all();
        text.head(&names::ENDPOINT_REQUESTS);
        for (labels, at) in &all {
            for (result, count) in OUTCOMES.iter().zip(&at.outcomes) {
                let mut labels = self.endpoint(labels).to_vec();
                labels.push(("result", result));
                text.sample(names::ENDPOINT_REQUESTS.name, &labels, count.load(Relaxed));
            }
        }
        text.head(&names::ENDPOINT_LATENCY);
        for (labels, at) in &all {
            let (name, seen) = (names::ENDPOINT_LATENCY.name, at.latency.snapshot());
            text.histogram(name, &self.endpoint(labels), &seen, SECOND_US);
        }
        text.head(&names::ENDPOINT_IN_FLIGHT);
        for (labels, at) in &all {
            let now = at.in_flight.load(Relaxed);
            text.sample(names::ENDPOINT_IN_FLIGHT.name, &self.endpoint(labels), now);
        }
    }

    fn endpoint<'b>(&'b self, labels: &'b EndpointLabels) -> [Label<'b>; 5] {
        [
            ("namespace", self.metrics.namespace.as_str()),
            ("workload", &self.workload),
            ("backend", &labels.backend),
            ("pod_namespace", &labels.namespace),
            ("pod", &labels.pod),
        ]
    }

    /// Values of process tier; sorted by metric, so that those of one metric stand together.
    fn rare(&self, text: &mut Text) {
        let mut last = "";
        for (key, value) in self.metrics.singles() {
            let metric = key.metric;
            if metric.name != last {
                text.head(metric);
                last = metric.name;
            }
            let labels: Vec<Label<'_>> = metric
                .labels
                .iter()
                .copied()
                .zip(key.values.iter().map(AsRef::as_ref))
                .collect();
            let bits = value.load(Relaxed);
            match metric.kind {
                Kind::Counter => text.sample(metric.name, &labels, bits),
                Kind::Gauge | Kind::Histogram => {
                    text.sample(metric.name, &labels, f64::from_bits(bits))
                }
            }
        }
    }

    /// What is known without a series of its own.
    fn own(&self, text: &mut Text) {
        let staleness = self.metrics.control_staleness();
        one(
            text,
            &names::CONTROL_CONNECTED,
            Some(u8::from(staleness.is_none())),
        );
        one(
            text,
            &names::CONTROL_STALENESS,
            Some(staleness.unwrap_or_default().as_secs_f64()),
        );
        text.head(&names::IN_FLIGHT);
        for direction in [Direction::Inbound, Direction::Outbound] {
            let labels = [("direction", direction.label())];
            let total = self.metrics.in_flight(direction).total();
            text.sample(names::IN_FLIGHT.name, &labels, total);
        }
        one(text, &names::KEPT, Some(self.metrics.kept().total()));
        let m = self.metrics;
        let families = [
            (m.edges.name, m.edges.len(), m.edges.dropped()),
            (
                m.connections.name,
                m.connections.len(),
                m.connections.dropped(),
            ),
            (m.backends.name, m.backends.len(), m.backends.dropped()),
            (
                m.endpoints.0.name,
                m.endpoints.0.len(),
                m.endpoints.0.dropped(),
            ),
            (m.rare.name, m.rare.len(), m.rare.dropped()),
            (m.named.name, m.named.len(), m.named.dropped()),
        ];
        text.head(&names::SERIES);
        families
            .iter()
            .for_each(|(name, len, _)| text.sample(names::SERIES.name, &[("family", name)], len));
        text.head(&names::DROPPED);
        families.iter().for_each(|(name, _, dropped)| {
            text.sample(names::DROPPED.name, &[("family", name)], dropped)
        });
        text.head(&names::BUILD);
        text.sample(
            names::BUILD.name,
            &[("version", weft_proxy_api::names::VERSION)],
            1,
        );
    }

    fn process(&self, text: &mut Text) {
        let process = Process::read();
        one(text, &names::CPU, process.cpu_seconds);
        one(text, &names::RSS, process.resident_bytes);
        one(text, &names::FDS, process.open_fds);
        one(text, &names::MAX_FDS, process.max_fds);
        one(text, &names::THREADS, process.threads);
        one(
            text,
            &names::START,
            self.metrics
                .started
                .duration_since(UNIX_EPOCH)
                .ok()
                .map(|at| at.as_secs_f64()),
        );
    }
}

fn one(text: &mut Text, metric: &Metric, value: Option<impl std::fmt::Display>) {
    debug_assert!(metric.tier == Tier::Process && metric.labels.is_empty());
    if let Some(value) = value {
        text.head(metric);
        text.sample(metric.name, &[], value);
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
