//! The report, grouped into rows: `stat` and the metrics API. Pure.
//!
//! Pods, workloads, namespaces and accounts are rows of what was sent *to* them, as their own proxies saw it; with
//! `to`, of what they sent there. Services and splits are rows of what was sent to them as callers saw it. With
//! `from`, every row is what that caller saw.

use super::counts::Counts;
use super::report::{EdgeReport, PodReport, Report};
pub use super::resource::{Kind, Resource};
use super::table::Direction;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which rows.
    pub resource: Resource,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only pods (and what they belong to) with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only traffic sent by these.
    pub from: Option<Resource>,
    /// Only traffic sent to these.
    pub to: Option<Resource>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it stands for.
    pub kind: Kind,
    /// Namespace; empty for namespaces.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Pods with a proxy, and all pods; absent where pods are not what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meshed: Option<(usize, usize)>,
    /// Splits: the Service called, the Service chosen, its weight and its share of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<SplitShare>,
    /// Connections open to the pods now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_connections: Option<u64>,
    /// Traffic.
    #[serde(flatten)]
    pub sum: Sum,
}

/// A backend of a split: what was wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitShare {
    /// Service that clients call.
    pub apex: String,
    /// Service chosen.
    pub leaf: String,
    /// Weight.
    pub weight: u64,
    /// Weight divided by the sum of all weights.
    pub wanted: f64,
    /// Requests divided by the requests of all backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<f64>,
}

/// Traffic of several proxies. Each has counted for a time of its own, so rates are added up, not counts divided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sum {
    /// Requests in a second.
    pub rps: f64,
    /// Bytes from clients in a second.
    pub read_bytes_per_second: f64,
    /// Bytes to clients in a second.
    pub write_bytes_per_second: f64,
    /// Share of the answers that are successes; absent: nothing was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// Seconds that half of the answers took at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p50: Option<f64>,
    /// The same of 95 in a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p95: Option<f64>,
    /// The same of 99 in a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<f64>,
    /// Everything counted.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Query {
    /// Everything of this kind, in every namespace.
    pub fn all(kind: Kind) -> Self {
        Self {
            resource: Resource { kind, name: None },
            namespace: None,
            labels: Vec::new(),
            from: None,
            to: None,
        }
    }

    fn in_namespace(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|only| only == namespace)
    }

    fn selects(&self, pod: &PodReport) -> bool {
        let has = |(key, value): &(String, String)| pod.facts.labels.get(key) == Some(value);
        self.in_namespace(&pod.facts.namespace) && self.labels.iter().all(has)
    }
}

impl Sum {
    /// Adds what one proxy counted in `seconds`.
    pub fn add(&mut self, counts: &Counts, seconds: f64) {
        self.counts.add(counts);
        if seconds > 0.0 {
            self.rps += counts.requests as f64 / seconds;
            self.read_bytes_per_second += counts.bytes_in as f64 / seconds;
            self.write_bytes_per_second += counts.bytes_out as f64 / seconds;
        }
    }

    /// Works out what follows from the counts; once, when all are in.
    pub fn finish(&mut self) {
        self.success_rate = self.counts.success_rate();
        self.latency_p50 = self.counts.quantile(0.5);
        self.latency_p95 = self.counts.quantile(0.95);
        self.latency_p99 = self.counts.quantile(0.99);
    }
}

/// The rows of a query, by namespace and name.
pub fn stat(report: &Report, query: &Query) -> Result<Vec<Row>, String> {
    let mut rows = match query.resource.kind {
        Kind::Workload | Kind::Pod | Kind::Namespace | Kind::Account => pods(report, query)?,
        Kind::Service => services(report, query),
        Kind::Split => splits(report, query),
        Kind::Route => routes(report, query),
    };
    rows.iter_mut().for_each(|row| row.sum.finish());
    Ok(rows)
}

/// Namespace and name of the row a pod belongs to.
fn group(kind: Kind, pod: &PodReport) -> (String, String) {
    let facts = &pod.facts;
    let name = match kind {
        Kind::Pod => &facts.name,
        Kind::Account => &facts.service_account,
        Kind::Namespace => return (String::new(), facts.namespace.clone()),
        _ => &facts.workload,
    };
    (facts.namespace.clone(), name.clone())
}

fn pods(report: &Report, query: &Query) -> Result<Vec<Row>, String> {
    let kind = query.resource.kind;
    if kind == Kind::Pod && query.from.is_some() {
        return Err(
            "callers count by workload: ask for deploy, or for the pod without --from".into(),
        );
    }
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for pod in report.pods.iter().filter(|pod| query.selects(pod)) {
        let (namespace, name) = group(kind, pod);
        if !query.resource.names(&name) {
            continue;
        }
        let row = rows
            .entry((namespace.clone(), name.clone()))
            .or_insert_with(|| Row::new(kind, namespace, name));
        row.add_pod(pod);
        match (&query.from, &query.to) {
            (None, None) => row.add_edges(pod, |edge| edge.key.direction == Direction::Inbound),
            (None, Some(to)) => row.add_edges(pod, |edge| sent_to(report, edge, to)),
            _ => {}
        }
    }
    if let Some(from) = &query.from {
        add_callers(report, query, from, &mut rows);
    }
    Ok(rows.into_values().collect())
}

/// Was it sent by the pod to this resource?
fn sent_to(report: &Report, edge: &EdgeReport, to: &Resource) -> bool {
    let key = &edge.key;
    key.direction == Direction::Outbound
        && match to.kind {
            Kind::Service => to.names(service_name(&key.service)),
            Kind::Split => key
                .route
                .strip_prefix("TrafficSplit ")
                .and_then(|at| at.split_once('/'))
                .is_some_and(|(_, name)| to.names(name)),
            Kind::Namespace => to.names(&key.peer_namespace),
            Kind::Workload => to.names(&key.peer_workload),
            Kind::Pod | Kind::Account => report.pods.iter().any(|pod| {
                to.holds(pod)
                    && pod.facts.namespace == key.peer_namespace
                    && pod.facts.workload == key.peer_workload
            }),
            Kind::Route => false,
        }
}

/// What `from` sent to the rows, as its own proxies saw it.
fn add_callers(
    report: &Report,
    query: &Query,
    from: &Resource,
    rows: &mut BTreeMap<(String, String), Row>,
) {
    let kind = query.resource.kind;
    // Rows by the workloads behind them.
    let mut behind: BTreeMap<(&str, &str), BTreeSet<(String, String)>> = BTreeMap::new();
    for pod in report.pods.iter().filter(|pod| query.selects(pod)) {
        behind
            .entry((&pod.facts.namespace, &pod.facts.workload))
            .or_default()
            .insert(group(kind, pod));
    }
    for pod in report.pods.iter().filter(|pod| from.holds(pod)) {
        for edge in &pod.edges {
            let at = &edge.key;
            let peer = (at.peer_namespace.as_str(), at.peer_workload.as_str());
            let (Direction::Outbound, Some(groups)) = (at.direction, behind.get(&peer)) else {
                continue;
            };
            for group in groups {
                if let Some(row) = rows.get_mut(group) {
                    row.sum.add(&edge.counts, pod.seconds);
                }
            }
        }
    }
}

fn services(report: &Report, query: &Query) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for service in &report.services {
        let (namespace, name) = service.split_once('/').unwrap_or(("", service));
        if query.in_namespace(namespace) && query.resource.names(name) {
            let row = Row::new(Kind::Service, namespace.into(), name.into());
            rows.insert(service.clone(), row);
        }
    }
    for pod in &report.pods {
        for service in &pod.facts.services {
            if let Some(row) = rows.get_mut(&format!("{}/{service}", pod.facts.namespace)) {
                row.add_pod(pod);
            }
        }
        if query.from.as_ref().is_some_and(|from| !from.holds(pod)) {
            continue;
        }
        for edge in &pod.edges {
            let called = edge.key.service.rsplit_once(':').map(|(name, _)| name);
            if let (Direction::Outbound, Some(row)) =
                (edge.key.direction, called.and_then(|at| rows.get_mut(at)))
            {
                row.sum.add(&edge.counts, pod.seconds);
            }
        }
    }
    rows.into_values().collect()
}

fn splits(report: &Report, query: &Query) -> Vec<Row> {
    let mut rows = Vec::new();
    let wanted = |at: &&super::inventory::SplitFacts| {
        query.in_namespace(&at.namespace) && query.resource.names(&at.name)
    };
    for split in report.splits.iter().filter(wanted) {
        let object = format!("TrafficSplit {}/{}", split.namespace, split.name);
        // Each may be as large as half of what 64 bits hold.
        let all: u128 = split.backends.iter().map(|at| u128::from(at.weight)).sum();
        let from = rows.len();
        for share in &split.backends {
            let mut row = Row::new(Kind::Split, split.namespace.clone(), split.name.clone());
            row.share = Some(SplitShare {
                apex: split.service.clone(),
                leaf: share.service.clone(),
                weight: share.weight,
                wanted: share.weight as f64 / all.max(1) as f64,
                observed: None,
            });
            let leaf = format!("{}/{}", split.namespace, share.service);
            for pod in &report.pods {
                if query.from.as_ref().is_none_or(|from| from.holds(pod)) {
                    row.add_edges(pod, |edge| {
                        let backend = edge.key.backend.rsplit_once(':');
                        edge.key.route == object && backend.is_some_and(|(name, _)| name == leaf)
                    });
                }
            }
            rows.push(row);
        }
        let requests = rows[from..].iter().map(|row| row.sum.counts.requests);
        let requests = requests.fold(0, u64::saturating_add);
        for row in &mut rows[from..] {
            let share = row.sum.counts.requests as f64 / requests.max(1) as f64;
            if let Some(at) = row.share.as_mut().filter(|_| requests > 0) {
                at.observed = Some(share);
            }
        }
    }
    rows
}

/// What no route describes.
pub const DEFAULT_ROUTE: &str = "[DEFAULT]";

fn routes(report: &Report, query: &Query) -> Vec<Row> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let target = query.to.as_ref();
    for pod in report.pods.iter().filter(|pod| query.selects(pod)) {
        if target.is_some_and(|to| !to.holds(pod)) {
            continue;
        }
        for edge in &pod.edges {
            if edge.key.direction != Direction::Inbound {
                continue;
            }
            let name = route_name(&edge.key.route);
            if query.resource.names(&name) {
                let at = (pod.facts.namespace.clone(), name);
                let row = rows
                    .entry(at.clone())
                    .or_insert_with(|| Row::new(Kind::Route, at.0, at.1));
                row.sum.add(&edge.counts, pod.seconds);
            }
        }
    }
    rows.into_values().collect()
}

/// `HTTPRouteGroup shop/api read` is `api/read`.
pub fn route_name(route: &str) -> String {
    let words: Vec<&str> = route.split(' ').collect();
    match words.as_slice() {
        [""] => DEFAULT_ROUTE.into(),
        ["HTTPRouteGroup", group, name] => {
            let group = group.split_once('/').map_or(*group, |(_, name)| name);
            format!("{group}/{name}")
        }
        _ => route.into(),
    }
}

/// `shop/web:8080` is `web`.
pub fn service_name(service: &str) -> &str {
    let name = service.split_once('/').map_or(service, |(_, name)| name);
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

impl Row {
    fn new(kind: Kind, namespace: String, name: String) -> Self {
        Self {
            kind,
            namespace,
            name,
            meshed: None,
            share: None,
            open_connections: None,
            sum: Sum::default(),
        }
    }

    fn add_pod(&mut self, pod: &PodReport) {
        let (meshed, all) = self.meshed.unwrap_or_default();
        self.meshed = Some((meshed + usize::from(pod.facts.meshed), all + 1));
        let open = pod
            .connections
            .iter()
            .filter(|at| at.key.direction == Direction::Inbound && !at.key.opened_by_proxy);
        // A proxy says what it wants: nothing may overflow.
        let known = self.open_connections.unwrap_or(0);
        let open = open.map(|at| at.counts.open);
        self.open_connections = Some(open.fold(known, u64::saturating_add));
    }

    fn add_edges(&mut self, pod: &PodReport, wanted: impl Fn(&EdgeReport) -> bool) {
        for edge in pod.edges.iter().filter(|edge| wanted(edge)) {
            self.sum.add(&edge.counts, pod.seconds);
        }
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
pub(crate) mod tests;
