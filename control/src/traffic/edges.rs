//! The report as a graph: which workload calls which, how well, and whether it is secured; where not, why. Pure.

use super::report::{PodReport, Report};
use super::rows::{Sum, service_name};
use super::table::{Direction, EdgeKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A workload, or somebody unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Namespace; empty: unknown.
    pub namespace: String,
    /// `deploy/web`; `svc/web` where no endpoint was reached; empty: outside of the mesh.
    pub workload: String,
}

/// Who calls whom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Who calls.
    pub src: Node,
    /// Who is called.
    pub dst: Node,
    /// The identity the caller proves; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The identity the called one proves; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// Everything on it was mutual TLS.
    pub secured: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_tls_reason: Option<String>,
    /// Traffic as the caller saw it (or the called one, where the caller has no proxy).
    #[serde(flatten)]
    pub sum: Sum,
}

/// Every edge with traffic, by source and destination.
pub fn edges(report: &Report) -> Vec<Edge> {
    let mut all: BTreeMap<(Node, Node), Edge> = BTreeMap::new();
    for pod in &report.pods {
        for edge in &pod.edges {
            let Some((src, dst)) = ends(pod, &edge.key) else {
                continue;
            };
            let at = all
                .entry((src.clone(), dst.clone()))
                .or_insert_with(|| Edge {
                    client_id: identity(report, &src),
                    server_id: identity(report, &dst),
                    secured: true,
                    src,
                    dst,
                    ..Edge::default()
                });
            at.sum.add(&edge.counts, pod.seconds);
            if !edge.key.mutual_tls {
                at.secured = false;
                at.no_tls_reason = Some(reason(report, at, pod));
            }
        }
    }
    let mut all: Vec<Edge> = all.into_values().collect();
    // Series are made before anything is counted on them.
    all.retain(|edge| !edge.sum.counts.is_zero());
    all.iter_mut().for_each(|edge| edge.sum.finish());
    all
}

/// Between whom. Traffic between two proxies is told by the caller's alone.
fn ends(pod: &PodReport, key: &EdgeKey) -> Option<(Node, Node)> {
    let own = Node {
        namespace: pod.facts.namespace.clone(),
        workload: pod.facts.workload.clone(),
    };
    let peer = Node {
        namespace: key.peer_namespace.clone(),
        workload: key.peer_workload.clone(),
    };
    match key.direction {
        Direction::Outbound if peer.workload.is_empty() && !key.service.is_empty() => {
            let called = Node {
                namespace: key.service.split('/').next().unwrap_or_default().to_owned(),
                workload: format!("svc/{}", service_name(&key.service)),
            };
            Some((own, called))
        }
        Direction::Outbound => Some((own, peer)),
        Direction::Inbound if peer.workload.is_empty() => Some((peer, own)),
        Direction::Inbound => None,
    }
}

fn pods<'a>(report: &'a Report, node: &'a Node) -> impl Iterator<Item = &'a PodReport> {
    report.pods.iter().filter(move |pod| {
        pod.facts.workload == node.workload && pod.facts.namespace == node.namespace
    })
}

/// What the workload's certificate says.
fn identity(report: &Report, node: &Node) -> Option<String> {
    let pod = pods(report, node).find(|pod| pod.facts.meshed)?;
    let facts = &pod.facts;
    Some(format!("{}.{}", facts.service_account, facts.namespace))
}

/// Why an edge is not mutual TLS, in words.
fn reason(report: &Report, edge: &Edge, seen_by: &PodReport) -> String {
    let unmeshed = |node: &Node| pods(report, node).any(|pod| !pod.facts.meshed);
    if edge.src.workload.is_empty() {
        let foreign = seen_by.connections.iter().any(|at| {
            at.key.direction == Direction::Inbound
                && at.key.no_tls_reason == "foreign"
                && at.counts.opened > 0
        });
        return if foreign {
            "the client has no proxy, and speaks a TLS of its own".into()
        } else {
            "the client has no proxy".into()
        };
    }
    if edge.dst.workload.starts_with("svc/") {
        return "no endpoint was reached".into();
    }
    if edge.dst.workload.is_empty() {
        "the destination is outside of the mesh".into()
    } else if unmeshed(&edge.dst) {
        "the destination has no proxy".into()
    } else {
        "the caller's own pod, or a port that bypasses the proxy".into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::story;
    use super::*;

    #[test]
    fn edges_between_proxies_are_told_once_and_secured() {
        let all = edges(&story());
        let seen: Vec<_> = all
            .iter()
            .map(|edge| {
                (
                    edge.dst.workload.as_str(),
                    edge.secured,
                    edge.sum.counts.requests,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [("deploy/web-v1", true, 90), ("deploy/web-v2", true, 10)]
        );
        assert_eq!(all[0].client_id.as_deref(), Some("load.shop"));
        assert_eq!(all[0].server_id.as_deref(), Some("web.shop"));
    }

    #[test]
    fn what_reached_no_endpoint_is_not_outside_of_the_mesh() {
        let mut report = story();
        let edge = &mut report.pods[0].edges[0].key;
        edge.peer_workload.clear();
        edge.mutual_tls = false;
        let all = edges(&report);
        let seen = all.iter().find(|edge| edge.dst.workload == "svc/web");
        let reason = seen.and_then(|edge| edge.no_tls_reason.as_deref());
        assert_eq!(reason, Some("no endpoint was reached"));
    }

    #[test]
    fn what_is_not_secured_says_why() {
        let mut report = story();
        for pod in &mut report.pods {
            for edge in &mut pod.edges {
                edge.key.mutual_tls = false;
                if edge.key.direction == Direction::Inbound {
                    edge.key.peer_workload.clear();
                    edge.key.peer_namespace.clear();
                }
            }
        }
        let all = edges(&report);
        let reasons: Vec<_> = all
            .iter()
            .filter_map(|edge| edge.no_tls_reason.as_deref())
            .collect();
        let expected = [
            "the client has no proxy",
            "the client has no proxy",
            "the caller's own pod, or a port that bypasses the proxy",
            "the destination has no proxy",
        ];
        assert_eq!(reasons, expected);
    }
}
