//! The aggregated API of SMI's traffic metrics.

use super::Source;
use super::objects::{cluster_metadata, labels};
use crate::kube::metrics_api::{GROUP, VERSIONS, services};
use crate::kube::rbac::AUTHENTICATION_READER;
use serde_json::{Value, json};
use weft_proxy_api::names::{CONTROL_ACCOUNT, ports};

/// The namespace in which the API server tells whom aggregated servers may believe.
const AUTHENTICATION_NAMESPACE: &str = "kube-system";

pub(super) fn objects(source: &impl Source) -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let mut objects = vec![json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding",
        "metadata": {
            "name": format!("{CONTROL_ACCOUNT}-auth-reader"), "namespace": AUTHENTICATION_NAMESPACE, "labels": labels(),
        },
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": AUTHENTICATION_READER},
        "subjects": [{"kind": "ServiceAccount", "name": CONTROL_ACCOUNT, "namespace": source.namespace()}],
    })];
    let versions = services().zip(VERSIONS).enumerate();
    objects.extend(versions.map(|(at, (name, version))| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": cluster_metadata(&name),
            "spec": {
                "group": GROUP, "version": version,
                // The preferred version comes first.
                "groupPriorityMinimum": 100, "versionPriority": 100 - at,
                // No caBundle: the controller fills it in and keeps it right.
                "service": {
                    "name": CONTROL_ACCOUNT, "namespace": source.namespace(), "port": ports::METRICS_API,
                },
            },
        })
    }));
    objects
}
