//! Checked values to protobuf.

mod settings;
mod strings;

pub use strings::Strings;

use super::{Body, Item, Resource, Trust, generated as pb};
use crate::policy::inbound::{Allow, Inbound, Ports, Probe, Source, Traffic};
use crate::policy::matching::{HeaderMatch, HttpMatch, TextMatch};
use crate::policy::outbound::{Backend, Endpoint, Outbound, Route, Service};
use crate::policy::{Access, MetricsTier, Protocol};
use prost::Message;
use std::net::{IpAddr, SocketAddr};

/// A response with every string interned once.
pub fn response(items: &[Item]) -> pb::SyncResponse {
    let mut strings = Strings::default();
    let items = items.iter().map(|item| strings.item(item)).collect();
    pb::SyncResponse {
        strings: strings.into_list(),
        items,
    }
}

/// A subscription's resource.
pub fn resource(resource: &Resource) -> pb::Resource {
    use pb::resource::Key;
    let key = match resource {
        Resource::Inbound => Key::Inbound(pb::InboundKey {}),
        Resource::Outbound(address) => Key::Outbound(socket(*address)),
        Resource::Endpoints(name) => Key::Endpoints(name.clone()),
        Resource::Trust => Key::Trust(pb::TrustKey {}),
    };
    pb::Resource { key: Some(key) }
}

/// The version of a body: a hash of its encoded content that is the same in every process and build; never 0.
/// For `Body::Delta` and `Body::Unchanged` there is none of their own (they carry that of the whole set): returns 0.
pub fn version(body: &Body) -> u64 {
    if matches!(body, Body::Unchanged | Body::Delta { .. }) {
        return 0;
    }
    let mut strings = Strings::default();
    let body = strings.body(body);
    let items = vec![pb::Item {
        id: 0,
        version: 0,
        body: Some(body),
    }];
    fnv1a(
        &pb::SyncResponse {
            strings: strings.into_list(),
            items,
        }
        .encode_to_vec(),
    )
    .max(1)
}

/// FNV-1a: the standard library's hashers promise nothing between two builds.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn socket(address: SocketAddr) -> pb::Socket {
    pb::Socket {
        ip: ip(address.ip()),
        port: address.port().into(),
    }
}

fn ip(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn access(access: Access) -> i32 {
    let access = match access {
        Access::Strict => pb::Access::Strict,
        Access::Permissive => pb::Access::Permissive,
        Access::Audit => pb::Access::Audit,
    };
    access.into()
}

/// As the wire calls it.
pub fn metrics_tier(tier: MetricsTier) -> i32 {
    let tier = match tier {
        MetricsTier::Edges => pb::MetricsTier::Edges,
        MetricsTier::Routes => pb::MetricsTier::Routes,
        MetricsTier::Endpoints => pb::MetricsTier::Endpoints,
    };
    tier.into()
}

fn protocol(protocol: Protocol) -> i32 {
    let protocol = match protocol {
        Protocol::Detect => pb::Protocol::Detect,
        Protocol::Http1 => pb::Protocol::Http1,
        Protocol::Http2 => pb::Protocol::Http2,
        Protocol::Grpc => pb::Protocol::Grpc,
        Protocol::Tls => pb::Protocol::Tls,
        Protocol::Opaque => pb::Protocol::Opaque,
    };
    protocol.into()
}

impl Strings {
    fn item(&mut self, item: &Item) -> pb::Item {
        pb::Item {
            id: item.id,
            version: item.version,
            body: Some(self.body(&item.body)),
        }
    }

    fn body(&mut self, body: &Body) -> pb::item::Body {
        match body {
            Body::Unchanged => pb::item::Body::Unchanged(pb::Unchanged {}),
            Body::Inbound(inbound) => pb::item::Body::Inbound(self.inbound(inbound)),
            Body::Outbound(outbound) => pb::item::Body::Outbound(self.outbound(outbound)),
            Body::Endpoints(endpoints) => pb::item::Body::Endpoints(pb::EndpointSet {
                endpoints: self.endpoints(endpoints),
            }),
            Body::Delta {
                base,
                upsert,
                remove,
            } => pb::item::Body::Delta(pb::EndpointDelta {
                base: *base,
                upsert: self.endpoints(upsert),
                remove: remove.iter().copied().map(socket).collect(),
            }),
            Body::Trust(trust) => pb::item::Body::Trust(self.trust(trust)),
        }
    }

    fn trust(&mut self, trust: &Trust) -> pb::Trust {
        pb::Trust {
            roots: trust.roots.clone(),
            trust_domain_ref: self.intern(&trust.domain),
        }
    }

    fn inbound(&mut self, inbound: &Inbound) -> pb::Inbound {
        let ports = inbound.ports.iter();
        pb::Inbound {
            workload_ref: self.intern(&inbound.workload),
            access: access(inbound.access),
            ports: ports
                .map(|(port, p)| pb::InboundPort {
                    port: (*port).into(),
                    protocol: protocol(*p),
                })
                .collect(),
            allow: inbound
                .allow
                .iter()
                .map(|allow| self.allow(allow))
                .collect(),
            probes: inbound
                .probes
                .iter()
                .map(|probe| self.probe(probe))
                .collect(),
            rate_limits: inbound
                .rate_limits
                .iter()
                .map(|limit| self.rate_limit(limit))
                .collect(),
            access_from_ref: self.optional(&inbound.access_from),
            explain_denials: inbound.explain_denials,
            metrics: metrics_tier(inbound.metrics),
        }
    }

    fn allow(&mut self, allow: &Allow) -> pb::Allow {
        let (any_port, ports) = match &allow.ports {
            Ports::Any => (true, vec![]),
            Ports::Only(ports) => (false, ports.iter().copied().map(u32::from).collect()),
        };
        let (http_only, requests) = match &allow.traffic {
            Traffic::Any => (false, vec![]),
            Traffic::Http(matches) => (true, self.matches(matches)),
        };
        pb::Allow {
            object_ref: self.intern(&allow.object),
            sources: allow
                .sources
                .iter()
                .map(|source| self.source(source))
                .collect(),
            any_port,
            ports,
            http_only,
            requests,
        }
    }

    fn source(&mut self, source: &Source) -> pb::Source {
        pb::Source {
            identity_ref: self.intern(source.identity.as_str()),
            any_address: source.addresses.is_none(),
            addresses: source.addresses.iter().flatten().copied().map(ip).collect(),
        }
    }

    fn probe(&mut self, probe: &Probe) -> pb::Probe {
        let path_ref = probe.path.as_deref().map_or(0, |path| self.intern(path));
        pb::Probe {
            port: probe.port.into(),
            path_ref,
        }
    }

    fn matches(&mut self, matches: &[HttpMatch]) -> Vec<pb::HttpMatch> {
        matches.iter().map(|m| self.http_match(m)).collect()
    }

    fn http_match(&mut self, m: &HttpMatch) -> pb::HttpMatch {
        pb::HttpMatch {
            object_ref: self.intern(&m.object),
            name_ref: self.intern(&m.name),
            path: m.path.as_ref().map(|path| self.text_match(path)),
            method_refs: m.methods.iter().map(|method| self.intern(method)).collect(),
            headers: m.headers.iter().map(|header| self.header(header)).collect(),
        }
    }

    fn header(&mut self, header: &HeaderMatch) -> pb::HeaderMatch {
        let name_ref = self.intern(&header.name);
        pb::HeaderMatch {
            name_ref,
            value: Some(self.text_match(&header.value)),
        }
    }

    fn text_match(&mut self, text: &TextMatch) -> pb::TextMatch {
        use pb::text_match::Kind;
        let (kind, text) = match text {
            TextMatch::Exact(text) => (Kind::Exact, text.as_str()),
            TextMatch::Prefix(text) => (Kind::Prefix, text.as_str()),
            TextMatch::RegexPrefix(pattern) => (Kind::RegexPrefix, pattern.source()),
            TextMatch::RegexFull(pattern) => (Kind::RegexFull, pattern.source()),
        };
        pb::TextMatch {
            kind: kind.into(),
            text_ref: self.intern(text),
        }
    }

    fn outbound(&mut self, outbound: &Outbound) -> pb::Outbound {
        use pb::outbound::Kind;
        let kind = match outbound {
            Outbound::Service(service) => Kind::Service(self.service(service)),
            Outbound::Endpoint(endpoint) => Kind::Endpoint(self.endpoint(endpoint)),
            Outbound::PassThrough => Kind::PassThrough(pb::PassThrough {}),
            Outbound::Refused { reason } => Kind::Refused(pb::Refused {
                reason_ref: self.intern(reason),
            }),
        };
        pb::Outbound { kind: Some(kind) }
    }

    fn service(&mut self, service: &Service) -> pb::Service {
        pb::Service {
            namespace_ref: self.intern(&service.name.namespace),
            name_ref: self.intern(&service.name.name),
            port: service.name.port.into(),
            protocol: protocol(service.protocol),
            routes: service
                .routes
                .iter()
                .map(|route| self.route(route))
                .collect(),
            settings: self.settings(&service.settings),
        }
    }

    fn route(&mut self, route: &Route) -> pb::Route {
        pb::Route {
            object_ref: route
                .object
                .as_deref()
                .map_or(0, |object| self.intern(object)),
            matches: self.matches(&route.matches),
            backends: route
                .backends
                .iter()
                .map(|backend| self.backend(backend))
                .collect(),
        }
    }

    fn backend(&mut self, backend: &Backend) -> pb::Backend {
        pb::Backend {
            namespace_ref: self.intern(&backend.name.namespace),
            name_ref: self.intern(&backend.name.name),
            port: backend.name.port.into(),
            weight: backend.weight,
            endpoints_ref: self.intern(&backend.endpoints),
        }
    }

    fn endpoints(&mut self, endpoints: &[Endpoint]) -> Vec<pb::Endpoint> {
        endpoints
            .iter()
            .map(|endpoint| self.endpoint(endpoint))
            .collect()
    }

    fn endpoint(&mut self, endpoint: &Endpoint) -> pb::Endpoint {
        let identity = endpoint.identity.as_ref();
        pb::Endpoint {
            address: Some(socket(endpoint.address)),
            identity_ref: identity.map_or(0, |identity| self.intern(identity.as_str())),
            namespace_ref: self.optional(&endpoint.namespace),
            pod_ref: self.optional(&endpoint.pod),
            workload_ref: self.optional(&endpoint.workload),
            zone_ref: self.optional(&endpoint.zone),
            weight: endpoint.weight,
            protocol: protocol(endpoint.protocol),
        }
    }
}
