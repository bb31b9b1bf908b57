//! Everything that has to go again: what was installed, and what the controller made.

use super::objects::{LEGACY, Part};
use super::{Install, objects};
use crate::kube::rbac::STATUS_LEASE;
use crate::kube::secret::CA_SECRET;
use crate::webhook::keeper::WEBHOOK_CA_SECRET;
use serde_json::{Value, json};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The definitions, and with them every object of SMI and every ServicePolicy.
    pub definitions: bool,
    /// The namespace, and with it what others put there.
    pub namespace: bool,
}

/// The objects to delete, with no more than their names, in an order in which nothing waits for what is gone: webhooks
/// first, the namespace last.
pub fn objects_to_delete(install: &Install, keep: Keep) -> Vec<Value> {
    // Definitions under the old name of a group may be another product's, where it does not count here.
    let is_ours = |part: &Part| {
        let is_legacy = part.when.contains(&LEGACY) && part.when.contains(&"crds");
        !is_legacy || install.values.get(LEGACY) == true
    };
    let mut all: Vec<Value> = objects::all(install)
        .into_iter()
        .filter(is_ours)
        .map(|it| it.object)
        .collect();
    let namespace = &install.namespace;
    let made = |api: &str, kind: &str, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    // After the namespace and before what was installed: deleted in the opposite order, once nobody makes them again.
    let own = [
        made("v1", "Secret", CA_SECRET),
        made("v1", "Secret", WEBHOOK_CA_SECRET),
        made("coordination.k8s.io/v1", "Lease", STATUS_LEASE),
    ];
    all.splice(1..1, own);
    all.reverse();
    all.retain(|object| match object["kind"].as_str() {
        Some("CustomResourceDefinition") => !keep.definitions,
        Some("Namespace") => !keep.namespace,
        _ => true,
    });
    all.iter().map(named).collect()
}

fn named(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut named = json!({"name": metadata["name"]});
    if let Some(namespace) = metadata.get("namespace") {
        named["namespace"] = namespace.clone();
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": named})
}
