//! TrafficSplits: roots and backends that lead nowhere, splits that never apply.

use super::routes::covers;
use super::{About, Code};
use crate::manifest::k8s::Service;
use crate::smi::split::{Backend, TrafficSplit};
use crate::views::endpoints;
use crate::views::pod::is_tcp;
use crate::views::ports::of_service;
use crate::views::split::{backend, by_age, is_external};
use crate::views::world::{Reader, cluster_ips};
use std::sync::Arc;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::matching::HttpMatch;

pub(super) fn findings(reader: &Reader<'_>, split: &TrafficSplit, about: &mut About<'_>) {
    let namespace = &split.metadata.namespace;
    let Some(root) = reader.service(namespace, &split.service) else {
        let message = format!(
            "there is no Service {namespace}/{}; the split does nothing until there is",
            split.service
        );
        return about.say(Code::NoRoot, "spec.service", message); // D29
    };
    if split.backends.iter().all(|backend| backend.weight == 0) {
        let message = "every weight is 0: requests are answered with 503"; // D19
        about.say(Code::AllZero, "spec.backends", message);
    }
    reach(reader, root, split, about);
    for (index, one) in split.backends.iter().enumerate() {
        let field = format!("spec.backends[{index}].service");
        of_backend(reader, root, one, &field, about);
    }
    for (index, group) in split.matches.iter().enumerate() {
        let known = reader.group(namespace, group);
        if known.is_none_or(|group| group.matches.is_empty()) {
            let message = format!(
                "HTTPRouteGroup {namespace}/{group} is missing or empty: it selects nothing"
            ); // D27
            let field = format!("spec.matches[{index}].name");
            about.say(Code::SelectsNothing, field, message);
        }
    }
    others(reader, split, about);
}

/// Does anything reach the root that could be split?
fn reach(reader: &Reader<'_>, root: &Service, split: &TrafficSplit, about: &mut About<'_>) {
    let headless = root.spec.cluster_ip.as_deref() == Some("None");
    if is_external(root) || (headless && cluster_ips(root).next().is_none()) {
        let what = if headless {
            "headless"
        } else {
            "of type ExternalName"
        };
        let message = format!("it is {what}: callers never reach an address that could be split"); // D32
        about.hint(Code::NoAddress, "spec.service", message);
    }
    // TLS names its server, so that conditions about `host` alone may fit it.
    let speaks_bytes = |protocol| protocol == Protocol::Opaque;
    let mut ports = root.spec.ports.iter();
    if !split.matches.is_empty()
        && !root.spec.ports.is_empty()
        && ports.all(|port| speaks_bytes(of_service(reader, root, port)))
    {
        let message = "every port of the root carries bytes, and the conditions are about HTTP"; // D31
        about.hint(Code::ConditionsOnBytes, "spec.matches", message);
    }
}

fn of_backend(
    reader: &Reader<'_>,
    root: &Service,
    one: &Backend,
    field: &str,
    about: &mut About<'_>,
) {
    let namespace = &root.metadata.namespace;
    let Some(service) = reader.service(namespace, &one.service) else {
        let message = format!(
            "there is no Service {namespace}/{}; the others share its part",
            one.service
        );
        return about.say(Code::NoBackend, field, message); // D20
    };
    if is_external(service) {
        let message = "a Service of type ExternalName is never a backend; it is left out"; // D32
        return about.say(Code::External, field, message);
    }
    let takes_part = |port: u16| backend(reader, namespace, &one.service, port).is_some();
    // Splits are of what the proxies carry, which is TCP.
    let tcp = root.spec.ports.iter();
    let tcp = tcp.filter(|port| is_tcp(port.protocol.as_deref()));
    let ports = tcp.map(|port| port.port);
    let (with, without): (Vec<u16>, Vec<u16>) = ports.partition(|port| takes_part(*port));
    if !without.is_empty() {
        let lost: Vec<String> = without.iter().map(u16::to_string).collect();
        let message = format!("it has no port {}; it is left out there", lost.join(", "));
        about.say(Code::BackendPort, field, message); // D22
    }
    let set = |port: u16| endpoints::view(reader, &format!("{namespace}/{}:{port}", one.service));
    if about.thorough && one.weight > 0 && with.iter().any(|port| set(*port).is_empty()) {
        let message = "it has no ready endpoint; its share fails with 503"; // D21
        about.hint(Code::NoEndpoints, field, message);
    }
}

/// Splits of the same root: only one without conditions applies (D25), and of several with conditions the oldest that
/// fits (D26).
fn others(reader: &Reader<'_>, split: &TrafficSplit, about: &mut About<'_>) {
    let all = by_age(reader.splits(&split.metadata.namespace, &split.service));
    let older = all
        .iter()
        .take_while(|other| other.metadata.name != split.metadata.name);
    let mut older = older.filter(|other| other.matches.is_empty() == split.matches.is_empty());
    if split.matches.is_empty() {
        if let Some(first) = older.next() {
            let message = format!(
                "the older TrafficSplit {} has the same root: this one does nothing",
                first.metadata.name
            );
            about.say(Code::SecondSplit, "spec.service", message);
        }
        return;
    }
    if !about.thorough {
        return;
    }
    let mine = described(reader, split);
    let shadows = |other: &&Arc<TrafficSplit>| {
        let theirs = described(reader, other);
        let taken = |one: &&HttpMatch| theirs.iter().any(|wide| covers(wide, one));
        !mine.is_empty() && mine.iter().all(taken)
    };
    if let Some(first) = older.find(|other| shadows(other)) {
        let message = format!(
            "the older TrafficSplit {} takes every request that this one describes",
            first.metadata.name
        );
        about.hint(Code::ShadowedSplit, "spec.matches", message);
    }
}

fn described<'a>(reader: &Reader<'a>, split: &TrafficSplit) -> Vec<&'a HttpMatch> {
    let groups = split.matches.iter();
    let groups = groups.filter_map(|name| reader.group(&split.metadata.namespace, name));
    groups.flat_map(|group| &group.matches).collect()
}
