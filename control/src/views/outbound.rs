//! Where an address leads: to a Service and its routes, to a pod, or out of the mesh.

use super::world::Reader;
use super::{endpoints, pod, policy, ports, split};
use crate::manifest::k8s::Service as Manifest;
use crate::manifest::workload::Pod;
use std::net::SocketAddr;
use weft_proxy_api::policy::ServicePort;
use weft_proxy_api::policy::outbound::{Outbound, Service};

/// Where `address` leads. A Service goes before a pod of the same address.
pub fn view(reader: &Reader<'_>, address: SocketAddr) -> Outbound {
    let ip = address.ip().to_canonical();
    if let Some(service) = reader
        .services_at(ip)
        .find(|service| !split::is_external(service))
    {
        return of_service(reader, service, address.port());
    }
    match pod_at(reader, ip) {
        Some(pod) => Outbound::Endpoint(endpoints::of_pod(
            reader,
            pod,
            SocketAddr::new(ip, address.port()),
        )),
        None => Outbound::PassThrough,
    }
}

fn of_service(reader: &Reader<'_>, service: &Manifest, number: u16) -> Outbound {
    let meta = &service.metadata;
    let Some(port) = ports::service_port(service, number) else {
        let reason = format!(
            "Service {}/{} has no TCP port {number}",
            meta.namespace, meta.name
        );
        return Outbound::Refused { reason };
    };
    Outbound::Service(Service {
        name: ServicePort {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            port: number,
        },
        protocol: ports::of_service(reader, service, port),
        routes: split::routes(reader, service, number),
        settings: Box::new(policy::settings(reader, service, number)),
    })
}

/// The pod with this address. Addresses are used again: one that is on its way out gives way.
pub(super) fn pod_at<'a>(reader: &Reader<'a>, ip: std::net::IpAddr) -> Option<&'a Pod> {
    let pods = reader.pods_at(ip).filter(|pod| pod::is_reachable(pod));
    pods.map(AsRef::as_ref)
        .min_by_key(|pod: &&Pod| pod.metadata.deletion_timestamp.is_some())
}
