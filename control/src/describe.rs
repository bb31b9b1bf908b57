//! One object: what of it applies, to whom, and what of it does not and why. A tree of values, for people as YAML.

use crate::manifest::workload::Pod;
use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use crate::pod_ref::PodRef;
use crate::policy::ServicePolicy;
use crate::simulate::{Simulation, applies, shown};
use crate::smi::access::{Rule, TrafficTarget};
use crate::smi::split::TrafficSplit;
use crate::views::findings::{self, Finding};
use crate::views::world::{Reader, World, cluster_ips};
use crate::views::{ViewKey, access, endpoints, pod, policy, split};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use weft_proxy_api::policy::outbound::{Outbound, Route, Service};
use weft_proxy_api::wire::Body;

/// Kinds, by the words `kubectl` has for them.
pub const KINDS: &[(&str, Kind)] = &[
    ("svc", Kind::Service),
    ("service", Kind::Service),
    ("services", Kind::Service),
    ("po", Kind::Pod),
    ("pod", Kind::Pod),
    ("pods", Kind::Pod),
    ("ts", Kind::TrafficSplit),
    ("split", Kind::TrafficSplit),
    ("trafficsplit", Kind::TrafficSplit),
    ("trafficsplits", Kind::TrafficSplit),
    ("tt", Kind::TrafficTarget),
    ("target", Kind::TrafficTarget),
    ("traffictarget", Kind::TrafficTarget),
    ("traffictargets", Kind::TrafficTarget),
    ("htr", Kind::HttpRouteGroup),
    ("httproutegroup", Kind::HttpRouteGroup),
    ("httproutegroups", Kind::HttpRouteGroup),
    ("tr", Kind::TcpRoute),
    ("tcproute", Kind::TcpRoute),
    ("tcproutes", Kind::TcpRoute),
    ("ur", Kind::UdpRoute),
    ("udproute", Kind::UdpRoute),
    ("udproutes", Kind::UdpRoute),
    ("ib", Kind::IdentityBinding),
    ("identitybinding", Kind::IdentityBinding),
    ("identitybindings", Kind::IdentityBinding),
    ("sp", Kind::ServicePolicy),
    ("policy", Kind::ServicePolicy),
    ("servicepolicy", Kind::ServicePolicy),
    ("servicepolicies", Kind::ServicePolicy),
    ("ns", Kind::Namespace),
    ("namespace", Kind::Namespace),
    ("sa", Kind::ServiceAccount),
    ("serviceaccount", Kind::ServiceAccount),
    ("endpointslice", Kind::EndpointSlice),
];

/// The kind a word means, in any case.
pub fn kind(word: &str) -> Option<Kind> {
    let word = word.to_ascii_lowercase();
    let found = KINDS.iter().find(|(known, _)| *known == word);
    found.map(|(_, kind)| kind.clone())
}

/// Everything about one object; the error says that there is no such object.
pub fn describe(sim: &Simulation, key: &ObjectKey) -> Result<Value, String> {
    let world = &sim.state().world;
    let reader = Reader::new(world);
    let stands = sim.state().pod_of_workload(&key.namespace, &key.name);
    let key = match (world.object(key), stands) {
        (None, Some(pod)) if key.kind == Kind::Pod => {
            &ObjectKey::new(Kind::Pod, &pod.namespace, &pod.name)
        }
        _ => key,
    };
    let loaded = world
        .object(key)
        .ok_or_else(|| format!("there is no {key}"))?;
    let mut about = match &loaded.object {
        Object::Service(_) => of_service(sim, &reader, key),
        Object::Pod(pod) => of_pod(sim, &reader, pod),
        Object::TrafficSplit(split) => of_split(sim, &reader, split),
        Object::TrafficTarget(target) => of_target(sim, &reader, target),
        Object::HttpRouteGroup(group) => {
            json!({
                "matches": group.matches.iter().map(shown::http).collect::<Vec<_>>(),
                "usedBy": used_by(world, key),
            })
        }
        Object::TcpRoute(route) => {
            json!({ "ports": shown::ports(&route.ports), "usedBy": used_by(world, key) })
        }
        Object::UdpRoute(route) => {
            json!({ "ports": shown::ports(&route.ports), "usedBy": used_by(world, key) })
        }
        Object::ServicePolicy(policy) => of_policy(sim, &reader, policy),
        _ => return Err(format!("{} cannot be described", key.kind)),
    };
    let mut tree = Map::new();
    tree.insert("object".to_owned(), key.to_string().into());
    tree.insert("writtenAt".to_owned(), loaded.origin.to_string().into());
    if let Some(about) = about.as_object_mut() {
        tree.append(about);
    }
    tree.insert("findings".to_owned(), of_findings(sim, key));
    tree.insert("assumed".to_owned(), json!(sim.state().assumed(key)));
    Ok(tree.into())
}

/// Which object was described: a pod, where its workload was named.
pub fn described(tree: &Value, key: &ObjectKey) -> ObjectKey {
    let name = tree["object"].as_str().and_then(|it| it.rsplit('/').next());
    ObjectKey::new(key.kind.clone(), &key.namespace, name.unwrap_or(&key.name))
}

fn of_findings(sim: &Simulation, key: &ObjectKey) -> Value {
    let name = key.to_string();
    let mine = |it: &Finding| it.problem.object.as_ref() == Some(&name);
    let all = findings::thorough(&sim.state().world)
        .into_iter()
        .filter(mine);
    all.map(|Finding { code, problem }| {
        let field = problem.field.unwrap_or_default();
        format!("{} {}: {}", code.row().number, field, problem.message)
    })
    .collect()
}

fn of_service(sim: &Simulation, reader: &Reader<'_>, key: &ObjectKey) -> Value {
    let Some(service) = reader.service(&key.namespace, &key.name) else {
        return json!({});
    };
    if split::is_external(service) {
        return json!({ "leadsTo": service.spec.external_name, "inTheMesh": false });
    }
    let ports = service.spec.ports.iter().map(|port| {
        let set = format!("{}/{}:{}", key.namespace, key.name, port.port);
        let members = endpoints::view(reader, &set);
        let pods = members.iter().map(shown::endpoint);
        let policy = routes(sim, reader, key, port.port);
        let settings = policy.as_ref().map(|it| applies::given(&it.settings));
        json!({
            "port": port.port,
            "name": port.name,
            "routes": policy.map_or(Value::Null, |it| shown::service(&it)["routes"].clone()),
            "settings": settings.unwrap_or_default(),
            "endpoints": pods.collect::<Vec<_>>(),
        })
    });
    json!({ "ports": ports.collect::<Vec<_>>(), "opened": opened(reader, service) })
}

/// Who may call the pods of a Service: their permissions, each once.
fn opened(reader: &Reader<'_>, service: &crate::manifest::k8s::Service) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for pod in reader.pods_of(service) {
        let allow = access::allow(reader, pod);
        for one in allow.iter().map(shown::allow) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all.into()
}

/// The policy of one port of a Service, as proxies have it.
pub fn routes(
    sim: &Simulation,
    reader: &Reader<'_>,
    root: &ObjectKey,
    port: u16,
) -> Option<Box<Service>> {
    let service = reader.service(&root.namespace, &root.name)?;
    let ip = cluster_ips(service).next()?;
    match sim.view(ViewKey::Outbound(SocketAddr::new(ip, port))) {
        Ok(Body::Outbound(Outbound::Service(service))) => Some(service.into()),
        _ => None,
    }
}

fn of_pod(sim: &Simulation, reader: &Reader<'_>, found: &Pod) -> Value {
    let meta = &found.metadata;
    let services = reader.services_of(found).into_iter();
    let services: Vec<&str> = services.map(|it| it.metadata.name.as_str()).collect();
    let meshed = pod::is_meshed(reader, found) && !found.spec.host_network;
    let identity = pod::account_identity(reader, &meta.namespace, found.spec.account());
    let key = ViewKey::Inbound(PodRef::new(&meta.namespace, &meta.name));
    let policy = match sim.view(key) {
        Ok(Body::Inbound(inbound)) => shown::inbound(&inbound),
        Ok(_) => Value::Null,
        Err(why) => json!({ "refused": why }),
    };
    let without = |target: &&&std::sync::Arc<TrafficTarget>| {
        let object = format!("TrafficTarget {}/{}", meta.namespace, target.metadata.name);
        access::allow(reader, found)
            .iter()
            .all(|it| it.object != object)
    };
    let targets = access::targets(reader, found);
    let inert = targets.iter().filter(without).map(|target| {
        format!(
            "TrafficTarget {}/{}: it allows nothing that TCP carries",
            meta.namespace, target.metadata.name
        )
    });
    let mut about = json!({
        "identity": identity.filter(|_| meshed).map(|id| id.as_str().to_owned()),
        "proxy": meshed,
        "services": services,
        "policy": policy,
        "notApplied": inert.collect::<Vec<_>>(),
    });
    // Part of the computed policy, though no proxy has it (D09).
    let udp = access::allow_udp(reader, found);
    if !udp.is_empty() {
        about["udp"] = udp.iter().map(shown::allow).collect();
    }
    about
}

/// What it gives to which port of its Service, and which pods hold callers to its limits.
fn of_policy(sim: &Simulation, reader: &Reader<'_>, it: &ServicePolicy) -> Value {
    let namespace = &it.metadata.namespace;
    let root = ObjectKey::new(Kind::Service, namespace, &it.service);
    let Some(service) = reader.service(namespace, &it.service) else {
        return json!({ "service": root.to_string(), "inForce": false });
    };
    let object = policy::object(&it.metadata);
    let mut ports = Vec::new();
    for port in &service.spec.ports {
        let given = routes(sim, reader, &root, port.port);
        let given = given
            .map(|it| applies::given(&it.settings))
            .unwrap_or_default();
        let mine: Vec<_> = given.into_iter().filter(|it| it.object == object).collect();
        if !mine.is_empty() {
            ports.push(json!({ "port": port.port, "settings": mine }));
        }
    }
    let pods = reader.pods_of(service).into_iter();
    let limited = pods.filter(|pod| {
        let limits = policy::rate_limits(reader, pod);
        limits.iter().any(|limit| limit.object == object)
    });
    let limited: Vec<&str> = limited.map(|pod| pod.metadata.name.as_str()).collect();
    json!({
        "service": root.to_string(),
        "inForce": !(it.audit || ports.is_empty() && limited.is_empty()),
        "audit": it.audit,
        "ports": ports,
        "limitsAt": limited,
    })
}

/// The objects of its namespace that name this route (or group).
fn used_by(world: &World, key: &ObjectKey) -> Vec<String> {
    let named = |rule: &Rule| match rule {
        Rule::Http { group, .. } => key.kind == Kind::HttpRouteGroup && *group == key.name,
        Rule::Tcp { route } => key.kind == Kind::TcpRoute && *route == key.name,
        Rule::Udp { route } => key.kind == Kind::UdpRoute && *route == key.name,
    };
    let is_group = key.kind == Kind::HttpRouteGroup;
    let names = |loaded: &&Loaded| match &loaded.object {
        Object::TrafficTarget(it) => it.rules.iter().any(named),
        Object::TrafficSplit(it) => is_group && it.matches.contains(&key.name),
        Object::ServicePolicy(it) => {
            let mut refs = it.matches.iter().flatten();
            is_group && refs.any(|it| it.group == key.name)
        }
        _ => false,
    };
    let same = world
        .objects()
        .filter(|it| it.key.namespace == key.namespace);
    same.filter(names).map(|it| it.key.to_string()).collect()
}

fn of_split(sim: &Simulation, reader: &Reader<'_>, split: &TrafficSplit) -> Value {
    let namespace = &split.metadata.namespace;
    let root = ObjectKey::new(Kind::Service, namespace, &split.service);
    let object = format!("TrafficSplit {namespace}/{}", split.metadata.name);
    let Some(service) = reader.service(namespace, &split.service) else {
        return json!({ "root": root.to_string(), "inForce": false });
    };
    let mut ports = Vec::new();
    for port in &service.spec.ports {
        let Some(policy) = routes(sim, reader, &root, port.port) else {
            continue;
        };
        let mine = |route: &&Route| route.object.as_ref() == Some(&object);
        if policy.routes.iter().any(|route| mine(&route)) {
            let mut shown = shown::service(&policy);
            if let Some(routes) = shown["routes"].as_array_mut() {
                routes.retain(|route| route["object"] == object.as_str());
            }
            ports.push(json!({ "port": port.port, "routes": shown["routes"] }));
        }
    }
    json!({ "root": root.to_string(), "inForce": !ports.is_empty(), "ports": ports })
}

fn of_target(sim: &Simulation, reader: &Reader<'_>, target: &TrafficTarget) -> Value {
    let meta = &target.metadata;
    let object = format!("TrafficTarget {}/{}", meta.namespace, meta.name);
    let pods = sim
        .state()
        .world
        .objects()
        .filter_map(|it| match &it.object {
            Object::Pod(pod) if pod.metadata.namespace == meta.namespace => Some(pod),
            _ => None,
        });
    let mut at = Vec::new();
    for pod in pods {
        let targets = access::targets(reader, pod);
        if targets.iter().all(|it| it.metadata.name != meta.name) {
            continue;
        }
        let allow = access::allow(reader, pod);
        let mine = allow.iter().find(|allow| allow.object == object);
        let mut there = json!({
            "pod": format!("{}/{}", meta.namespace, pod.metadata.name),
            "access": access::mode(reader, pod).to_string(),
            "proxy": pod::is_meshed(reader, pod),
            "allows": mine.map(shown::allow),
        });
        let udp = access::allow_udp(reader, pod);
        if let Some(udp) = udp.iter().find(|allow| allow.object == object) {
            there["udp"] = shown::allow(udp);
        }
        at.push(there);
    }
    json!({ "destination": at })
}

/// What an object became: the policy that proxies have of it.
pub fn effective(sim: &Simulation, key: &ObjectKey) -> Result<Value, String> {
    let mut tree = describe(sim, key)?;
    if let Some(map) = tree.as_object_mut() {
        for extra in ["writtenAt", "findings", "assumed"] {
            map.shift_remove(extra);
        }
    }
    Ok(tree)
}
