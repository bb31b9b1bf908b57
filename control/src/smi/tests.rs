//! A case and its negative twin for each decision that concerns reading, named by its number.
#![allow(clippy::unwrap_used)]
use super::access::{Rule, Source, TrafficTarget};
use super::specs::{HttpRouteGroup, MAX_PATTERNS, TcpRoute};
use super::split::{Backend, TrafficSplit};
use crate::manifest::{Object, Problem, Severity, parse};
use std::sync::Arc;
use weft_proxy_api::policy::inbound::Ports;
use weft_proxy_api::policy::matching::TextMatch;

/// The object (if it was accepted) and the problems, as `severity field: message`.
fn read(text: &str) -> (Option<Object>, Vec<String>) {
    let (mut loaded, problems) = parse("t", text);
    let line = |problem: &Problem| {
        format!(
            "{} {}: {}",
            problem.severity,
            problem.field.clone().unwrap_or_default(),
            problem.message
        )
    };
    assert!(loaded.len() <= 1);
    assert_eq!(
        loaded.is_empty(),
        problems
            .iter()
            .any(|problem| problem.severity == Severity::Error),
        "{problems:?}"
    );
    (
        loaded.pop().map(|loaded| loaded.object),
        problems.iter().map(line).collect(),
    )
}

fn accepted(text: &str) -> Object {
    let (object, problems) = read(text);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    object.unwrap()
}

/// Accepted, with one warning that says this.
fn warned(text: &str, expected: &str) -> Object {
    let (object, problems) = read(text);
    assert_eq!(problems.len(), 1, "{problems:?}\n{text}");
    assert!(
        problems[0].starts_with("warning ") && problems[0].contains(expected),
        "{problems:?}"
    );
    object.unwrap()
}

/// Refused, with an error that begins with this field and says this.
fn refused(text: &str, field: &str, expected: &str) {
    let (object, problems) = read(text);
    assert_eq!(object, None, "{text}");
    let fits = |problem: &String| {
        problem.starts_with(&format!("error {field}: ")) && problem.contains(expected)
    };
    assert!(
        problems.iter().any(fits),
        "{field}: {expected}\n{problems:?}\n{text}"
    );
}

fn head(api_version: &str, kind: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\n")
}

fn group_text(matches: &str) -> String {
    format!(
        "{}spec: {{matches: {matches}}}\n",
        head("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup")
    )
}

fn target_text(spec: &str) -> String {
    format!(
        "{}spec: {{{spec}}}\n",
        head("access.smi-spec.io/v1alpha3", "TrafficTarget")
    )
}

fn split_text(spec: &str) -> String {
    format!(
        "{}spec: {{{spec}}}\n",
        head("split.smi-spec.io/v1alpha4", "TrafficSplit")
    )
}

fn tcp_text(spec: &str) -> String {
    format!(
        "{}spec: {spec}\n",
        head("specs.smi-spec.io/v1alpha4", "TCPRoute")
    )
}

fn group(object: Object) -> Arc<HttpRouteGroup> {
    let Object::HttpRouteGroup(group) = object else {
        panic!("{object:?}")
    };
    group
}

fn target(object: Object) -> Arc<TrafficTarget> {
    let Object::TrafficTarget(target) = object else {
        panic!("{object:?}")
    };
    target
}

fn split(object: Object) -> Arc<TrafficSplit> {
    let Object::TrafficSplit(split) = object else {
        panic!("{object:?}")
    };
    split
}

fn tcp(object: Object) -> Arc<TcpRoute> {
    let Object::TcpRoute(route) = object else {
        panic!("{object:?}")
    };
    route
}

const SA: &str = "kind: ServiceAccount, name: web";
const SOURCES: &str = "sources: [{kind: ServiceAccount, name: front}]";
const RULES: &str = "rules: [{kind: HTTPRouteGroup, name: g}]";
const BACKENDS: &str = "backends: [{service: v1, weight: 1}]";

/// A target with this destination.
fn to(destination: &str) -> String {
    target_text(&format!(
        "destination: {{{destination}}}, {SOURCES}, {RULES}"
    ))
}

/// A target with these sources.
fn from(sources: &str) -> String {
    target_text(&format!(
        "destination: {{{SA}}}, sources: {sources}, {RULES}"
    ))
}

/// A target with these rules.
fn ruled(rules: &str) -> String {
    target_text(&format!("destination: {{{SA}}}, {SOURCES}, rules: {rules}"))
}

/// A split with these backends.
fn backed(backends: &str) -> String {
    split_text(&format!("service: web, backends: {backends}"))
}

fn weights(text: &str) -> Vec<(String, u64)> {
    split(read(text).0.unwrap())
        .backends
        .iter()
        .map(|it| (it.service.clone(), it.weight))
        .collect()
}

#[test]
fn d01_d03_path_is_a_prefix_and_a_header_is_not() {
    let group = group(accepted(&group_text(
        "[{name: a, pathRegex: /api, headers: {X-A: b}}]",
    )));
    let found = &group.matches[0];
    assert_eq!(found.object, "HTTPRouteGroup shop/x");
    assert_eq!(found.path, Some(TextMatch::Prefix("/api".into())));
    assert_eq!(
        (found.headers[0].name.as_str(), &found.headers[0].value),
        ("x-a", &TextMatch::Exact("b".into()))
    );
}

#[test]
fn d04_headers_as_map_or_list() {
    let map = group(accepted(&group_text(
        "[{name: a, headers: {X-A: b, x-c: d}}]",
    )));
    let list = group(accepted(&group_text(
        "[{name: a, headers: [{x-a: b}, {X-C: d}]}]",
    )));
    assert_eq!(map, list);
    let twice = group(accepted(&group_text(
        "[{name: a, headers: [{x-a: b}, {x-a: c}]}]",
    )));
    assert_eq!(twice.matches[0].headers.len(), 2);
    assert_eq!(
        group(accepted(&group_text("[{name: a, headers: []}]"))).matches[0].headers,
        []
    );

    refused(
        &group_text("[{name: a, headers: [{x-a: b, x-c: d}]}]"),
        "spec.matches[0].headers[0]",
        "exactly one",
    );
    refused(
        &group_text("[{name: a, headers: [{}]}]"),
        "spec.matches[0].headers[0]",
        "exactly one",
    );
    refused(
        &group_text("[{name: a, headers: {x-a: 1}}]"),
        "spec.matches[0].headers.x-a",
        "must be a text",
    );
    refused(
        &group_text("[{name: a, headers: {x-a: }}]"),
        "spec.matches[0].headers.x-a",
        "must have a value",
    );
    refused(
        &group_text("[{name: a, headers: {':authority': x}}]"),
        "spec.matches[0].headers.:authority",
        "not the name of a header",
    );
    refused(
        &group_text("[{name: a, headers: x}]"),
        "spec.matches[0].headers",
        "must be a map",
    );
}

#[test]
fn d05_empty_things_in_a_match() {
    for any in [
        "",
        ", pathRegex: '', methods: []",
        ", pathRegex: null, methods: null",
        ", methods: [GET, '*']",
    ] {
        let group = group(accepted(&group_text(&format!("[{{name: a{any}}}]"))));
        assert_eq!(
            (&group.matches[0].path, group.matches[0].methods.len()),
            (&None, 0)
        );
    }
    let get = group(accepted(&group_text("[{name: a, methods: [GET]}]")));
    assert_eq!(get.matches[0].methods, ["GET"], "GET does not imply HEAD");
    for nothing in ["[]", "null"] {
        assert_eq!(
            group(warned(&group_text(nothing), "describes nothing")).matches,
            []
        );
    }

    refused(
        &group_text("[{name: a, methods: [get]}]"),
        "spec.matches[0].methods[0]",
        "\"get\" is not a method",
    );
    refused(
        &group_text("[{name: a, methods: [QUERY]}]"),
        "spec.matches[0].methods[0]",
        "is not a method",
    );
    refused(
        &group_text("[{name: a, methods: GET}]"),
        "spec.matches[0].methods",
        "must be a list",
    );
    refused(
        &group_text("[{pathRegex: /a}]"),
        "spec.matches[0].name",
        "is missing",
    );
    refused(
        &group_text("[{name: ''}]"),
        "spec.matches[0].name",
        "must not be empty",
    );
    refused(
        &group_text("[{name: a}, {name: a}]"),
        "spec.matches[1].name",
        "the name of a match before",
    );
    refused(&group_text("[null]"), "spec.matches[0].name", "is missing");
    refused(&group_text("{name: a}"), "spec.matches", "must be a list");
}

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

#[test]
fn d17_d18_weights() {
    let weight = |weight: &str| {
        weights(&backed(&format!(
            "[{{service: v1, weight: {weight}}}, {{service: v2, weight: 1}}]"
        )))[0]
            .1
    };
    for (text, expected) in [
        ("0", 0),
        ("7", 7),
        ("5.0", 5),
        ("1e3", 1000),
        ("9223372036854775807", i64::MAX as u64),
    ] {
        assert_eq!(weight(text), expected, "{text}");
    }
    for (wrong, why) in [
        ("-1", "negative"),
        ("0.5", "whole number"),
        ("'5'", "not the text \"5\""),
        ("500m", "not the text"),
        ("null", "is missing"),
        ("true", "whole number"),
        ("9223372036854775808", "at most 9223372036854775807"),
        ("1e30", "at most 9223372036854775807"),
        ("-0.5", "whole number"),
    ] {
        refused(
            &backed(&format!("[{{service: v1, weight: {wrong}}}]")),
            "spec.backends[0].weight",
            why,
        );
    }
    refused(
        &backed("[{service: v1}]"),
        "spec.backends[0].weight",
        "is missing",
    );
    refused(&backed("[]"), "spec.backends", "at least one backend");
    refused(
        &split_text("service: web"),
        "spec.backends",
        "at least one backend",
    );
    warned(&backed("[{service: v1, weight: 0}]"), "all weights are 0");
}

#[test]
fn d23_root_as_backend_is_allowed() {
    let split = split(warned(
        &backed("[{service: web, weight: 9}, {service: v2, weight: 1}]"),
        "own endpoints",
    ));
    assert_eq!(
        split.backends[0],
        Backend {
            service: "web".into(),
            weight: 9
        }
    );
}

#[test]
fn d26_matches_of_a_split() {
    let matched =
        |matches: &str| split_text(&format!("service: web, {BACKENDS}, matches: {matches}"));
    for none in ["[]", "null"] {
        assert_eq!(
            split(accepted(&matched(none))).matches,
            Vec::<String>::new()
        );
    }
    for group in [
        "",
        ", apiGroup: ''",
        ", apiGroup: null",
        ", apiGroup: specs.smi-spec.io",
    ] {
        let split = split(accepted(&matched(&format!(
            "[{{kind: HTTPRouteGroup, name: g{group}}}]"
        ))));
        assert_eq!(split.matches, ["g"]);
    }
    refused(
        &matched("[{kind: HTTPRouteGroup, name: g, apiGroup: networking.k8s.io}]"),
        "spec.matches[0].apiGroup",
        "specs.smi-spec.io",
    );
    refused(
        &matched("[{kind: TCPRoute, name: g}]"),
        "spec.matches[0].kind",
        "must be HTTPRouteGroup",
    );
    refused(
        &matched("[{name: g}]"),
        "spec.matches[0].kind",
        "is missing",
    );
    refused(
        &matched("[{kind: HTTPRouteGroup}]"),
        "spec.matches[0].name",
        "is missing",
    );
    refused(
        &matched("[{kind: HTTPRouteGroup, name: g, namespace: far}]"),
        "spec.matches[0].namespace",
        "not a known field",
    );
    refused(&matched("g"), "spec.matches", "must be a list");
    let misplaced = format!(
        "{}matches: [{{kind: HTTPRouteGroup, name: g}}]\n",
        backed("[{service: v1, weight: 1}]")
    );
    refused(&misplaced, "matches", "belongs under spec");
}

#[test]
fn d28_names_of_services() {
    for name in [
        "web",
        "web.",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
    ] {
        let split = split(accepted(&split_text(&format!(
            "service: {name}, backends: [{{service: v1{}, weight: 1}}]",
            &name[3..]
        ))));
        assert_eq!(
            (split.service.as_str(), split.backends[0].service.as_str()),
            ("web", "v1")
        );
    }
    for (wrong, why) in [
        ("web.far", "not in the namespace of the split (shop)"),
        ("web.far.svc.cluster.local", "not in the namespace"),
        ("www.example.com", "not a Service of the mesh"),
        ("web.shop.pod", "not a Service of the mesh"),
        ("Web", "not the name of a Service"),
        ("web..shop", "not the name of a Service"),
        ("'*'", "not the name of a Service"),
        ("''", "must not be empty"),
        ("7", "must be a text"),
        ("10.0.0.1", "not a Service of the mesh"),
    ] {
        refused(
            &split_text(&format!("service: {wrong}, {BACKENDS}")),
            "spec.service",
            why,
        );
        refused(
            &backed(&format!("[{{service: {wrong}, weight: 1}}]")),
            "spec.backends[0].service",
            why,
        );
    }
    refused(&split_text(BACKENDS), "spec.service", "is missing");
}

#[test]
fn d30_a_backend_twice_has_both_weights() {
    let twice = backed(
        "[{service: v1, weight: 1}, {service: v2, weight: 2}, {service: v1.shop.svc, weight: 4}]",
    );
    warned(&twice, "listed before");
    assert_eq!(
        weights(&twice),
        [("v1".to_owned(), 5), ("v2".to_owned(), 2)]
    );
    let overflow = "[{service: v1, weight: 9223372036854775807}, {service: v1, weight: 1}]";
    refused(
        &backed(overflow),
        "spec.backends[1].weight",
        "add up to more than",
    );
}

#[test]
fn d33_versions_and_kinds() {
    for (api_version, kind, field, expected) in [
        (
            "split.smi-spec.io/v1alpha2",
            "TrafficSplit",
            "apiVersion",
            "supported: split.smi-spec.io/v1alpha4",
        ),
        (
            "split.smi-spec.io/v1",
            "TrafficSplit",
            "apiVersion",
            "\"split.smi-spec.io/v1\" is not a supported version of TrafficSplit",
        ),
        (
            "access.smi-spec.io/v1alpha1",
            "TrafficTarget",
            "apiVersion",
            "supported: access.smi-spec.io/v1alpha3",
        ),
        (
            "specs.smi-spec.io/v1alpha5",
            "HTTPRouteGroup",
            "apiVersion",
            "supported: specs.smi-spec.io/v1alpha4",
        ),
        (
            "specs.smi-spec.io/v1alpha4",
            "UDPRoute",
            "kind",
            "not a supported kind of SMI; supported: TrafficSplit (split.smi-spec.io/v1alpha4)",
        ),
        (
            "split.smi-spec.io/v1alpha4",
            "Trafficsplit",
            "kind",
            "not a supported kind",
        ),
        (
            "spec.smi-spec.io/v1alpha4",
            "HTTPRouteGroup",
            "apiVersion",
            "not a supported group of SMI",
        ),
        (
            "access.smi-spec.io/v1alpha4",
            "IdentityBinding",
            "kind",
            "not a supported kind",
        ),
    ] {
        refused(&head(api_version, kind), field, expected);
    }
    // One that cannot be read does not block the next.
    let two = format!(
        "{}---\n{}",
        head("split.smi-spec.io/v9", "TrafficSplit"),
        tcp_text("{}")
    );
    assert_eq!(parse("t", &two).0.len(), 1);
}

#[test]
fn d34_old_layouts_under_new_versions() {
    let flat = format!(
        "{}matches: [{{name: a}}]\n",
        head("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup")
    );
    assert_eq!(
        group(warned(&flat, "belongs under spec")).matches[0].name,
        "a"
    );
    refused(
        &format!("{flat}spec: {{matches: [{{name: b}}]}}\n"),
        "matches",
        "twice",
    );
    let target = format!(
        "{}destination: {{{SA}}}\nspecs: []\n{SOURCES}\n",
        head("access.smi-spec.io/v1alpha3", "TrafficTarget")
    );
    refused(&target, "spec", "belong under spec");
}

#[test]
fn d35_unknown_fields() {
    warned(
        &format!("{}extra: 1\n", to(SA)),
        "is not a known field and is ignored",
    );
    warned(
        &target_text(&format!(
            "destination: {{{SA}}}, {SOURCES}, {RULES}, extra: 1"
        )),
        "is not a known field",
    );
    warned(
        &backed("[{service: v1, weight: 1, extra: 1}]"),
        "is not a known field",
    );
    accepted(&format!("{}status: {{}}\n", to(SA)));

    refused(
        &to(&format!("{SA}, ports: [80]")),
        "spec.destination.ports",
        "not a known field",
    );
    refused(
        &from(&format!("[{{{SA}, ip: 10.0.0.1}}]")),
        "spec.sources[0].ip",
        "not a known field",
    );
    refused(
        &ruled("[{kind: HTTPRouteGroup, name: g, match: [a]}]"),
        "spec.rules[0].match",
        "not a known field",
    );
    refused(
        &group_text("[{name: a, path: /x}]"),
        "spec.matches[0].path",
        "not a known field",
    );
    refused(
        &tcp_text("{matches: {port: 80}}"),
        "spec.matches.port",
        "not a known field",
    );
    refused(
        &tcp_text("{ports: [80]}"),
        "spec.ports",
        "not a known field",
    );
}

#[test]
fn tcp_routes() {
    for any in ["{}", "{matches: {}}", "{matches: {ports: []}}", "null"] {
        assert_eq!(tcp(accepted(&tcp_text(any))).ports, Ports::Any);
    }
    let only = tcp(accepted(&tcp_text(
        "{matches: {name: a, ports: [80, 443]}}",
    )));
    assert_eq!(only.ports, Ports::Only(vec![80, 443]));
    for wrong in ["0", "65536", "'80'", "1.5", "null"] {
        refused(
            &tcp_text(&format!("{{matches: {{ports: [{wrong}]}}}}")),
            "spec.matches.ports[0]",
            "must be a port",
        );
    }
    refused(
        &tcp_text("{matches: [{ports: [80]}]}"),
        "spec.matches",
        "must be a map",
    );
    refused(
        &tcp_text("{matches: {ports: 80}}"),
        "spec.matches.ports",
        "must be a list",
    );
    refused(&tcp_text("[80]"), "spec", "must be a map");
}

#[test]
fn d36_the_same_object_twice() {
    let (loaded, problems) = parse(
        "t",
        &format!(
            "{}---\n{}",
            tcp_text("{matches: {ports: [1]}}"),
            tcp_text("{matches: {ports: [2]}}")
        ),
    );
    assert_eq!(problems.len(), 1);
    assert_eq!(tcp(loaded[0].object.clone()).ports, Ports::Only(vec![2]));
    assert_eq!(loaded.len(), 1);
}

#[test]
fn d38_patterns() {
    let path = |pattern: &str| group_text(&format!("[{{name: a, pathRegex: '{pattern}'}}]"));
    let header = |pattern: &str| group_text(&format!("[{{name: a, headers: {{x: '{pattern}'}}}}]"));
    for good in ["/a(b|c)+", "/x|/xy", "(?i)/api/.*", "^/v[0-9]+/"] {
        accepted(&path(good));
        accepted(&header(good));
    }
    for (bad, why) in [
        ("(a)\\1", "backreferences are not supported"),
        ("a(?=b)", "look-around"),
        ("/a)|(?:.*", "unopened group"),
        ("(", "unclosed group"),
        ("a\\", "incomplete escape"),
        ("((a{1,100}){1,100}){1,100}", "compiles to more than"),
    ] {
        refused(&path(bad), "spec.matches[0].pathRegex", why);
        refused(&header(bad), "spec.matches[0].headers.x", why);
    }
    refused(
        &path(&"a".repeat(5000)),
        "spec.matches[0].pathRegex",
        "at most 4096",
    );
    let many = |count: usize| {
        let matches: Vec<String> = (0..count)
            .map(|n| format!("{{name: m{n}, pathRegex: '/[a-b]{n}'}}"))
            .collect();
        group_text(&format!("[{}]", matches.join(",")))
    };
    accepted(&many(MAX_PATTERNS));
    refused(
        &many(MAX_PATTERNS + 1),
        "spec.matches",
        "more than a literal text",
    );
}

#[test]
fn every_mistake_is_told_in_one_go() {
    let (_, problems) = read(&split_text(
        "service: '', backends: [{service: v1, weight: -1}, {service: B, weight: x}], matches: [{}]",
    ));
    assert_eq!(problems.len(), 6, "{problems:#?}");
}
