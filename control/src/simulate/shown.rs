//! The policy that proxies have, as JSON for people and programs: short names, words as SMI has them.

use serde_json::{Map, Value, json};
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::inbound::{Allow, Inbound, Ports, Source, Traffic};
use weft_proxy_api::policy::matching::{HttpMatch, TextMatch};
use weft_proxy_api::policy::outbound::{Endpoint, Outbound, Route, Service};

use super::answer::share;

/// The policy of a pod.
pub fn inbound(inbound: &Inbound) -> Value {
    let ports = inbound.ports.iter();
    let ports: Map<String, Value> = ports
        .map(|(port, speaks)| (port.to_string(), protocol(*speaks).into()))
        .collect();
    let probes = inbound.probes.iter().map(|probe| match &probe.path {
        Some(path) => format!("{path} on port {}", probe.port),
        None => format!("a connection to port {}", probe.port),
    });
    json!({
        "workload": inbound.workload,
        "access": inbound.access.to_string(),
        "ports": ports,
        "allow": inbound.allow.iter().map(allow).collect::<Vec<_>>(),
        "probes": probes.collect::<Vec<_>>(),
    })
}

/// One permission.
pub fn allow(allow: &Allow) -> Value {
    let traffic = match &allow.traffic {
        Traffic::Any => json!("any"),
        Traffic::Http(matches) => matches.iter().map(http).collect(),
    };
    json!({
        "object": allow.object,
        "sources": allow.sources.iter().map(source).collect::<Vec<_>>(),
        "ports": ports(&allow.ports),
        "traffic": traffic,
    })
}

fn source(source: &Source) -> Value {
    match &source.addresses {
        None => json!(source.identity.as_str()),
        Some(addresses) => json!({ "identity": source.identity.as_str(), "addresses": addresses }),
    }
}

/// A set of ports.
pub fn ports(ports: &Ports) -> Value {
    match ports {
        Ports::Any => json!("any"),
        Ports::Only(ports) => json!(ports),
    }
}

/// One match.
pub fn http(one: &HttpMatch) -> Value {
    let mut map = Map::new();
    map.insert(
        "match".to_owned(),
        format!("{}, {}", one.object, one.name).into(),
    );
    if !one.methods.is_empty() {
        map.insert("methods".to_owned(), json!(one.methods));
    }
    if let Some(path) = &one.path {
        map.insert("path".to_owned(), text(path));
    }
    let headers: Map<String, Value> = one
        .headers
        .iter()
        .map(|header| (header.name.clone(), text(&header.value)))
        .collect();
    if !headers.is_empty() {
        map.insert("headers".to_owned(), headers.into());
    }
    map.into()
}

/// How a text is compared.
pub fn text(text: &TextMatch) -> Value {
    match text {
        TextMatch::Exact(text) => json!({ "exact": text }),
        TextMatch::Prefix(text) => json!({ "prefix": text }),
        TextMatch::RegexPrefix(pattern) => json!({ "startsAs": pattern.source() }),
        TextMatch::RegexFull(pattern) => json!({ "wholly": pattern.source() }),
    }
}

/// Where an address leads.
pub fn outbound(outbound: &Outbound) -> Value {
    match outbound {
        Outbound::Service(it) => service(it),
        Outbound::Endpoint(it) => json!({ "endpoint": endpoint(it) }),
        Outbound::PassThrough => json!("passthrough"),
        Outbound::Refused { reason } => json!({ "refused": reason }),
    }
}

/// A Service and its routes.
pub fn service(service: &Service) -> Value {
    json!({
        "service": service.name.to_string(),
        "protocol": protocol(service.protocol),
        "routes": service.routes.iter().map(route).collect::<Vec<_>>(),
    })
}

fn route(route: &Route) -> Value {
    let total: u128 = route.backends.iter().map(|it| u128::from(it.weight)).sum();
    let backend = |it: &weft_proxy_api::policy::outbound::Backend| json!({ "service": it.name.to_string(), "weight": it.weight, "share": share(it.weight, total) });
    json!({
        "object": route.object,
        "matches": match route.matches.is_empty() {
            true => json!("any"),
            false => route.matches.iter().map(http).collect(),
        },
        "backends": route.backends.iter().map(backend).collect::<Vec<_>>(),
    })
}

/// A place that serves.
pub fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "pod": format!("{}/{}", endpoint.namespace, endpoint.pod),
        "port": endpoint.address.port(),
        "identity": endpoint.identity.as_ref().map(|id| id.as_str()),
    })
}

/// As appProtocol has it.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "detect",
        Protocol::Http1 => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tls => "tls",
        Protocol::Opaque => "tcp",
    }
}
