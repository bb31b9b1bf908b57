//! What a controller heard, in the words of the control API, and back.

use crate::pod_ref::PodRef;
use crate::serve::proxies::ProxyStatus;
use crate::traffic::counts::{Code, Counts};
use crate::traffic::table::{ConnectionKey, Connections, Direction, EdgeKey, PodTraffic};
use crate::traffic::tap::{Passed, Shown};
use std::time::{Duration, Instant};
use weft_proxy_api::wire::encode::Strings;
use weft_proxy_api::wire::generated as pb;

/// Name of a pod.
pub fn name(pod: &PodRef) -> pb::PodName {
    pb::PodName {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
    }
}

/// How a proxy is doing.
pub fn proxy(status: &ProxyStatus, now: Instant) -> pb::PeerProxy {
    let stale = status.stale_since;
    pb::PeerProxy {
        zone: status.zone.clone(),
        version: status.version.clone(),
        connected_ms: since(status.connected, now),
        stale: stale.is_some(),
        stale_ms: stale.map_or(0, |at| since(at, now)),
        subscriptions: u32::try_from(status.subscriptions).unwrap_or(u32::MAX),
        last_nack: status.last_nack.clone().unwrap_or_default(),
    }
}

/// The same, read.
pub fn proxy_status(pod: PodRef, from: pb::PeerProxy, now: Instant) -> ProxyStatus {
    ProxyStatus {
        pod,
        zone: from.zone,
        version: from.version,
        connected: before(now, from.connected_ms),
        stale_since: from.stale.then(|| before(now, from.stale_ms)),
        subscriptions: from.subscriptions as usize,
        last_nack: (!from.last_nack.is_empty()).then_some(from.last_nack),
    }
}

/// Milliseconds from a moment until `now`.
pub fn since(at: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(at))
}

/// The moment that was so many milliseconds before `now`.
pub fn before(now: Instant, ms: u64) -> Instant {
    now.checked_sub(Duration::from_millis(ms)).unwrap_or(now)
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What was shown; `None`: nothing that can be read.
pub fn shown(from: pb::PeerShown) -> Option<Passed> {
    use pb::peer_shown::Shown as Wire;
    let pod = from.pod?;
    let pod = PodRef::new(&pod.namespace, &pod.pod);
    let shown = match from.shown? {
        Wire::Look(look) => Shown::Look(Box::new(look)),
        Wire::State(state) => Shown::State(state),
    };
    Some((pod, shown, from.lost))
}

/// The same, told.
pub fn tell((pod, shown, lost): Passed) -> pb::PeerShown {
    use pb::peer_shown::Shown as Wire;
    pb::PeerShown {
        pod: Some(name(&pod)),
        shown: Some(match shown {
            Shown::Look(look) => Wire::Look(*look),
            Shown::State(state) => Wire::State(state),
        }),
        lost,
    }
}

/// The traffic of a pod as its proxy would say it.
pub fn summary(traffic: &PodTraffic) -> pb::Summary {
    let mut table = Table::default();
    let edges = traffic.edges.iter();
    let edges = edges.map(|(key, counts)| table.edge(key, counts)).collect();
    let kinds = traffic.connections.iter();
    let connections = kinds.map(|(key, counts)| table.kind(key, counts)).collect();
    let backends = traffic.backends.iter().map(|(name, at)| pb::BackendState {
        name_ref: table.text(name),
        endpoints: at.endpoints,
        ejected: at.ejected,
        ejections: at.ejections,
        connect_failures: at.connect_failures,
    });
    let backends = backends.collect();
    let readings = traffic.readings.iter().map(|(key, value)| pb::Reading {
        metric_ref: table.text(&key.metric),
        label_refs: key.labels.iter().map(|label| table.text(label)).collect(),
        value: *value,
    });
    let readings = readings.collect();
    pb::Summary {
        strings: table.0.into_list(),
        edges,
        uptime_ms: millis(traffic.uptime),
        backends,
        connections,
        readings,
        ..pb::Summary::default()
    }
}

/// What a summary is made of; its strings go into one table.
#[derive(Default)]
struct Table(Strings);

impl Table {
    fn text(&mut self, text: &str) -> u32 {
        self.0.optional(text)
    }

    fn edge(&mut self, key: &EdgeKey, counts: &Counts) -> pb::Edge {
        let answers = counts
            .answers
            .iter()
            .map(|(code, count)| answers(*code, *count));
        let denied_by = counts.denied_by.iter().map(|(reason, count)| pb::Reason {
            reason_ref: self.text(reason),
            count: *count,
        });
        pb::Edge {
            denied_by: denied_by.collect(),
            direction: direction(key.direction).into(),
            peer_namespace_ref: self.text(&key.peer_namespace),
            peer_workload_ref: self.text(&key.peer_workload),
            service_ref: self.text(&key.service),
            backend_ref: self.text(&key.backend),
            route_ref: self.text(&key.route),
            mutual_tls: key.mutual_tls,
            requests: counts.requests,
            success: counts.success,
            failure: counts.failure,
            cancelled: counts.cancelled,
            denied: counts.denied,
            latency: counts.latency.clone(),
            latency_sum_us: counts.latency_sum_us,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            connections: counts.connections,
            answers: answers.collect(),
            series: 0,
        }
    }

    fn kind(&mut self, key: &ConnectionKey, counts: &Connections) -> pb::ConnectionKind {
        pb::ConnectionKind {
            direction: direction(key.direction).into(),
            opened_by_proxy: key.opened_by_proxy,
            peer_namespace_ref: self.text(&key.peer_namespace),
            peer_workload_ref: self.text(&key.peer_workload),
            no_tls_ref: self.text(&key.no_tls_reason),
            protocol_ref: self.text(&key.protocol),
            opened: counts.opened,
            closed: counts.opened.saturating_sub(counts.open),
            bytes_read: counts.bytes_read,
            bytes_written: counts.bytes_written,
        }
    }
}

fn answers(code: Code, count: u64) -> pb::Answers {
    let (status, grpc) = match code {
        Code::Http(status) => (status.into(), 0),
        Code::Grpc(code) => (200, u32::from(code) + 1),
    };
    pb::Answers {
        status,
        grpc,
        count,
    }
}

fn direction(direction: Direction) -> pb::Direction {
    match direction {
        Direction::Inbound => pb::Direction::Inbound,
        Direction::Outbound => pb::Direction::Outbound,
    }
}
