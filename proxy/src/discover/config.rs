//! The effective plan for people: what is in force, without secrets.

use super::cache::Shared;
use crate::balance::EndpointSet;
use crate::policy::{BackendPlan, Destination, InboundPlan, OutboundPlan, RoutePlan, ServicePlan};
use serde_json::{Value, json};
use weft_proxy_api::policy::inbound::{Allow, Ports, Traffic};

pub(super) fn config(shared: &Shared) -> Value {
    let mut destinations: Vec<_> = shared.destinations.read().values().cloned().collect();
    destinations.sort_by_key(|destination| destination.target);
    json!({
        "control": {
            "connected": *shared.connected.borrow(),
            "stale_seconds": shared.metrics.control_staleness().map(|for_| for_.as_secs()),
        },
        "inbound": shared.inbound.load_full().map(|plan| inbound(&plan)),
        "outbound": destinations.iter().map(|at| destination(at)).collect::<Vec<_>>(),
    })
}

fn inbound(plan: &InboundPlan) -> Value {
    let policy = &plan.inbound;
    json!({
        "version": format!("{:016x}", plan.version),
        "workload": policy.workload,
        "access": policy.access.to_string(),
        "ports": policy.ports.iter().map(|(port, protocol)| json!({"port": port, "protocol": format!("{protocol:?}")})).collect::<Vec<_>>(),
        "allow": policy.allow.iter().map(allow).collect::<Vec<_>>(),
        "probes": policy.probes.iter().map(|probe| json!({"port": probe.port, "path": probe.path})).collect::<Vec<_>>(),
    })
}

fn allow(allow: &Allow) -> Value {
    let matches = match &allow.traffic {
        Traffic::Any => Value::Null,
        Traffic::Http(matches) => matches
            .iter()
            .map(|m| format!("{} {}", m.object, m.name))
            .collect(),
    };
    json!({
        "object": allow.object,
        "sources": allow.sources.iter().map(|source| source.identity.as_str()).collect::<Vec<_>>(),
        "ports": match &allow.ports { Ports::Any => Value::Null, Ports::Only(ports) => json!(ports) },
        "http": matches,
    })
}

fn destination(destination: &Destination) -> Value {
    let (kind, more) = match &**destination.plan() {
        OutboundPlan::Service(plan) => ("service", service(plan)),
        OutboundPlan::Endpoint(plan) => (
            "endpoint",
            json!({"pod": plan.endpoint.spec.pod, "identity": plan.endpoint.spec.identity.as_ref().map(|id| id.as_str())}),
        ),
        OutboundPlan::PassThrough(_) => ("pass-through", Value::Null),
        OutboundPlan::Refused(reason) => ("refused", json!(reason)),
        OutboundPlan::Unknown => ("unknown", Value::Null),
    };
    json!({"target": destination.target.to_string(), "version": format!("{:016x}", destination.version()), "kind": kind, "plan": more})
}

fn service(plan: &ServicePlan) -> Value {
    let routes = plan.service.routes.iter().zip(&plan.routes);
    let routes = routes.map(|(checked, route)| {
        let matches: Vec<_> = checked
            .matches
            .iter()
            .map(|m| format!("{} {}", m.object, m.name))
            .collect();
        json!({"object": checked.object, "matches": matches, "backends": backends(route)})
    });
    json!({
        "service": plan.service.name.to_string(),
        "protocol": format!("{:?}", plan.service.protocol),
        "routes": routes.collect::<Vec<_>>(),
    })
}

fn backends(route: &RoutePlan) -> Vec<Value> {
    let backend = |plan: &BackendPlan| {
        json!({
            "service": plan.backend.name.to_string(),
            "weight": plan.backend.weight,
            "endpoints": endpoints(&plan.endpoints),
        })
    };
    route.backends.iter().map(|plan| backend(plan)).collect()
}

fn endpoints(set: &EndpointSet) -> Value {
    if !set.is_known() {
        return Value::Null;
    }
    let endpoint = |at: &crate::balance::Endpoint| {
        json!({
            "address": at.spec.address.to_string(),
            "pod": at.spec.pod,
            "identity": at.spec.identity.as_ref().map(|id| id.as_str()),
            "in_flight": at.in_flight(),
            "ejected": at.is_ejected(),
        })
    };
    set.endpoints().iter().map(|at| endpoint(at)).collect()
}
