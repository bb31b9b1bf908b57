//! TrafficSplits: which Services share the requests to one.

use super::ports::service_port;
use super::requests::described;
use super::world::Reader;
use crate::manifest::k8s::Service;
use crate::smi::split::TrafficSplit;
use std::sync::Arc;
use weft_proxy_api::policy::ServicePort;
use weft_proxy_api::policy::matching::HttpMatch;
use weft_proxy_api::policy::outbound::{Backend, Route};

/// The routes of one port of a Service (D25, D26): conditional splits, oldest first; then the oldest unconditional one,
/// or else the Service's own endpoints.
pub fn routes(reader: &Reader<'_>, root: &Service, port: u16) -> Vec<Route> {
    let splits = by_age(reader.splits(&root.metadata.namespace, &root.metadata.name));
    let conditional = splits.iter().filter(|split| !split.matches.is_empty());
    let mut routes: Vec<Route> = conditional
        .map(|split| route(reader, split, requests(reader, split), port))
        // D27: without a group that describes anything it would fit everything.
        .filter(|route| !route.matches.is_empty())
        .collect();
    let rest = splits.iter().find(|split| split.matches.is_empty());
    routes.push(match rest {
        Some(split) => route(reader, split, vec![], port),
        None => own(root, port),
    });
    routes
}

/// Oldest first (D25). An object from a file has no time and counts as new; then the name decides.
pub fn by_age(mut splits: Vec<&Arc<TrafficSplit>>) -> Vec<&Arc<TrafficSplit>> {
    splits.sort_by_key(|split| {
        let time = split.metadata.creation_timestamp;
        (time.is_none(), time, &split.metadata.name)
    });
    splits
}

/// Does its name lead out of the mesh (D32)?
pub fn is_external(service: &Service) -> bool {
    service.spec.type_.as_deref() == Some("ExternalName")
}

/// The Service a backend means on this port; `None`: missing (D20), external (D32), or without that port (D22).
pub fn backend<'a>(
    reader: &Reader<'a>,
    namespace: &str,
    name: &str,
    port: u16,
) -> Option<&'a Service> {
    let service = reader.service(namespace, name)?;
    (!is_external(service) && service_port(service, port).is_some()).then_some(service)
}

fn route(reader: &Reader<'_>, split: &TrafficSplit, matches: Vec<HttpMatch>, port: u16) -> Route {
    let namespace = &split.metadata.namespace;
    let eligible = split
        .backends
        .iter()
        .filter(|b| backend(reader, namespace, &b.service, port).is_some());
    Route {
        object: Some(format!("TrafficSplit {namespace}/{}", split.metadata.name)),
        matches,
        backends: eligible
            .map(|b| leaf(namespace, &b.service, port, b.weight))
            .collect(),
    }
}

/// A backend is always its own endpoints, even if it is the root (D23) or the root of another split (D24).
fn leaf(namespace: &str, name: &str, port: u16, weight: u64) -> Backend {
    let name = ServicePort {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port,
    };
    Backend {
        endpoints: name.to_string(),
        name,
        weight,
    }
}

fn own(root: &Service, port: u16) -> Route {
    let backends = vec![leaf(&root.metadata.namespace, &root.metadata.name, port, 1)];
    Route {
        object: None,
        matches: vec![],
        backends,
    }
}

fn requests(reader: &Reader<'_>, split: &TrafficSplit) -> Vec<HttpMatch> {
    let groups = split.matches.iter();
    let groups = groups.map(|name| (name.as_str(), <&[String]>::default()));
    described(reader, &split.metadata.namespace, groups)
}
