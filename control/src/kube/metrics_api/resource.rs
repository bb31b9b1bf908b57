//! The resources, and references to objects of them.

use crate::traffic::inventory::PodFacts;
use crate::traffic::report::Report;
use serde::Serialize;

/// What traffic is told of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// As in paths.
    pub plural: &'static str,
    /// Kind of the objects.
    pub kind: &'static str,
    /// Which pods they stand for.
    pub of: Of,
}

/// How objects and pods belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Pods of a namespace.
    Namespace,
    /// Pods of a node.
    Node,
    /// One pod.
    Pod,
    /// What calls a Service.
    Service,
    /// What follows a split.
    Split,
    /// Pods of an owner, by the first part of their workload (`deploy/web`).
    Owner(&'static str),
}

/// All of them.
pub(super) const RESOURCES: [Resource; 11] = [
    resource("namespaces", "Namespace", Of::Namespace),
    resource("nodes", "Node", Of::Node),
    resource("pods", "Pod", Of::Pod),
    resource(
        "replicationcontrollers",
        "ReplicationController",
        Of::Owner("replicationcontroller"),
    ),
    resource("services", "Service", Of::Service),
    resource("daemonsets", "DaemonSet", Of::Owner("ds")),
    resource("deployments", "Deployment", Of::Owner("deploy")),
    resource("replicasets", "ReplicaSet", Of::Owner("rs")),
    resource("statefulsets", "StatefulSet", Of::Owner("sts")),
    resource("jobs", "Job", Of::Owner("job")),
    resource("trafficsplits", "TrafficSplit", Of::Split),
];

const fn resource(plural: &'static str, kind: &'static str, of: Of) -> Resource {
    Resource { plural, kind, of }
}

impl Resource {
    /// The one of this name.
    pub(super) fn named(plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|known| known.plural == plural)
    }

    /// Do its objects live in namespaces?
    pub(super) fn is_namespaced(&self) -> bool {
        !matches!(self.of, Of::Namespace | Of::Node)
    }
}

/// A reference to an object, as far as traffic knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ObjectRef {
    /// Kind; `Unknown` for whoever has no proxy and no identity.
    pub kind: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl ObjectRef {
    /// An object.
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// A workload by its label: `deploy/web`, or the name of a pod that nothing owns.
    pub(super) fn workload(namespace: &str, label: &str) -> Self {
        match label.split_once('/') {
            Some((prefix, name)) => {
                let kind = match prefix {
                    "sa" => "ServiceAccount",
                    _ => kind_of(prefix),
                };
                Self::new(kind, namespace, name)
            }
            None if label.is_empty() || label == crate::traffic::table::OTHER => Self::unknown(),
            None => Self::new("Pod", namespace, label),
        }
    }

    /// A namespace.
    pub(super) fn namespace(name: &str) -> Self {
        match name {
            "" | crate::traffic::table::OTHER => Self::unknown(),
            name => Self::new("Namespace", "", name),
        }
    }

    /// Whoever it was.
    pub(super) fn unknown() -> Self {
        Self::new("Unknown", "", "")
    }

    /// Does the pod belong to it?
    pub(super) fn holds(&self, report: &Report, pod: &PodFacts) -> bool {
        if self.kind == "Namespace" {
            return pod.namespace == self.name;
        }
        if self.kind == "Node" {
            return pod.node == self.name;
        }
        let selects = |service: &str| pod.services.iter().any(|at| at == service);
        pod.namespace == self.namespace
            && match self.kind.as_str() {
                "Pod" => pod.name == self.name,
                "ServiceAccount" => pod.service_account == self.name,
                "Service" => selects(&self.name),
                "TrafficSplit" => report.splits.iter().any(|split| {
                    split.namespace == self.namespace
                        && split.name == self.name
                        && split.backends.iter().any(|leaf| selects(&leaf.service))
                }),
                _ => *self == Self::workload(&pod.namespace, &pod.workload),
            }
    }
}

/// The kind behind the first part of a workload's label; kinds we do not serve keep what the label says.
fn kind_of(prefix: &str) -> &str {
    let known = RESOURCES
        .iter()
        .find(|known| matches!(known.of, Of::Owner(at) if at == prefix));
    known.map_or(prefix, |known| known.kind)
}
