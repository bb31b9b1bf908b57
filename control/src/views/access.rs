//! Who may call a pod: its access mode, and one permission for each TrafficTarget whose destination is its account.

use super::binding;
use super::pod::account_identity;
use super::ports::{service_port_of, target_of};
use super::requests::described;
use super::world::Reader;
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::workload::Pod;
use crate::smi::access::{Rule, Subject, TrafficTarget};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::Access;
use weft_proxy_api::policy::inbound::{Allow, Ports, Source, Traffic};
use weft_proxy_api::policy::matching::HttpMatch;

/// How strictly the pod's permissions are applied (D12): its annotation, its namespace's, the mesh's default.
pub fn mode(reader: &Reader<'_>, pod: &Pod) -> Access {
    match annotation(reader, pod, keys::ACCESS) {
        Some(text) => parse_mode(text).unwrap_or(Access::Strict),
        None => reader.mesh().access,
    }
}

/// The same for a pod of which nothing is known, as of one that was deleted and runs on for a while: its namespace narrows what
/// the mesh says, and never widens it.
pub fn mode_of_unknown(reader: &Reader<'_>, namespace: &str) -> Access {
    let said = of_namespace(reader, namespace, keys::ACCESS);
    match said.map(|text| parse_mode(text).unwrap_or(Access::Strict)) {
        Some(Access::Strict) => Access::Strict,
        _ => reader.mesh().access,
    }
}

/// Whose annotation set the mode, for explanations: `Pod ns/name`, `Namespace name`; empty: the mesh's default.
pub fn mode_from(reader: &Reader<'_>, pod: &Pod) -> String {
    let ObjectMeta {
        namespace,
        name,
        annotations,
        ..
    } = &pod.metadata;
    if annotations.contains_key(keys::ACCESS) {
        return format!("Pod {namespace}/{name}");
    }
    match annotation(reader, pod, keys::ACCESS) {
        Some(_) => format!("Namespace {namespace}"),
        None => String::new(),
    }
}

/// Do refusals tell the client who decided? Only where the pod or its namespace says `enabled`: it tells strangers names.
pub fn explains(reader: &Reader<'_>, pod: &Pod) -> bool {
    annotation(reader, pod, keys::EXPLAIN_DENIALS).is_some_and(|text| text.trim() == "enabled")
}

/// The pod's annotation, or else its namespace's.
pub(super) fn annotation<'a>(reader: &Reader<'a>, pod: &'a Pod, key: &str) -> Option<&'a String> {
    let of_namespace = || of_namespace(reader, &pod.metadata.namespace, key);
    pod.metadata.annotations.get(key).or_else(of_namespace)
}

fn of_namespace<'a>(reader: &Reader<'a>, namespace: &str, key: &str) -> Option<&'a String> {
    let namespace = reader.namespace(namespace)?;
    namespace.metadata.annotations.get(key)
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

/// The targets whose destination is this pod, by name.
pub fn targets<'a>(reader: &Reader<'a>, pod: &Pod) -> Vec<&'a Arc<TrafficTarget>> {
    let namespace = &pod.metadata.namespace;
    let bound = reader.targets_by_binding(namespace).into_iter();
    let bound = bound.filter(|target| match &target.destination.subject {
        Subject::IdentityBinding { namespace, name } => reader
            .binding(namespace, name)
            .is_some_and(|binding| binding::covers(reader, binding, pod)),
        Subject::ServiceAccount { .. } => false,
    });
    let mut targets = reader.targets(namespace, pod.spec.account());
    targets.extend(bound);
    targets.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    targets
}

/// The permissions of a pod, one for each target that says anything (D16: never mixed with each other).
pub fn allow(reader: &Reader<'_>, pod: &Pod) -> Vec<Allow> {
    let targets = targets(reader, pod).into_iter();
    targets
        .filter_map(|target| permission(reader, pod, target))
        .collect()
}

/// What may be sent to a pod by UDP: the UDPRoutes of each target, which stand alone (D09). Part of the policy that is
/// computed and shown; the proxies carry no UDP.
pub fn allow_udp(reader: &Reader<'_>, pod: &Pod) -> Vec<Allow> {
    let targets = targets(reader, pod).into_iter();
    let allow = |target: &Arc<TrafficTarget>| {
        let sources = sources(reader, target);
        let named = target.rules.iter().filter_map(|rule| match rule {
            Rule::Udp { route } => Some(route),
            _ => None,
        });
        let named: BTreeSet<&String> = named.collect();
        let routes = named
            .into_iter()
            .filter_map(|route| reader.udp_route(&target.metadata.namespace, route));
        let routes: Vec<&Ports> = routes.map(|route| &route.ports).collect();
        (!sources.is_empty() && !routes.is_empty()).then(|| Allow {
            object: object(target),
            sources,
            ports: within(
                reader,
                pod,
                target,
                union(reader, pod, routes, "UDP"),
                "UDP",
            ),
            traffic: Traffic::Any,
        })
    };
    targets.filter_map(allow).collect()
}

/// What one target allows; `None` if it allows nothing to anybody (D09: UDP stands alone, D15: no source or rule).
fn permission(reader: &Reader<'_>, pod: &Pod, target: &TrafficTarget) -> Option<Allow> {
    let sources = sources(reader, target);
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
    let routes = match is_tcp {
        true => union(reader, pod, tcp_routes(reader, target), "TCP"),
        false => Ports::Any,
    };
    Some(Allow {
        object: object(target),
        sources,
        ports: within(reader, pod, target, routes, "TCP"),
        // D07: that there are HTTP rules decides, not that they can be resolved.
        traffic: if is_http {
            Traffic::Http(requests(reader, target))
        } else {
            Traffic::Any
        },
    })
}

fn object(target: &TrafficTarget) -> String {
    format!(
        "TrafficTarget {}/{}",
        target.metadata.namespace, target.metadata.name
    )
}

/// The callers of a target. A binding that is missing is nobody (D07).
fn sources(reader: &Reader<'_>, target: &TrafficTarget) -> Vec<Source> {
    let source = |subject: &Subject| match subject {
        Subject::ServiceAccount { namespace, name } => {
            let identity = account_identity(reader, namespace, name);
            let anywhere = |identity| Source {
                identity,
                addresses: None,
            };
            identity.map(anywhere).into_iter().collect()
        }
        Subject::IdentityBinding { namespace, name } => reader
            .binding(namespace, name)
            .map(|binding| binding::sources(reader, binding))
            .unwrap_or_default(),
    };
    // Each once: a binding may be thousands of callers.
    let mut seen = HashSet::new();
    let each = target.sources.iter().filter(|one| seen.insert(*one));
    each.flat_map(source).collect()
}

/// The requests of all groups of a target.
fn requests(reader: &Reader<'_>, target: &TrafficTarget) -> Vec<HttpMatch> {
    let groups = target.rules.iter().filter_map(|rule| match rule {
        Rule::Http { group, matches } => Some((group.as_str(), matches.as_slice())),
        _ => None,
    });
    described(reader, &target.metadata.namespace, groups)
}

/// The ports of every TCPRoute of a target that exists.
fn tcp_routes<'a>(reader: &Reader<'a>, target: &TrafficTarget) -> Vec<&'a Ports> {
    let named = target.rules.iter().filter_map(|rule| match rule {
        Rule::Tcp { route } => Some(route),
        _ => None,
    });
    let named: BTreeSet<&String> = named.collect();
    let routes = named
        .into_iter()
        .filter_map(|route| reader.tcp_route(&target.metadata.namespace, route));
    routes.map(|route| &route.ports).collect()
}

/// The pod's ports of several routes together (D08).
fn union(reader: &Reader<'_>, pod: &Pod, routes: Vec<&Ports>, protocol: &str) -> Ports {
    let mut numbers = BTreeSet::<u16>::new();
    for ports in routes {
        match ports {
            Ports::Any => return Ports::Any,
            Ports::Only(ports) => numbers.extend(ports),
        }
    }
    let ports = numbers.into_iter();
    let union: BTreeSet<u16> = ports
        .flat_map(|port| pod_ports(reader, pod, port, protocol))
        .collect();
    Ports::Only(union.into_iter().collect())
}

/// Of these ports, those that `destination.port` leaves (D11).
fn within(
    reader: &Reader<'_>,
    pod: &Pod,
    target: &TrafficTarget,
    ports: Ports,
    protocol: &str,
) -> Ports {
    let Some(only) = target.destination.port else {
        return ports;
    };
    let only = pod_ports(reader, pod, only, protocol).into_iter();
    Ports::Only(only.filter(|port| ports.contains(*port)).collect())
}

/// The pod's ports that a number means (D10): what the Services of the pod translate it to; the number itself only where
/// no such Service has that port.
fn pod_ports(reader: &Reader<'_>, pod: &Pod, number: u16, protocol: &str) -> BTreeSet<u16> {
    let services = reader.services_of(pod);
    let exposed: Vec<_> = services
        .iter()
        .filter_map(|service| service_port_of(service, number, protocol))
        .collect();
    match exposed.is_empty() {
        true => BTreeSet::from([number]),
        false => exposed
            .into_iter()
            .filter_map(|port| target_of(port, pod, protocol))
            .collect(),
    }
}
