//! What a pod is in the mesh: its identity, its labels, whether it has a proxy.

use super::ports::PortSet;
use super::world::{Reader, World};
use crate::manifest::k8s::{IntOrString, OwnerReference};
use crate::manifest::workload::{Container, Pod};
use crate::pod_ref::PodRef;
use crate::serve::PodInfo;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names::{inject, keys, ports};

const TEMPLATE_HASH: &str = "pod-template-hash";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What serving needs to know of a pod.
pub fn info(world: &World, pod: &PodRef) -> Option<PodInfo> {
    let reader = Reader::new(world);
    let pod = reader.pod(&pod.namespace, &pod.name)?;
    Some(PodInfo {
        service_account: pod.spec.account().to_owned(),
        ips: pod.status.ips(),
        meshed: is_meshed(&reader, pod),
        uid: pod.metadata.uid.clone(),
    })
}

/// Has it a proxy: injected, or known to have got a certificate?
pub fn is_meshed(reader: &Reader<'_>, pod: &Pod) -> bool {
    let mut containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    containers.any(|container| container.name == inject::PROXY_CONTAINER)
        || pod
            .metadata
            .annotations
            .contains_key(keys::INJECTED_AT_VERSION)
        || reader.is_enrolled(pod)
}

/// The identity that whoever calls this port will see; `None`: no proxy stands before it.
pub fn identity_at(reader: &Reader<'_>, pod: &Pod, port: u16) -> Option<SpiffeId> {
    let behind_proxy = is_meshed(reader, pod)
        && !pod.spec.host_network
        && port != ports::ADMIN
        && !skipped(pod).contains(port);
    behind_proxy.then(|| account_identity(reader, &pod.metadata.namespace, pod.spec.account()))?
}

/// The identity of a service account; `None` if no such account can exist.
pub fn account_identity(reader: &Reader<'_>, namespace: &str, account: &str) -> Option<SpiffeId> {
    SpiffeId::new(&reader.mesh().trust_domain, namespace, account).ok()
}

/// Inbound ports that bypass the proxy: what the pod's own init program was told, or else its annotation.
fn skipped(pod: &Pod) -> PortSet {
    let init = pod
        .spec
        .init_containers
        .iter()
        .find(|container| container.name == inject::INIT_CONTAINER);
    let annotated = || {
        pod.metadata
            .annotations
            .get(keys::SKIP_INBOUND_PORTS)
            .map(String::as_str)
    };
    let list = match init {
        Some(init) => argument(init, "--skip-inbound-ports"),
        None => annotated(),
    };
    PortSet::parse(list.unwrap_or_default())
}

fn argument<'a>(container: &'a Container, flag: &str) -> Option<&'a str> {
    let mut args = container.command.iter().chain(&container.args);
    while let Some(arg) = args.next() {
        match arg.strip_prefix(flag) {
            Some("") => return args.next().map(String::as_str),
            Some(rest) if rest.starts_with('=') => return rest.get(1..),
            _ => {}
        }
    }
    None
}

/// Label of the workload, e.g. `deploy/web`; the pod's name where nothing owns it.
pub fn label(pod: &Pod) -> String {
    let owners = &pod.metadata.owner_references;
    let owner = owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .or_else(|| owners.first());
    match owner {
        Some(owner) => owner_label(pod, owner),
        None => pod.metadata.name.clone(),
    }
}

fn owner_label(pod: &Pod, owner: &OwnerReference) -> String {
    let name = &owner.name;
    match owner.kind.as_str() {
        "ReplicaSet" => match deployment(pod, name) {
            Some(deployment) => format!("deploy/{deployment}"),
            None => format!("rs/{name}"),
        },
        "Deployment" => format!("deploy/{name}"),
        "StatefulSet" => format!("sts/{name}"),
        "DaemonSet" => format!("ds/{name}"),
        kind => format!("{}/{name}", kind.to_ascii_lowercase()),
    }
}

/// A Deployment names its ReplicaSets after itself and the hash of their template; a ReplicaSet of its own has no hash.
fn deployment<'a>(pod: &Pod, set: &'a str) -> Option<&'a str> {
    if let Some(hash) = pod.metadata.labels.get(TEMPLATE_HASH) {
        return set.strip_suffix(hash.as_str())?.strip_suffix('-');
    }
    // The hash has an alphabet without vowels, so that it spells nothing.
    let is_hash = |text: &str| {
        (5..=10).contains(&text.len())
            && text
                .bytes()
                .all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
    };
    set.rsplit_once('-')
        .filter(|(_, hash)| is_hash(hash))
        .map(|(name, _)| name)
}

/// The zone of its node, as far as the pod says; empty: unknown.
pub fn zone(pod: &Pod) -> String {
    pod.metadata.labels.get(ZONE).cloned().unwrap_or_default()
}

/// The containers of the application: not the proxy, and no init container that ends.
pub fn app_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod
        .spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .filter(|c| c.name != inject::PROXY_CONTAINER)
}

/// The TCP port of the pod that a number or the name of a container port means.
pub fn port<'a>(
    containers: impl IntoIterator<Item = &'a Container>,
    wanted: &IntOrString,
) -> Option<u16> {
    port_of(containers, wanted, "TCP")
}

/// As [`port`], for a protocol of layer 4.
pub fn port_of<'a>(
    containers: impl IntoIterator<Item = &'a Container>,
    wanted: &IntOrString,
    protocol: &str,
) -> Option<u16> {
    let Some(name) = wanted.name() else {
        return wanted.port().filter(|port| *port > 0);
    };
    let mut ports = containers
        .into_iter()
        .flat_map(|container| &container.ports);
    let found = ports.find(|port| {
        port.name.as_deref() == Some(name) && is_protocol(port.protocol.as_deref(), protocol)
    });
    found
        .map(|port| port.container_port)
        .filter(|port| *port > 0)
}

/// Is it the protocol (of layer 4) that the mesh carries? Absent means TCP.
pub fn is_tcp(protocol: Option<&str>) -> bool {
    is_protocol(protocol, "TCP")
}

/// Is a declared protocol of layer 4 this one? Absent means TCP.
pub fn is_protocol(declared: Option<&str>, protocol: &str) -> bool {
    declared.unwrap_or("TCP") == protocol
}

/// Can it be reached: it runs, is not on its way out and has a network of its own?
pub fn is_reachable(pod: &Pod) -> bool {
    !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")) && !pod.spec.host_network
}
