//! TrafficTarget: who may send what to the pods of a service account.

use super::{TOP, Version};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};

/// A TrafficTarget.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficTarget {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Whose pods are opened.
    pub destination: Destination,
    /// Who may call. Never empty in v1alpha3 (D15).
    pub sources: Vec<Source>,
    /// What they may call. Never empty in v1alpha3 (D15).
    pub rules: Vec<Rule>,
}

/// The destination: a service account in the namespace of the target (D13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Name of the service account.
    pub account: String,
    /// Only this port, a Service's or else a pod's (D10, D11); `None`: what the rules say.
    pub port: Option<u16>,
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A service account.
    ServiceAccount {
        /// Namespace; the target's where it was omitted.
        namespace: String,
        /// Name.
        name: String,
    },
}

/// What may be sent; routes are looked up in the target's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Requests described by an HTTPRouteGroup.
    Http {
        /// Name of the group.
        group: String,
        /// Names of its matches; empty: all (D06).
        matches: Vec<String>,
    },
    /// Traffic to the ports of a TCPRoute.
    Tcp {
        /// Name of the route.
        route: String,
    },
    /// Datagrams to the ports of a UDPRoute; stands alone (D09).
    Udp {
        /// Name of the route.
        route: String,
    },
}

/// Reads a target. `None` if something is wrong; what, is in the report.
pub fn read(
    root: &Field<'_>,
    metadata: ObjectMeta,
    version: Version,
    report: &mut Report,
) -> Option<TrafficTarget> {
    let spec = root.get("spec");
    if !spec.is_present() {
        // The layout of v1alpha1 is not guessed: a field read wrongly could allow more than was meant (D34).
        report.error(
            &spec,
            "is missing: destination, sources and rules belong under spec",
        );
        return None;
    }
    spec.expect_map(report)?;
    root.warn_unknown(&[&TOP[..], &["status"]].concat(), report);
    spec.warn_unknown(&["destination", "sources", "rules"], report);
    let namespace = &metadata.namespace;
    let destination = read_destination(&spec.get("destination"), namespace, report);
    let sources = read_list(&spec.get("sources"), version, report, |item, report| {
        read_source(item, namespace, report)
    });
    let rules = read_list(&spec.get("rules"), version, report, read_rule);
    Some(TrafficTarget {
        destination: destination?,
        sources: sources?,
        rules: rules?,
        metadata,
    })
}

/// From v1alpha3 on, a list must not be empty (D15): forgetting it must not look like a decision.
fn read_list<T>(
    field: &Field<'_>,
    version: Version,
    report: &mut Report,
    mut read: impl FnMut(&Field<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let items = field.items(report)?;
    if items.is_empty() && version >= Version::V1Alpha3 {
        report.error(field, "must have at least one entry");
        return None;
    }
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, report)).collect();
    read.into_iter().collect()
}

fn read_destination(
    field: &Field<'_>,
    namespace: &str,
    report: &mut Report,
) -> Option<Destination> {
    if !field.is_present() {
        report.error(field, "is missing");
        return None;
    }
    field.expect_map(report)?;
    field.reject_unknown(&["kind", "name", "namespace", "port", "group"], report);
    let account = read_account(field, report);
    let within = read_namespace(&field.get("namespace"), namespace, report);
    let port = read_port(&field.get("port"), report);
    let (account, within, port) = (account?, within?, port?);
    if within != namespace {
        let message = format!(
            "must be the namespace of the TrafficTarget ({namespace}), not {}",
            short(within)
        );
        report.error(&field.get("namespace"), message);
        return None;
    }
    Some(Destination {
        account: account.to_owned(),
        port,
    })
}

fn read_source(field: &Field<'_>, namespace: &str, report: &mut Report) -> Option<Source> {
    field.reject_unknown(&["kind", "name", "namespace", "group"], report);
    let name = read_account(field, report);
    let namespace = read_namespace(&field.get("namespace"), namespace, report);
    Some(Source::ServiceAccount {
        namespace: namespace?.to_owned(),
        name: name?.to_owned(),
    })
}

/// Kind, group and name of a subject (D14).
fn read_account<'a>(field: &Field<'a>, report: &mut Report) -> Option<&'a str> {
    let name = field.get("name").name(report);
    let kind = field.get("kind").text(report);
    match kind {
        None | Some("ServiceAccount") => {}
        Some(other) => report.error(
            &field.get("kind"),
            format!("must be ServiceAccount, not {}", short(other)),
        ),
    }
    match field.get("group").value() {
        None => {}
        Some(Value::Text(group)) if group.is_empty() || group == "core" => {}
        Some(other) => {
            report.error(
                &field.get("group"),
                format!(
                    "a ServiceAccount has no group (or \"core\"), not {}",
                    other.describe()
                ),
            );
            return None;
        }
    }
    name.filter(|_| kind == Some("ServiceAccount"))
}

fn read_namespace<'a>(field: &Field<'a>, own: &'a str, report: &mut Report) -> Option<&'a str> {
    match field.text_if_any(report)? {
        None | Some("") => Some(own),
        Some(_) => field.name(report),
    }
}

/// A number or a text with a number (D11). `Some(None)`: not given.
fn read_port(field: &Field<'_>, report: &mut Report) -> Option<Option<u16>> {
    let port = match field.value() {
        None => return Some(None),
        Some(Value::Int(number)) => u16::try_from(*number).ok(),
        Some(Value::Text(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match port.filter(|port| *port > 0) {
        Some(port) => Some(Some(port)),
        None => {
            let found = field.value().map_or(String::new(), Value::describe);
            report.error(
                field,
                format!("must be a port from 1 to 65535, not {found}"),
            );
            None
        }
    }
}

fn read_rule(field: &Field<'_>, report: &mut Report) -> Option<Rule> {
    field.reject_unknown(&["kind", "name", "matches"], report);
    let name = field.get("name").name(report);
    let matches = read_match_names(&field.get("matches"), report);
    let kind = field.get("kind").text(report)?;
    let (name, matches) = (name?.to_owned(), matches?);
    let rule = match kind {
        "HTTPRouteGroup" => {
            return Some(Rule::Http {
                group: name,
                matches,
            });
        }
        "TCPRoute" => Rule::Tcp { route: name },
        "UDPRoute" => Rule::Udp { route: name },
        other => {
            let message = format!(
                "must be HTTPRouteGroup, TCPRoute or UDPRoute, not {}",
                short(other)
            );
            report.error(&field.get("kind"), message);
            return None;
        }
    };
    if !matches.is_empty() {
        report.error(
            &field.get("matches"),
            format!("a {kind} has no matches to choose from"),
        );
        return None;
    }
    Some(rule)
}

fn read_match_names(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = field.items(report)?;
    let names: Vec<Option<&str>> = items.iter().map(|item| item.text(report)).collect();
    names
        .into_iter()
        .map(|name| name.map(str::to_owned))
        .collect()
}
