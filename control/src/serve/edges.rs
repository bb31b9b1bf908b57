//! Who calls whom: the traffic that proxies report, added up for each edge. Bounded in proxies and in edges.

use crate::pod_ref::PodRef;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use weft_proxy_api::wire::generated as pb;

/// Pods remembered; the one that was silent longest makes room.
const MAX_PODS: usize = 4_096;
/// Edges remembered for one pod; the traffic of more is added up in one edge without names.
const MAX_EDGES: usize = 1_000;
/// Buckets of a latency histogram.
const MAX_BUCKETS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 600;

/// Which way the reporting proxy saw the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Sent to the pod.
    Inbound,
    /// Sent by the pod.
    Outbound,
}

/// One edge, as one proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    /// Which way.
    pub direction: Direction,
    /// Namespace of the other end.
    pub peer_namespace: String,
    /// Workload of the other end.
    pub peer_workload: String,
    /// Outbound: `namespace/name:port` as called.
    pub service: String,
    /// Whether it was encrypted and both ends proved who they are.
    pub mutual_tls: bool,
}

/// Traffic counted on an edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Of these, answered well.
    pub success: u64,
    /// Of these, failed.
    pub failure: u64,
    /// Of these, denied by policy.
    pub denied: u64,
    /// Answers for each bucket of the latency catalogue, not cumulative.
    pub latency: Vec<u64>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Connections.
    pub connections: u64,
}

impl Traffic {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.requests, other.requests),
            (&mut self.success, other.success),
            (&mut self.failure, other.failure),
            (&mut self.denied, other.denied),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.connections, other.connections),
        ];
        for (sum, by) in sums {
            *sum = sum.saturating_add(by);
        }
        if self.latency.len() < other.latency.len() {
            self.latency.resize(other.latency.len(), 0);
        }
        for (sum, by) in self.latency.iter_mut().zip(&other.latency) {
            *sum = sum.saturating_add(*by);
        }
    }
}

/// Traffic on one edge: since the controller started, and in the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeTraffic {
    /// Since the controller started.
    pub total: Traffic,
    /// In the last window.
    pub last: Traffic,
}

/// What one pod reported.
#[derive(Debug, Clone)]
pub struct PodEdges {
    /// The pod.
    pub pod: PodRef,
    /// Length of the last window.
    pub window: Duration,
    /// When it last reported.
    pub at: Instant,
    /// Its edges.
    pub edges: HashMap<EdgeKey, EdgeTraffic>,
}

/// The traffic of all pods.
#[derive(Debug, Default)]
pub struct EdgeTable {
    pods: Mutex<HashMap<PodRef, PodEdges>>,
}

impl EdgeTable {
    /// Takes in one report, or says what is malformed in it.
    pub fn record(&self, pod: &PodRef, summary: &pb::Summary, now: Instant) -> Result<(), String> {
        let edges = summary
            .edges
            .iter()
            .enumerate()
            .map(|(at, edge)| {
                read(edge, &summary.strings).map_err(|reason| format!("edges[{at}].{reason}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut pods = self.pods.lock();
        if !pods.contains_key(pod) && pods.len() >= MAX_PODS {
            make_room(&mut pods);
        }
        let entry = pods.entry(pod.clone()).or_insert_with(|| PodEdges {
            pod: pod.clone(),
            window: Duration::ZERO,
            at: now,
            edges: HashMap::new(),
        });
        entry.at = now;
        entry.window = Duration::from_millis(summary.window_ms.into());
        entry.take_in(edges);
        Ok(())
    }

    /// Everything known now, by pod.
    pub fn snapshot(&self) -> Vec<PodEdges> {
        let mut all: Vec<PodEdges> = self.pods.lock().values().cloned().collect();
        all.sort_by(|a, b| a.pod.cmp(&b.pod));
        all
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

impl PodEdges {
    fn take_in(&mut self, edges: Vec<(EdgeKey, Traffic)>) {
        self.edges
            .values_mut()
            .for_each(|edge| edge.last = Traffic::default());
        for (key, traffic) in edges {
            let key = if self.edges.contains_key(&key) || self.edges.len() < MAX_EDGES {
                key
            } else {
                key.nameless()
            };
            let edge = self.edges.entry(key).or_default();
            edge.total.add(&traffic);
            edge.last.add(&traffic);
        }
    }
}

impl EdgeKey {
    fn nameless(self) -> Self {
        let none = String::new;
        Self {
            peer_namespace: none(),
            peer_workload: none(),
            service: none(),
            ..self
        }
    }
}

fn make_room(pods: &mut HashMap<PodRef, PodEdges>) {
    if let Some(oldest) = pods
        .values()
        .min_by_key(|pod| pod.at)
        .map(|pod| pod.pod.clone())
    {
        pods.remove(&oldest);
    }
}

fn read(edge: &pb::Edge, strings: &[String]) -> Result<(EdgeKey, Traffic), String> {
    let text = |field: &str, reference: u32| match reference {
        0 => Ok(String::new()),
        at => match strings.get(at as usize - 1) {
            Some(text) if text.len() <= MAX_NAME => Ok(text.clone()),
            Some(text) => Err(format!("{field}: {} bytes, at most {MAX_NAME}", text.len())),
            None => Err(format!("{field}: {at} is outside the table")),
        },
    };
    let direction = match pb::Direction::try_from(edge.direction) {
        Ok(pb::Direction::Inbound) => Direction::Inbound,
        Ok(pb::Direction::Outbound) => Direction::Outbound,
        _ => return Err(format!("direction: {} is unknown", edge.direction)),
    };
    if edge.latency.len() > MAX_BUCKETS {
        return Err(format!(
            "latency: {} buckets, at most {MAX_BUCKETS}",
            edge.latency.len()
        ));
    }
    let key = EdgeKey {
        direction,
        peer_namespace: text("peer_namespace", edge.peer_namespace_ref)?,
        peer_workload: text("peer_workload", edge.peer_workload_ref)?,
        service: text("service", edge.service_ref)?,
        mutual_tls: edge.mutual_tls,
    };
    let traffic = Traffic {
        requests: edge.requests,
        success: edge.success,
        failure: edge.failure,
        denied: edge.denied,
        latency: edge.latency.clone(),
        bytes_in: edge.bytes_in,
        bytes_out: edge.bytes_out,
        connections: edge.connections,
    };
    Ok((key, traffic))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn edge(workload_ref: u32, requests: u64) -> pb::Edge {
        pb::Edge {
            direction: pb::Direction::Outbound.into(),
            peer_namespace_ref: 1,
            peer_workload_ref: workload_ref,
            requests,
            latency: vec![0, requests],
            ..Default::default()
        }
    }

    fn summary(edges: Vec<pb::Edge>) -> pb::Summary {
        pb::Summary {
            strings: vec!["default".into(), "deploy/web".into()],
            window_ms: 5000,
            edges,
        }
    }

    #[test]
    fn reports_add_up_and_the_last_one_is_kept() {
        let (table, pod, now) = (
            EdgeTable::default(),
            PodRef::new("default", "a"),
            Instant::now(),
        );
        table.record(&pod, &summary(vec![edge(2, 3)]), now).unwrap();
        table.record(&pod, &summary(vec![edge(2, 4)]), now).unwrap();
        let all = table.snapshot();
        let (key, traffic) = all[0].edges.iter().next().unwrap();
        assert_eq!(
            (key.peer_workload.as_str(), key.service.as_str()),
            ("deploy/web", "")
        );
        assert_eq!((traffic.total.requests, traffic.last.requests), (7, 4));
        assert_eq!(
            (&traffic.total.latency, &traffic.last.latency),
            (&vec![0, 7], &vec![0, 4])
        );
        table.record(&pod, &summary(vec![]), now).unwrap();
        assert_eq!(
            table.snapshot()[0].edges.values().next().unwrap().last,
            Traffic::default()
        );
    }

    #[test]
    fn what_is_malformed_is_named_and_changes_nothing() {
        let (table, pod) = (EdgeTable::default(), PodRef::new("default", "a"));
        let outside = edge(9, 1);
        let nowhere = pb::Edge {
            direction: 0,
            ..edge(2, 1)
        };
        let wide = pb::Edge {
            latency: vec![0; 65],
            ..edge(2, 1)
        };
        for (bad, part) in [
            (outside, "edges[1].peer_workload: 9"),
            (nowhere, "direction"),
            (wide, "latency"),
        ] {
            let error = table
                .record(&pod, &summary(vec![edge(2, 1), bad]), Instant::now())
                .unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(table.is_empty());
    }

    #[test]
    fn edges_and_pods_are_bounded() {
        let (table, now) = (EdgeTable::default(), Instant::now());
        let many = pb::Summary {
            strings: (0..5000).map(|n| format!("w{n}")).collect(),
            window_ms: 1,
            edges: (1..=5000).map(|n| edge(n, 1)).collect(),
        };
        let greedy = PodRef::new("default", "greedy");
        table.record(&greedy, &many, now).unwrap();
        assert_eq!(table.len(), MAX_EDGES + 1);
        let total: u64 = table.snapshot()[0]
            .edges
            .values()
            .map(|edge| edge.total.requests)
            .sum();
        assert_eq!(total, 5000);
        for n in 0..MAX_PODS as u64 {
            let later = now + Duration::from_millis(n + 1);
            table
                .record(
                    &PodRef::new("default", format!("p{n}")),
                    &summary(vec![]),
                    later,
                )
                .unwrap();
        }
        assert_eq!(table.snapshot().len(), MAX_PODS);
        assert!(table.snapshot().iter().all(|pod| pod.pod != greedy));
    }
}
