//! What proxies reported: totals, and what was counted lately. Bounded in pods, in edges and in time.
//!
//! Proxies say totals. What was counted between two reports is a sample; samples of the last minute are kept as they
//! came, older ones are merged, and after ten minutes they go.

use super::counts::Counts;
use super::read::Summary;
use crate::pod_ref::PodRef;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pods remembered; the one that was silent longest makes room.
const MAX_PODS: usize = 4_096;
/// Edges (and readings, and kinds of connections) remembered for one pod; the traffic of more is added up in edges
/// without names.
const MAX_EDGES: usize = 1_100;
/// How long a pod that reports no more is remembered.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Samples younger than this are kept as they came.
const FINE: Duration = Duration::from_secs(65);
/// What comes sooner after a sample belongs to it: who reports without a pause has no more samples than others.
const SHORT: Duration = Duration::from_millis(100);
/// What the samples of one pod may take, bytes: a thousand edges that all change every second are less. Of more the oldest go.
const MAX_SAMPLES: usize = 64 << 20;
/// Older ones are merged to this length.
const COARSE: Duration = Duration::from_secs(30);
/// The longest window.
pub const LONGEST: Duration = Duration::from_secs(600);
/// A first report that covers more says nothing about the last seconds.
const MAX_FIRST: Duration = Duration::from_secs(15);
/// Stands for what exceeds a cap.
pub const OTHER: &str = "__other__";

/// Which way the reporting proxy saw the traffic.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Sent to the pod.
    #[default]
    Inbound,
    /// Sent by the pod.
    Outbound,
}

/// One edge, as one proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeKey {
    /// Which way.
    pub direction: Direction,
    /// Namespace of the other end.
    pub peer_namespace: String,
    /// Outbound: workload that answered; inbound: `sa/NAME` that called. Empty: unknown.
    pub peer_workload: String,
    /// Outbound: `namespace/name:port` as called.
    pub service: String,
    /// Outbound: `namespace/name:port` the route chose.
    pub backend: String,
    /// Outbound: `TrafficSplit namespace/name`; inbound: `HTTPRouteGroup namespace/name match`.
    pub route: String,
    /// Whether it was encrypted and both ends proved who they are.
    pub mutual_tls: bool,
}

/// One kind of connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionKey {
    /// Which way.
    pub direction: Direction,
    /// Opened by the proxy, else accepted.
    pub opened_by_proxy: bool,
    /// Namespace of the other end.
    pub peer_namespace: String,
    /// The other end.
    pub peer_workload: String,
    /// Why it is not mutual TLS; empty: it is.
    pub no_tls_reason: String,
    /// `http/1`, `h2`, `opaque`, …
    pub protocol: String,
}

/// Connections of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connections {
    /// Opened since the proxy started.
    pub opened: u64,
    /// Open now.
    pub open: u64,
    /// Bytes read from the sockets.
    pub bytes_read: u64,
    /// Bytes written to them.
    pub bytes_written: u64,
}

/// One endpoint set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backend {
    /// Endpoints known.
    pub endpoints: u32,
    /// Of these, set aside now.
    pub ejected: u32,
    /// Times one was set aside.
    pub ejections: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
}

/// Another metric of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadingKey {
    /// Its name.
    pub metric: String,
    /// Values of its labels, in the order of the catalogue.
    pub labels: Vec<String>,
}

/// What one pod's proxy said, over some time.
#[derive(Debug, Clone)]
pub struct PodTraffic {
    /// The pod.
    pub pod: PodRef,
    /// When it last reported.
    pub at: Instant,
    /// How long its proxy had run then.
    pub uptime: Duration,
    /// What the counts cover.
    pub covers: Duration,
    /// By edge.
    pub edges: Vec<(Arc<EdgeKey>, Counts)>,
    /// By kind of connection, since the proxy started.
    pub connections: BTreeMap<ConnectionKey, Connections>,
    /// Endpoint sets as they are now.
    pub backends: BTreeMap<String, Backend>,
    /// Other metrics as they are now.
    pub readings: BTreeMap<ReadingKey, f64>,
}

/// The traffic of all pods.
#[derive(Debug, Default)]
pub struct TrafficTable {
    pods: Mutex<HashMap<PodRef, Pod>>,
}

#[derive(Debug)]
struct Pod {
    at: Instant,
    incarnation: u64,
    uptime: Duration,
    edges: HashMap<Arc<EdgeKey>, Series>,
    samples: VecDeque<Sample>,
    connections: BTreeMap<ConnectionKey, Connections>,
    backends: BTreeMap<String, Backend>,
    readings: BTreeMap<ReadingKey, f64>,
}

/// The totals of one edge.
#[derive(Debug, Default)]
struct Series {
    number: u64,
    now: Counts,
    /// What series that ended had counted.
    before: Counts,
    changed: Option<Instant>,
}

/// What was counted between two reports.
#[derive(Debug)]
struct Sample {
    at: Instant,
    covers: Duration,
    edges: Vec<(Arc<EdgeKey>, Counts)>,
    /// What the edges take, bytes.
    size: usize,
}

impl TrafficTable {
    /// Takes in one report.
    pub fn record(&self, pod: &PodRef, summary: Summary, now: Instant) {
        let mut pods = self.pods.lock();
        pods.retain(|_, known| now.saturating_duration_since(known.at) < FORGET);
        if !pods.contains_key(pod) && pods.len() >= MAX_PODS {
            make_room(&mut pods);
        }
        match pods.get_mut(pod) {
            Some(known) => known.take_in(summary, now),
            None => {
                let mut new = Pod::new(&summary, now);
                new.take_in(summary, now);
                pods.insert(pod.clone(), new);
            }
        }
    }

    /// What was counted in the last `window` (`None`: since the proxies started), by pod.
    pub fn snapshot(&self, window: Option<Duration>, now: Instant) -> Vec<PodTraffic> {
        let pods = self.pods.lock();
        let mut all: Vec<_> = pods
            .iter()
            .map(|(pod, known)| known.snapshot(pod, window, now))
            .collect();
        drop(pods);
        all.sort_by(|a, b| a.pod.cmp(&b.pod));
        all
    }

    /// When a pod last reported.
    pub fn reported(&self, pod: &PodRef) -> Option<Instant> {
        self.pods.lock().get(pod).map(|known| known.at)
    }

    /// Number of edges known.
    pub fn len(&self) -> usize {
        self.pods.lock().values().map(|pod| pod.edges.len()).sum()
    }

    /// True if nothing was reported yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn make_room(pods: &mut HashMap<PodRef, Pod>) {
    let oldest = pods.iter().min_by_key(|(_, known)| known.at);
    if let Some(oldest) = oldest.map(|(pod, _)| pod.clone()) {
        pods.remove(&oldest);
    }
}

impl Pod {
    fn new(summary: &Summary, now: Instant) -> Self {
        Self {
            at: now.checked_sub(summary.uptime).unwrap_or(now),
            incarnation: summary.incarnation,
            uptime: summary.uptime,
            edges: HashMap::new(),
            samples: VecDeque::new(),
            connections: BTreeMap::new(),
            backends: BTreeMap::new(),
            readings: BTreeMap::new(),
        }
    }

    fn take_in(&mut self, summary: Summary, now: Instant) {
        if self.incarnation != summary.incarnation {
            self.begin_anew(&summary, now);
        }
        let (first, covers) = (
            self.edges.is_empty() && self.samples.is_empty(),
            now.saturating_duration_since(self.at),
        );
        let mut counted = Vec::new();
        for (key, series, totals) in summary.edges {
            let key = self.name_of(key);
            let edge = self.edges.entry(key.clone()).or_default();
            let delta = edge.take_in(series, totals);
            edge.changed = Some(now);
            if !delta.is_zero() {
                counted.push((key, delta));
            }
        }
        (self.at, self.uptime) = (now, summary.uptime);
        if !(first && covers > MAX_FIRST) {
            let sample = Sample::new(now, covers, counted);
            match self.samples.back_mut() {
                Some(last) if last.covers < SHORT => last.merge(sample),
                _ => self.samples.push_back(sample),
            }
        }
        self.age(now);
        bounded(&mut self.connections, summary.connections);
        bounded(&mut self.backends, summary.backends);
        bounded(&mut self.readings, summary.readings);
    }

    /// The process is another one: what it counts begins at 0, and what it does not know is gone.
    fn begin_anew(&mut self, summary: &Summary, now: Instant) {
        for edge in self.edges.values_mut() {
            edge.end();
        }
        self.incarnation = summary.incarnation;
        self.at = now.checked_sub(summary.uptime).unwrap_or(now).max(self.at);
        self.connections.clear();
        self.backends.clear();
        self.readings.clear();
    }

    /// The edge's name, as it is known; where there is no room, the edge that changed longest ago makes some.
    fn name_of(&mut self, key: EdgeKey) -> Arc<EdgeKey> {
        if let Some((known, _)) = self.edges.get_key_value(&key) {
            return known.clone();
        }
        if self.edges.len() >= MAX_EDGES {
            self.fold_oldest();
        }
        Arc::new(key)
    }

    /// What the oldest edge counted is counted without its names from now on.
    fn fold_oldest(&mut self) {
        let named = self.edges.iter().filter(|(key, _)| !key.is_other());
        let oldest = named.min_by_key(|(_, edge)| edge.changed);
        let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        if let Some(edge) = self.edges.remove(&oldest) {
            let other = Arc::new(oldest.other());
            let other = self.edges.entry(other).or_default();
            other.before.add(&edge.total());
        }
    }

    /// Merges samples that are no longer young, and forgets old ones.
    fn age(&mut self, now: Instant) {
        let age = |sample: &Sample| now.saturating_duration_since(sample.at);
        let mut at = 0;
        while at + 1 < self.samples.len() && age(&self.samples[at + 1]) > FINE {
            if self.samples[at].covers + self.samples[at + 1].covers > COARSE {
                at += 1;
                continue;
            }
            if let Some(next) = self.samples.remove(at + 1) {
                self.samples[at].merge(next);
            }
        }
        let mut size: usize = self.samples.iter().map(|sample| sample.size).sum();
        while let Some(oldest) = self.samples.front()
            && (age(oldest) > LONGEST || size > MAX_SAMPLES)
        {
            size -= oldest.size;
            self.samples.pop_front();
        }
    }

    fn snapshot(&self, pod: &PodRef, window: Option<Duration>, now: Instant) -> PodTraffic {
        let (covers, edges) = match window {
            None => (self.uptime, self.totals()),
            Some(window) => self.recent(window, now),
        };
        PodTraffic {
            pod: pod.clone(),
            at: self.at,
            uptime: self.uptime,
            covers,
            edges,
            connections: self.connections.clone(),
            backends: self.backends.clone(),
            readings: self.readings.clone(),
        }
    }

    fn totals(&self) -> Vec<(Arc<EdgeKey>, Counts)> {
        let mut all: Vec<_> = self
            .edges
            .iter()
            .map(|(key, edge)| (key.clone(), edge.total()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn recent(&self, window: Duration, now: Instant) -> (Duration, Vec<(Arc<EdgeKey>, Counts)>) {
        let mut covers = Duration::ZERO;
        let mut edges: BTreeMap<Arc<EdgeKey>, Counts> = BTreeMap::new();
        let young = |sample: &&Sample| now.saturating_duration_since(sample.at) < window;
        for sample in self.samples.iter().filter(young) {
            covers += sample.covers;
            for (key, counts) in &sample.edges {
                let is_named = edges.len() < MAX_EDGES || edges.contains_key(key);
                let key = match is_named {
                    true => key.clone(),
                    false => Arc::new(key.other()),
                };
                edges.entry(key).or_default().add(counts);
            }
        }
        (covers, edges.into_iter().collect())
    }
}

impl EdgeKey {
    fn is_other(&self) -> bool {
        self.peer_workload == OTHER && self.service == OTHER
    }

    fn other(&self) -> Self {
        Self {
            direction: self.direction,
            peer_namespace: OTHER.into(),
            peer_workload: OTHER.into(),
            service: OTHER.into(),
            backend: OTHER.into(),
            route: OTHER.into(),
            mutual_tls: self.mutual_tls,
        }
    }

    /// Bytes it takes, about.
    fn size(&self) -> usize {
        let texts = [
            &self.peer_namespace,
            &self.peer_workload,
            &self.service,
            &self.backend,
            &self.route,
        ];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        std::mem::size_of::<Self>() + texts
    }
}

impl Series {
    /// Takes new totals; gives what was counted since the last ones.
    fn take_in(&mut self, number: u64, totals: Counts) -> Counts {
        if number != self.number {
            self.end();
            self.number = number;
        }
        let delta = totals.since(&self.now);
        self.now = totals;
        delta
    }

    fn end(&mut self) {
        self.before.add(&std::mem::take(&mut self.now));
        self.number = 0;
    }

    fn total(&self) -> Counts {
        let mut total = self.before.clone();
        total.add(&self.now);
        total
    }
}

impl Sample {
    fn new(at: Instant, covers: Duration, edges: Vec<(Arc<EdgeKey>, Counts)>) -> Self {
        let size = size_of_all(&edges);
        Self {
            at,
            covers,
            edges,
            size,
        }
    }

    /// Adds the one after it.
    fn merge(&mut self, next: Self) {
        self.at = next.at;
        self.covers += next.covers;
        let known = self.edges.iter().enumerate();
        let mut places: HashMap<_, _> = known.map(|(at, (key, _))| (key.clone(), at)).collect();
        for (key, counts) in next.edges {
            match places.get(&key) {
                Some(at) => self.edges[*at].1.add(&counts),
                None => {
                    places.insert(key.clone(), self.edges.len());
                    self.edges.push((key, counts));
                }
            }
        }
        self.size = size_of_all(&self.edges);
    }
}

fn size_of_all(edges: &[(Arc<EdgeKey>, Counts)]) -> usize {
    let each = edges.iter().map(|(key, counts)| key.size() + counts.size());
    each.sum()
}

/// Enters what is said, as long as there is room.
fn bounded<K: Ord, V>(known: &mut BTreeMap<K, V>, said: Vec<(K, V)>) {
    for (key, value) in said {
        if known.len() < MAX_EDGES || known.contains_key(&key) {
            known.insert(key, value);
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
