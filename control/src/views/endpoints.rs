//! Endpoint sets: which pods serve one port of a Service.

use super::outbound::pod_at;
use super::pod::{self, identity_at, label};
use super::ports::{of_pod as pod_protocol, of_service, service_port, target};
use super::split::is_external;
use super::world::{Reader, cluster_ips};
use crate::manifest::k8s::{
    EndpointConditions, EndpointPort, EndpointSlice, Endpoints, ObjectReference, Service,
    ServicePort,
};
use crate::manifest::workload::Pod;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::Endpoint;

/// Longest name of a set that can mean something: two labels (RFC 1123) and a port.
pub const LONGEST_NAME: usize = 63 + 1 + 63 + 1 + 5;

/// The endpoints of the set `namespace/service:port`, by address. A name that means nothing is an empty set.
pub fn view(reader: &Reader<'_>, name: &str) -> Vec<Endpoint> {
    let Some((namespace, service, port)) = split_name(name) else {
        return vec![];
    };
    let Some(service) = reader
        .service(namespace, service)
        .filter(|service| !is_external(service))
    else {
        return vec![];
    };
    match service_port(service, port) {
        Some(port) => Set::new(reader, service, port).collect(),
        None => vec![],
    }
}

/// A pod as an endpoint, called by its own address.
pub fn of_pod(reader: &Reader<'_>, pod: &Pod, address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        identity: identity_at(reader, pod, address.port()),
        namespace: pod.metadata.namespace.clone(),
        pod: pod.metadata.name.clone(),
        workload: label(pod),
        zone: pod::zone(pod),
        weight: 1,
        protocol: pod_protocol(reader, pod, address.port()),
    }
}

fn split_name(name: &str) -> Option<(&str, &str, u16)> {
    let (service, port) = name.rsplit_once(':')?;
    let (namespace, service) = service.split_once('/')?;
    Some((namespace, service, port.parse().ok()?))
}

/// A set while it is collected.
struct Set<'a> {
    reader: &'a Reader<'a>,
    service: &'a Service,
    port: &'a ServicePort,
    protocol: Protocol,
    found: BTreeMap<SocketAddr, Endpoint>,
}

impl<'a> Set<'a> {
    fn new(reader: &'a Reader<'a>, service: &'a Service, port: &'a ServicePort) -> Self {
        let protocol = of_service(reader, service, port);
        Self {
            reader,
            service,
            port,
            protocol,
            found: BTreeMap::new(),
        }
    }

    /// From EndpointSlices where there are any, or the old form; else from the pods themselves.
    fn collect(mut self) -> Vec<Endpoint> {
        let meta = &self.service.metadata;
        let slices = self.reader.slices(&meta.namespace, &meta.name);
        match self.reader.endpoints(&meta.namespace, &meta.name) {
            _ if !slices.is_empty() => self.add_slices(&slices),
            Some(endpoints) => self.add_endpoints(endpoints),
            None => self.add_pods(),
        }
        self.found.into_values().collect()
    }

    /// Those that are ready; where none is, those that still serve while they end, as Kubernetes itself does (KEP-1669): a
    /// Service whose pods are all replaced at once is not without endpoints.
    fn add_slices(&mut self, slices: &[&'a Arc<EndpointSlice>]) {
        // An endpoint that says nothing about being ready is ready.
        let ready = |is: &EndpointConditions| is.ready != Some(false);
        let ending = |is: &EndpointConditions| {
            is.terminating == Some(true) && is.serving == Some(true) && is.ready == Some(false)
        };
        slices.iter().for_each(|slice| self.add_slice(slice, ready));
        if self.found.is_empty() {
            slices
                .iter()
                .for_each(|slice| self.add_slice(slice, ending));
        }
    }

    fn add_slice(&mut self, slice: &EndpointSlice, wanted: impl Fn(&EndpointConditions) -> bool) {
        let endpoints = slice.endpoints.iter();
        for endpoint in endpoints.filter(|endpoint| wanted(&endpoint.conditions)) {
            for port in self.ports(&slice.ports) {
                // Several addresses are the same endpoint several times.
                let address = endpoint.addresses.iter().find_map(|text| text.parse().ok());
                self.add_address(
                    address,
                    port,
                    endpoint.target_ref.as_ref(),
                    endpoint.zone.as_deref(),
                );
            }
        }
    }

    fn add_endpoints(&mut self, endpoints: &Endpoints) {
        for subset in &endpoints.subsets {
            for port in self.ports(&subset.ports) {
                for address in &subset.addresses {
                    self.add_address(
                        address.ip.parse().ok(),
                        port,
                        address.target_ref.as_ref(),
                        None,
                    );
                }
            }
        }
    }

    /// The ports of a list that belong to the Service's port: those of the same name.
    fn ports(&self, ports: &[EndpointPort]) -> Vec<u16> {
        let name = self.port.name.as_deref().unwrap_or_default();
        let same = ports
            .iter()
            .filter(|port| port.name.as_deref().unwrap_or_default() == name);
        let tcp = same.filter(|port| pod::is_tcp(port.protocol.as_deref()));
        tcp.filter_map(|port| port.port)
            .filter(|port| *port > 0)
            .collect()
    }

    fn add_address(
        &mut self,
        ip: Option<IpAddr>,
        port: u16,
        target: Option<&ObjectReference>,
        zone: Option<&str>,
    ) {
        let Some(ip) = ip else { return };
        let mut endpoint = match self.pod_of(ip, target) {
            Some(pod) => of_pod(self.reader, pod, SocketAddr::new(ip, port)),
            None => self.stranger(SocketAddr::new(ip, port)),
        };
        if let Some(zone) = zone {
            endpoint.zone = zone.to_owned();
        }
        self.add(endpoint);
    }

    /// The pod an address belongs to: the one referred to if it really has that address, else who has it.
    fn pod_of(&self, ip: IpAddr, target: Option<&ObjectReference>) -> Option<&'a Pod> {
        let referred = target
            .filter(|target| target.kind == "Pod")
            .and_then(|target| {
                let own = self.service.metadata.namespace.as_str();
                let namespace = if target.namespace.is_empty() {
                    own
                } else {
                    &target.namespace
                };
                self.reader.pod(namespace, &target.name)
            });
        let referred = referred.filter(|pod| pod.status.ips().contains(&ip));
        let holder = || pod_at(self.reader, ip);
        referred.map(AsRef::as_ref).or_else(holder)
    }

    fn stranger(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            identity: None,
            namespace: self.service.metadata.namespace.clone(),
            pod: String::new(),
            workload: String::new(),
            zone: String::new(),
            weight: 1,
            protocol: Protocol::Detect,
        }
    }

    fn add_pods(&mut self) {
        let wants_all = self.service.spec.publish_not_ready_addresses;
        for pod in self.reader.pods_of(self.service) {
            let serves =
                (pod.status.is_ready() || wants_all) && pod.metadata.deletion_timestamp.is_none();
            if let (true, Some(ip), Some(port)) =
                (serves, self.address(pod), target(self.port, pod))
            {
                self.add(of_pod(self.reader, pod, SocketAddr::new(ip, port)));
            }
        }
    }

    /// The pod's address of the family of the Service; a headless one takes the first.
    fn address(&self, pod: &Pod) -> Option<IpAddr> {
        let ips = pod.status.ips();
        let family = cluster_ips(self.service).next();
        let same = ips
            .iter()
            .find(|ip| family.is_none_or(|family| family.is_ipv4() == ip.is_ipv4()));
        same.or(ips.first()).copied()
    }

    /// What the Service declares goes before the name of a container port, but not before what the pod calls opaque.
    fn add(&mut self, mut endpoint: Endpoint) {
        if self.protocol != Protocol::Detect && endpoint.protocol != Protocol::Opaque {
            endpoint.protocol = self.protocol;
        }
        self.found.entry(endpoint.address).or_insert(endpoint);
    }
}
