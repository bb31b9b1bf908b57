//! The traffic and what it is explained with, in one document. Versioned, as programs read it; numbers are raw.

use super::counts::Counts;
use super::inventory::{Inventory, Permission, PodFacts, SplitFacts};
use super::table::{Backend, ConnectionKey, Connections, EdgeKey, PodTraffic};
use crate::peers::Controllers;
use crate::pod_ref::PodRef;
use crate::serve::proxies::ProxyStatus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Version of the document.
pub const API_VERSION: &str = "weft.mesh/v1";

/// The document. Everything is sorted, so that equal traffic is equal text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Traffic`.
    pub kind: String,
    /// Seconds asked for; absent: since the proxies started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// Which controllers had a say; absent: there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controllers: Option<Controllers>,
    /// Pods, with and without traffic.
    pub pods: Vec<PodReport>,
    /// Namespaces, with and without pods.
    pub namespaces: Vec<String>,
    /// Services, as `namespace/name`.
    pub services: Vec<String>,
    /// Traffic splits.
    pub splits: Vec<SplitFacts>,
    /// Who may call whom.
    pub permissions: Vec<Permission>,
}

/// A pod and what its proxy says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodReport {
    /// The pod.
    #[serde(flatten)]
    pub facts: PodFacts,
    /// Its proxy, if it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyReport>,
    /// Seconds that the counts cover.
    pub seconds: f64,
    /// Traffic by edge.
    pub edges: Vec<EdgeReport>,
    /// Connections by kind, since the proxy started.
    pub connections: Vec<ConnectionReport>,
    /// Endpoint sets as the proxy sees them now.
    pub backends: BTreeMap<String, Backend>,
    /// Other metrics of the proxy now.
    pub readings: Vec<ReadingReport>,
}

/// How a proxy is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyReport {
    /// Version of the program.
    pub version: String,
    /// Zone; empty: unknown.
    pub zone: String,
    /// Holds the current version of all it subscribed to.
    pub synced: bool,
    /// How long it has lacked something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<f64>,
    /// Why it refused a version last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_nack: Option<String>,
    /// How long ago it reported traffic; absent: not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_seconds_ago: Option<f64>,
    /// How long its process had run then.
    pub uptime_seconds: f64,
    /// When its certificate ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expiry: Option<f64>,
}

/// One edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeReport {
    /// Which.
    #[serde(flatten)]
    pub key: EdgeKey,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// One kind of connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionReport {
    /// Which.
    #[serde(flatten)]
    pub key: ConnectionKey,
    /// How many.
    #[serde(flatten)]
    pub counts: Connections,
}

/// One other metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadingReport {
    /// Name.
    pub metric: String,
    /// Values of its labels, in the order of the catalogue.
    pub labels: Vec<String>,
    /// Value.
    pub value: f64,
}

impl Report {
    /// Puts both together. Pods that reported and are gone are left out.
    pub fn new(
        window: Option<Duration>,
        inventory: Inventory,
        proxies: &[ProxyStatus],
        traffic: Vec<PodTraffic>,
        now: Instant,
    ) -> Self {
        let mut proxies: HashMap<&PodRef, &ProxyStatus> =
            proxies.iter().map(|proxy| (&proxy.pod, proxy)).collect();
        let mut traffic: HashMap<PodRef, PodTraffic> =
            traffic.into_iter().map(|at| (at.pod.clone(), at)).collect();
        let pods = inventory.pods.into_iter().map(|facts| {
            let pod = PodRef::new(&facts.namespace, &facts.name);
            let (proxy, traffic) = (proxies.remove(&pod), traffic.remove(&pod));
            PodReport::new(facts, proxy, traffic, now)
        });
        Self {
            api_version: API_VERSION.into(),
            kind: "Traffic".into(),
            window_seconds: window.map(|window| window.as_secs_f64()),
            controllers: None,
            pods: pods.collect(),
            namespaces: inventory.namespaces,
            services: inventory.services,
            splits: inventory.splits,
            permissions: inventory.permissions,
        }
    }
}

impl PodReport {
    fn new(
        facts: PodFacts,
        proxy: Option<&ProxyStatus>,
        traffic: Option<PodTraffic>,
        now: Instant,
    ) -> Self {
        let mut proxy = proxy.map(|proxy| ProxyReport::new(proxy, now));
        let Some(traffic) = traffic else {
            return Self {
                facts,
                proxy,
                ..Self::default()
            };
        };
        if let Some(proxy) = &mut proxy {
            let ago = now.saturating_duration_since(traffic.at);
            proxy.reported_seconds_ago = Some(ago.as_secs_f64());
            proxy.uptime_seconds = traffic.uptime.as_secs_f64();
        }
        let mut report = Self {
            facts,
            proxy,
            seconds: traffic.covers.as_secs_f64(),
            edges: traffic
                .edges
                .into_iter()
                .map(|(key, counts)| EdgeReport {
                    key: (*key).clone(),
                    counts,
                })
                .collect(),
            connections: traffic
                .connections
                .into_iter()
                .map(|(key, counts)| ConnectionReport { key, counts })
                .collect(),
            backends: traffic.backends,
            readings: traffic
                .readings
                .into_iter()
                .map(|(key, value)| ReadingReport {
                    metric: key.metric,
                    labels: key.labels,
                    value,
                })
                .collect(),
        };
        let expiry = report.reading("weft_identity_expiry_timestamp_seconds");
        if let Some(proxy) = &mut report.proxy {
            proxy.certificate_expiry = expiry.filter(|at| *at > 0.0);
        }
        report
    }

    /// Sum of a metric over its labels; `None`: the proxy has not said it.
    pub fn reading(&self, metric: &str) -> Option<f64> {
        let of = self.readings.iter().filter(|at| at.metric == metric);
        of.map(|at| at.value).reduce(|a, b| a + b)
    }
}

impl ProxyReport {
    fn new(proxy: &ProxyStatus, now: Instant) -> Self {
        let stale = proxy.stale_since;
        Self {
            version: proxy.version.clone(),
            zone: proxy.zone.clone(),
            synced: proxy.synced(),
            stale_seconds: stale.map(|at| now.saturating_duration_since(at).as_secs_f64()),
            last_nack: proxy.last_nack.clone(),
            ..Self::default()
        }
    }
}
