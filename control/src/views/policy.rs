//! ServicePolicies: how a Service is called, and how much its pods accept.
//!
//! Of the objects about a port of a Service, those with matches come in order of age, and the first that fits a request
//! decides; of those without, the one that names the port holds, then the older one. An object in audit mode does nothing to
//! traffic: it neither holds nor stands in the way, only its rate limits are counted.

pub mod findings;

use super::ports::{service_port, target};
use super::requests::described;
use super::split::{backend, is_external};
use super::world::Reader;
use crate::manifest::k8s::{ObjectMeta, Service};
use crate::manifest::workload::Pod;
use crate::policy::{Breaker as Asked, Fallback as To, Limit, MatchRef, ServicePolicy};
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_proxy_api::policy::ServicePort;
use weft_proxy_api::policy::matching::HttpMatch;
use weft_proxy_api::policy::settings::{
    Breaker, Fallback, RateLimit, RequestRule, ServiceSettings, bounds,
};

/// How one port of a Service is called.
pub fn settings(reader: &Reader<'_>, service: &Service, port: u16) -> ServiceSettings {
    let policies = enforced(reader, service, port);
    let rules = policies.iter().filter_map(|policy| rule(reader, policy));
    let mut settings = ServiceSettings {
        rules: rules.take(bounds::MAX_RULES).collect(),
        ..ServiceSettings::default()
    };
    if let Some(policy) = holder(&policies) {
        settings.object = Some(object(&policy.metadata));
        settings.balancer = policy.balancer.clone().unwrap_or_default();
        settings.ejection = policy.ejection.unwrap_or_default();
        settings.budget = policy.budget.unwrap_or_default();
        settings.requests = policy.requests.clone().unwrap_or_default();
        if let Some(asked) = &policy.breaker {
            settings.breaker = breaker(reader, service, asked, port);
        }
    }
    settings
}

/// How much a pod accepts, by the policies of the Services that select it.
pub fn rate_limits(reader: &Reader<'_>, pod: &Pod) -> Vec<RateLimit> {
    let services = reader.services_of(pod).into_iter();
    let limits = services
        .filter(|service| !is_external(service))
        .flat_map(|service| limits_by(reader, service, pod));
    limits.take(bounds::MAX_RULES).collect()
}

/// The policies about a port of a Service, oldest first.
pub fn about<'a>(reader: &Reader<'a>, service: &Service, port: u16) -> Vec<&'a Arc<ServicePolicy>> {
    let meta = &service.metadata;
    let mut policies = reader.policies(&meta.namespace, &meta.name);
    policies.retain(|policy| policy.port.is_none_or(|own| own == port));
    policies.sort_by_key(|policy| {
        let time = policy.metadata.creation_timestamp;
        (time.is_none(), time, &policy.metadata.name)
    });
    policies
}

/// Of policies by age, the one without matches that holds.
pub fn holder<'a>(policies: &[&'a Arc<ServicePolicy>]) -> Option<&'a Arc<ServicePolicy>> {
    let whole = || policies.iter().filter(|policy| policy.matches.is_none());
    let named = whole().find(|policy| policy.port.is_some());
    named.or_else(|| whole().next()).copied()
}

/// How a policy is named in logs, metrics and explanations.
pub fn object(metadata: &ObjectMeta) -> String {
    format!("ServicePolicy {}/{}", metadata.namespace, metadata.name)
}

fn enforced<'a>(reader: &Reader<'a>, service: &Service, port: u16) -> Vec<&'a Arc<ServicePolicy>> {
    let mut policies = about(reader, service, port);
    policies.retain(|policy| !policy.audit);
    policies
}

/// `None`: it asks for nothing for requests, or describes none. Without a match it would fit everything.
fn rule(reader: &Reader<'_>, policy: &ServicePolicy) -> Option<RequestRule> {
    let matches = requests(reader, &policy.metadata.namespace, policy.matches.as_ref()?);
    let settings = policy.requests.clone()?;
    (!matches.is_empty()).then(|| RequestRule {
        object: object(&policy.metadata),
        matches,
        settings,
    })
}

/// The requests a policy with matches is about.
fn requests(reader: &Reader<'_>, namespace: &str, refs: &[MatchRef]) -> Vec<HttpMatch> {
    let groups = refs
        .iter()
        .map(|wanted| (wanted.group.as_str(), wanted.names.as_slice()));
    described(reader, namespace, groups)
}

fn breaker(reader: &Reader<'_>, service: &Service, asked: &Asked, port: u16) -> Breaker {
    let to = asked.fallback.as_ref();
    Breaker {
        connections: asked.connections,
        pending: asked.pending,
        requests: asked.requests,
        fallback: to.and_then(|to| fallback(reader, service, to, port)),
    }
}

/// Where a fallback leads; `None`: there is no such Service, it has no such port, or it is the one that is called.
pub fn fallback(reader: &Reader<'_>, service: &Service, to: &To, called: u16) -> Option<Fallback> {
    let ObjectMeta {
        namespace, name, ..
    } = &service.metadata;
    let port = to.port.unwrap_or(called);
    backend(reader, namespace, &to.service, port)?;
    let fallback = ServicePort {
        namespace: namespace.clone(),
        name: to.service.clone(),
        port,
    };
    let is_itself = *name == to.service && port == called;
    (!is_itself).then(|| Fallback {
        endpoints: fallback.to_string(),
        name: fallback,
    })
}

/// The limits on a pod by the policies of one Service: with matches or in audit mode each counts by itself, of the others the
/// one that holds for a port.
fn limits_by(reader: &Reader<'_>, service: &Service, pod: &Pod) -> Vec<RateLimit> {
    let mut covered: BTreeMap<&str, (&ServicePolicy, Vec<u16>)> = BTreeMap::new();
    for port in &service.spec.ports {
        let number = port.port;
        let Some(target) = service_port(service, number).and_then(|port| target(port, pod)) else {
            continue;
        };
        let held = holder(&enforced(reader, service, number));
        let counts = |policy: &&Arc<ServicePolicy>| {
            let is_held = held.is_some_and(|held| Arc::ptr_eq(held, policy));
            policy.audit || policy.matches.is_some() || is_held
        };
        for policy in about(reader, service, number).into_iter().filter(counts) {
            let (_, ports) = covered
                .entry(&policy.metadata.name)
                .or_insert((policy, vec![]));
            ports.push(target);
        }
    }
    let covered = covered.into_values();
    covered
        .flat_map(|(policy, ports)| limits_of(reader, policy, ports))
        .collect()
}

fn limits_of(reader: &Reader<'_>, policy: &ServicePolicy, mut ports: Vec<u16>) -> Vec<RateLimit> {
    ports.sort_unstable();
    ports.dedup();
    let matches = match &policy.matches {
        None => vec![],
        Some(refs) => match requests(reader, &policy.metadata.namespace, refs) {
            // Without a match it would fit everything.
            none if none.is_empty() => return vec![],
            some => some,
        },
    };
    let limit = |limit: &Limit| RateLimit {
        object: object(&policy.metadata),
        ports: ports.clone(),
        matches: matches.clone(),
        requests: limit.requests,
        per: limit.per,
        burst: limit.burst,
        per_client: limit.per_client,
        audit: policy.audit,
    };
    policy.limits.iter().map(limit).collect()
}
