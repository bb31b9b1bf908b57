//! The policy of a pod: access, permissions, what its ports speak, and the health probes that need no permission.

use super::pod::{app_containers, label, port};
use super::world::Reader;
use super::{access, policy, ports};
use crate::manifest::workload::{Container, HttpGet, Pod, Probe as PodProbe};
use crate::pod_ref::PodRef;
use std::collections::BTreeSet;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::MetricsTier;
use weft_proxy_api::policy::inbound::{GRPC_HEALTH, Inbound, Probe};
use weft_proxy_api::policy::path::normalise;

/// The policy of a pod. One that nobody described has nothing but the default of the mesh, or what its namespace narrows it to.
pub fn view(reader: &Reader<'_>, pod: &PodRef) -> Inbound {
    match reader.pod(&pod.namespace, &pod.name) {
        Some(pod) => of_pod(reader, pod),
        None => Inbound {
            workload: pod.name.clone(),
            access: access::mode_of_unknown(reader, &pod.namespace),
            ports: vec![],
            allow: vec![],
            probes: vec![],
            rate_limits: vec![],
            access_from: String::new(),
            explain_denials: false,
            metrics: reader.mesh().metrics,
        },
    }
}

fn of_pod(reader: &Reader<'_>, pod: &Pod) -> Inbound {
    Inbound {
        workload: label(pod),
        access: access::mode(reader, pod),
        ports: ports::of_workload(reader, pod),
        allow: access::allow(reader, pod),
        probes: probes(pod),
        rate_limits: policy::rate_limits(reader, pod),
        access_from: access::mode_from(reader, pod),
        explain_denials: access::explains(reader, pod),
        metrics: metrics_tier(reader, pod),
    }
}

/// What the pod, or else its namespace, says; where nobody says anything that can be read, the mesh's default.
fn metrics_tier(reader: &Reader<'_>, pod: &Pod) -> MetricsTier {
    let said = access::annotation(reader, pod, keys::METRICS);
    said.and_then(|text| text.parse().ok())
        .unwrap_or(reader.mesh().metrics)
}

/// The probes of the application's containers, each once.
fn probes(pod: &Pod) -> Vec<Probe> {
    let probes: BTreeSet<_> = app_containers(pod)
        .flat_map(|container| of_container(pod, container))
        .collect();
    probes
        .into_iter()
        .map(|(port, path)| Probe { port, path })
        .collect()
}

fn of_container(pod: &Pod, container: &Container) -> Vec<(u16, Option<String>)> {
    let Container {
        startup_probe,
        liveness_probe,
        readiness_probe,
        ..
    } = container;
    let all = [startup_probe, liveness_probe, readiness_probe]
        .into_iter()
        .flatten();
    all.filter_map(|probe| translate(pod, container, probe))
        .collect()
}

fn translate(pod: &Pod, container: &Container, probe: &PodProbe) -> Option<(u16, Option<String>)> {
    if let Some(http) = probe.http_get.as_ref().filter(|http| is_plain(pod, http)) {
        return Some((port([container], &http.port)?, Some(path(http)?)));
    }
    if let Some(grpc) = probe.grpc.as_ref().filter(|grpc| grpc.port > 0) {
        return Some((grpc.port, Some(GRPC_HEALTH.to_owned())));
    }
    Some((port([container], &probe.tcp_socket.as_ref()?.port)?, None))
}

/// The path as the proxy will see it: without query, normalised.
fn path(http: &HttpGet) -> Option<String> {
    let path = http
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = path.split(['?', '#']).next().unwrap_or_default();
    normalise(path).ok().map(|path| path.into_owned())
}

/// A probe by HTTPS is no exception to the rule: inside TLS a probe cannot be told from any other caller without an
/// identity, so strict access refuses it, which is a finding. A probe of another host is none of this pod.
fn is_plain(pod: &Pod, http: &HttpGet) -> bool {
    let is_http = http
        .scheme
        .as_deref()
        .is_none_or(|scheme| scheme.eq_ignore_ascii_case("http"));
    let mine = |host: &str| host.parse().is_ok_and(|ip| pod.status.ips().contains(&ip));
    is_http
        && http
            .host
            .as_deref()
            .is_none_or(|host| host.is_empty() || mine(host))
}
