//! What clients ask first: which versions and which resources there are.

use super::resource::RESOURCES;
use super::{GROUP, VERSIONS};
use serde_json::{Value, json};

/// The group.
pub(super) fn group() -> Value {
    let versions = VERSIONS
        .map(|version| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version}));
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": versions, "preferredVersion": versions[0],
    })
}

/// The resources of a version, and their edges.
pub(super) fn resources(version: &str) -> Value {
    let mut resources = Vec::new();
    for resource in &RESOURCES {
        for (suffix, kind, verbs) in [
            ("", "TrafficMetrics", ["get", "list"].as_slice()),
            ("/edges", "TrafficMetricsList", ["get"].as_slice()),
        ] {
            resources.push(json!({
                "name": format!("{}{suffix}", resource.plural), "singularName": "",
                "namespaced": resource.is_namespaced(), "kind": kind, "verbs": verbs,
            }));
        }
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{version}"), "resources": resources,
    })
}
