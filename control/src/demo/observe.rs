//! What is seen of the running demonstration: the load generator's own counts, and the metrics of all proxies.

use super::app::Seen;
use super::manifests::NAMESPACE;
use crate::local::{Client, PodInfo};
use crate::scrape::Scrape;
use anyhow::{Context, anyhow};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use weft_proxy_api::names::ports;

/// How much of the end of a log is read for its last line.
const TAIL: u64 = 64 * 1024;

/// Traffic of one edge, counted by the proxy of the caller.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Edge {
    pub(super) requests: f64,
    pub(super) failures: f64,
    pub(super) streams: f64,
    pub(super) tls: f64,
    /// Upper bound in seconds, and how many requests stayed below it.
    pub(super) latency: Vec<(f64, f64)>,
}

/// Who calls whom: `(deploy/web, deploy/front)`.
pub(super) type Edges = BTreeMap<(String, String), Edge>;

/// One look at everything.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) load: Seen,
    pub(super) stranger: Seen,
    pub(super) edges: Edges,
    pub(super) ejections: f64,
    pub(super) ejected_now: f64,
    pub(super) denied: f64,
}

/// Looks once; a pod that is on its way out or not yet up is left out.
pub(super) fn look(client: &Client) -> anyhow::Result<Look> {
    let pods = client.pods()?;
    let meshed: Vec<_> = pods
        .iter()
        .filter(|pod| pod.meshed && pod.ready && pod.namespace == NAMESPACE)
        .collect();
    let mut all = Scrape::default();
    for pod in meshed {
        if let Ok(scrape) = scrape(client, pod) {
            all.extend(scrape);
        }
    }
    Ok(Look {
        at: Instant::now(),
        load: seen(client, &pods, "load")?,
        stranger: seen(client, &pods, "stranger")?,
        edges: edges(&all),
        ejections: all.sum("weft_backend_ejections_total", &[]),
        ejected_now: all.sum("weft_backend_endpoints_ejected", &[]),
        denied: all.sum("weft_denied_total", &[("direction", "inbound")]),
    })
}

/// The metrics of one pod's proxy.
fn scrape(client: &Client, pod: &PodInfo) -> anyhow::Result<Scrape> {
    let ip = pod
        .ips
        .first()
        .ok_or_else(|| anyhow!("pod {} has no address", pod.name))?;
    Scrape::fetch(client.dial(None, SocketAddr::new(*ip, ports::ADMIN))?)
}

/// The last line that a load generator printed.
fn seen(client: &Client, pods: &[PodInfo], account: &str) -> anyhow::Result<Seen> {
    let pod = pods
        .iter()
        .find(|pod| pod.service_account == account && !pod.deleting);
    let pod = pod.with_context(|| format!("{account} does not run"))?;
    let Ok(mut file) = std::fs::File::open(client.log_file(NAMESPACE, &pod.name, Some("app"))?)
    else {
        return Ok(Seen::default());
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let text = String::from_utf8_lossy(&tail);
    // The last line may still be in the making.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parsed = whole
        .rsplit('\n')
        .find_map(|line| serde_json::from_str(line).ok());
    Ok(parsed.unwrap_or_default())
}

/// Looks again until a condition holds; `None` when time runs out.
pub(super) fn until(
    client: &Client,
    limit: Duration,
    holds: impl Fn(&Look) -> bool,
) -> anyhow::Result<Option<Look>> {
    let start = Instant::now();
    loop {
        let now = look(client)?;
        if holds(&now) {
            return Ok(Some(now));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn edges(all: &Scrape) -> Edges {
    let outbound = [("direction", "outbound")];
    let mut edges = Edges::new();
    let key = |sample: &crate::scrape::Sample| {
        (
            sample.label("workload").to_owned(),
            sample.label("peer_workload").to_owned(),
        )
    };
    for (name, count) in [
        (
            "weft_requests_total",
            (|edge, value| edge.requests += value) as fn(&mut Edge, f64),
        ),
        ("weft_tcp_streams_total", |edge, value| {
            edge.streams += value
        }),
    ] {
        for sample in all.select(name, &outbound) {
            let edge = edges.entry(key(sample)).or_default();
            count(edge, sample.value);
            if sample.label("tls") == "true" {
                edge.tls += sample.value;
            }
        }
    }
    for sample in all.select("weft_responses_total", &outbound) {
        if sample.label("classification") == "failure" {
            edges.entry(key(sample)).or_default().failures += sample.value;
        }
    }
    for sample in all.select("weft_response_latency_seconds_bucket", &outbound) {
        if let Ok(bound) = sample.label("le").parse::<f64>() {
            add_bucket(
                &mut edges.entry(key(sample)).or_default().latency,
                bound,
                sample.value,
            );
        }
    }
    edges.retain(|(_, peer), _| !peer.is_empty());
    edges
}

fn add_bucket(buckets: &mut Vec<(f64, f64)>, bound: f64, count: f64) {
    match buckets.iter_mut().find(|(other, _)| *other == bound) {
        Some((_, total)) => *total += count,
        None => {
            buckets.push((bound, count));
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
    }
}

impl Edge {
    /// What was counted since `before`. A proxy that left takes its counts along: nothing goes below zero.
    pub(super) fn since(&self, before: &Edge) -> Edge {
        let minus = |now: f64, then: f64| (now - then).max(0.0);
        let then = |bound: f64| {
            before
                .latency
                .iter()
                .find(|(other, _)| *other == bound)
                .map_or(0.0, |(_, count)| *count)
        };
        Edge {
            requests: minus(self.requests, before.requests),
            failures: minus(self.failures, before.failures),
            streams: minus(self.streams, before.streams),
            tls: minus(self.tls, before.tls),
            latency: self
                .latency
                .iter()
                .map(|(bound, count)| (*bound, minus(*count, then(*bound))))
                .collect(),
        }
    }

    /// Latency in milliseconds that this share of the requests stayed below; the bound of its bucket.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total = self
            .latency
            .last()
            .map(|(_, count)| *count)
            .filter(|count| *count > 0.0)?;
        let (bound, _) = self
            .latency
            .iter()
            .find(|(_, count)| *count >= total * share)?;
        Some(bound * 1000.0)
    }
}

/// Traffic between all pairs since `before`.
pub(super) fn since(now: &Edges, before: &Edges) -> Edges {
    let default = Edge::default();
    now.iter()
        .map(|(key, edge)| (key.clone(), edge.since(before.get(key).unwrap_or(&default))))
        .collect()
}

/// Share of the traffic between meshed pods that was under mutual TLS; `None` without traffic.
pub(super) fn tls_share(edges: &Edges) -> Option<f64> {
    let total: f64 = edges
        .values()
        .map(|edge| edge.requests + edge.streams)
        .sum();
    let tls: f64 = edges.values().map(|edge| edge.tls).sum();
    (total > 0.0).then(|| tls / total)
}
