//! What is suspicious between objects that are each valid: names that lead nowhere, splits that do nothing.

use super::access::{self, parse_mode};
use super::pod::{self, app_containers};
use super::policy;
use super::split::{by_age, is_external};
use super::world::{Reader, World};
use crate::manifest::workload::{Pod, Probe};
use crate::manifest::{Kind, Loaded, Object, Problem, Severity};
use crate::smi::access::{Rule, Subject, TrafficTarget};
use crate::smi::binding::IdentityBinding;
use crate::smi::split::TrafficSplit;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names::keys;
use weft_proxy_api::policy::Access;

const NO_UDP: &str =
    "the proxies carry no UDP: it is part of the computed policy only, and opens no TCP";

/// Everything that is suspicious in the world now.
pub fn all(world: &World) -> Vec<Problem> {
    let reader = Reader::new(world);
    let mut findings = Vec::new();
    for loaded in world.objects() {
        let mut about = About {
            loaded,
            findings: &mut findings,
        };
        match &loaded.object {
            Object::TrafficSplit(split) => split_findings(&reader, split, &mut about),
            Object::TrafficTarget(target) => target_findings(&reader, target, &mut about),
            Object::IdentityBinding(binding) => binding_findings(&reader, binding, &mut about),
            Object::UdpRoute(_) => about.warn("kind", NO_UDP.to_owned()), // D09
            Object::ServicePolicy(policy) => {
                policy::findings::of(&reader, policy, |field, message| {
                    about.warn(field, message);
                });
            }
            Object::Pod(pod) => {
                mode_findings(pod.metadata.annotations.get(keys::ACCESS), &mut about);
                probe_findings(&reader, pod, &mut about);
            }
            Object::Namespace(namespace) => {
                mode_findings(namespace.metadata.annotations.get(keys::ACCESS), &mut about);
            }
            _ => {}
        }
    }
    findings
}

/// Collects what is said about one object.
struct About<'a> {
    loaded: &'a Loaded,
    findings: &'a mut Vec<Problem>,
}

impl About<'_> {
    fn warn(&mut self, field: impl Into<String>, message: String) {
        self.findings.push(Problem {
            origin: self.loaded.origin.clone(),
            object: Some(self.loaded.key.to_string()),
            field: Some(field.into()),
            message,
            severity: Severity::Warning,
        });
    }
}

fn mode_findings(mode: Option<&String>, about: &mut About<'_>) {
    if let Some(mode) = mode.filter(|mode| parse_mode(mode).is_none()) {
        let field = format!("metadata.annotations[{}]", keys::ACCESS);
        about.warn(
            field,
            format!("{mode:?} is not strict, permissive or audit; strict is applied"),
        );
    }
}

/// What a probe asks inside TLS cannot be seen, so it is refused like every caller without an identity (D12).
fn probe_findings(reader: &Reader<'_>, pod: &Pod, about: &mut About<'_>) {
    if access::mode(reader, pod) != Access::Strict {
        return;
    }
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
            (hidden && pod::identity_at(reader, pod, port).is_some()).then_some(port)
        };
        for (kind, probe) in probes {
            let Some(port) = https(probe) else { continue };
            let field = format!("spec.containers[{}].{kind}.httpGet.scheme", container.name);
            about.warn(field, format!(
                "strict access refuses an HTTPS probe: inside TLS it looks like any caller without an identity; probe with \
                 tcpSocket or plain HTTP, or let port {port} bypass the mesh ({})",
                keys::SKIP_INBOUND_PORTS
            ));
        }
    }
}

fn split_findings(reader: &Reader<'_>, split: &TrafficSplit, about: &mut About<'_>) {
    let namespace = &split.metadata.namespace;
    let Some(root) = reader.service(namespace, &split.service) else {
        let message = format!(
            "there is no Service {namespace}/{}; the split does nothing until there is",
            split.service
        );
        return about.warn("spec.service", message); // D29
    };
    if split.backends.iter().all(|backend| backend.weight == 0) {
        about.warn(
            "spec.backends",
            "every weight is 0: requests are answered with 503".to_owned(),
        ); // D19
    }
    for (index, backend) in split.backends.iter().enumerate() {
        let field = format!("spec.backends[{index}].service");
        let ports = root.spec.ports.iter().map(|port| port.port);
        match reader.service(namespace, &backend.service) {
            None => about.warn(
                field,
                format!(
                    "there is no Service {namespace}/{}; the others share its part",
                    backend.service
                ),
            ), // D20
            Some(service) if is_external(service) => {
                about.warn(
                    field,
                    "a Service of type ExternalName is never a backend; it is left out".to_owned(),
                ); // D32
            }
            Some(_) => {
                let lost = ports.filter(|port| {
                    super::split::backend(reader, namespace, &backend.service, *port).is_none()
                });
                let lost: Vec<String> = lost.map(|port| port.to_string()).collect();
                if !lost.is_empty() {
                    about.warn(
                        field,
                        format!("it has no port {}; it is left out there", lost.join(", ")),
                    ); // D22
                }
            }
        }
    }
    for (index, group) in split.matches.iter().enumerate() {
        if reader
            .group(namespace, group)
            .is_none_or(|group| group.matches.is_empty())
        {
            let message = format!(
                "HTTPRouteGroup {namespace}/{group} is missing or empty: it selects nothing"
            ); // D27
            about.warn(format!("spec.matches[{index}].name"), message);
        }
    }
    inert_split(reader, split, about);
}

/// D25: only the oldest unconditional split of a root applies.
fn inert_split(reader: &Reader<'_>, split: &TrafficSplit, about: &mut About<'_>) {
    let all = by_age(reader.splits(&split.metadata.namespace, &split.service));
    let first = all.iter().find(|other| other.matches.is_empty());
    if let Some(first) =
        first.filter(|first| split.matches.is_empty() && first.metadata.name != split.metadata.name)
    {
        let message = format!(
            "the older TrafficSplit {} has the same root: this one does nothing",
            first.metadata.name
        );
        about.warn("spec.service", message);
    }
}

fn target_findings(reader: &Reader<'_>, target: &TrafficTarget, about: &mut About<'_>) {
    let namespace = &target.metadata.namespace;
    for (index, rule) in target.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        match rule {
            Rule::Http { group, matches } => match reader.group(namespace, group) {
                None => about.warn(field, missing(Kind::HttpRouteGroup, namespace, group)),
                Some(known) => {
                    let unknown = |name: &&String| known.matches.iter().all(|m| m.name != **name);
                    for name in matches.iter().filter(unknown) {
                        let message = format!(
                            "HTTPRouteGroup {namespace}/{group} has no match {name:?}: it allows nothing"
                        );
                        about.warn(format!("{field}.matches"), message); // D06
                    }
                }
            },
            Rule::Tcp { route } if reader.tcp_route(namespace, route).is_none() => {
                about.warn(field, missing(Kind::TcpRoute, namespace, route));
            }
            Rule::Udp { route } if reader.udp_route(namespace, route).is_none() => {
                about.warn(field, missing(Kind::UdpRoute, namespace, route));
            }
            Rule::Udp { .. } => about.warn(field, NO_UDP.to_owned()), // D09
            Rule::Tcp { .. } => {}
        }
    }
    let sources = target.sources.iter().enumerate();
    let sources = sources.map(|(index, source)| (format!("spec.sources[{index}]"), source));
    let destination = ("spec.destination".to_owned(), &target.destination.subject);
    for (field, subject) in sources.chain([destination]) {
        if let Subject::IdentityBinding { namespace, name } = subject
            && reader.binding(namespace, name).is_none()
        {
            about.warn(
                field,
                format!("there is no IdentityBinding {namespace}/{name}: it is nobody"),
            ); // D07
        }
    }
}

/// Identities of a binding that nobody can prove (D14).
fn binding_findings(reader: &Reader<'_>, binding: &IdentityBinding, about: &mut About<'_>) {
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
        about.warn(
            format!("spec.schemes.spiffeIdentities[{index}]"),
            format!("{id}: {why}"),
        );
    }
}

fn missing(kind: Kind, namespace: &str, name: &str) -> String {
    format!("there is no {kind} {namespace}/{name}: the rule allows nothing") // D07
}
