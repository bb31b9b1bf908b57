//! Who may call a pod: its access mode, and one permission for each TrafficTarget whose destination is its account.

use super::pod::account_identity;
use super::ports::{service_port, target as target_port};
use super::world::Reader;
use crate::manifest::workload::Pod;
use crate::smi::access::{Rule, Source as Subject, TrafficTarget};
use std::collections::BTreeSet;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::Access;
use weft_proxy_api::policy::inbound::{Allow, Ports, Source, Traffic};
use weft_proxy_api::policy::matching::HttpMatch;

/// How strictly the pod's permissions are applied (D12): its annotation, its namespace's, the mesh's default.
pub fn mode(reader: &Reader<'_>, pod: &Pod) -> Access {
    let own = pod.metadata.annotations.get(keys::ACCESS);
    let of_namespace = || {
        reader
            .namespace(&pod.metadata.namespace)?
            .metadata
            .annotations
            .get(keys::ACCESS)
    };
    match own.or_else(of_namespace) {
        Some(text) => parse_mode(text).unwrap_or(Access::Strict),
        None => reader.mesh().access,
    }
}

/// A mode as it is written. What cannot be read must not widen: whoever uses this falls back to strict, and it is a finding.
pub fn parse_mode(text: &str) -> Option<Access> {
    match text.trim() {
        "strict" => Some(Access::Strict),
        "permissive" => Some(Access::Permissive),
        "audit" => Some(Access::Audit),
        _ => None,
    }
}

/// The permissions of a pod, one for each target that says anything (D16: never mixed with each other).
pub fn allow(reader: &Reader<'_>, pod: &Pod) -> Vec<Allow> {
    let targets = reader.targets(&pod.metadata.namespace, pod.spec.account());
    targets
        .into_iter()
        .filter_map(|target| permission(reader, pod, target))
        .collect()
}

/// What one target allows; `None` if it allows nothing to anybody (D09: UDP is not ours, D15: no source or rule).
fn permission(reader: &Reader<'_>, pod: &Pod, target: &TrafficTarget) -> Option<Allow> {
    let sources: Vec<Source> = target
        .sources
        .iter()
        .filter_map(|subject| source(reader, subject))
        .collect();
    let is_http = target
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Http { .. }));
    let is_tcp = target
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Tcp { .. }));
    if sources.is_empty() || !(is_http || is_tcp) {
        return None;
    }
    Some(Allow {
        object: format!(
            "TrafficTarget {}/{}",
            target.metadata.namespace, target.metadata.name
        ),
        sources,
        ports: ports(reader, pod, target, is_tcp),
        // D07: that there are HTTP rules decides, not that they can be resolved.
        traffic: if is_http {
            Traffic::Http(requests(reader, target))
        } else {
            Traffic::Any
        },
    })
}

fn source(reader: &Reader<'_>, subject: &Subject) -> Option<Source> {
    match subject {
        Subject::ServiceAccount { namespace, name } => Some(Source {
            identity: account_identity(reader, namespace, name)?,
            addresses: None,
        }),
    }
}

/// The requests of all groups of a target. A missing group or match contributes nothing (D06, D07).
fn requests(reader: &Reader<'_>, target: &TrafficTarget) -> Vec<HttpMatch> {
    let mut requests: Vec<HttpMatch> = Vec::new();
    for rule in &target.rules {
        let Rule::Http { group, matches } = rule else {
            continue;
        };
        let Some(group) = reader.group(&target.metadata.namespace, group) else {
            continue;
        };
        let chosen = group
            .matches
            .iter()
            .filter(|m| matches.is_empty() || matches.contains(&m.name));
        requests.extend(chosen.cloned());
    }
    requests
}

/// The pod's ports a target opens: those of its TCPRoutes together (D08), within `destination.port` (D11).
fn ports(reader: &Reader<'_>, pod: &Pod, target: &TrafficTarget, is_tcp: bool) -> Ports {
    let routes = if is_tcp {
        route_ports(reader, pod, target)
    } else {
        Ports::Any
    };
    let Some(only) = target.destination.port else {
        return routes;
    };
    let only = pod_ports(reader, pod, only).into_iter();
    Ports::Only(only.filter(|port| routes.contains(*port)).collect())
}

/// The union of the ports of every TCPRoute that exists.
fn route_ports(reader: &Reader<'_>, pod: &Pod, target: &TrafficTarget) -> Ports {
    let mut union = BTreeSet::new();
    for rule in &target.rules {
        let Rule::Tcp { route } = rule else { continue };
        match reader
            .tcp_route(&target.metadata.namespace, route)
            .map(|route| &route.ports)
        {
            Some(Ports::Any) => return Ports::Any,
            Some(Ports::Only(ports)) => {
                union.extend(ports.iter().flat_map(|port| pod_ports(reader, pod, *port)))
            }
            None => {}
        }
    }
    Ports::Only(union.into_iter().collect())
}

/// The pod's ports that a number means (D10): what the Services of the pod translate it to; the number itself only where
/// no such Service has that port.
fn pod_ports(reader: &Reader<'_>, pod: &Pod, number: u16) -> BTreeSet<u16> {
    let services = reader.services_of(pod);
    let exposed: Vec<_> = services
        .iter()
        .filter_map(|service| service_port(service, number))
        .collect();
    match exposed.is_empty() {
        true => BTreeSet::from([number]),
        false => exposed
            .into_iter()
            .filter_map(|port| target_port(port, pod))
            .collect(),
    }
}
