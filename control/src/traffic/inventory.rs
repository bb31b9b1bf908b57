//! What there is in the mesh, as far as traffic is explained with it. A pure reading of the world.

use crate::manifest::Object;
use crate::manifest::workload::Pod;
use crate::smi::split::TrafficSplit;
use crate::views::world::{Reader, World};
use crate::views::{access, pod};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft_proxy_api::policy::inbound::{Allow, Ports, Traffic};

/// Pods, Services and splits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inventory {
    /// Pods, by namespace and name.
    pub pods: Vec<PodFacts>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Services, as `namespace/name`.
    pub services: Vec<String>,
    /// Traffic splits.
    pub splits: Vec<SplitFacts>,
    /// Who may call whom, one entry for each permission.
    pub permissions: Vec<Permission>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `deploy/web`, or the pod's own name.
    pub workload: String,
    /// Service account.
    pub service_account: String,
    /// Node it runs on; empty: none yet.
    pub node: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Has a proxy.
    pub meshed: bool,
    /// Passed its probes.
    pub ready: bool,
    /// Services that select it, by name.
    pub services: Vec<String>,
    /// `strict`, `permissive` or `audit`.
    pub access: String,
}

/// A TrafficSplit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SplitFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service that clients call.
    pub service: String,
    /// Services and weights.
    pub backends: Vec<Share>,
}

/// One backend of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Share {
    /// Service.
    pub service: String,
    /// Weight, relative to the others.
    pub weight: u64,
}

/// One statement of permission, for the pods of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Permission {
    /// Namespace of the pods.
    pub namespace: String,
    /// Service account of the pods.
    pub account: String,
    /// The object that says so.
    pub object: String,
    /// Identities that may call.
    pub sources: Vec<String>,
    /// Ports; empty: any.
    pub ports: Vec<u16>,
    /// Requests, as `HTTPRouteGroup namespace/name match`; absent: any bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
}

/// Everything there is now.
pub fn inventory(world: &World) -> Inventory {
    let reader = Reader::new(world);
    let mut all = Inventory::default();
    for loaded in world.objects() {
        match &loaded.object {
            Object::Pod(pod) => {
                all.pods.push(facts(&reader, pod));
                let allowed = access::allow(&reader, pod).into_iter();
                all.permissions
                    .extend(allowed.map(|allow| permission(pod, allow)));
            }
            Object::Service(service) => {
                let at = &service.metadata;
                all.services.push(format!("{}/{}", at.namespace, at.name));
            }
            Object::Namespace(namespace) => {
                all.namespaces.push(namespace.metadata.name.clone());
            }
            Object::TrafficSplit(split) => all.splits.push(shares(split)),
            _ => {}
        }
    }
    all.pods
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    all.namespaces.sort();
    all.services.sort();
    all.splits
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    all.permissions.sort();
    all.permissions.dedup();
    all
}

fn facts(reader: &Reader<'_>, pod: &Pod) -> PodFacts {
    let services = reader.services_of(pod).into_iter();
    PodFacts {
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        workload: pod::label(pod),
        service_account: pod.spec.account().to_owned(),
        node: pod.spec.node_name.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone(),
        meshed: pod::is_meshed(reader, pod),
        ready: pod.status.is_ready(),
        services: services.map(|at| at.metadata.name.clone()).collect(),
        access: access::mode(reader, pod).to_string(),
    }
}

fn shares(split: &TrafficSplit) -> SplitFacts {
    let backends = split.backends.iter().map(|backend| Share {
        service: backend.service.clone(),
        weight: backend.weight,
    });
    SplitFacts {
        namespace: split.metadata.namespace.clone(),
        name: split.metadata.name.clone(),
        service: split.service.clone(),
        backends: backends.collect(),
    }
}

fn permission(pod: &Pod, allow: Allow) -> Permission {
    let sources = allow.sources.iter();
    Permission {
        namespace: pod.metadata.namespace.clone(),
        account: pod.spec.account().to_owned(),
        sources: sources.map(|at| at.identity.as_str().to_owned()).collect(),
        ports: match allow.ports {
            Ports::Any => vec![],
            Ports::Only(ports) => ports,
        },
        routes: match allow.traffic {
            Traffic::Any => None,
            Traffic::Http(matches) => Some(
                matches
                    .iter()
                    .map(|at| format!("{} {}", at.object, at.name))
                    .collect(),
            ),
        },
        object: allow.object,
    }
}
