//! What of an object is kept: the API server sends much more than the mesh looks at, and there are many pods.

use serde_json::{Map, Value};

/// What `kubectl apply` remembers: the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of ours carry this in their prefix.
const OWN: &str = "weft.mesh/";

const POD_SPEC: &[&str] = &[
    "serviceAccountName",
    "containers",
    "initContainers",
    "hostNetwork",
    "nodeName",
    "restartPolicy",
];
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "ports",
    "command",
    "args",
    "restartPolicy",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
];
const POD_STATUS: &[&str] = &["podIP", "podIPs", "conditions", "phase"];

/// Takes out of an object of this kind what nobody looks at. `status` is what others wrote about it; ours as well.
pub fn trim(kind: &str, object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    if let Some(metadata) = child(object, "metadata") {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        if let Some(annotations) = child(metadata, "annotations") {
            annotations.remove(LAST_APPLIED);
            if kind == "Pod" {
                annotations.retain(|name, _| name.contains(OWN));
            }
        }
    }
    match kind {
        "Pod" => trim_pod(object),
        "ServiceAccount" | "Namespace" => object.retain(|name, _| is_head(name)),
        _ => drop(object.remove("status")),
    }
}

fn trim_pod(pod: &mut Map<String, Value>) {
    pod.retain(|name, _| is_head(name) || name == "spec" || name == "status");
    if let Some(spec) = child(pod, "spec") {
        keep(spec, POD_SPEC);
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    keep(container, CONTAINER);
                }
            }
        }
    }
    if let Some(status) = child(pod, "status") {
        keep(status, POD_STATUS);
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        if let Some(conditions) = conditions {
            conditions.retain(|condition| condition["type"] == "Ready");
        }
    }
}

fn child<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(name).and_then(Value::as_object_mut)
}

fn keep(object: &mut Map<String, Value>, names: &[&str]) {
    object.retain(|name, _| names.contains(&name.as_str()));
}

fn is_head(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_keeps_what_the_views_read() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "managedFields": [{}], "labels": {"app": "a"},
                "annotations": {"config.weft.mesh/opaque-ports": "1", "other": "x", LAST_APPLIED: "{}"},
            },
            "spec": {
                "serviceAccountName": "sa", "volumes": [{"name": "v"}], "tolerations": [{}],
                "containers": [{"name": "c", "env": [{"name": "SECRET"}], "ports": [{"containerPort": 1}]}],
            },
            "status": {
                "podIP": "10.0.0.1", "containerStatuses": [{}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized"}],
            },
        });
        trim("Pod", &mut pod);
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "labels": {"app": "a"},
                "annotations": {"config.weft.mesh/opaque-ports": "1"},
            },
            "spec": {
                "serviceAccountName": "sa",
                "containers": [{"name": "c", "ports": [{"containerPort": 1}]}],
            },
            "status": {
                "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn others_lose_their_status_and_odd_shapes_do_no_harm() {
        let mut split = json!({
            "metadata": {"annotations": {"a": "b", LAST_APPLIED: "{}"}}, "spec": {"x": 1}, "status": {},
        });
        trim("TrafficSplit", &mut split);
        assert_eq!(
            split,
            json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"x": 1}})
        );
        for odd in [
            json!(3),
            json!({"metadata": [], "spec": {"containers": 3}, "status": 1}),
        ] {
            for kind in ["Pod", "Service", "Namespace"] {
                trim(kind, &mut odd.clone());
            }
        }
    }
}
