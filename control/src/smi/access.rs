//! TrafficTarget: who may send what to the pods of a service account.

use super::convert::preserved::is_empty_on_purpose;
use super::{ACCESS_GROUP, TOP, Version};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};
use weft_proxy_api::names::keys::SMI_PRESERVED;

/// A TrafficTarget.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficTarget {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Whose pods are opened.
    pub destination: Destination,
    /// Who may call. Empty only where an older version than v1alpha3 allowed it (D15).
    pub sources: Vec<Subject>,
    /// What they may call. Empty only where an older version than v1alpha3 allowed it (D15).
    pub rules: Vec<Rule>,
}

/// The destination, always of the target's own namespace (D13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Whose pods.
    pub subject: Subject,
    /// Only this port, a Service's or else a pod's (D10, D11); `None`: what the rules say.
    pub port: Option<u16>,
}

impl Destination {
    /// The service account, if it is named directly.
    pub fn account(&self) -> Option<&str> {
        match &self.subject {
            Subject::ServiceAccount { name, .. } => Some(name),
            Subject::IdentityBinding { .. } => None,
        }
    }
}

/// Who calls, or is called. The namespace is the target's where it was omitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A service account.
    ServiceAccount {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Whoever an IdentityBinding describes; since v1alpha4 (D14).
    IdentityBinding {
        /// Namespace.
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
    let (parts, rules) = layout(root, version, report)?;
    let namespace = &metadata.namespace;
    let destination = read_destination(&parts.get("destination"), namespace, version, report);
    let preserved = metadata.annotations.get(SMI_PRESERVED);
    // From v1alpha3 on, forgetting a list must not look like a decision; in what was written before, it is one (D15).
    let may_be_empty = |list: &str| {
        version < Version::V1Alpha3 || preserved.is_some_and(|it| is_empty_on_purpose(it, list))
    };
    let field = parts.get("sources");
    let sources = read_list(&field, may_be_empty("sources"), report, |item, report| {
        item.reject_unknown(&["kind", "name", "namespace", "group"], report);
        read_subject(item, namespace, version, report)
    });
    let field = parts.get(rules);
    let rules = read_list(&field, may_be_empty("rules"), report, |item, report| {
        read_rule(item, version, report)
    });
    Some(TrafficTarget {
        destination: destination?,
        sources: sources?,
        rules: rules?,
        metadata,
    })
}

/// Where the parts stand, and what the rules are called. The layout of another version is not guessed: a field read
/// wrongly could allow more than was meant (D34).
fn layout<'a>(
    root: &Field<'a>,
    version: Version,
    report: &mut Report,
) -> Option<(Field<'a>, &'static str)> {
    let spec = root.get("spec");
    let (parts, rules, other) = match version {
        Version::V1Alpha1 => (root.clone(), "specs", "rules"),
        _ => (spec.clone(), "rules", "specs"),
    };
    let misplaced = match version {
        Version::V1Alpha1 if spec.is_present() => Some(
            "does not exist in v1alpha1: destination, sources and specs belong beside metadata",
        ),
        Version::V1Alpha1 => None,
        _ if spec.is_present() => None,
        _ => Some("is missing: destination, sources and rules belong under spec"),
    };
    if let Some(message) = misplaced {
        report.error(&spec, message);
        return None;
    }
    spec.expect_map(report)?;
    if parts.get(other).is_present() {
        let message = format!("is called {rules} in {}", version.as_str());
        report.error(&parts.get(other), message);
        return None;
    }
    let known = ["destination", "sources", rules];
    match version {
        Version::V1Alpha1 => root.warn_unknown(&[&TOP[..], &known].concat(), report),
        _ => {
            root.warn_unknown(&TOP, report);
            spec.warn_unknown(&known, report);
        }
    }
    Some((parts, rules))
}

fn read_list<T>(
    field: &Field<'_>,
    may_be_empty: bool,
    report: &mut Report,
    mut read: impl FnMut(&Field<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let items = field.items(report)?;
    if items.is_empty() && !may_be_empty {
        report.error(field, "must have at least one entry");
        return None;
    }
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, report)).collect();
    read.into_iter().collect()
}

fn read_destination(
    field: &Field<'_>,
    namespace: &str,
    version: Version,
    report: &mut Report,
) -> Option<Destination> {
    if !field.is_present() {
        report.error(field, "is missing");
        return None;
    }
    field.expect_map(report)?;
    field.reject_unknown(&["kind", "name", "namespace", "port", "group"], report);
    let subject = read_subject(field, namespace, version, report);
    let port = read_port(&field.get("port"), report);
    let (subject, port) = (subject?, port?);
    let within = subject.namespace();
    if within != namespace {
        let message = format!(
            "must be the namespace of the TrafficTarget ({namespace}), not {}",
            short(within)
        );
        report.error(&field.get("namespace"), message);
        return None;
    }
    Some(Destination { subject, port })
}

/// Kind, group, name and namespace of a subject (D13, D14).
fn read_subject(
    field: &Field<'_>,
    own: &str,
    version: Version,
    report: &mut Report,
) -> Option<Subject> {
    let name = field.get("name").name(report);
    let namespace = read_namespace(&field.get("namespace"), own, report);
    let kind = field.get("kind").text(report)?;
    let is_binding = match kind {
        "ServiceAccount" => false,
        "IdentityBinding" if version >= Version::V1Alpha4 => true,
        other => {
            let kinds = match version {
                Version::V1Alpha4 => "ServiceAccount or IdentityBinding",
                _ => "ServiceAccount",
            };
            let message = format!("must be {kinds}, not {}", short(other));
            report.error(&field.get("kind"), message);
            return None;
        }
    };
    check_group(&field.get("group"), is_binding, report)?;
    let (namespace, name) = (namespace?.to_owned(), name?.to_owned());
    Some(match is_binding {
        true => Subject::IdentityBinding { namespace, name },
        false => Subject::ServiceAccount { namespace, name },
    })
}

fn check_group(field: &Field<'_>, is_binding: bool, report: &mut Report) -> Option<()> {
    let fits = match field.value() {
        None => true,
        Some(Value::Text(group)) if is_binding => group == ACCESS_GROUP,
        Some(Value::Text(group)) => group.is_empty() || group == "core",
        Some(_) => false,
    };
    if fits {
        return Some(());
    }
    let found = field.value().map_or(String::new(), Value::describe);
    let message = match is_binding {
        true => format!("the group of IdentityBinding is {ACCESS_GROUP}, not {found}"),
        false => format!("a ServiceAccount has no group (or \"core\"), not {found}"),
    };
    report.error(field, message);
    None
}

impl Subject {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        match self {
            Subject::ServiceAccount { namespace, .. } => namespace,
            Subject::IdentityBinding { namespace, .. } => namespace,
        }
    }
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

fn read_rule(field: &Field<'_>, version: Version, report: &mut Report) -> Option<Rule> {
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
        "UDPRoute" if version >= Version::V1Alpha3 => Rule::Udp { route: name },
        other => {
            let kinds = match version {
                Version::V1Alpha1 | Version::V1Alpha2 => "HTTPRouteGroup or TCPRoute",
                _ => "HTTPRouteGroup, TCPRoute or UDPRoute",
            };
            let message = format!("must be {kinds}, not {}", short(other));
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
