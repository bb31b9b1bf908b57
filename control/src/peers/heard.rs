//! What one controller heard of its own proxies, and how what several heard is put together. Pure but for [`Heard::of`].

use super::{Question, wire};
use crate::pod_ref::PodRef;
use crate::serve::Shared;
use crate::serve::proxies::ProxyStatus;
use crate::traffic::counts::Counts;
use crate::traffic::read;
use crate::traffic::table::{EdgeKey, PodTraffic};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft_proxy_api::wire::generated as pb;

/// Pods taken from one controller: as many as it remembers, and as many that are connected and have said nothing.
const MAX_PODS: usize = 2 * 4_096;
/// Longest summary told of one pod. Whoever asks takes twice that, and what is too long would take all the others along.
const MAX_SUMMARY: usize = 4 << 20;

/// Who is connected, and what was reported.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Connected proxies.
    pub proxies: Vec<ProxyStatus>,
    /// Traffic by pod.
    pub traffic: Vec<PodTraffic>,
}

impl Heard {
    /// By this controller.
    pub fn of(shared: &Shared, question: Question, now: Instant) -> Self {
        Self {
            proxies: shared.proxies.list(),
            traffic: match question.proxies_only {
                true => Vec::new(),
                false => shared.traffic.snapshot(question.window, now),
            },
        }
    }

    /// As it is told to another controller.
    pub fn tell(self, now: Instant) -> Vec<pb::PeerPod> {
        let mut pods: BTreeMap<PodRef, pb::PeerPod> = BTreeMap::new();
        for status in &self.proxies {
            let pod = pods.entry(status.pod.clone()).or_default();
            pod.proxy = Some(wire::proxy(status, now));
        }
        for traffic in &self.traffic {
            let summary = wire::summary(traffic);
            if summary.encoded_len() > MAX_SUMMARY {
                tracing::debug!(pod = %traffic.pod, "its traffic is too much to be told");
                continue;
            }
            let pod = pods.entry(traffic.pod.clone()).or_default();
            pod.summary = Some(summary);
            pod.silent_ms = wire::since(traffic.at, now);
            pod.covers_ms = wire::millis(traffic.covers);
        }
        let named = pods.into_iter().map(|(pod, told)| pb::PeerPod {
            namespace: pod.namespace,
            pod: pod.name,
            ..told
        });
        named.collect()
    }

    /// Takes in what another controller tells of one pod, or says what is wrong with it.
    pub fn enter(&mut self, told: pb::PeerPod, now: Instant) -> Result<(), String> {
        if self.proxies.len().max(self.traffic.len()) >= MAX_PODS {
            return Err(format!("it tells of more than {MAX_PODS} pods"));
        }
        let pod = PodRef::new(&told.namespace, &told.pod);
        if let Some(proxy) = told.proxy {
            let status = wire::proxy_status(pod.clone(), proxy, now);
            self.proxies.push(status);
        }
        if let Some(summary) = told.summary {
            let summary = read::of_controller(&summary)?;
            let edges = summary.edges.into_iter();
            self.traffic.push(PodTraffic {
                pod,
                at: wire::before(now, told.silent_ms),
                uptime: summary.uptime,
                covers: Duration::from_millis(told.covers_ms),
                edges: edges
                    .map(|(key, _, counts)| (Arc::new(key), counts))
                    .collect(),
                connections: summary.connections.into_iter().collect(),
                backends: summary.backends.into_iter().collect(),
                readings: summary.readings.into_iter().collect(),
            });
        }
        Ok(())
    }

    /// Adds what another controller heard. A proxy is told by who has it now, which is who heard of it last; within a window
    /// what was counted while another controller had it belongs to it as well.
    pub fn add(&mut self, other: Self, window: Option<Duration>) {
        let own = std::mem::take(&mut self.proxies).into_iter();
        let mut proxies: BTreeMap<PodRef, ProxyStatus> =
            own.map(|at| (at.pod.clone(), at)).collect();
        for theirs in other.proxies {
            match proxies.get(&theirs.pod) {
                Some(ours) if ours.connected >= theirs.connected => {}
                _ => drop(proxies.insert(theirs.pod.clone(), theirs)),
            }
        }
        self.proxies = proxies.into_values().collect();
        let own = std::mem::take(&mut self.traffic).into_iter();
        let mut traffic: BTreeMap<PodRef, PodTraffic> =
            own.map(|at| (at.pod.clone(), at)).collect();
        for theirs in other.traffic {
            let both = match traffic.remove(&theirs.pod) {
                Some(ours) => together(ours, theirs, window),
                None => theirs,
            };
            traffic.insert(both.pod.clone(), both);
        }
        self.traffic = traffic.into_values().collect();
    }
}

/// What two controllers know of one pod.
fn together(one: PodTraffic, two: PodTraffic, window: Option<Duration>) -> PodTraffic {
    let (mut later, earlier) = match one.at >= two.at {
        true => (one, two),
        false => (two, one),
    };
    // Totals are said whole to whoever has the proxy; only what was counted between two reports is known to one alone.
    let begins = later.at.checked_sub(later.covers).unwrap_or(later.at);
    if window.is_none() || earlier.at > begins {
        return later;
    }
    later.covers += earlier.covers;
    let mut edges: BTreeMap<Arc<EdgeKey>, Counts> = later.edges.into_iter().collect();
    for (key, counts) in earlier.edges {
        edges.entry(key).or_default().add(&counts);
    }
    later.edges = edges.into_iter().collect();
    later
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::traffic::counts::Code;
    use crate::traffic::table::{Backend, ConnectionKey, Connections, Direction, ReadingKey};

    fn traffic(pod: &str, at: Instant, covers: u64, requests: u64) -> PodTraffic {
        let key = EdgeKey {
            direction: Direction::Outbound,
            peer_namespace: "shop".into(),
            peer_workload: "deploy/web".into(),
            service: "shop/web:80".into(),
            mutual_tls: true,
            ..EdgeKey::default()
        };
        let counts = Counts {
            requests,
            success: requests,
            answers: [(Code::Http(200), requests), (Code::Grpc(14), 1)].into(),
            denied_by: [("not_a_source".to_owned(), 2)].into(),
            latency: vec![0, requests],
            ..Counts::default()
        };
        let reading = ReadingKey {
            metric: "weft_retries_total".into(),
            labels: vec!["shop/web:80".into(), String::new()],
        };
        PodTraffic {
            pod: PodRef::new("shop", pod),
            at,
            uptime: Duration::from_secs(100),
            covers: Duration::from_secs(covers),
            edges: vec![(Arc::new(key), counts)],
            connections: [(
                ConnectionKey::default(),
                Connections {
                    opened: 5,
                    open: 2,
                    ..Connections::default()
                },
            )]
            .into(),
            backends: [("shop/web:80".to_owned(), Backend::default())].into(),
            readings: [(reading, 3.5)].into(),
        }
    }

    fn proxy(pod: &str, connected: Instant, version: &str) -> ProxyStatus {
        ProxyStatus {
            pod: PodRef::new("shop", pod),
            zone: "a".into(),
            version: version.into(),
            connected,
            stale_since: Some(connected),
            subscriptions: 3,
            last_nack: Some("no".into()),
        }
    }

    #[test]
    fn what_is_told_is_what_is_heard() {
        let now = Instant::now();
        let at = now - Duration::from_millis(1_500);
        let heard = Heard {
            proxies: vec![proxy("a", at, "1"), proxy("b", at, "1")],
            traffic: vec![traffic("a", at, 10, 7), traffic("gone", at, 10, 1)],
        };
        let mut read = Heard::default();
        for pod in heard.clone().tell(now) {
            read.enter(pod, now).unwrap();
        }
        assert_eq!(format!("{read:?}"), format!("{heard:?}"));
    }

    #[test]
    fn a_proxy_is_told_by_who_has_it_now() {
        let now = Instant::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        let here = Heard {
            proxies: vec![proxy("a", ago(100), "old"), proxy("b", ago(5), "b")],
            traffic: vec![traffic("a", ago(50), 10, 1), traffic("b", ago(1), 5, 5)],
        };
        let there = Heard {
            proxies: vec![proxy("a", ago(10), "new")],
            traffic: vec![traffic("a", ago(1), 9, 4)],
        };
        let requests = |heard: &Heard| -> Vec<u64> {
            let pods = heard.traffic.iter();
            pods.map(|pod| pod.edges[0].1.requests).collect()
        };
        let (mut totals, mut recent) = (here.clone(), here);
        totals.add(there.clone(), None);
        assert_eq!(requests(&totals), [4, 5]);
        let versions: Vec<_> = totals.proxies.iter().map(|at| &*at.version).collect();
        assert_eq!(versions, ["new", "b"]);
        // Within a window both parts count, in any order, and nothing twice.
        recent.add(there.clone(), Some(Duration::from_secs(60)));
        assert_eq!(requests(&recent), [5, 5]);
        assert_eq!(recent.traffic[0].covers, Duration::from_secs(19));
        recent.add(there, Some(Duration::from_secs(60)));
        assert_eq!(requests(&recent), [5, 5]);
    }
}
