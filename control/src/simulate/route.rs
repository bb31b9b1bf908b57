//! The caller's side: where a request is sent, by which route, with which shares.

use super::answer::{DecidedBy, Decision, NotApplied, Verdict};
use super::applies;
use super::ask::Talk;
use super::judge::refused;
use super::question::{Port, Protocol as Spoken};
use super::sent::Request;
use super::udp;
use super::why;
use crate::manifest::k8s::Service as Manifest;
use crate::manifest::workload::Pod;
use crate::views::ports::service_port;
use crate::views::world::cluster_ips;
use crate::views::{ViewKey, endpoints, pod, split};
use std::net::SocketAddr;
use weft_proxy_api::errors::ErrorKind;
use weft_proxy_api::policy::outbound::{Endpoint, Outbound, Route, Service};
use weft_proxy_api::policy::{Protocol, ServicePort};
use weft_proxy_api::wire::Body;

/// Where a request may go.
pub(super) struct Routed {
    /// What chose the backends.
    pub(super) route: Option<DecidedBy>,
    /// Choices with their weights.
    pub(super) ways: Vec<Way>,
    /// The caller's proxy hands bytes on, whatever they are.
    pub(super) bytes: bool,
    /// The caller's proxy takes nothing but HTTP.
    pub(super) http_only: bool,
    /// Asked in place of a backend that has no endpoint.
    pub(super) fallback: Option<Way>,
}

/// One choice.
pub(super) struct Way {
    /// The Service; `None`: a pod called by its own address.
    pub(super) name: Option<ServicePort>,
    pub(super) weight: u64,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Routed {
    pub(super) fn new(declared: Protocol, ways: Vec<Way>) -> Self {
        Self {
            route: None,
            ways,
            bytes: matches!(declared, Protocol::Opaque | Protocol::Tls),
            http_only: matches!(declared, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc),
            fallback: None,
        }
    }

    /// Who is asked in place of this choice, as it has nobody.
    pub(super) fn instead_of(&self, way: &Way) -> Option<&Way> {
        let fallback = self.fallback.as_ref()?;
        let is_other = fallback.name != way.name && !fallback.endpoints.is_empty();
        (way.endpoints.is_empty() && is_other).then_some(fallback)
    }
}

/// The way to a Service; the error is the mesh's own answer.
pub(super) fn to_service(
    talk: &mut Talk<'_>,
    namespace: &str,
    name: &str,
    port: &Port,
) -> Result<Routed, Box<Decision>> {
    let reader = talk.reader();
    let Some(service) = reader.service(namespace, name) else {
        let why = format!("there is no Service {namespace}/{name}: its name resolves nowhere");
        return Err(Decision::refuse(why));
    };
    let number = number(service, port)?;
    if split::is_external(service) {
        return Err(outside(service));
    }
    if talk.question.protocol == Spoken::Udp {
        return udp::to_service(talk, service, number);
    }
    if cluster_ips(service).next().is_none() {
        return headless(talk, service, number);
    }
    if !talk.caller.meshed {
        return without_proxy(talk, service, number);
    }
    let address = cluster_ips(service)
        .next()
        .map(|ip| SocketAddr::new(ip, number));
    let outbound = address.map(|address| talk.view(ViewKey::Outbound(address)));
    match outbound {
        Some(Ok(Body::Outbound(Outbound::Service(service)))) => follow(talk, &service),
        Some(Ok(Body::Outbound(Outbound::Refused { reason }))) => {
            Err(refused(ErrorKind::RefusedTarget, reason))
        }
        Some(Err(why)) => Err(Decision::refuse(why)),
        _ => Err(Decision::refuse("this address leads nowhere".to_owned())),
    }
}

/// The way to a pod by its own address.
pub(super) fn to_pod(
    talk: &mut Talk<'_>,
    namespace: &str,
    name: &str,
    port: &Port,
) -> Result<Routed, Box<Decision>> {
    let Some(found) = talk.pod(namespace, name) else {
        let why = format!("there is no Pod {namespace}/{name}");
        return Err(Decision::refuse(why));
    };
    let Some(ip) = found.status.ips().first().copied() else {
        return Err(Decision::refuse(format!(
            "Pod {namespace}/{name} has no address"
        )));
    };
    if !pod::is_reachable(found) {
        let why = "it has the network of its node, or has ended: no proxy stands before it";
        return Err(passthrough(
            format!("Pod {namespace}/{name}"),
            why.to_owned(),
        ));
    }
    let port = container_port(found, port, talk.question.protocol == Spoken::Udp)?;
    match talk.view(ViewKey::Outbound(SocketAddr::new(ip, port))) {
        Ok(Body::Outbound(Outbound::Endpoint(endpoint))) => {
            let carried = talk.caller.meshed && talk.question.protocol != Spoken::Udp;
            let declared = match carried {
                true => endpoint.protocol,
                false => Protocol::Detect,
            };
            let way = Way {
                name: None,
                weight: 1,
                endpoints: vec![endpoint],
            };
            Ok(Routed::new(declared, vec![way]))
        }
        Ok(_) => Err(Decision::refuse(format!(
            "the address of Pod {namespace}/{name} is that of something else"
        ))),
        Err(why) => Err(Decision::refuse(why)),
    }
}

fn container_port(found: &Pod, port: &Port, udp: bool) -> Result<u16, Box<Decision>> {
    let name = match port {
        Port::Number(number) => return Ok(*number),
        Port::Name(name) => name,
    };
    let protocol = if udp { "UDP" } else { "TCP" };
    let mut ports = pod::app_containers(found).flat_map(|container| &container.ports);
    let named = ports.find(|it| {
        it.name.as_ref() == Some(name) && pod::is_protocol(it.protocol.as_deref(), protocol)
    });
    named.map(|it| it.container_port).ok_or_else(|| {
        let meta = &found.metadata;
        Decision::refuse(format!(
            "no container of Pod {}/{} has a {protocol} port named {name}",
            meta.namespace, meta.name
        ))
    })
}

fn number(service: &Manifest, port: &Port) -> Result<u16, Box<Decision>> {
    let name = match port {
        Port::Number(number) => return Ok(*number),
        Port::Name(name) => name,
    };
    let ports = &service.spec.ports;
    let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
    named.map(|port| port.port).ok_or_else(|| {
        let meta = &service.metadata;
        Decision::refuse(format!(
            "Service {}/{} has no port named {name}",
            meta.namespace, meta.name
        ))
    })
}

/// An ExternalName is a name for something else: callers resolve it and go there.
fn outside(service: &Manifest) -> Box<Decision> {
    let meta = &service.metadata;
    let to = service.spec.external_name.as_deref().unwrap_or("nowhere");
    let why = format!(
        "a Service of type ExternalName only stands for the name {to}, outside of the mesh: nothing of the mesh decides about it"
    );
    passthrough(format!("Service {}/{}", meta.namespace, meta.name), why)
}

fn passthrough(object: String, why: String) -> Box<Decision> {
    Box::new(Decision {
        verdict: Verdict::Passthrough,
        decided_by: DecidedBy {
            object: Some(object),
            rule: None,
        },
        ..*Decision::refuse(why)
    })
}

/// Callers of a headless Service get the addresses of its pods, and the port they ask for is that of the pod.
fn headless(talk: &mut Talk<'_>, service: &Manifest, number: u16) -> Result<Routed, Box<Decision>> {
    let meta = &service.metadata;
    let object = format!("Service {}/{}", meta.namespace, meta.name);
    let why =
        format!("it is headless: callers reach port {number} of its pods by their own addresses");
    talk.not_applied(&object, why);
    for split in talk.reader().splits(&meta.namespace, &meta.name) {
        let name = format!("TrafficSplit {}/{}", meta.namespace, split.metadata.name);
        talk.not_applied(
            &name,
            format!("{object} is headless and has no address to split"),
        );
    }
    let reader = talk.reader();
    let pods = reader.pods_of(service).into_iter();
    let ready =
        pods.filter(|pod| pod.status.is_ready() || service.spec.publish_not_ready_addresses);
    let endpoints: Vec<Endpoint> = ready
        .filter_map(|pod| {
            let ip = pod.status.ips().first().copied()?;
            Some(endpoints::of_pod(reader, pod, SocketAddr::new(ip, number)))
        })
        .collect();
    let declared = match talk.caller.meshed {
        true => endpoints
            .first()
            .map_or(Protocol::Detect, |first| first.protocol),
        false => Protocol::Detect,
    };
    let way = Way {
        name: Some(name_of(service, number)),
        weight: 1,
        endpoints,
    };
    Ok(Routed::new(declared, vec![way]))
}

/// Without a proxy the caller is led by the cluster: to the Service's own endpoints.
fn without_proxy(
    talk: &mut Talk<'_>,
    service: &Manifest,
    number: u16,
) -> Result<Routed, Box<Decision>> {
    let meta = &service.metadata;
    if service_port(service, number).is_none() {
        return Err(Decision::refuse(format!(
            "Service {}/{} has no TCP port {number}",
            meta.namespace, meta.name
        )));
    }
    for split in talk.reader().splits(&meta.namespace, &meta.name) {
        let name = format!("TrafficSplit {}/{}", meta.namespace, split.metadata.name);
        talk.not_applied(&name, "the caller has no proxy that would split".to_owned());
    }
    let name = name_of(service, number);
    let endpoints = talk.endpoints(&name.to_string())?;
    let way = Way {
        name: Some(name),
        weight: 1,
        endpoints,
    };
    Ok(Routed::new(Protocol::Detect, vec![way]))
}

pub(super) fn name_of(service: &Manifest, port: u16) -> ServicePort {
    ServicePort {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        port,
    }
}

/// The routes of the policy that the caller's proxy has.
fn follow(talk: &mut Talk<'_>, service: &Service) -> Result<Routed, Box<Decision>> {
    let mut routed = Routed::new(service.protocol, vec![]);
    let as_http = talk.question.protocol.is_http() && !routed.bytes;
    let index = match &talk.request {
        Request::Http(request) if as_http => service.route_http(&request.view()),
        // Nobody looks into what is declared to be opaque.
        Request::Tls(server) if service.protocol != Protocol::Opaque => service.route_tls(server),
        _ => service.route_tcp(),
    };
    let Some(route) = service.routes.get(index) else {
        return Err(Decision::refuse("the Service has no route".to_owned()));
    };
    routed.route = decided(talk, route, as_http);
    let others = why::splits(talk, service, index, as_http);
    others
        .into_iter()
        .for_each(|NotApplied { object, why }| talk.not_applied(&object, why));
    if let Some(decision) = applies::at_caller(talk, service, as_http) {
        return Err(decision);
    }
    if let Some(to) = &service.settings.breaker.fallback {
        routed.fallback = Some(Way {
            name: Some(to.name.clone()),
            weight: 0,
            endpoints: talk.endpoints(&to.endpoints)?,
        });
    }
    for backend in &route.backends {
        let endpoints = talk.endpoints(&backend.endpoints)?;
        routed.ways.push(Way {
            name: Some(backend.name.clone()),
            weight: backend.weight,
            endpoints,
        });
    }
    Ok(routed)
}

/// The split, and the match of it that fits.
fn decided(talk: &Talk<'_>, route: &Route, as_http: bool) -> Option<DecidedBy> {
    let object = route.object.clone()?;
    let fits = match &talk.request {
        Request::Http(request) if as_http => route.matches.iter().find(|m| m.fits(&request.view())),
        Request::Tls(server) => route.matches.iter().find(|m| m.fits_server(server)),
        _ => None,
    };
    let rule = fits.map_or("every request".to_owned(), |m| {
        format!("{}, match {}", m.object, m.name)
    });
    Some(DecidedBy::new(object, rule))
}
