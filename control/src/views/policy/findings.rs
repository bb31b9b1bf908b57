//! What is suspicious about a ServicePolicy that is valid by itself: names that lead nowhere, another one that holds.

use super::super::findings::Code;
use super::super::ports::service_port;
use super::super::split::is_external;
use super::super::world::Reader;
use super::{about, fallback, holder, object};
use crate::manifest::k8s::Service;
use crate::policy::ServicePolicy;
use std::sync::Arc;
use weft_proxy_api::policy::settings::bounds;

/// Says each finding, with its code and its field.
pub fn of(reader: &Reader<'_>, policy: &ServicePolicy, mut say: impl FnMut(Code, String, String)) {
    groups(reader, policy, &mut say);
    let namespace = &policy.metadata.namespace;
    let Some(service) = reader.service(namespace, &policy.service) else {
        let message = format!(
            "there is no Service {namespace}/{}; the policy does nothing until there is",
            policy.service
        );
        return say(Code::PolicyReference, "spec.service".to_owned(), message);
    };
    if is_external(service) {
        let message =
            "a Service of type ExternalName leads out of the mesh; the policy does nothing";
        return say(Code::Policy, "spec.service".to_owned(), message.to_owned());
    }
    let ports = ports(service, policy);
    if let (Some(port), true) = (policy.port, ports.is_empty()) {
        let message = format!("the Service has no TCP port {port}; the policy does nothing");
        return say(Code::Policy, "spec.port".to_owned(), message);
    }
    fallbacks(reader, service, policy, &ports, &mut say);
    others(reader, service, policy, &ports, &mut say);
}

/// The ports of the Service that the policy is about.
fn ports(service: &Service, policy: &ServicePolicy) -> Vec<u16> {
    let numbers = service.spec.ports.iter().map(|port| port.port);
    numbers
        .filter(|port| service_port(service, *port).is_some())
        .filter(|port| policy.port.is_none_or(|own| own == *port))
        .collect()
}

fn groups(reader: &Reader<'_>, policy: &ServicePolicy, say: &mut impl FnMut(Code, String, String)) {
    let namespace = &policy.metadata.namespace;
    for (index, wanted) in policy.matches.iter().flatten().enumerate() {
        let field = format!("spec.matches[{index}]");
        let group = &wanted.group;
        let Some(known) = reader.group(namespace, group) else {
            let message =
                format!("there is no HTTPRouteGroup {namespace}/{group}: it selects nothing");
            say(Code::PolicyReference, format!("{field}.name"), message);
            continue;
        };
        if known.matches.is_empty() {
            let message =
                format!("HTTPRouteGroup {namespace}/{group} is empty: it selects nothing");
            say(Code::Policy, format!("{field}.name"), message);
        }
        let unknown = |name: &&String| known.matches.iter().all(|m| m.name != **name);
        for name in wanted.names.iter().filter(unknown) {
            let message = format!(
                "HTTPRouteGroup {namespace}/{group} has no match {name:?}: it selects nothing"
            );
            say(Code::PolicyReference, format!("{field}.matches"), message);
        }
    }
}

fn fallbacks(
    reader: &Reader<'_>,
    service: &Service,
    policy: &ServicePolicy,
    ports: &[u16],
    say: &mut impl FnMut(Code, String, String),
) {
    let namespace = &policy.metadata.namespace;
    let Some(to) = policy.breaker.as_ref().and_then(|b| b.fallback.as_ref()) else {
        return;
    };
    for port in ports {
        if fallback(reader, service, to, *port).is_none() {
            let message = format!(
                "there is no other Service {namespace}/{} with port {}: port {port} has no fallback",
                to.service,
                to.port.unwrap_or(*port),
            );
            say(
                Code::PolicyReference,
                "spec.breaker.fallback".to_owned(),
                message,
            );
        }
    }
}

/// Another policy without matches that holds instead; too many with them.
fn others(
    reader: &Reader<'_>,
    service: &Service,
    policy: &ServicePolicy,
    ports: &[u16],
    say: &mut impl FnMut(Code, String, String),
) {
    for port in ports {
        let mut all = about(reader, service, *port);
        all.retain(|other| !other.audit || other.metadata.name == policy.metadata.name);
        let is_this = |other: &&Arc<ServicePolicy>| other.metadata.name == policy.metadata.name;
        let held = holder(&all).filter(|held| policy.matches.is_none() && !is_this(held));
        if let (Some(held), false) = (held, policy.audit) {
            let message = format!(
                "{} holds for port {port}: this one does nothing there",
                object(&held.metadata)
            );
            say(Code::Policy, "spec.service".to_owned(), message);
        }
        let rank = all
            .iter()
            .filter(|other| other.matches.is_some())
            .position(is_this);
        if rank.is_some_and(|rank| rank >= bounds::MAX_RULES) {
            let message = format!(
                "{} older policies with matches are about port {port}: this one does nothing there",
                bounds::MAX_RULES
            );
            say(Code::Policy, "spec.matches".to_owned(), message);
        }
    }
}
