//! TrafficMetrics and lists of them, from the report. Pure.

use super::GROUP;
use super::asked::Traffic;
use super::edges::edges;
use super::figures;
use super::refusal::Refusal;
use super::resource::{ObjectRef, Of, Resource};
use crate::traffic::rows::{self, Kind, Query, Row, SplitShare, Sum};
use crate::traffic::{Counts, Report};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What one object is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Item {
    pub object: ObjectRef,
    /// It was sent by the object, else to it.
    pub sent: bool,
    /// Seen by who sent it, else by who got it.
    pub by_client: bool,
    /// The other end; `None`: everybody.
    pub other: Option<ObjectRef>,
    pub backend: Option<Backend>,
    pub counts: Counts,
}

/// A backend of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub apex: String,
    pub name: String,
    pub weight: u64,
}

/// The document that answers, made at `now` (RFC 3339).
pub(super) fn document(asked: &Traffic, report: &Report, now: &str) -> Result<Value, Refusal> {
    let items = items(report, asked);
    let Some(name) = &asked.name else {
        return Ok(list(asked, report, items, now));
    };
    let Some(first) = items.first() else {
        let resource = format!("{}.{GROUP}", asked.resource.plural);
        return Err(Refusal::not_found(format!("{resource} {name:?} not found")));
    };
    Ok(match (asked.edges, asked.resource.of) {
        (true, _) => {
            let edges = edges(report, asked.resource, &first.object);
            list(asked, report, edges, now)
        }
        (false, Of::Split) => list(asked, report, items, now),
        (false, _) => object(asked, first, now),
    })
}

/// The objects asked for, with all that was sent to them: the rows of `meshctl stat`.
fn items(report: &Report, asked: &Traffic) -> Vec<Item> {
    let resource = asked.resource;
    let rows = match resource.of {
        Of::Namespace => namespaces(report),
        Of::Node => nodes(report),
        Of::Pod => rows(report, asked, Kind::Pod, asked.name.clone()),
        Of::Service => rows(report, asked, Kind::Service, asked.name.clone()),
        Of::Split => rows(report, asked, Kind::Split, asked.name.clone()),
        Of::Owner(prefix) => {
            // A name that ends so means every workload of the kind.
            let name = asked.name.as_deref().unwrap_or_default();
            rows(
                report,
                asked,
                Kind::Workload,
                Some(format!("{prefix}/{name}")),
            )
        }
    };
    let wanted = |item: &Item| {
        asked
            .name
            .as_ref()
            .is_none_or(|name| *name == item.object.name)
    };
    rows.into_iter().filter(wanted).collect()
}

fn rows(report: &Report, asked: &Traffic, kind: Kind, name: Option<String>) -> Vec<Item> {
    let query = Query {
        resource: rows::Resource { kind, name },
        namespace: asked.namespace.clone(),
        ..Query::all(kind)
    };
    // Only queries with a caller can fail.
    let rows = rows::stat(report, &query).unwrap_or_default();
    rows.into_iter()
        .map(|row| item(asked.resource, row))
        .collect()
}

fn item(resource: &Resource, row: Row) -> Item {
    // `deploy/web` is the Deployment `web`; other names have no slash.
    let name = row.name.rsplit('/').next().unwrap_or_default();
    Item {
        object: ObjectRef::new(resource.kind, &row.namespace, name),
        by_client: matches!(resource.of, Of::Service | Of::Split),
        backend: row.share.map(Backend::from),
        counts: row.sum.counts,
        ..Item::default()
    }
}

impl From<SplitShare> for Backend {
    fn from(share: SplitShare) -> Self {
        Self {
            apex: share.apex,
            name: share.leaf,
            weight: share.weight,
        }
    }
}

/// Namespaces, those without pods too.
fn namespaces(report: &Report) -> Vec<Item> {
    let rows = rows::stat(report, &Query::all(Kind::Namespace)).unwrap_or_default();
    let mut all: BTreeMap<String, Sum> = BTreeMap::new();
    for namespace in &report.namespaces {
        all.entry(namespace.clone()).or_default();
    }
    all.extend(rows.into_iter().map(|row| (row.name, row.sum)));
    all.into_iter()
        .map(|(name, sum)| of("Namespace", name, sum.counts))
        .collect()
}

/// Nodes with pods.
fn nodes(report: &Report) -> Vec<Item> {
    let rows = rows::stat(report, &Query::all(Kind::Pod)).unwrap_or_default();
    let on: BTreeMap<(&str, &str), &str> = report
        .pods
        .iter()
        .map(|pod| {
            let at = &pod.facts;
            ((at.namespace.as_str(), at.name.as_str()), at.node.as_str())
        })
        .collect();
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for row in &rows {
        let node = on.get(&(row.namespace.as_str(), row.name.as_str()));
        if let Some(node) = node.filter(|node| !node.is_empty()) {
            let counts = all.entry((*node).to_owned()).or_default();
            counts.add(&row.sum.counts);
        }
    }
    all.into_iter()
        .map(|(name, counts)| of("Node", name, counts))
        .collect()
}

fn of(kind: &str, name: String, counts: Counts) -> Item {
    Item {
        object: ObjectRef::new(kind, "", &name),
        counts,
        ..Item::default()
    }
}

/// A list. Its selector leaves out items; what an edge is selected by is its other end.
fn list(asked: &Traffic, report: &Report, items: Vec<Item>, now: &str) -> Value {
    let items = items.into_iter().filter(|item| {
        let object = match asked.edges {
            true => item.other.as_ref().unwrap_or(&item.object),
            false => &item.object,
        };
        is_selected(asked, report, object)
    });
    let items: Vec<Value> = items.map(|item| object(asked, &item, now)).collect();
    let mut list = json!({
        "kind": "TrafficMetricsList", "apiVersion": format!("{GROUP}/{}", asked.version),
        "metadata": {"selfLink": asked.path},
        "resource": ObjectRef::new(
            asked.resource.kind,
            asked.namespace.as_deref().unwrap_or_default(),
            asked.name.as_deref().unwrap_or_default(),
        ),
        "items": items,
    });
    if !asked.selector.is_empty() {
        list["selector"] = asked.selector.document();
    }
    list
}

/// Has one of its pods the labels? Of Deployments and the like no more is known than their pods.
fn is_selected(asked: &Traffic, report: &Report, object: &ObjectRef) -> bool {
    if asked.selector.is_empty() {
        return true;
    }
    let pods = report.pods.iter().map(|pod| &pod.facts);
    let labels: BTreeSet<_> = pods
        .filter(|pod| object.holds(report, pod))
        .map(|pod| &pod.labels)
        .collect();
    match labels.is_empty() {
        true => asked.selector.matches(&BTreeMap::new()),
        false => labels
            .into_iter()
            .any(|labels| asked.selector.matches(labels)),
    }
}

/// One TrafficMetrics.
fn object(asked: &Traffic, item: &Item, now: &str) -> Value {
    let object = &item.object;
    let mut metadata = json!({
        "name": object.name, "selfLink": self_link(asked, object), "creationTimestamp": now,
    });
    if !object.namespace.is_empty() {
        metadata["namespace"] = json!(object.namespace);
    }
    let mut document = json!({
        "kind": "TrafficMetrics", "apiVersion": format!("{GROUP}/{}", asked.version),
        "metadata": metadata, "timestamp": now, "window": figures::go(asked.window),
        "resource": object,
        "edge": {
            "direction": if item.sent { "to" } else { "from" },
            "side": if item.by_client { "client" } else { "server" },
            "resource": item.other.as_ref().map_or_else(|| json!({}), |other| json!(other)),
        },
        "metrics": figures::metrics(&item.counts),
    });
    if let Some(backend) = &item.backend {
        document["backend"] =
            json!({"apex": backend.apex, "name": backend.name, "weight": backend.weight});
    }
    document
}

/// Where the object is found again.
fn self_link(asked: &Traffic, object: &ObjectRef) -> String {
    let base = format!("/apis/{GROUP}/{}", asked.version);
    let (plural, name) = (asked.resource.plural, &object.name);
    let edges = if asked.edges { "/edges" } else { "" };
    match object.namespace.as_str() {
        "" => format!("{base}/{plural}/{name}{edges}"),
        namespace => format!("{base}/namespaces/{namespace}/{plural}/{name}{edges}"),
    }
}
