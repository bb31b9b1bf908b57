//! The edges of an object: what it sent and what was sent to it, by the other end. Pure.
//!
//! Traffic between two proxies is told by the caller's: only that one knows which workload answered. What calls without
//! a proxy is told by the proxy that was called. Callers do not count by pod, so what was sent to a pod (or a node) is told
//! by its own proxy, which knows the accounts of callers.

use super::documents::{Backend, Item};
use super::resource::{ObjectRef, Of, Resource};
use crate::traffic::report::{PodReport, Report};
use crate::traffic::table::{Direction, EdgeKey};
use std::collections::BTreeMap;

/// What makes an edge: sent or received, told by the client, the other end, the backend of a split.
type Key = (bool, bool, ObjectRef, String);

/// The edges with traffic, those received first.
pub(super) fn edges(report: &Report, resource: &Resource, object: &ObjectRef) -> Vec<Item> {
    let subject = Subject {
        report,
        of: resource.of,
        object,
    };
    let mut all: BTreeMap<Key, Item> = BTreeMap::new();
    for pod in &report.pods {
        for edge in pod.edges.iter().filter(|edge| !edge.counts.is_zero()) {
            for key in subject.keys(pod, &edge.key) {
                let item = all.entry(key.clone()).or_insert_with(|| subject.item(key));
                item.counts.add(&edge.counts);
            }
        }
    }
    all.into_values().collect()
}

struct Subject<'a> {
    report: &'a Report,
    of: Of,
    object: &'a ObjectRef,
}

impl Subject<'_> {
    /// As which edges of the object this one counts: none, one, or (within the object) both.
    fn keys(&self, pod: &PodReport, edge: &EdgeKey) -> Vec<Key> {
        let own = self.has_pods() && self.object.holds(self.report, &pod.facts);
        match edge.direction {
            Direction::Outbound => {
                let sent = own.then(|| (true, true, self.end(edge), String::new()));
                let received = self
                    .is_called(edge)
                    .then(|| (false, true, self.caller(pod), self.leaf(edge)));
                sent.into_iter().chain(received).collect()
            }
            Direction::Inbound if own && self.is_told_by_itself(edge) => {
                let peer = ObjectRef::workload(&edge.peer_namespace, &edge.peer_workload);
                vec![(false, false, peer, String::new())]
            }
            Direction::Inbound => vec![],
        }
    }

    fn item(&self, (sent, by_client, other, leaf): Key) -> Item {
        Item {
            object: self.object.clone(),
            sent,
            by_client,
            other: Some(other),
            backend: self.backend(leaf),
            ..Item::default()
        }
    }

    /// Services and splits send nothing.
    fn has_pods(&self) -> bool {
        !matches!(self.of, Of::Service | Of::Split)
    }

    fn is_told_by_itself(&self, edge: &EdgeKey) -> bool {
        edge.peer_workload.is_empty() || matches!(self.of, Of::Pod | Of::Node)
    }

    /// Was it sent to the object, as far as its sender knows?
    fn is_called(&self, edge: &EdgeKey) -> bool {
        let object = self.object;
        match self.of {
            Of::Namespace => edge.peer_namespace == object.name,
            Of::Pod | Of::Node => false,
            Of::Service => without_port(&edge.service) == self.slashed(),
            Of::Split => edge.route.strip_prefix("TrafficSplit ") == Some(&self.slashed()),
            Of::Owner(_) => {
                ObjectRef::workload(&edge.peer_namespace, &edge.peer_workload) == *object
            }
        }
    }

    /// Where it was sent.
    fn end(&self, edge: &EdgeKey) -> ObjectRef {
        match self.of {
            Of::Namespace => ObjectRef::namespace(&edge.peer_namespace),
            _ => ObjectRef::workload(&edge.peer_namespace, &edge.peer_workload),
        }
    }

    /// Who sent it.
    fn caller(&self, pod: &PodReport) -> ObjectRef {
        match self.of {
            Of::Namespace => ObjectRef::namespace(&pod.facts.namespace),
            _ => ObjectRef::workload(&pod.facts.namespace, &pod.facts.workload),
        }
    }

    /// The Service that the split chose.
    fn leaf(&self, edge: &EdgeKey) -> String {
        let leaf = without_port(&edge.backend).rsplit('/').next();
        match self.of {
            Of::Split => leaf.unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    fn backend(&self, leaf: String) -> Option<Backend> {
        let split = self.report.splits.iter().find(|split| {
            self.of == Of::Split
                && split.namespace == self.object.namespace
                && split.name == self.object.name
        })?;
        let share = split.backends.iter().find(|at| at.service == leaf);
        Some(Backend {
            apex: split.service.clone(),
            weight: share.map_or(0, |at| at.weight),
            name: leaf,
        })
    }

    fn slashed(&self) -> String {
        format!("{}/{}", self.object.namespace, self.object.name)
    }
}

fn without_port(service: &str) -> &str {
    service.rsplit_once(':').map_or(service, |(name, _)| name)
}
