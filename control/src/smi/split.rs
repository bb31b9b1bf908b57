//! TrafficSplit: which Services share the requests to one Service.

use super::quantity::UNIT;
use super::{SPECS_GROUP, TOP, Version, names, weight};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};
use std::collections::HashMap;

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
    /// Weight relative to the others; fractions of v1alpha1 are multiplied until all are whole (D17).
    pub weight: u64,
}

/// Reads a split. `None` if something is wrong; what, is in the report.
pub fn read(
    root: &Field<'_>,
    metadata: ObjectMeta,
    version: Version,
    report: &mut Report,
) -> Option<TrafficSplit> {
    let spec = root.get("spec");
    spec.expect_map(report)?;
    // Beside `spec` it would silently make the split unconditional.
    if root.get("matches").is_present() {
        report.error(&root.get("matches"), "belongs under spec");
    }
    if version < Version::V1Alpha3 && spec.get("matches").is_present() {
        report.error(&spec.get("matches"), "is known since v1alpha3");
    }
    root.warn_unknown(&[&TOP[..], &["matches"]].concat(), report);
    spec.warn_unknown(&["service", "backends", "matches"], report);
    let namespace = &metadata.namespace;
    let service = names::service(&spec.get("service"), namespace, report);
    let backends = read_backends(&spec.get("backends"), namespace, version, report);
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

fn read_backends(
    field: &Field<'_>,
    namespace: &str,
    version: Version,
    report: &mut Report,
) -> Option<Vec<Backend>> {
    let items = field.items(report)?;
    if items.is_empty() {
        report.error(field, "must name at least one backend");
        return None;
    }
    let mut shares = Shares::default();
    let mut complete = true;
    for item in &items {
        item.warn_unknown(&["service", "weight"], report);
        let service = names::service(&item.get("service"), namespace, report);
        let weight = weight::read(&item.get("weight"), version, report);
        complete &= service
            .zip(weight)
            .is_some_and(|(service, weight)| shares.add(service, weight, item, report));
    }
    if complete && shares.weights.iter().all(|weight| *weight == 0) {
        report.warn(
            field,
            "all weights are 0: every request is answered with 503",
        );
    }
    complete.then(|| shares.backends())
}

/// The Services, each once, and their weights in billionths.
#[derive(Default)]
struct Shares<'a> {
    services: Vec<&'a str>,
    weights: Vec<u128>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Shares<'a> {
    /// A backend named twice has both weights (D30).
    fn add(
        &mut self,
        service: &'a str,
        weight: u128,
        item: &Field<'_>,
        report: &mut Report,
    ) -> bool {
        let Some(place) = self.places.get(service) else {
            self.places.insert(service, self.services.len());
            self.services.push(service);
            self.weights.push(weight);
            return true;
        };
        let message = format!("{service} is listed before: the weights are added");
        report.warn(&item.get("service"), message);
        let sum = self.weights[*place] + weight;
        if sum > u128::from(weight::MAX) * UNIT {
            let most = weight::MAX;
            let message = format!("the weights of {service} add up to more than {most}");
            report.error(&item.get("weight"), message);
            return false;
        }
        self.weights[*place] = sum;
        true
    }

    fn backends(self) -> Vec<Backend> {
        let weights = weight::scaled(&self.weights);
        let shares = self.services.into_iter().zip(weights);
        shares
            .map(|(service, weight)| Backend {
                service: service.to_owned(),
                weight,
            })
            .collect()
    }
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
