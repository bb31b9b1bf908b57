//! The account of the controller and what it may do.

use super::Source;
use super::objects::{cluster_metadata, metadata};
use crate::kube::rbac::{Rbac, rbac};
use serde_json::{Value, json};
use weft_proxy_api::names::CONTROL_ACCOUNT;

const API: &str = "rbac.authorization.k8s.io";

pub(super) fn objects(source: &impl Source) -> Vec<Value> {
    let Rbac {
        cluster,
        own_namespace,
    } = rbac();
    let version = format!("{API}/v1");
    let binding = |kind: &str, role: &str, metadata: Value| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": metadata,
            "roleRef": {"apiGroup": API, "kind": role, "name": CONTROL_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": CONTROL_ACCOUNT, "namespace": source.namespace()}],
        })
    };
    let own = || metadata(source, CONTROL_ACCOUNT);
    let everywhere = || cluster_metadata(CONTROL_ACCOUNT);
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own()}),
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": everywhere(), "rules": cluster}),
        binding("ClusterRoleBinding", "ClusterRole", everywhere()),
        json!({"apiVersion": version, "kind": "Role", "metadata": own(), "rules": own_namespace}),
        binding("RoleBinding", "Role", own()),
    ]
}
