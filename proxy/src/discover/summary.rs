//! What was counted, as the controller is told. Totals since the process started: the first summary of a stream says
//! everything, each later one what has changed. Nothing is lost with a stream, and idle things cost nothing.

use crate::connection::Direction;
use crate::metrics::statuses;
use crate::metrics::summary::{BackendSummary, ConnectionSummary, EdgeSummary, Reading};
use crate::metrics::{Metrics, Side};
use foldhash::HashMap;
use prost::Message;
use std::hash::Hash;
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use weft_proxy_api::policy::inbound::DenyReason;
use weft_proxy_api::wire::encode::Strings;
use weft_proxy_api::wire::generated::{self as pb, observe_event::Event};

/// The summaries of one stream.
pub(super) struct Summaries<'a> {
    metrics: &'a Metrics,
    told: Told,
    since: Instant,
}

/// What was said last, as far as it takes to see a change.
#[derive(Default)]
struct Told {
    /// Activity by series.
    edges: HashMap<u64, u64>,
    connections: HashMap<crate::metrics::ConnectionLabels, [u64; 4]>,
    backends: HashMap<String, [u64; 4]>,
    readings: HashMap<(&'static str, Vec<String>), u64>,
}

impl<'a> Summaries<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            told: Told::default(),
            since: Instant::now(),
        }
    }

    /// Sends a summary if there is room; otherwise the next one says more.
    pub(super) fn send(&mut self, events: &Sender<pb::ObserveEvent>) {
        if let Ok(room) = events.try_reserve() {
            let summary = self.next(Instant::now()).encode_to_vec();
            let event = Some(Event::Summary(summary));
            room.send(pb::ObserveEvent { event });
        }
    }

    fn next(&mut self, now: Instant) -> pb::Summary {
        let window = now.saturating_duration_since(self.since);
        self.since = now;
        let told = &mut self.told;
        let mut edges = self.metrics.summary();
        news(&mut told.edges, &mut edges, |at| (at.series, at.activity()));
        let mut connections = self.metrics.connection_summary();
        news(&mut told.connections, &mut connections, |at| {
            let now = [at.opened, at.closed, at.bytes_read, at.bytes_written];
            (at.labels.clone(), now)
        });
        let mut backends = self.metrics.backend_summary();
        news(&mut told.backends, &mut backends, |at| {
            let (known, out) = (at.endpoints.into(), at.ejected.into());
            let now = [known, out, at.ejections, at.connect_failures];
            (at.name.to_string(), now)
        });
        let mut readings = self.metrics.readings();
        news(&mut told.readings, &mut readings, |at| {
            let labels = at.labels.iter().map(ToString::to_string).collect();
            ((at.metric.name, labels), at.value.to_bits())
        });
        let mut table = Table::default();
        pb::Summary {
            window_ms: u32::try_from(window.as_millis()).unwrap_or(u32::MAX),
            incarnation: self.metrics.incarnation(),
            uptime_ms: u64::try_from(self.metrics.uptime().as_millis()).unwrap_or(u64::MAX),
            edges: edges.iter().map(|at| table.edge(at)).collect(),
            backends: backends.iter().map(|at| table.backend(at)).collect(),
            connections: connections.iter().map(|at| table.kind(at)).collect(),
            readings: readings.iter().map(|at| table.reading(at)).collect(),
            strings: table.0.into_list(),
        }
    }
}

/// Leaves of `all` what has another value than was told last, and remembers all of it: what is gone is forgotten.
fn news<T, K: Eq + Hash, V: PartialEq>(
    told: &mut HashMap<K, V>,
    all: &mut Vec<T>,
    of: impl Fn(&T) -> (K, V),
) {
    let mut now = HashMap::with_capacity_and_hasher(all.len(), Default::default());
    all.retain(|at| {
        let (key, value) = of(at);
        let is_new = told.get(&key) != Some(&value);
        now.insert(key, value);
        is_new
    });
    *told = now;
}

/// What a summary is made of; its strings go into one table.
#[derive(Default)]
struct Table(Strings);

impl Table {
    fn intern(&mut self, text: &str) -> u32 {
        self.0.optional(text)
    }

    fn edge(&mut self, edge: &EdgeSummary) -> pb::Edge {
        let labels = &edge.labels;
        let reasons = DenyReason::ALL.iter().zip(edge.denied_by);
        let denied_by = reasons.filter(|(_, count)| *count > 0);
        pb::Edge {
            direction: direction(labels.direction).into(),
            peer_namespace_ref: self.intern(&labels.peer.namespace),
            peer_workload_ref: self.intern(&labels.peer.workload),
            service_ref: self.intern(&labels.service),
            backend_ref: self.intern(&labels.backend),
            route_ref: self.intern(&labels.route),
            mutual_tls: labels.peer.tls,
            requests: edge.requests,
            success: edge.success,
            failure: edge.failure,
            denied: edge.denied,
            denied_by: denied_by
                .map(|(reason, count)| pb::Reason {
                    reason_ref: self.intern(reason.label()),
                    count,
                })
                .collect(),
            latency: edge.latency.buckets.to_vec(),
            latency_sum_us: edge.latency.sum_us,
            answers: answers(edge),
            bytes_in: edge.bytes_in,
            bytes_out: edge.bytes_out,
            connections: edge.connections,
            cancelled: edge.cancelled,
            series: edge.series,
        }
    }

    fn backend(&mut self, at: &BackendSummary) -> pb::BackendState {
        pb::BackendState {
            name_ref: self.intern(&at.name),
            endpoints: at.endpoints,
            ejected: at.ejected,
            ejections: at.ejections,
            connect_failures: at.connect_failures,
        }
    }

    fn kind(&mut self, at: &ConnectionSummary) -> pb::ConnectionKind {
        let labels = &at.labels;
        pb::ConnectionKind {
            direction: direction(labels.direction).into(),
            opened_by_proxy: labels.side == Side::Dst,
            peer_namespace_ref: self.intern(&labels.peer.namespace),
            peer_workload_ref: self.intern(&labels.peer.workload),
            no_tls_ref: self.intern(labels.no_tls),
            protocol_ref: self.intern(labels.protocol),
            opened: at.opened,
            closed: at.closed,
            bytes_read: at.bytes_read,
            bytes_written: at.bytes_written,
        }
    }

    fn reading(&mut self, at: &Reading) -> pb::Reading {
        pb::Reading {
            metric_ref: self.intern(at.metric.name),
            label_refs: at.labels.iter().map(|value| self.intern(value)).collect(),
            value: at.value,
        }
    }
}

fn answers(edge: &EdgeSummary) -> Vec<pb::Answers> {
    let slots = edge.answers.iter().enumerate();
    slots
        .filter(|(_, count)| **count > 0)
        .map(|(slot, count)| {
            let (status, grpc) = statuses::wire(slot);
            pb::Answers {
                status,
                grpc,
                count: *count,
            }
        })
        .collect()
}

fn direction(direction: Direction) -> pb::Direction {
    match direction {
        Direction::Inbound => pb::Direction::Inbound,
        Direction::Outbound => pb::Direction::Outbound,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Code;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[test]
    fn the_first_summary_says_everything_and_the_next_what_changed() {
        let metrics = Metrics::new("shop");
        let edge = metrics.inbound_edge(None);
        edge.request();
        metrics.identity_renewals("ok").inc();
        let mut summaries = Summaries::new(&metrics);
        let start = summaries.since;
        let first = summaries.next(start + Duration::from_secs(1));
        assert_eq!((first.window_ms, first.edges.len()), (1000, 1));
        assert_eq!((first.edges[0].requests, first.readings.len()), (1, 1));
        edge.request();
        edge.answered(Code::Http(500), Duration::from_millis(1));
        let second = summaries.next(start + Duration::from_secs(3));
        let seen = &second.edges[0];
        assert_eq!(
            (second.window_ms, seen.requests, seen.failure),
            (2000, 2, 1)
        );
        assert_eq!((seen.latency[2], seen.answers.len()), (1, 1));
        assert!(second.readings.is_empty(), "unchanged");
        let third = summaries.next(start + Duration::from_secs(4));
        assert_eq!((third.edges, third.strings.len()), (Vec::new(), 0));
        assert_eq!(third.incarnation, first.incarnation);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_told_again_when_it_returns() {
        let mut told = HashMap::default();
        let mut tell = |all: &[(u8, u8)]| {
            let mut all = all.to_vec();
            news(&mut told, &mut all, |at| *at);
            all
        };
        assert_eq!(tell(&[(1, 5), (2, 6)]), [(1, 5), (2, 6)]);
        assert_eq!(tell(&[(1, 5), (2, 7)]), [(2, 7)]);
        assert_eq!(tell(&[(1, 5)]), []);
        assert_eq!(tell(&[(1, 5), (2, 7)]), [(2, 7)]);
    }

    #[test]
    fn a_full_outbox_loses_nothing() {
        let metrics = Metrics::new("shop");
        let mut summaries = Summaries::new(&metrics);
        let (events, mut outbox) = mpsc::channel(1);
        for _ in 0..3 {
            metrics.inbound_edge(None).request();
            summaries.send(&events);
        }
        let mut requests = 0;
        for _ in 0..2 {
            if let Some(Event::Summary(summary)) = outbox.try_recv().unwrap().event {
                let summary = pb::Summary::decode(summary.as_slice()).unwrap();
                requests = summary.edges[0].requests;
            }
            summaries.send(&events);
        }
        assert_eq!(requests, 3);
    }

    #[test]
    fn a_second_stream_is_told_everything_again() {
        let metrics = Metrics::new("shop");
        metrics.inbound_edge(None).request();
        let now = Instant::now();
        assert_eq!(Summaries::new(&metrics).next(now).edges.len(), 1);
        assert_eq!(Summaries::new(&metrics).next(now).edges.len(), 1);
    }
}
