//! What can be asked about, as it is typed: `deploy/web`, `svc`, `ns/shop`. Pure.

use super::inventory::PodFacts;
use super::report::PodReport;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What rows stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Deployments and what else makes pods.
    Workload,
    /// Pods.
    Pod,
    /// Namespaces.
    Namespace,
    /// Services.
    Service,
    /// Backends of traffic splits.
    Split,
    /// Matches of route groups.
    Route,
    /// Service accounts.
    Account,
}

/// A resource, as typed: `deploy/web`, `svc`, `ns/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name; `None`: all of them. Workloads keep their prefix (`deploy/web`).
    pub name: Option<String>,
}

impl Kind {
    /// As typed.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Workload => "workload",
            Kind::Pod => "pod",
            Kind::Namespace => "ns",
            Kind::Service => "svc",
            Kind::Split => "split",
            Kind::Route => "route",
            Kind::Account => "sa",
        }
    }
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((_, "")) => return Err(format!("{text:?} has no name after the slash")),
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (text, None),
        };
        let workload = |prefix: &str| {
            let name = name.as_ref().map(|name| format!("{prefix}/{name}"));
            (Kind::Workload, name.or_else(|| Some(format!("{prefix}/"))))
        };
        let (kind, name) = match kind {
            "deploy" | "deployment" | "deployments" => workload("deploy"),
            "sts" | "statefulset" | "statefulsets" => workload("sts"),
            "ds" | "daemonset" | "daemonsets" => workload("ds"),
            "workload" | "workloads" => (Kind::Workload, name),
            "po" | "pod" | "pods" => (Kind::Pod, name),
            "ns" | "namespace" | "namespaces" => (Kind::Namespace, name),
            "svc" | "service" | "services" => (Kind::Service, name),
            "split" | "ts" | "trafficsplit" | "trafficsplits" => (Kind::Split, name),
            "route" | "routes" => (Kind::Route, name),
            "sa" | "serviceaccount" | "serviceaccounts" => (Kind::Account, name),
            other => {
                return Err(format!(
                    "{other:?} is none of deploy, sts, ds, pod, ns, svc, split, route, sa"
                ));
            }
        };
        Ok(Self { kind, name })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.kind) {
            (Some(name), Kind::Workload) => f.write_str(name.trim_end_matches('/')),
            (Some(name), kind) => write!(f, "{}/{name}", kind.label()),
            (None, kind) => f.write_str(kind.label()),
        }
    }
}

impl Resource {
    /// Is this the name asked for? `deploy/` is every Deployment.
    pub fn names(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|wanted| {
            wanted == name || (wanted.ends_with('/') && name.starts_with(wanted.as_str()))
        })
    }

    /// Does the pod belong to it?
    pub fn holds(&self, pod: &PodReport) -> bool {
        self.holds_facts(&pod.facts)
    }

    /// The same of a pod without its traffic.
    pub fn holds_facts(&self, facts: &PodFacts) -> bool {
        match self.kind {
            Kind::Workload => self.names(&facts.workload),
            Kind::Pod => self.names(&facts.name),
            Kind::Namespace => self.names(&facts.namespace),
            Kind::Account => self.names(&facts.service_account),
            Kind::Service => facts.services.iter().any(|at| self.names(at)),
            Kind::Split | Kind::Route => false,
        }
    }
}
