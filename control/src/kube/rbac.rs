//! What the controller may do with the Kubernetes API: the least it works with, as the rules an installation writes.

use super::{metrics_api, secret::CA_SECRET};
use crate::smi::LEGACY_SPECS_GROUP;
use crate::source::kube::kinds::{LEGACY, WATCHED};
use crate::webhook::keeper::{INJECTOR, LEGACY_VALIDATOR, VALIDATOR, WEBHOOK_CA_SECRET, converted};
use k8s_openapi::api::rbac::v1::PolicyRule;
use std::collections::BTreeMap;

/// Name of the Lease of whoever writes status.
pub const STATUS_LEASE: &str = "weft-control-status";
/// The Role of namespace `kube-system` that lets an aggregated API server know the certificates of its callers.
pub const AUTHENTICATION_READER: &str = "extension-apiserver-authentication-reader";

/// The rules of the controller's account.
#[derive(Debug, Clone, PartialEq)]
pub struct Rbac {
    /// In the whole cluster (ClusterRole).
    pub cluster: Vec<PolicyRule>,
    /// In the controller's own namespace (Role).
    pub own_namespace: Vec<PolicyRule>,
    /// In the whole cluster, where the old name of a group counts too.
    pub legacy: Vec<PolicyRule>,
}

/// All of them. An aggregated API server needs the Role [`AUTHENTICATION_READER`] of `kube-system` as well.
pub fn rbac() -> Rbac {
    let mut cluster = Vec::new();
    let mut groups: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
    for watched in WATCHED {
        let key = (watched.custom, watched.group);
        groups.entry(key).or_default().push(watched.plural);
    }
    for ((custom, group), plurals) in groups {
        cluster.push(rule(&[group], &plurals, &["get", "list", "watch"], &[]));
        if custom {
            let status: Vec<String> = plurals.iter().map(|it| format!("{it}/status")).collect();
            let status: Vec<&str> = status.iter().map(String::as_str).collect();
            cluster.push(rule(&[group], &status, &["patch"], &[]));
        }
    }
    cluster.push(rule(
        &["authentication.k8s.io"],
        &["tokenreviews"],
        &["create"],
        &[],
    ));
    // Whether somebody may look at the traffic.
    cluster.push(rule(
        &["authorization.k8s.io"],
        &["subjectaccessreviews"],
        &["create"],
        &[],
    ));
    // Told about objects of every namespace, and kept beside them.
    cluster.push(rule(
        &["events.k8s.io"],
        &["events"],
        &["create", "patch"],
        &[],
    ));
    cluster.extend(trusting_the_webhook());
    let leases = &["coordination.k8s.io"];
    // What is created has no name yet that a rule could know.
    let own_namespace = vec![
        rule(&[""], &["secrets"], &["create"], &[]),
        rule(
            &[""],
            &["secrets"],
            &["get", "update", "patch"],
            &[CA_SECRET, WEBHOOK_CA_SECRET],
        ),
        rule(&[""], &["secrets"], &["list", "watch"], &[CA_SECRET]),
        rule(leases, &["leases"], &["create"], &[]),
        rule(leases, &["leases"], &["get", "update"], &[STATUS_LEASE]),
    ];
    let legacy: Vec<&str> = LEGACY.iter().map(|it| it.plural).collect();
    let reading = &["get", "list", "watch"];
    Rbac {
        cluster,
        own_namespace,
        legacy: vec![rule(&[LEGACY_SPECS_GROUP], &legacy, reading, &[])],
    }
}

/// Whom the API server trusts is kept where it asks the webhook, and nowhere else.
fn trusting_the_webhook() -> [PolicyRule; 4] {
    let webhooks = |plural: &str, names: &[&str]| {
        let group = "admissionregistration.k8s.io";
        rule(&[group], &[plural], &["get", "patch"], names)
    };
    let definitions: Vec<String> = converted().collect();
    let services: Vec<String> = metrics_api::services().collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let definitions: Vec<&str> = definitions.iter().map(String::as_str).collect();
    [
        webhooks("mutatingwebhookconfigurations", &[INJECTOR]),
        webhooks(
            "validatingwebhookconfigurations",
            &[VALIDATOR, LEGACY_VALIDATOR],
        ),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            &["get", "patch"],
            &definitions,
        ),
        rule(
            &["apiregistration.k8s.io"],
            &["apiservices"],
            &["get", "patch"],
            &services,
        ),
    ]
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    PolicyRule {
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        resource_names: (!names.is_empty()).then(|| owned(names)),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_that_is_not_needed() {
        let Rbac {
            cluster,
            own_namespace,
            legacy,
        } = rbac();
        let all = cluster.iter().chain(&own_namespace).chain(&legacy);
        let all: Vec<&PolicyRule> = all.collect();
        let star = |texts: &[String]| texts.iter().any(|text| text.contains('*'));
        for rule in &all {
            let resources = rule.resources.as_deref().unwrap_or_default();
            assert!(!star(&rule.verbs) && !star(resources), "{rule:?}");
            assert!(
                !rule.verbs.iter().any(|verb| verb.starts_with("delete")),
                "{rule:?}"
            );
        }
        let secrets = |rule: &PolicyRule| {
            rule.resources
                .iter()
                .flatten()
                .any(|resource| resource == "secrets")
        };
        assert!(
            !cluster.iter().any(secrets),
            "no Secret of another namespace"
        );
        let named = own_namespace
            .iter()
            .filter(|rule| secrets(rule) && rule.verbs != ["create"]);
        assert!(named.into_iter().all(|rule| rule.resource_names.is_some()));
        for watched in WATCHED {
            let readable = cluster.iter().any(|rule| {
                rule.api_groups
                    .iter()
                    .flatten()
                    .any(|group| group == watched.group)
                    && rule
                        .resources
                        .iter()
                        .flatten()
                        .any(|it| it == watched.plural)
                    && rule.verbs == ["get", "list", "watch"]
            });
            assert!(readable, "{watched:?}");
        }
    }
}
