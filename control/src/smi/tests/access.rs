//! Who may call whom: TrafficTarget.

use super::*;

#[test]
fn d06_rule_matches() {
    let rule = |rule: &str| target(accepted(&ruled(&format!("[{rule}]")))).rules[0].clone();
    let all = Rule::Http {
        group: "g".into(),
        matches: vec![],
    };
    assert_eq!(rule("{kind: HTTPRouteGroup, name: g}"), all);
    assert_eq!(rule("{kind: HTTPRouteGroup, name: g, matches: []}"), all);
    let some = Rule::Http {
        group: "g".into(),
        matches: vec!["a".into()],
    };
    assert_eq!(rule("{kind: HTTPRouteGroup, name: g, matches: [a]}"), some);
    assert_eq!(
        rule("{kind: TCPRoute, name: r}"),
        Rule::Tcp { route: "r".into() }
    );
    assert_eq!(
        rule("{kind: UDPRoute, name: r}"),
        Rule::Udp { route: "r".into() }
    );

    refused(
        &ruled("[{kind: HTTPRoute, name: g}]"),
        "spec.rules[0].kind",
        "must be HTTPRouteGroup, TCPRoute or UDPRoute",
    );
    refused(&ruled("[{name: g}]"), "spec.rules[0].kind", "is missing");
    refused(
        &ruled("[{kind: HTTPRouteGroup}]"),
        "spec.rules[0].name",
        "is missing",
    );
    refused(
        &ruled("[{kind: HTTPRouteGroup, name: g, matches: a}]"),
        "spec.rules[0].matches",
        "must be a list",
    );
    refused(
        &ruled("[{kind: HTTPRouteGroup, name: g, matches: [null]}]"),
        "spec.rules[0].matches[0]",
        "is missing",
    );
    refused(
        &ruled("[{kind: TCPRoute, name: g, matches: [a]}]"),
        "spec.rules[0].matches",
        "no matches to choose from",
    );
}

#[test]
fn d11_destination_port_is_read_in_every_version() {
    let port = |port: &str| {
        target(accepted(&to(&format!("{SA}{port}"))))
            .destination
            .port
    };
    assert_eq!(port(""), None);
    assert_eq!(port(", port: null"), None);
    assert_eq!(port(", port: 8080"), Some(8080));
    assert_eq!(port(", port: '8080'"), Some(8080));
    for wrong in ["0", "65536", "-1", "http", "80.5", "[80]", "''"] {
        refused(
            &to(&format!("{SA}, port: {wrong}")),
            "spec.destination.port",
            "must be a port",
        );
    }
}

#[test]
fn d13_namespaces() {
    let own = target(accepted(&to(&format!("{SA}, namespace: shop"))));
    assert_eq!(own.destination.account(), Some("web"));
    let sources = target(accepted(&from(
        "[{kind: ServiceAccount, name: a}, {kind: ServiceAccount, name: b, namespace: far}]",
    )))
    .sources
    .clone();
    let source = |namespace: &str, name: &str| Subject::ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    };
    assert_eq!(sources, [source("shop", "a"), source("far", "b")]);

    refused(
        &to(&format!("{SA}, namespace: far")),
        "spec.destination.namespace",
        "must be the namespace of the TrafficTarget (shop)",
    );
    refused(
        &to(&format!("{SA}, namespace: default")),
        "spec.destination.namespace",
        "shop",
    );
    refused(
        &from("[{kind: ServiceAccount, name: a, namespace: '*'}]"),
        "spec.sources[0].namespace",
        "is not a name",
    );
}

#[test]
fn d14_subjects() {
    for group in ["''", "core"] {
        accepted(&to(&format!("{SA}, group: {group}")));
        accepted(&from(&format!("[{{{SA}, group: {group}}}]")));
    }
    refused(
        &to(&format!("{SA}, group: apps")),
        "spec.destination.group",
        "has no group",
    );
    refused(
        &from("[{kind: IdentityBinding, name: a}]"),
        "spec.sources[0].kind",
        "must be ServiceAccount",
    );
    refused(
        &from("[{kind: Group, name: a}]"),
        "spec.sources[0].kind",
        "must be ServiceAccount",
    );
    refused(&from("[{name: a}]"), "spec.sources[0].kind", "is missing");
    refused(
        &from("[{kind: ServiceAccount, name: '*'}]"),
        "spec.sources[0].name",
        "is not a name",
    );
    refused(
        &to("kind: ServiceAccount"),
        "spec.destination.name",
        "is missing",
    );
}

#[test]
fn d14_bindings_are_of_v1alpha4_only() {
    let in_v4 = |text: &str| text.replace("v1alpha3", "v1alpha4");
    let bound = |group: &str| {
        in_v4(&from(&format!(
            "[{{kind: IdentityBinding, name: a{group}}}]"
        )))
    };
    let binding = |name: &str| Subject::IdentityBinding {
        namespace: "shop".into(),
        name: name.into(),
    };
    for group in ["", ", group: access.smi-spec.io", ", group: null"] {
        assert_eq!(target(accepted(&bound(group))).sources, [binding("a")]);
    }
    for group in ["''", "core", "rbac.authorization.k8s.io", "7"] {
        refused(
            &bound(&format!(", group: {group}")),
            "spec.sources[0].group",
            "group of IdentityBinding",
        );
    }
    let destination = target(accepted(&in_v4(&to(
        "kind: IdentityBinding, name: web, port: 80",
    ))))
    .destination
    .clone();
    assert_eq!(
        (destination.subject, destination.port),
        (binding("web"), Some(80))
    );
    refused(
        &in_v4(&to("kind: IdentityBinding, name: web, namespace: far")),
        "spec.destination.namespace",
        "(shop)",
    );
    refused(
        &to("kind: IdentityBinding, name: web"),
        "spec.destination.kind",
        "must be ServiceAccount",
    );
    refused(
        &in_v4(&from("[{kind: User, name: a}]")),
        "spec.sources[0].kind",
        "ServiceAccount or IdentityBinding",
    );
}

#[test]
fn d15_empty_lists_are_accepted_before_v1alpha3() {
    let of = |version: &str, text: String| text.replace("v1alpha3", version);
    for empty in [
        from("[]"),
        ruled("[]"),
        target_text(&format!("destination: {{{SA}}}")),
    ] {
        accepted(&of("v1alpha2", empty.clone()));
        assert_eq!(read(&of("v1alpha4", empty)).0, None);
    }
    let first = head("access.smi-spec.io/v1alpha1", "TrafficTarget");
    let nothing = target(accepted(&format!("{first}destination: {{{SA}}}\n")));
    assert!(nothing.sources.is_empty() && nothing.rules.is_empty());
    refused(&first, "destination", "is missing");
}

#[test]
fn d15_empty_lists_are_refused() {
    accepted(&from("[{kind: ServiceAccount, name: a}]"));
    refused(&from("[]"), "spec.sources", "at least one entry");
    refused(&from("null"), "spec.sources", "at least one entry");
    refused(&ruled("[]"), "spec.rules", "at least one entry");
    refused(
        &target_text(&format!("destination: {{{SA}}}, {RULES}")),
        "spec.sources",
        "at least one entry",
    );
    refused(
        &target_text(&format!("{SOURCES}, {RULES}")),
        "spec.destination",
        "is missing",
    );
}

#[test]
fn d16_sources_and_rules_stay_together_in_their_target() {
    let read = target(accepted(&target_text(&format!(
        "destination: {{{SA}}}, {SOURCES}, {RULES}"
    ))));
    assert_eq!((read.sources.len(), read.rules.len()), (1, 1));
    // Two targets stay two objects, even for one destination.
    let two = format!(
        "{}---\n{}",
        to(SA),
        to(SA).replace("name: x", "name: other")
    );
    assert_eq!(parse("t", &two).0.len(), 2);
}
