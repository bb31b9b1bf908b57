//! What the API server asks the controller about, and when.
//!
//! Only pods that are to be injected are asked about, so that a cluster whose controller is away can still start all the
//! others, whatever the failure policy is. A label of the namespace is the API server's own business; an annotation of
//! the pod is found by an expression; an annotation of the namespace only the controller can see, so that those pods are
//! asked about at best effort.

use super::Source;
use super::objects::cluster_metadata;
use crate::smi::{LEGACY_SPECS_GROUP, SUPPORTED};
use crate::source::kube::kinds::LEGACY;
use crate::webhook::inject::EXCLUDED;
use crate::webhook::keeper::{INJECTOR, LEGACY_VALIDATOR, VALIDATOR};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weft_proxy_api::names::{CONTROL_ACCOUNT, keys, ports, webhook_paths};

const VERSION: &str = "admissionregistration.k8s.io/v1";
/// The label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub(super) fn objects(source: &impl Source) -> Vec<Value> {
    vec![injector(source), validator(source)]
}

/// The same for objects under the old name of their group, where it counts.
pub(super) fn legacy(source: &impl Source) -> Vec<Value> {
    let plurals: Vec<&str> = LEGACY.iter().map(|it| it.plural).collect();
    let rules = [rule(LEGACY_SPECS_GROUP, &plurals)];
    vec![validating(source, LEGACY_VALIDATOR, &rules)]
}

fn injector(source: &impl Source) -> Value {
    let annotation = format!(
        "object.metadata.?annotations[?'{}'].orValue('')",
        keys::INJECT
    );
    let says = |word: &str| format!("{annotation} == '{word}'");
    let policy = source.value("webhook.failurePolicy");
    let unlabelled = namespaces(source, "NotIn", &["enabled", "disabled"]);
    let hooks = [
        Hook {
            name: "namespace.inject.weft.mesh",
            namespaces: namespaces(source, "In", &["enabled"]),
            condition: ("not-disabled", format!("!({})", says("disabled"))),
            path: webhook_paths::INJECT_NAMESPACE,
            policy: policy.clone(),
        },
        Hook {
            name: "pod.inject.weft.mesh",
            namespaces: unlabelled.clone(),
            condition: (
                "annotated",
                format!("!({} || {})", says(""), says("disabled")),
            ),
            path: webhook_paths::INJECT,
            policy,
        },
        Hook {
            name: "annotated-namespace.inject.weft.mesh",
            namespaces: unlabelled,
            condition: ("not-annotated", says("")),
            path: webhook_paths::INJECT,
            policy: "Ignore".into(),
        },
    ];
    let hooks: Vec<Value> = hooks.into_iter().map(|hook| hook.object(source)).collect();
    json!({
        "apiVersion": VERSION, "kind": "MutatingWebhookConfiguration",
        "metadata": cluster_metadata(INJECTOR), "webhooks": hooks,
    })
}

/// A way to ask about new pods.
struct Hook {
    name: &'static str,
    namespaces: Value,
    condition: (&'static str, String),
    path: &'static str,
    policy: Value,
}

impl Hook {
    fn object(self, source: &impl Source) -> Value {
        json!({
            "name": self.name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client(source, self.path),
            "failurePolicy": self.policy,
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            // A webhook after ours may annotate the pod; asked again, we change nothing that we changed already.
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": source.value("webhook.timeoutSeconds"),
            "namespaceSelector": self.namespaces,
            "objectSelector": {},
            "matchConditions": [{"name": self.condition.0, "expression": self.condition.1}],
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                "operations": ["CREATE"], "scope": "Namespaced",
            }],
        })
    }
}

fn validator(source: &impl Source) -> Value {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for watched in crate::source::kube::kinds::WATCHED {
        let smi = SUPPORTED
            .iter()
            .any(|row| row.kind.as_str() == watched.kind);
        if smi || watched.group == crate::policy::GROUP {
            groups
                .entry(watched.group)
                .or_default()
                .push(watched.plural);
        }
    }
    let rules = groups.iter().map(|(group, plurals)| rule(group, plurals));
    validating(source, VALIDATOR, &rules.collect::<Vec<_>>())
}

fn rule(group: &str, plurals: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "apiVersions": ["*"], "resources": plurals,
        "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
    })
}

fn validating(source: &impl Source, name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": VERSION, "kind": "ValidatingWebhookConfiguration",
        "metadata": cluster_metadata(name),
        "webhooks": [{
            "name": "validate.weft.mesh",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client(source, webhook_paths::VALIDATE),
            "failurePolicy": source.value("webhook.validationPolicy"),
            // As it was written: a refusal names the fields of that version.
            "matchPolicy": "Exact",
            "sideEffects": "None",
            "timeoutSeconds": source.value("webhook.timeoutSeconds"),
            "namespaceSelector": {},
            "objectSelector": {},
            "rules": rules,
        }],
    })
}

fn client(source: &impl Source, path: &str) -> Value {
    // No caBundle: the controller fills it in and keeps it right.
    json!({"service": {
        "name": CONTROL_ACCOUNT, "namespace": source.namespace(), "port": ports::WEBHOOK, "path": path,
    }})
}

fn namespaces(source: &impl Source, operator: &str, words: &[&str]) -> Value {
    let mut excluded: Vec<String> = EXCLUDED.map(str::to_owned).to_vec();
    excluded.push(source.namespace());
    json!({"matchExpressions": [
        {"key": NAMESPACE_NAME, "operator": "NotIn", "values": excluded},
        {"key": keys::INJECT, "operator": operator, "values": words},
    ]})
}
