//! The account of the controller and what it may do.

use super::Source;
use super::objects::{cluster_metadata, metadata};
use crate::kube::rbac::{Rbac, rbac};
use crate::policy::GROUP;
use serde_json::{Value, json};
use weft_proxy_api::names::{CONTROL_ACCOUNT, VIEWER_ACCOUNT};

const API: &str = "rbac.authorization.k8s.io";
const LEGACY_ROLE: &str = "weft-control-legacy";

pub(super) fn objects(source: &impl Source) -> Vec<Value> {
    let Rbac {
        cluster,
        own_namespace,
        ..
    } = rbac();
    let version = format!("{API}/v1");
    let bound = |name: &str, kind: &str, role: &str, metadata: Value| {
        bound(source, (kind, metadata), (role, name), name)
    };
    let binding = |kind: &str, role: &str, metadata| bound(CONTROL_ACCOUNT, kind, role, metadata);
    let own = || metadata(source, CONTROL_ACCOUNT);
    let everywhere = || cluster_metadata(CONTROL_ACCOUNT);
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own()}),
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": everywhere(), "rules": cluster}),
        binding("ClusterRoleBinding", "ClusterRole", everywhere()),
        json!({"apiVersion": version, "kind": "Role", "metadata": own(), "rules": own_namespace}),
        binding("RoleBinding", "Role", own()),
        // Who may create its tokens may see the traffic.
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(source, VIEWER_ACCOUNT)}),
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": cluster_metadata(VIEWER_ACCOUNT), "rules": viewing()}),
        bound(
            VIEWER_ACCOUNT,
            "ClusterRoleBinding",
            "ClusterRole",
            cluster_metadata(VIEWER_ACCOUNT),
        ),
    ]
}

/// What the controller may do besides, where the old name of a group counts too.
pub(super) fn legacy(source: &impl Source) -> Vec<Value> {
    let metadata = || cluster_metadata(LEGACY_ROLE);
    let rules = rbac().legacy;
    vec![
        json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": metadata(), "rules": rules}),
        bound(
            source,
            ("ClusterRoleBinding", metadata()),
            ("ClusterRole", LEGACY_ROLE),
            CONTROL_ACCOUNT,
        ),
    ]
}

/// A role for an account beside the controller.
fn bound(
    source: &impl Source,
    (kind, metadata): (&str, Value),
    (role_kind, role): (&str, &str),
    account: &str,
) -> Value {
    json!({
        "apiVersion": format!("{API}/v1"), "kind": kind, "metadata": metadata,
        "roleRef": {"apiGroup": API, "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": source.namespace()}],
    })
}

/// All that there is to see ([`crate::kube::observers`]).
fn viewing() -> Value {
    json!([
        {"apiGroups": [GROUP], "resources": ["traffic"], "verbs": ["get"]},
        {"apiGroups": [GROUP], "resources": ["pods/tap"], "verbs": ["watch"]},
        {"apiGroups": [GROUP], "resources": ["pods/metrics"], "verbs": ["update"]},
    ])
}
