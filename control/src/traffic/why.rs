//! Why is a Service as it is? Joins callers, routes, dependencies, retries, breakers and splits into sentences. Pure: every
//! figure in a sentence is in the report.

mod said;

use super::edges::Node;
use super::report::{PodReport, Report};
use super::rows::{Sum, route_name, service_name};
use super::table::{Direction, OTHER};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Below this, 95 in a hundred answers are quick enough.
const SLOW: f64 = 0.1;
/// A dependency explains latency that is at least this share of its caller's.
const SHARE: f64 = 0.5;
/// A chain of dependencies is followed so far.
const DEEPEST: usize = 8;

/// What is known about one Service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Why {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub service: String,
    /// What was sent to it, as its own proxies saw it.
    pub sum: Sum,
    /// Who called, the busiest first.
    pub callers: Vec<Leg>,
    /// What was called, by route, the busiest first.
    pub routes: Vec<Leg>,
    /// What it calls itself, the slowest first.
    pub dependencies: Vec<Leg>,
    /// The dependencies that its latency comes from, outermost first.
    pub chain: Vec<Link>,
    /// The same for people.
    pub sentences: Vec<String>,
}

/// Traffic with one other end, or on one route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Leg {
    /// `deploy/load`, `colour`, `api/read`; with its namespace in front where that is another one.
    pub name: String,
    /// Traffic.
    pub sum: Sum,
}

/// One step of a chain of slow dependencies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// Who waits.
    pub caller: Node,
    /// For whom.
    pub dependency: Node,
    /// The Service it called, without port; empty: by address.
    pub service: String,
    /// The slowest route there.
    pub route: String,
    /// What the caller saw, 95 in a hundred, seconds.
    pub latency_p95: f64,
}

/// Explains a Service; `None`: there is none of this name, and nobody called it.
pub fn why(report: &Report, namespace: &str, service: &str) -> Option<Why> {
    let pods: Vec<&PodReport> = report
        .pods
        .iter()
        .filter(|pod| pod.facts.namespace == namespace)
        .filter(|pod| pod.facts.services.iter().any(|at| at == service))
        .collect();
    if pods.is_empty() && !report.services.contains(&format!("{namespace}/{service}")) {
        return None;
    }
    let mut why = Why {
        namespace: namespace.into(),
        service: service.into(),
        callers: callers(report, namespace, service, &pods),
        routes: routes(&pods),
        dependencies: dependencies(&pods),
        chain: chain(report, &pods),
        ..Why::default()
    };
    for pod in &pods {
        for edge in inbound(pod) {
            why.sum.add(&edge.counts, pod.seconds);
        }
    }
    why.sum.finish();
    why.sentences = said::sentences(report, &why, &pods);
    Some(why)
}

fn inbound(pod: &PodReport) -> impl Iterator<Item = &super::report::EdgeReport> {
    let all = pod.edges.iter();
    all.filter(|edge| edge.key.direction == Direction::Inbound)
}

fn outbound(pod: &PodReport) -> impl Iterator<Item = &super::report::EdgeReport> {
    let all = pod.edges.iter();
    all.filter(|edge| edge.key.direction == Direction::Outbound)
}

/// Sums by name, those with most requests (or connections) first.
fn legs(sums: BTreeMap<String, Sum>) -> Vec<Leg> {
    let mut legs: Vec<Leg> = sums
        .into_iter()
        .filter(|(_, sum)| !sum.counts.is_zero())
        .map(|(name, mut sum)| {
            sum.finish();
            Leg { name, sum }
        })
        .collect();
    let weight = |leg: &Leg| {
        let counts = &leg.sum.counts;
        counts.requests.saturating_add(counts.connections)
    };
    legs.sort_by_key(|leg| std::cmp::Reverse(weight(leg)));
    legs
}

/// With its namespace, where that is another one: names are told apart only within one.
fn from_here(here: &str, namespace: &str, name: &str) -> String {
    match namespace {
        "" | OTHER => name.to_owned(),
        namespace if namespace == here => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}

fn callers(report: &Report, namespace: &str, service: &str, pods: &[&PodReport]) -> Vec<Leg> {
    let called = format!("{namespace}/{service}:");
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for pod in &report.pods {
        for edge in outbound(pod).filter(|edge| edge.key.service.starts_with(&called)) {
            let name = from_here(namespace, &pod.facts.namespace, &pod.facts.workload);
            sums.entry(name).or_default().add(&edge.counts, pod.seconds);
        }
    }
    for pod in pods {
        for edge in inbound(pod).filter(|edge| edge.key.peer_workload.is_empty()) {
            let outside = "callers without a proxy".to_owned();
            let sum = sums.entry(outside).or_default();
            sum.add(&edge.counts, pod.seconds);
        }
    }
    legs(sums)
}

fn routes(pods: &[&PodReport]) -> Vec<Leg> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for pod in pods {
        for edge in inbound(pod) {
            let sum = sums.entry(route_name(&edge.key.route)).or_default();
            sum.add(&edge.counts, pod.seconds);
        }
    }
    legs(sums)
}

fn dependencies(pods: &[&PodReport]) -> Vec<Leg> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for pod in pods {
        for edge in outbound(pod) {
            let key = &edge.key;
            let (namespace, name) = match key.service.split_once('/') {
                Some((namespace, _)) => (namespace, service_name(&key.service)),
                None => (key.peer_namespace.as_str(), key.peer_workload.as_str()),
            };
            if !name.is_empty() {
                let name = from_here(&pod.facts.namespace, namespace, name);
                sums.entry(name).or_default().add(&edge.counts, pod.seconds);
            }
        }
    }
    let mut legs = legs(sums);
    let p95 = |leg: &Leg| leg.sum.latency_p95.unwrap_or(-1.0);
    legs.sort_by(|a, b| p95(b).total_cmp(&p95(a)));
    legs
}

/// From dependency to dependency, as long as one takes most of its caller's time.
fn chain(report: &Report, pods: &[&PodReport]) -> Vec<Link> {
    let mut sum = Sum::default();
    for pod in pods {
        for edge in inbound(pod) {
            sum.add(&edge.counts, pod.seconds);
        }
    }
    let mut latency = sum.counts.quantile(0.95).unwrap_or(0.0);
    let mut here: Vec<&PodReport> = pods.to_vec();
    let mut links: Vec<Link> = Vec::new();
    let mut visited: BTreeSet<Node> = here.iter().map(|pod| node(pod)).collect();
    while latency >= SLOW && links.len() < DEEPEST {
        let Some(link) = slowest(report, &here).filter(|at| at.latency_p95 >= latency * SHARE)
        else {
            break;
        };
        if !visited.insert(link.dependency.clone()) {
            break;
        }
        let at = |pod: &&PodReport| node(pod) == link.dependency;
        here = report.pods.iter().filter(at).collect();
        latency = link.latency_p95;
        links.push(link);
    }
    links
}

fn node(pod: &PodReport) -> Node {
    Node {
        namespace: pod.facts.namespace.clone(),
        workload: pod.facts.workload.clone(),
    }
}

/// What these pods wait for longest.
fn slowest(report: &Report, pods: &[&PodReport]) -> Option<Link> {
    let mut sums: BTreeMap<(Node, Node, String), Sum> = BTreeMap::new();
    for pod in pods {
        for edge in outbound(pod).filter(|edge| !edge.key.peer_workload.is_empty()) {
            let peer = Node {
                namespace: edge.key.peer_namespace.clone(),
                workload: edge.key.peer_workload.clone(),
            };
            let service = service_name(&edge.key.service).to_owned();
            let sum = sums.entry((node(pod), peer, service)).or_default();
            sum.add(&edge.counts, pod.seconds);
        }
    }
    let slow = sums.into_iter().filter_map(|(key, sum)| {
        let latency = sum.counts.quantile(0.95)?;
        Some((key, latency))
    });
    let ((caller, dependency, service), latency_p95) = slow.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Link {
        route: slowest_route(report, &dependency),
        caller,
        dependency,
        service,
        latency_p95,
    })
}

fn slowest_route(report: &Report, at: &Node) -> String {
    let pods: Vec<&PodReport> = report.pods.iter().filter(|pod| node(pod) == *at).collect();
    let routes = routes(&pods).into_iter();
    let timed = routes.filter_map(|leg| Some((leg.name, leg.sum.latency_p95?)));
    timed
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map_or_else(String::new, |(name, _)| name)
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
