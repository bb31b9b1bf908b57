//! Pods and namespaces: modes that cannot be read, probes that will be refused or that tell nothing.

use super::{About, Code};
use crate::manifest::k8s::Labels;
use crate::manifest::workload::{Pod, Probe};
use crate::views::access::{self, parse_mode};
use crate::views::pod::{self, app_containers};
use crate::views::world::Reader;
use std::cell::LazyCell;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::{Access, MetricsTier};

pub(super) fn findings(reader: &Reader<'_>, pod: &Pod, about: &mut About<'_>) {
    mode(&pod.metadata.annotations, about);
    probes(reader, pod, about);
}

pub(super) fn mode(annotations: &Labels, about: &mut About<'_>) {
    let mode = annotations.get(keys::ACCESS);
    if let Some(mode) = mode.filter(|mode| parse_mode(mode).is_none()) {
        let field = format!("metadata.annotations[{}]", keys::ACCESS);
        let message = format!("{mode:?} is not strict, permissive or audit; strict is applied");
        about.say(Code::AccessMode, field, message);
    }
    let tier = annotations.get(keys::METRICS);
    if let Some(Err(reason)) = tier.map(|text| text.parse::<MetricsTier>()) {
        let field = format!("metadata.annotations[{}]", keys::METRICS);
        let message = format!("{reason}; the default of the mesh is applied");
        about.say(Code::MetricsTier, field, message);
    }
}

/// What a probe asks inside TLS cannot be seen, so it is refused like every caller without an identity (D12).
fn probes(reader: &Reader<'_>, pod: &Pod, about: &mut About<'_>) {
    let strict = LazyCell::new(|| access::mode(reader, pod) == Access::Strict);
    for container in app_containers(pod) {
        let probes = [
            ("startupProbe", &container.startup_probe),
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
        ];
        let https = |probe: &Option<Probe>| {
            let http = probe.as_ref()?.http_get.as_ref()?;
            let port = pod::port([container], &http.port)?;
            let hidden = http.scheme.as_deref()?.eq_ignore_ascii_case("https");
            // The mesh is asked last: most pods have no such probe, and then nothing else is news for them.
            (hidden && *strict && pod::identity_at(reader, pod, port).is_some()).then_some(port)
        };
        let connection = |probe: &Option<Probe>| {
            let tcp = probe.as_ref()?.tcp_socket.as_ref()?;
            let port = pod::port([container], &tcp.port)?;
            pod::identity_at(reader, pod, port)
                .is_some()
                .then_some(port)
        };
        for (kind, probe) in probes {
            if let Some(port) = connection(probe) {
                let field = format!("spec.containers[{}].{kind}.tcpSocket", container.name);
                let message = format!(
                    "the proxy takes every connection before it asks the application for one, so this probe succeeds whatever \
                     the application does; probe with httpGet, grpc or exec, or let port {port} bypass the mesh ({})",
                    keys::SKIP_INBOUND_PORTS
                );
                about.say(Code::TcpProbe, field, message);
            }
            let Some(port) = https(probe) else { continue };
            let field = format!("spec.containers[{}].{kind}.httpGet.scheme", container.name);
            let message = format!(
                "strict access refuses an HTTPS probe: inside TLS it looks like any caller without an identity; probe with \
                 plain HTTP or exec, or let port {port} bypass the mesh ({})",
                keys::SKIP_INBOUND_PORTS
            );
            about.say(Code::HttpsProbe, field, message);
        }
    }
}
