//! TrafficTargets and IdentityBindings: names that lead nowhere, permissions that nobody has or nobody enforces.

use super::{About, Code, NO_UDP};
use crate::manifest::workload::Pod;
use crate::manifest::{Kind, Object};
use crate::smi::access::{Rule, Subject, TrafficTarget};
use crate::smi::binding::IdentityBinding;
use crate::views::ports::of_workload;
use crate::views::world::{Reader, World};
use crate::views::{access, pod};
use std::collections::{HashMap, HashSet};
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::inbound::{Allow, Ports, Traffic};

pub(super) fn findings(
    reader: &Reader<'_>,
    opened: Option<&Opened<'_>>,
    target: &TrafficTarget,
    about: &mut About<'_>,
) {
    for (index, rule) in target.rules.iter().enumerate() {
        of_rule(reader, target, rule, &format!("spec.rules[{index}]"), about);
    }
    let sources = target.sources.iter().enumerate();
    let sources = sources.map(|(index, source)| (format!("spec.sources[{index}]"), source));
    let destination = ("spec.destination".to_owned(), &target.destination.subject);
    for (field, subject) in sources.chain([destination]) {
        if let Subject::IdentityBinding { namespace, name } = subject
            && reader.binding(namespace, name).is_none()
        {
            let message = format!("there is no IdentityBinding {namespace}/{name}: it is nobody"); // D07
            about.say(Code::MissingBinding, field, message);
        }
    }
    if target.sources.is_empty() || target.rules.is_empty() {
        let what = if target.sources.is_empty() {
            "sources"
        } else {
            "rules"
        };
        let message = format!("there are no {what}: it allows nothing to anybody"); // D15
        about.hint(Code::AllowsNothing, format!("spec.{what}"), message);
    }
    if let Some(opened) = opened {
        of_pods(reader, opened, target, about);
    }
}

fn of_rule(
    reader: &Reader<'_>,
    target: &TrafficTarget,
    rule: &Rule,
    field: &str,
    about: &mut About<'_>,
) {
    let namespace = &target.metadata.namespace;
    let missing = |kind: Kind, name: &str| {
        format!("there is no {kind} {namespace}/{name}: the rule allows nothing") // D07
    };
    match rule {
        Rule::Http { group, matches } => match reader.group(namespace, group) {
            None => about.say(
                Code::MissingRoute,
                field,
                missing(Kind::HttpRouteGroup, group),
            ),
            Some(known) => {
                let unknown = |name: &&String| known.matches.iter().all(|m| m.name != **name);
                for name in matches.iter().filter(unknown) {
                    let message = format!(
                        "HTTPRouteGroup {namespace}/{group} has no match {name:?}: it allows nothing"
                    );
                    about.say(Code::UnknownMatch, format!("{field}.matches"), message); // D06
                }
            }
        },
        Rule::Tcp { route } if reader.tcp_route(namespace, route).is_none() => {
            about.say(Code::MissingRoute, field, missing(Kind::TcpRoute, route));
        }
        Rule::Udp { route } if reader.udp_route(namespace, route).is_none() => {
            about.say(Code::MissingRoute, field, missing(Kind::UdpRoute, route));
        }
        Rule::Udp { .. } => about.say(Code::NoUdp, field, NO_UDP), // D09
        Rule::Tcp { .. } => {}
    }
}

/// The pods that targets open, looked up once for all of them.
#[derive(Default)]
pub(super) struct Opened<'a> {
    /// By namespace and name of the target: the first pod, and the first without a proxy.
    pods: HashMap<(&'a str, &'a str), (&'a Pod, Option<&'a Pod>)>,
    /// Namespaces that have pods.
    inhabited: HashSet<&'a str>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(reader: &Reader<'a>, world: &'a World) -> Self {
        let mut opened = Self::default();
        for loaded in world.objects() {
            let Object::Pod(pod) = &loaded.object else {
                continue;
            };
            opened.inhabited.insert(&pod.metadata.namespace);
            let bare = (!pod::is_meshed(reader, pod)).then_some(&**pod);
            for target in access::targets(reader, pod) {
                let key = (&*target.metadata.namespace, &*target.metadata.name);
                let entry = opened.pods.entry(key).or_insert((pod, bare));
                entry.1 = entry.1.or(bare);
            }
        }
        opened
    }
}

/// What becomes of the target at the pods it opens.
fn of_pods(
    reader: &Reader<'_>,
    opened: &Opened<'_>,
    target: &TrafficTarget,
    about: &mut About<'_>,
) {
    let namespace = target.metadata.namespace.as_str();
    let key = (namespace, target.metadata.name.as_str());
    let Some((first, bare)) = opened.pods.get(&key) else {
        if opened.inhabited.contains(namespace) {
            let message = "no pod of this namespace runs as this";
            about.hint(Code::NoDestination, "spec.destination", message);
        }
        return;
    };
    if let Some(bare) = bare {
        let message = format!(
            "Pod {namespace}/{} has no proxy: nobody enforces it there",
            bare.metadata.name
        );
        about.hint(Code::NotEnforced, "spec.destination", message);
    }
    let object = format!("TrafficTarget {namespace}/{}", target.metadata.name);
    let allow = access::allow(reader, first);
    if let Some(allow) = allow.iter().find(|allow| allow.object == object) {
        of_ports(reader, first, allow, about);
    }
}

/// The ports it opens on a pod: known there, and able to carry what is allowed?
fn of_ports(reader: &Reader<'_>, pod: &Pod, allow: &Allow, about: &mut About<'_>) {
    let declared = of_workload(reader, pod);
    let bytes = |port: u16| {
        let declared = declared.iter().find(|(number, _)| *number == port);
        matches!(declared, Some((_, Protocol::Opaque | Protocol::Tls)))
    };
    let Ports::Only(ports) = &allow.ports else {
        return;
    };
    for port in ports {
        if !is_listed(reader, pod, *port) {
            let message = format!(
                "port {port} is none of a Service of Pod {}/{} and none that its containers list",
                pod.metadata.namespace, pod.metadata.name
            );
            about.hint(Code::UnreachablePort, "spec.rules", message);
        }
        if bytes(*port) && matches!(allow.traffic, Traffic::Http(_)) {
            let message = format!("port {port} carries bytes, and only HTTP is allowed there");
            about.hint(Code::HttpOnBytes, "spec.rules", message);
        }
    }
}

/// Does anything say that the pod has this port? A pod without any listed port may have all.
fn is_listed(reader: &Reader<'_>, pod: &Pod, port: u16) -> bool {
    let containers: Vec<u16> = pod::app_containers(pod)
        .flat_map(|container| &container.ports)
        .map(|port| port.container_port)
        .collect();
    let services = reader.services_of(pod);
    let mut targets = services.iter().flat_map(|service| {
        let ports = service.spec.ports.iter();
        ports.filter_map(|port| crate::views::ports::target(port, pod))
    });
    containers.contains(&port)
        || targets.any(|target| target == port)
        || (containers.is_empty() && services.is_empty())
}

/// Identities of a binding that nobody can prove (D14).
pub(super) fn binding(reader: &Reader<'_>, binding: &IdentityBinding, about: &mut About<'_>) {
    let domain = &reader.mesh().trust_domain;
    for (index, id) in binding.identities.iter().enumerate() {
        let why = match id.parse::<SpiffeId>() {
            Err(_) => "it is not the identity of a workload, so nobody can prove it",
            Ok(id) if id.trust_domain() != domain => continue,
            Ok(id) if id.namespace() != binding.metadata.namespace => {
                "it is of another namespace than the binding, which cannot speak for it: it is ignored"
            }
            Ok(_) => continue,
        };
        let field = format!("spec.schemes.spiffeIdentities[{index}]");
        about.say(Code::BindingIdentity, field, format!("{id}: {why}"));
    }
}
