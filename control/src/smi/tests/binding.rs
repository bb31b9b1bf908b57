//! Who somebody is: IdentityBinding.

use super::*;

fn bound(schemes: &str) -> String {
    let head = head("access.smi-spec.io/v1alpha4", "IdentityBinding");
    format!("{head}spec: {{schemes: {schemes}}}\n")
}

#[test]
fn d14_schemes_of_a_binding() {
    let account = binding(accepted(&bound("{serviceAccount: web}")));
    assert_eq!(account.account.as_deref(), Some("web"));
    let labels = binding(accepted(&bound(
        "{podLabelSelector: {matchLabels: {app: web, tier: ''}}}",
    )));
    assert_eq!(labels.labels.as_ref().unwrap().len(), 2);
    // With and without the scheme, and foreign ones.
    let ids = "[cluster.local/ns/shop/sa/web, spiffe://cluster.local/ns/shop/sa/web, far.domain/boundary/name/type/id]";
    let ids = binding(accepted(&bound(&format!(
        "{{spiffeIdentities: {ids}, serviceAccount: web}}"
    ))));
    assert_eq!(ids.identities[0], ids.identities[1]);
    assert_eq!(
        ids.identities[2],
        "spiffe://far.domain/boundary/name/type/id"
    );

    let both = "{podLabelSelector: {matchLabels: {app: web}}, serviceAccount: web}";
    refused(
        &bound(both),
        "spec.schemes.serviceAccount",
        "beside podLabelSelector",
    );
    for nothing in ["{}", "null", "{spiffeIdentities: []}"] {
        refused(&bound(nothing), "spec.schemes", "must have");
    }
    for (wrong, field, why) in [
        ("[]", "spec.schemes", "must be a map"),
        ("{jwt: x}", "spec.schemes.jwt", "not a known field"),
        (
            "{serviceAccount: '*'}",
            "spec.schemes.serviceAccount",
            "is not a name",
        ),
        (
            "{serviceAccount: 7}",
            "spec.schemes.serviceAccount",
            "must be a text",
        ),
        (
            "{podLabelSelector: {}}",
            "spec.schemes.podLabelSelector.matchLabels",
            "at least one",
        ),
        (
            "{podLabelSelector: {matchLabels: {}}}",
            "spec.schemes.podLabelSelector.matchLabels",
            "at least one",
        ),
        (
            "{podLabelSelector: {matchLabels: {a: 1}}}",
            "spec.schemes.podLabelSelector.matchLabels.a",
            "must be a text",
        ),
        (
            "{podLabelSelector: {matchLabels: {a: b}, matchExpressions: []}}",
            "spec.schemes.podLabelSelector.matchExpressions",
            "not a known field",
        ),
        (
            "{spiffeIdentities: x}",
            "spec.schemes.spiffeIdentities",
            "must be a list",
        ),
    ] {
        refused(&bound(wrong), field, why);
    }
    for id in [
        "'*'",
        "cluster.local/ns/*/sa/web",
        "cluster.local",
        "cluster.local/",
        "/ns/a/sa/b",
        "a/../b",
        "a//b",
        "Cluster/x",
        "https://a/b",
        "'a/b c'",
        "''",
    ] {
        refused(
            &bound(&format!("{{spiffeIdentities: [{id}]}}")),
            "spec.schemes.spiffeIdentities[0]",
            "",
        );
    }
}
