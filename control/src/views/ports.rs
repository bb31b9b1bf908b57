//! What ports are declared to speak, and which port of a pod a Service's port means.

use super::pod::{app_containers, is_protocol, is_tcp, port_of};
use super::world::Reader;
use crate::manifest::k8s::{IntOrString, Labels, Service, ServicePort};
use crate::manifest::workload::Pod;
use std::collections::BTreeMap;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::Protocol;

/// Ports as an annotation lists them: `25,3306,4000-4010`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// The ports of a list, each once however often it is listed; what is not a port or a range of ports is passed by.
    pub fn parse(list: &str) -> Self {
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
        };
        let mut listed: Vec<(u16, u16)> = list.split(',').filter_map(range).collect();
        listed.sort_unstable();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (first, last) in listed {
            match ranges.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }

    /// Is `port` listed?
    pub fn contains(&self, port: u16) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// The port of a Service with this number, if it is TCP.
pub fn service_port(service: &Service, number: u16) -> Option<&ServicePort> {
    service_port_of(service, number, "TCP")
}

/// The port of a Service with this number and protocol of layer 4.
pub fn service_port_of<'a>(
    service: &'a Service,
    number: u16,
    protocol: &str,
) -> Option<&'a ServicePort> {
    let mut ports = service.spec.ports.iter();
    ports.find(|port| {
        port.port == number && number > 0 && is_protocol(port.protocol.as_deref(), protocol)
    })
}

/// The port of `pod` that a Service's port means; `None`: the pod has no container port of that name.
pub fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    target_of(port, pod, "TCP")
}

/// As [`target`], for a protocol of layer 4.
pub fn target_of(port: &ServicePort, pod: &Pod, protocol: &str) -> Option<u16> {
    let same = IntOrString::Int(port.port.into());
    let wanted = port.target_port.as_ref().unwrap_or(&same);
    port_of(app_containers(pod), wanted, protocol)
}

/// What a Service's port is declared to speak: the opaque annotation, then appProtocol, then its name.
pub fn of_service(reader: &Reader<'_>, service: &Service, port: &ServicePort) -> Protocol {
    if opaque(
        reader,
        &service.metadata.annotations,
        &service.metadata.namespace,
    )
    .contains(port.port)
    {
        return Protocol::Opaque;
    }
    declared_by(port)
}

/// What the pod itself says about one of its ports.
pub fn of_pod(reader: &Reader<'_>, pod: &Pod, port: u16) -> Protocol {
    if opaque(reader, &pod.metadata.annotations, &pod.metadata.namespace).contains(port) {
        return Protocol::Opaque;
    }
    let named = container_ports(pod).find(|(number, _)| *number == port);
    named.map_or(Protocol::Detect, |(_, protocol)| protocol)
}

/// What every declared port of a pod speaks: its own annotation (or its namespace's) before the Services that select it
/// (the first by name that says anything), and those before the names of container ports.
pub fn of_workload(reader: &Reader<'_>, pod: &Pod) -> Vec<(u16, Protocol)> {
    let opaque = opaque(reader, &pod.metadata.annotations, &pod.metadata.namespace);
    let services = reader
        .services_of(pod)
        .into_iter()
        .flat_map(|service| declared_for(service, pod));
    let all = opaque
        .iter()
        .map(|port| (port, Protocol::Opaque))
        .chain(services)
        .chain(container_ports(pod));
    let mut ports = BTreeMap::new();
    for (port, protocol) in all.filter(|(_, protocol)| *protocol != Protocol::Detect) {
        ports.entry(port).or_insert(protocol);
    }
    ports.into_iter().collect()
}

fn declared_for<'a>(
    service: &'a Service,
    pod: &'a Pod,
) -> impl Iterator<Item = (u16, Protocol)> + use<'a> {
    let opaque = PortSet::parse(
        service
            .metadata
            .annotations
            .get(keys::OPAQUE_PORTS)
            .map_or("", |list| list),
    );
    let tcp = service
        .spec
        .ports
        .iter()
        .filter(|port| is_tcp(port.protocol.as_deref()));
    tcp.filter_map(move |port| {
        let protocol = if opaque.contains(port.port) {
            Protocol::Opaque
        } else {
            declared_by(port)
        };
        Some((target(port, pod)?, protocol))
    })
}

fn container_ports(pod: &Pod) -> impl Iterator<Item = (u16, Protocol)> {
    let ports = app_containers(pod).flat_map(|container| &container.ports);
    ports
        .filter(|port| is_tcp(port.protocol.as_deref()) && port.container_port > 0)
        .map(|port| {
            (
                port.container_port,
                by_name(port.name.as_deref().unwrap_or_default()),
            )
        })
}

/// The ports an object's annotation calls opaque; the namespace's where it has none.
fn opaque(reader: &Reader<'_>, annotations: &Labels, namespace: &str) -> PortSet {
    let own = annotations.get(keys::OPAQUE_PORTS);
    let of_namespace = || {
        reader
            .namespace(namespace)?
            .metadata
            .annotations
            .get(keys::OPAQUE_PORTS)
    };
    own.or_else(of_namespace)
        .map_or_else(PortSet::default, |list| PortSet::parse(list))
}

fn declared_by(port: &ServicePort) -> Protocol {
    match port.app_protocol.as_deref() {
        Some(protocol) => by_app_protocol(protocol),
        None => by_name(port.name.as_deref().unwrap_or_default()),
    }
}

/// `appProtocol`: what Kubernetes and the other meshes write. A protocol that is none of ours is looked at.
fn by_app_protocol(protocol: &str) -> Protocol {
    match protocol.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" | "ws" | "kubernetes.io/ws" => Protocol::Http1,
        "http2" | "h2c" | "kubernetes.io/h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" | "wss" | "kubernetes.io/wss" => Protocol::Tls,
        "tcp" | "mysql" | "postgres" | "postgresql" | "redis" | "mongo" | "smtp"
        | "linkerd.io/opaque" => Protocol::Opaque,
        _ => Protocol::Detect,
    }
}

/// `http`, `http-…`, and so on; `httpbin` is only a name.
fn by_name(name: &str) -> Protocol {
    match name.split('-').next().unwrap_or_default() {
        "http" => Protocol::Http1,
        "http2" | "h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" => Protocol::Opaque,
        _ => Protocol::Detect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_once_and_what_is_none_is_passed_by() {
        let table: [(&str, &[u16]); 6] = [
            ("", &[]),
            ("25, 3306", &[25, 3306]),
            ("3306,25,25", &[25, 3306]),
            ("4000-4002,4001-4003,4003,5", &[5, 4000, 4001, 4002, 4003]),
            ("9-7,0,x,70000,1-x,80", &[80]),
            ("1-3,2", &[1, 2, 3]),
        ];
        for (list, ports) in table {
            let set = PortSet::parse(list);
            assert_eq!(set.iter().collect::<Vec<_>>(), ports, "{list}");
            assert!(ports.iter().all(|port| set.contains(*port)), "{list}");
            assert!(!set.contains(81) && !set.contains(0), "{list}");
        }
        let all = PortSet::parse(&"1-65535,".repeat(1_000));
        assert_eq!(all.iter().count(), 65_535);
    }
}
