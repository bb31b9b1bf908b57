//! TrafficSplit: which Services share the requests to one Service.

use super::{SPECS_GROUP, TOP, names, weight};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};

/// A TrafficSplit.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficSplit {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Name of the Service clients call, in the split's namespace (D28).
    pub service: String,
    /// Never empty; each Service once (D30).
    pub backends: Vec<Backend>,
    /// Names of HTTPRouteGroups in the split's namespace, any of which must fit; empty: every request (D26).
    pub matches: Vec<String>,
}

/// One share of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Name of the Service, in the split's namespace.
    pub service: String,
    /// Weight relative to the others.
    pub weight: u64,
}

/// Reads v1alpha4. `None` if something is wrong; what, is in the report.
pub fn read(root: &Field<'_>, metadata: ObjectMeta, report: &mut Report) -> Option<TrafficSplit> {
    let spec = root.get("spec");
    spec.expect_map(report)?;
    // Beside `spec` it would silently make the split unconditional.
    if root.get("matches").is_present() {
        report.error(&root.get("matches"), "belongs under spec");
    }
    root.warn_unknown(&[&TOP[..], &["matches", "status"]].concat(), report);
    spec.warn_unknown(&["service", "backends", "matches"], report);
    let namespace = &metadata.namespace;
    let service = names::service(&spec.get("service"), namespace, report);
    let backends = read_backends(&spec.get("backends"), namespace, report);
    let matches = read_matches(&spec.get("matches"), report);
    let (service, backends, matches) = (service?.to_owned(), backends?, matches?);
    if let Some(root_again) = backends.iter().find(|backend| backend.service == service) {
        let message = format!(
            "{} is the split's own Service: it stands for its own endpoints",
            root_again.service
        );
        report.warn(&spec.get("backends"), message);
    }
    Some(TrafficSplit {
        metadata,
        service,
        backends,
        matches,
    })
}

fn read_backends(field: &Field<'_>, namespace: &str, report: &mut Report) -> Option<Vec<Backend>> {
    let items = field.items(report)?;
    if items.is_empty() {
        report.error(field, "must name at least one backend");
        return None;
    }
    let mut backends: Vec<Backend> = Vec::new();
    let mut complete = true;
    for item in &items {
        item.warn_unknown(&["service", "weight"], report);
        let service = names::service(&item.get("service"), namespace, report);
        let weight = weight::read(&item.get("weight"), report);
        match service.zip(weight) {
            Some((service, weight)) => {
                complete &= add(&mut backends, service, weight, item, report)
            }
            None => complete = false,
        }
    }
    if complete && backends.iter().all(|backend| backend.weight == 0) {
        report.warn(
            field,
            "all weights are 0: every request is answered with 503",
        );
    }
    complete.then_some(backends)
}

/// A backend named twice has both weights (D30).
fn add(
    backends: &mut Vec<Backend>,
    service: &str,
    weight: u64,
    item: &Field<'_>,
    report: &mut Report,
) -> bool {
    let Some(known) = backends
        .iter_mut()
        .find(|backend| backend.service == service)
    else {
        backends.push(Backend {
            service: service.to_owned(),
            weight,
        });
        return true;
    };
    report.warn(
        &item.get("service"),
        format!("{service} is listed before: the weights are added"),
    );
    match known
        .weight
        .checked_add(weight)
        .filter(|sum| *sum <= weight::MAX)
    {
        Some(sum) => known.weight = sum,
        None => report.error(
            &item.get("weight"),
            format!(
                "the weights of {service} add up to more than {}",
                weight::MAX
            ),
        ),
    }
    !report.failed()
}

/// Names of route groups (D26). An entry that is not understood is refused: without it the split would apply to more.
fn read_matches(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = field.items(report)?;
    let names: Vec<Option<String>> = items.iter().map(|item| read_match(item, report)).collect();
    names.into_iter().collect()
}

fn read_match(item: &Field<'_>, report: &mut Report) -> Option<String> {
    item.reject_unknown(&["kind", "name", "apiGroup"], report);
    let name = item.get("name").name(report);
    let kind = item.get("kind").text(report).filter(|kind| match *kind {
        "HTTPRouteGroup" => true,
        other => {
            report.error(
                &item.get("kind"),
                format!("must be HTTPRouteGroup, not {}", short(other)),
            );
            false
        }
    });
    let group = match item.get("apiGroup").value() {
        None => true,
        Some(Value::Text(group)) if group.is_empty() || group == SPECS_GROUP => true,
        Some(other) => {
            report.error(
                &item.get("apiGroup"),
                format!("must be {SPECS_GROUP}, not {}", other.describe()),
            );
            false
        }
    };
    name.filter(|_| kind.is_some() && group).map(str::to_owned)
}
