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
    assert_eq!(own.destination.account, "web");
    let sources = target(accepted(&from(
        "[{kind: ServiceAccount, name: a}, {kind: ServiceAccount, name: b, namespace: far}]",
    )))
    .sources
    .clone();
    let source = |namespace: &str, name: &str| Source::ServiceAccount {
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
