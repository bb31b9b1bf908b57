//! Everything the page shows, in one document of one moment: the report, grouped as the command line groups it, without
//! what the page does not need (buckets, single connections). Pure.

use crate::admin::Facts;
use crate::peers::Controllers;
use crate::traffic::Report;
use crate::traffic::authz::{AuthzRow, authz};
use crate::traffic::edges::{Edge, Node, edges};
use crate::traffic::report::{API_VERSION, PodReport, ProxyReport};
use crate::traffic::rows::{Kind, Query, Row, SplitShare, Sum, stat};
use serde::Serialize;
use std::collections::BTreeMap;
use weft_proxy_api::names;

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    api_version: &'static str,
    kind: &'static str,
    /// Of the controller.
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<f64>,
    /// Which controllers had a say; absent: there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    controllers: Option<Controllers>,
    workloads: Vec<Line>,
    services: Vec<Line>,
    routes: Vec<Line>,
    splits: Vec<Line>,
    edges: Vec<Call>,
    authz: Vec<Right>,
    proxies: Vec<Pod>,
    problems: Vec<Flaw>,
}

/// Figures of any row.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    rps: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    success: u64,
    failure: u64,
    denied: u64,
    /// That carried bytes rather than HTTP.
    connections: u64,
    /// Bytes a second.
    bytes_in: f64,
    bytes_out: f64,
}

/// A workload, Service, route or backend of a split.
#[derive(Debug, Serialize)]
struct Line {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    meshed: Option<(usize, usize)>,
    #[serde(flatten)]
    share: Option<SplitShare>,
    #[serde(flatten)]
    figures: Figures,
}

/// An edge.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    src: Node,
    dst: Node,
    secured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_tls_reason: Option<String>,
    #[serde(flatten)]
    figures: Figures,
}

/// A permission, or one who has none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Right {
    namespace: String,
    account: String,
    client: String,
    object: String,
    routes: Vec<String>,
    denied_by: BTreeMap<String, u64>,
    #[serde(flatten)]
    figures: Figures,
}

/// A pod and its proxy.
#[derive(Debug, Serialize)]
struct Pod {
    namespace: String,
    pod: String,
    /// Of the workload.
    name: String,
    meshed: bool,
    ready: bool,
    access: String,
    #[serde(flatten)]
    proxy: Option<ProxyReport>,
}

/// Something wrong with an object.
#[derive(Debug, Serialize)]
struct Flaw {
    severity: String,
    file: String,
    line: u32,
    object: Option<String>,
    field: Option<String>,
    message: String,
}

impl Document {
    /// Puts it together.
    pub fn new(report: &Report, facts: &Facts) -> Self {
        let rows = |kind| {
            let rows = stat(report, &Query::all(kind)).unwrap_or_default();
            rows.into_iter().map(Line::from).collect()
        };
        Self {
            api_version: API_VERSION,
            kind: "Dashboard",
            version: names::VERSION,
            window_seconds: report.window_seconds,
            controllers: report.controllers.clone(),
            workloads: rows(Kind::Workload),
            services: rows(Kind::Service),
            routes: rows(Kind::Route),
            splits: rows(Kind::Split),
            edges: edges(report).into_iter().map(Call::from).collect(),
            authz: authz(report).into_iter().map(Right::from).collect(),
            proxies: report.pods.iter().map(Pod::from).collect(),
            problems: facts
                .problems
                .iter()
                .map(|problem| Flaw {
                    severity: problem.severity.to_string(),
                    file: problem.origin.file.to_string(),
                    line: problem.origin.line,
                    object: problem.object.clone(),
                    field: problem.field.clone(),
                    message: problem.message.clone(),
                })
                .collect(),
        }
    }
}

impl From<Sum> for Figures {
    fn from(sum: Sum) -> Self {
        Self {
            rps: sum.rps,
            success_rate: sum.success_rate,
            p50: sum.latency_p50,
            p95: sum.latency_p95,
            p99: sum.latency_p99,
            success: sum.counts.success,
            failure: sum.counts.failure,
            denied: sum.counts.denied,
            connections: sum.counts.connections,
            bytes_in: sum.read_bytes_per_second,
            bytes_out: sum.write_bytes_per_second,
        }
    }
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self {
            namespace: row.namespace,
            name: row.name,
            meshed: row.meshed,
            share: row.share,
            figures: row.sum.into(),
        }
    }
}

impl From<Edge> for Call {
    fn from(edge: Edge) -> Self {
        Self {
            src: edge.src,
            dst: edge.dst,
            secured: edge.secured,
            no_tls_reason: edge.no_tls_reason,
            figures: edge.sum.into(),
        }
    }
}

impl From<AuthzRow> for Right {
    fn from(row: AuthzRow) -> Self {
        Self {
            namespace: row.namespace,
            account: row.account,
            client: row.client,
            object: row.object,
            routes: row.routes,
            denied_by: row.denied_by,
            figures: row.sum.into(),
        }
    }
}

impl From<&PodReport> for Pod {
    fn from(pod: &PodReport) -> Self {
        let facts = &pod.facts;
        Self {
            namespace: facts.namespace.clone(),
            pod: facts.name.clone(),
            name: facts.workload.clone(),
            meshed: facts.meshed,
            ready: facts.ready,
            access: facts.access.clone(),
            proxy: pod.proxy.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::traffic::rows::tests::story;

    #[test]
    fn the_page_gets_what_the_command_line_says_and_no_buckets() {
        let document = Document::new(&story(), &Facts::default());
        let text = serde_json::to_string(&document).unwrap();
        assert!(!text.contains("latency\""), "{text}");
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let edges = document["edges"].as_array().unwrap();
        assert_eq!(edges.len(), 2);
        assert_eq!(edges[0]["src"]["workload"], "deploy/load");
        assert_eq!(edges[0]["secured"], true);
        assert_eq!(
            edges[0]["success"].as_u64().unwrap() + edges[0]["failure"].as_u64().unwrap(),
            90
        );
        for part in ["workloads", "services", "splits", "proxies"] {
            assert!(!document[part].as_array().unwrap().is_empty(), "{part}");
        }
    }
}
