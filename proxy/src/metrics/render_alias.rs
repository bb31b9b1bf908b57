//! The golden measures under the names and labels that Linkerd's users query (dashboards, Flagger), read from the same
//! atomics. Their labels are fewer than ours, so series are added up here.

use super::catalogue::{self as names, Metric};
use super::histogram::Snapshot;
use super::labels::{ConnectionLabels, EdgeLabels, yes_no};
use super::render::Scrape;
use super::statuses::{self, SLOTS};
use super::text::{Label, Text};
use crate::connection::Direction;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Microseconds in a millisecond: Linkerd's durations are in milliseconds.
const MILLI_US: u64 = 1_000;

/// Label values of an edge: direction, tls, client_id, dst_namespace, dst_deployment, dst_service.
type EdgeKey<'a> = [&'a str; 6];
/// Label values of connections: direction, tls, peer, dst_namespace, dst_deployment.
type TcpKey<'a> = [&'a str; 5];

struct Edge {
    requests: u64,
    answers: [u64; SLOTS],
    latency: Snapshot,
}

#[derive(Default)]
struct Tcp {
    opened: u64,
    closed: u64,
    open: u64,
    read: u64,
    written: u64,
}

pub(super) fn render(scrape: &Scrape<'_>, text: &mut Text) {
    let own = Own {
        namespace: &scrape.metrics.namespace,
        deployment: deployment(&scrape.workload),
    };
    own.edges(text, &edges(scrape));
    own.tcp(text, &connections(scrape));
}

fn edges<'a>(scrape: &'a Scrape<'_>) -> BTreeMap<EdgeKey<'a>, Edge> {
    let mut all = BTreeMap::new();
    for edge in &scrape.edges {
        let sum = all
            .entry(edge_key(&edge.labels))
            .or_insert_with(Edge::default);
        sum.requests += edge.requests;
        for (to, from) in sum.answers.iter_mut().zip(&edge.answers) {
            *to += from;
        }
        sum.latency.add(&edge.latency);
    }
    all
}

fn connections<'a>(scrape: &'a Scrape<'_>) -> BTreeMap<TcpKey<'a>, Tcp> {
    let mut all = BTreeMap::new();
    for (labels, at) in &scrape.connections {
        let sum: &mut Tcp = all.entry(tcp_key(labels)).or_default();
        sum.opened += at.opened.load(Relaxed);
        sum.closed += at.closed.load(Relaxed);
        sum.open += at.open();
        sum.read += at.bytes_read.load(Relaxed);
        sum.written += at.bytes_written.load(Relaxed);
    }
    all
}

fn edge_key(labels: &EdgeLabels) -> EdgeKey<'_> {
    let (direction, tls) = (labels.direction.label(), yes_no(labels.peer.tls));
    match labels.direction {
        Direction::Inbound => [direction, tls, account(&labels.peer.workload), "", "", ""],
        Direction::Outbound => {
            let (namespace, workload) = (&labels.peer.namespace, &labels.peer.workload);
            [
                direction,
                tls,
                "",
                namespace,
                deployment(workload),
                service(&labels.backend),
            ]
        }
    }
}

fn tcp_key(labels: &ConnectionLabels) -> TcpKey<'_> {
    let (direction, tls) = (labels.direction.label(), yes_no(labels.no_tls.is_empty()));
    match labels.direction {
        Direction::Inbound => [direction, tls, labels.side.label(), "", ""],
        Direction::Outbound => {
            let (namespace, workload) = (&labels.peer.namespace, &labels.peer.workload);
            [
                direction,
                tls,
                labels.side.label(),
                namespace,
                deployment(workload),
            ]
        }
    }
}

/// `web` of `deploy/web`, and of other kinds too: tools look for the name in this label.
fn deployment(workload: &str) -> &str {
    workload.split_once('/').map_or(workload, |(_, name)| name)
}

/// `web` of `sa/web`.
fn account(workload: &str) -> &str {
    deployment(workload)
}

/// `web` of `shop/web:80`.
fn service(backend: &str) -> &str {
    let name = backend.split_once('/').map_or(backend, |(_, name)| name);
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

/// This workload's own labels.
struct Own<'a> {
    namespace: &'a str,
    deployment: &'a str,
}

impl<'a> Own<'a> {
    fn edges(&self, text: &mut Text, all: &BTreeMap<EdgeKey<'_>, Edge>) {
        text.head(&names::ALIAS_REQUESTS);
        for (key, edge) in all {
            text.sample(names::ALIAS_REQUESTS.name, &self.edge(key), edge.requests);
        }
        text.head(&names::ALIAS_RESPONSES);
        for (key, edge) in all {
            self.answers(text, key, edge);
        }
        text.head(&names::ALIAS_LATENCY);
        for (key, edge) in all {
            text.histogram(
                names::ALIAS_LATENCY.name,
                &self.edge(key),
                &edge.latency,
                MILLI_US,
            );
        }
    }

    fn answers(&self, text: &mut Text, key: &EdgeKey<'_>, edge: &Edge) {
        for (slot, count) in edge
            .answers
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let name = statuses::name(slot);
            let mut labels = self.edge(key).to_vec();
            labels.push(("classification", name.classification()));
            labels.extend([("status_code", name.status), ("grpc_status", name.grpc)]);
            text.sample(names::ALIAS_RESPONSES.name, &labels, count);
        }
    }

    fn tcp(&self, text: &mut Text, all: &BTreeMap<TcpKey<'_>, Tcp>) {
        let mut each = |metric: &Metric, value: fn(&Tcp) -> u64| {
            text.head(metric);
            for (key, tcp) in all {
                text.sample(metric.name, &self.connection(key), value(tcp));
            }
        };
        each(&names::ALIAS_TCP_OPENED, |tcp| tcp.opened);
        each(&names::ALIAS_TCP_CLOSED, |tcp| tcp.closed);
        each(&names::ALIAS_TCP_OPEN, |tcp| tcp.open);
        each(&names::ALIAS_TCP_READ, |tcp| tcp.read);
        each(&names::ALIAS_TCP_WRITTEN, |tcp| tcp.written);
    }

    fn edge<'b>(&'b self, key: &EdgeKey<'b>) -> [Label<'b>; 8] {
        let [
            direction,
            tls,
            client,
            dst_namespace,
            dst_deployment,
            dst_service,
        ] = *key;
        [
            ("direction", direction),
            ("namespace", self.namespace),
            ("deployment", self.deployment),
            ("tls", tls),
            ("client_id", client),
            ("dst_namespace", dst_namespace),
            ("dst_deployment", dst_deployment),
            ("dst_service", dst_service),
        ]
    }

    fn connection<'b>(&'b self, key: &TcpKey<'b>) -> [Label<'b>; 7] {
        let [direction, tls, peer, dst_namespace, dst_deployment] = *key;
        [
            ("direction", direction),
            ("namespace", self.namespace),
            ("deployment", self.deployment),
            ("tls", tls),
            ("peer", peer),
            ("dst_namespace", dst_namespace),
            ("dst_deployment", dst_deployment),
        ]
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            requests: 0,
            answers: [0; SLOTS],
            latency: Snapshot::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_out_of_labels() {
        assert_eq!(
            (
                deployment("deploy/web"),
                deployment("sts/db"),
                deployment("")
            ),
            ("web", "db", "")
        );
        assert_eq!((service("shop/web:80"), service("")), ("web", ""));
    }
}
