//! A local mesh inside an API server: what a cluster's own controllers would write about the node's pods and Services.

use super::Kube;
use crate::Mesh;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Writes the node's Services, accounts and pods into the API server, with the addresses they have on the node.
pub fn mirror(kube: &Kube, mesh: &Mesh) -> Result<()> {
    let objects = objects(mesh)?;
    let of = |kind: &str| -> Vec<&Value> {
        objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .collect()
    };
    let mut wanted: Vec<Value> = of("Service").into_iter().map(service).collect();
    wanted.extend(of("Pod").into_iter().map(pod));
    let accounts: BTreeSet<(&str, &str)> =
        of("Pod").iter().filter_map(|pod| account(pod)).collect();
    let accounts = accounts.into_iter().map(|(namespace, name)| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace},
        })
    });
    // First: a pod is refused whose account does not exist.
    wanted.splice(0..0, accounts);
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": wanted}).to_string())?;
    for pod in of("Pod") {
        let text = |field: &str| {
            pod["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (text("namespace"), text("name"));
        kube.set_status(&["pod", &name, "-n", &namespace], &pod["status"])?;
    }
    Ok(())
}

/// What the node tells a controller that reads folders.
fn objects(mesh: &Mesh) -> Result<Vec<Value>> {
    let folder = mesh.client().state().join("objects");
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "yaml") {
            let text = std::fs::read(&path)?;
            objects
                .push(serde_json::from_slice(&text).with_context(|| path.display().to_string())?);
        }
    }
    Ok(objects)
}

fn head(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "name": metadata["name"], "namespace": metadata["namespace"],
        "labels": metadata["labels"], "annotations": metadata["annotations"],
    })
}

/// A pod's, which also say who owns it.
fn owned(object: &Value) -> Value {
    let mut metadata = head(object);
    metadata["ownerReferences"] = object["metadata"]["ownerReferences"].clone();
    metadata
}

fn service(service: &Value) -> Value {
    let mut spec = service["spec"].clone();
    let families = spec["clusterIPs"].as_array().map_or(0, Vec::len);
    if families > 1 {
        spec["ipFamilyPolicy"] = "RequireDualStack".into();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": head(service), "spec": spec})
}

/// As much of a pod as a mesh looks at; its images and volumes mean nothing to an API server.
fn pod(pod: &Value) -> Value {
    let container = |container: &Value| {
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        json!({"name": container["name"], "image": "example", "ports": ports})
    };
    let list = |name: &str| pod["spec"][name].as_array().cloned().unwrap_or_default();
    let containers: Vec<Value> = list("initContainers")
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .chain(&list("containers"))
        .map(container)
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": owned(pod),
        "spec": {"serviceAccountName": pod["spec"]["serviceAccountName"], "containers": containers},
    })
}

fn account(pod: &Value) -> Option<(&str, &str)> {
    let namespace = pod["metadata"]["namespace"].as_str()?;
    Some((namespace, pod["spec"]["serviceAccountName"].as_str()?))
}
