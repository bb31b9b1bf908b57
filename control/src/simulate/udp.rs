//! The caller's side of datagrams. No view exists of it, as proxies carry no UDP; the rules are those of TCP: splits without
//! conditions share the flows, a backend without that port takes no part.

use super::answer::{DecidedBy, Decision};
use super::ask::Talk;
use super::route::{Routed, Way, name_of};
use crate::manifest::k8s::Service;
use crate::views::ports::{service_port_of, target_of};
use crate::views::split::{by_age, is_external};
use crate::views::{endpoints, world::Reader};
use std::net::SocketAddr;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::Endpoint;

/// The way to a Service.
pub(super) fn to_service(
    talk: &mut Talk<'_>,
    service: &Service,
    number: u16,
) -> Result<Routed, Box<Decision>> {
    let meta = &service.metadata;
    if service_port_of(service, number, "UDP").is_none() {
        return Err(Decision::refuse(format!(
            "Service {}/{} has no UDP port {number}",
            meta.namespace, meta.name
        )));
    }
    let reader = talk.reader();
    let splits = by_age(reader.splits(&meta.namespace, &meta.name));
    let split = splits.iter().find(|split| split.matches.is_empty());
    let Some(split) = split.filter(|_| talk.caller.meshed) else {
        return Ok(Routed::new(
            Protocol::Detect,
            vec![way(reader, service, number, 1)],
        ));
    };
    let backends = split.backends.iter().filter_map(|one| {
        let backend = reader.service(&meta.namespace, &one.service)?;
        let takes_part = !is_external(backend) && service_port_of(backend, number, "UDP").is_some();
        takes_part.then(|| way(reader, backend, number, one.weight))
    });
    let object = format!("TrafficSplit {}/{}", meta.namespace, split.metadata.name);
    let mut routed = Routed::new(Protocol::Detect, backends.collect());
    routed.route = Some(DecidedBy::new(object, "every flow"));
    Ok(routed)
}

fn way(reader: &Reader<'_>, service: &Service, number: u16, weight: u64) -> Way {
    Way {
        name: Some(name_of(service, number)),
        weight,
        endpoints: members(reader, service, number),
    }
}

fn members(reader: &Reader<'_>, service: &Service, number: u16) -> Vec<Endpoint> {
    let Some(port) = service_port_of(service, number, "UDP") else {
        return vec![];
    };
    let pods = reader.pods_of(service).into_iter();
    let ready =
        pods.filter(|pod| pod.status.is_ready() || service.spec.publish_not_ready_addresses);
    ready
        .filter_map(|pod| {
            let ip = pod.status.ips().first().copied()?;
            let port = target_of(port, pod, "UDP")?;
            Some(endpoints::of_pod(reader, pod, SocketAddr::new(ip, port)))
        })
        .collect()
}
