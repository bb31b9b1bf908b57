//! Versions, old layouts, unknown fields, and objects that are written twice or wrong.

use super::super::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP};
use super::*;

#[test]
fn d33_versions_and_kinds() {
    for (api_version, kind, field, expected) in [
        (
            "split.smi-spec.io/v1alpha5",
            "TrafficSplit",
            "apiVersion",
            "supported: split.smi-spec.io/v1alpha1, split.smi-spec.io/v1alpha2",
        ),
        (
            "split.smi-spec.io/v1",
            "TrafficSplit",
            "apiVersion",
            "\"split.smi-spec.io/v1\" is not a supported version of TrafficSplit",
        ),
        (
            "access.smi-spec.io/v1beta1",
            "TrafficTarget",
            "apiVersion",
            "supported: access.smi-spec.io/v1alpha1",
        ),
        (
            "specs.smi-spec.io/v1alpha5",
            "HTTPRouteGroup",
            "apiVersion",
            "supported: specs.smi-spec.io/v1alpha1",
        ),
        (
            "specs.smi-spec.io/v1alpha3",
            "UDPRoute",
            "apiVersion",
            "supported: specs.smi-spec.io/v1alpha4",
        ),
        (
            "split.smi-spec.io/v1alpha4",
            "Trafficsplit",
            "kind",
            "not a supported kind",
        ),
        (
            "access.smi-spec.io/v1alpha4",
            "TrafficSplit",
            "kind",
            "not a supported kind",
        ),
        (
            "spec.smi-spec.io/v1alpha4",
            "HTTPRouteGroup",
            "apiVersion",
            "what the first releases called specs.smi-spec.io",
        ),
        (
            "access.smi-spec.io/v1alpha3",
            "IdentityBinding",
            "apiVersion",
            "supported: access.smi-spec.io/v1alpha4",
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

/// The same object as each version writes it, and that it is read as the same.
#[test]
fn d33_one_form_for_every_version() {
    let of = |kind: &str, version: &str| {
        let group = match kind {
            "TrafficSplit" => SPLIT_GROUP,
            "TrafficTarget" => ACCESS_GROUP,
            _ => SPECS_GROUP,
        };
        head(&format!("{group}/{version}"), kind)
    };
    let shares = |unit| {
        format!(
            "{{service: web, backends: [{{service: v1, weight: {unit}0}}, {{service: v2, weight: 0}}]}}"
        )
    };
    let parts = format!("destination: {{{SA}, port: 80}}, {SOURCES}");
    let rules = "[{kind: HTTPRouteGroup, name: g, matches: [a]}, {kind: TCPRoute, name: t}]";
    let matches = "[{name: a, pathRegex: /x, methods: [GET]}]";
    let all = [
        (
            "TrafficSplit",
            "v1alpha1",
            format!("spec: {}\n", shares("'1'").replace("'0", "0'")),
        ),
        (
            "TrafficSplit",
            "v1alpha2",
            format!("spec: {}\n", shares("1")),
        ),
        (
            "TrafficSplit",
            "v1alpha3",
            format!("spec: {}\n", shares("1")),
        ),
        (
            "TrafficSplit",
            "v1alpha4",
            format!("spec: {}\n", shares("1")),
        ),
        (
            "TrafficTarget",
            "v1alpha1",
            format!("{}\nspecs: {rules}\n", parts.replace("}, s", "}\ns")),
        ),
        (
            "TrafficTarget",
            "v1alpha2",
            format!("spec: {{{parts}, rules: {rules}}}\n"),
        ),
        (
            "TrafficTarget",
            "v1alpha3",
            format!("spec: {{{parts}, rules: {rules}}}\n"),
        ),
        (
            "TrafficTarget",
            "v1alpha4",
            format!("spec: {{{parts}, rules: {rules}}}\n"),
        ),
        (
            "HTTPRouteGroup",
            "v1alpha1",
            format!("matches: {matches}\n"),
        ),
        (
            "HTTPRouteGroup",
            "v1alpha2",
            format!("matches: {matches}\n"),
        ),
        (
            "HTTPRouteGroup",
            "v1alpha3",
            format!("spec: {{matches: {matches}}}\n"),
        ),
        (
            "HTTPRouteGroup",
            "v1alpha4",
            format!("spec: {{matches: {matches}}}\n"),
        ),
        ("TCPRoute", "v1alpha1", String::new()),
        ("TCPRoute", "v1alpha2", String::new()),
        ("TCPRoute", "v1alpha3", "spec: {}\n".to_owned()),
        (
            "TCPRoute",
            "v1alpha4",
            "spec: {matches: {ports: []}}\n".to_owned(),
        ),
    ];
    for versions in all.chunks(4) {
        let objects = versions
            .iter()
            .map(|(kind, version, rest)| accepted(&format!("{}{rest}", of(kind, version))));
        let objects: Vec<Object> = objects.collect();
        assert!(
            objects.iter().all(|object| *object == objects[0]),
            "{objects:#?}"
        );
    }
}

#[test]
fn d34_the_layout_of_another_version_is_told() {
    let of = |version: &str, rest: &str| {
        format!(
            "{}{rest}",
            head(&format!("specs.smi-spec.io/{version}"), "HTTPRouteGroup")
        )
    };
    for (version, place, rest) in [
        (
            "v1alpha1",
            "beside metadata until v1alpha2",
            "spec: {matches: [{name: a}]}\n",
        ),
        (
            "v1alpha2",
            "beside metadata until v1alpha2",
            "spec: {matches: [{name: a}]}\n",
        ),
        (
            "v1alpha3",
            "under spec since v1alpha3",
            "matches: [{name: a}]\n",
        ),
    ] {
        assert_eq!(
            group(warned(&of(version, rest), place)).matches[0].name,
            "a"
        );
    }
    refused(
        &of("v1alpha2", "matches: []\nspec: {matches: []}\n"),
        "spec.matches",
        "twice",
    );
    // What a version does not know and what narrows is refused, not ignored (D35).
    refused(
        &of("v1alpha1", "matches: [{name: a, headers: {x: b}}]\n"),
        "matches[0].headers",
        "since v1alpha2",
    );
    accepted(&of("v1alpha2", "matches: [{name: a, headers: {x: b}}]\n"));

    let target = |version: &str, rest: String| {
        format!(
            "{}{rest}",
            head(&format!("access.smi-spec.io/{version}"), "TrafficTarget")
        )
    };
    let flat = |rules: &str| format!("destination: {{{SA}}}\n{SOURCES}\n{rules}: []\n");
    let nested = |rules: &str| format!("spec: {{destination: {{{SA}}}, {SOURCES}, {rules}: []}}\n");
    accepted(&target("v1alpha1", flat("specs")));
    accepted(&target("v1alpha2", nested("rules")));
    refused(
        &target("v1alpha1", flat("rules")),
        "rules",
        "is called specs in v1alpha1",
    );
    refused(
        &target("v1alpha1", nested("rules")),
        "spec",
        "does not exist in v1alpha1",
    );
    refused(
        &target("v1alpha2", flat("rules")),
        "spec",
        "belong under spec",
    );
    refused(
        &target("v1alpha2", nested("specs")),
        "spec.specs",
        "is called rules in v1alpha2",
    );
    let udp = "spec: {destination: {kind: ServiceAccount, name: web}, rules: [{kind: UDPRoute, name: u}]}\n";
    refused(
        &target("v1alpha2", udp.to_owned()),
        "spec.rules[0].kind",
        "must be HTTPRouteGroup or TCPRoute",
    );
}

#[test]
fn d35_a_condition_where_a_version_has_none_is_refused() {
    let matches = "[{kind: HTTPRouteGroup, name: g}]";
    for version in ["v1alpha1", "v1alpha2"] {
        let head = head(&format!("split.smi-spec.io/{version}"), "TrafficSplit");
        let spec = format!("spec: {{service: web, {BACKENDS}, matches: {matches}}}\n");
        refused(&format!("{head}{spec}"), "spec.matches", "since v1alpha3");
        accepted(&format!("{head}{spec}").replace(version, "v1alpha3"));
    }
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
    let elsewhere = tcp_text("{}").replace("namespace: shop", "namespace: elsewhere");
    let (loaded, problems) = parse("t", &format!("{}---\n{elsewhere}", tcp_text("{}")));
    assert_eq!((loaded.len(), problems.len()), (2, 0), "another namespace");
}

#[test]
fn every_mistake_is_told_in_one_go() {
    let (_, problems) = read(&split_text(
        "service: '', backends: [{service: v1, weight: -1}, {service: B, weight: x}], matches: [{}]",
    ));
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn the_readme_lists_what_is_supported() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for row in super::super::SUPPORTED {
        let versions: Vec<&str> = row
            .versions
            .iter()
            .map(|version| version.as_str())
            .collect();
        let start = format!("| {} | {} |", row.kind, versions.join(", "));
        assert!(
            readme.lines().any(|line| line.starts_with(&start)),
            "{start}"
        );
    }
}

#[test]
fn the_old_name_of_the_group_counts_where_it_is_asked_for() {
    use crate::manifest::parse_file_of;
    use crate::smi::Groups;
    let of = |version: &str, kind: &str, rest: &str| {
        format!(
            "apiVersion: spec.smi-spec.io/{version}\nkind: {kind}\nmetadata: {{name: g}}\n{rest}\n"
        )
    };
    let group = of(
        "v1alpha1",
        "HTTPRouteGroup",
        "matches: [{name: all, pathRegex: /a}]",
    );
    let route = of("v1alpha1", "TCPRoute", "");
    for text in [&group, &route] {
        let old = parse_file_of(Groups::Legacy, "t", text);
        let new = parse_file_of(Groups::Current, "t", &text.replace("spec.smi", "specs.smi"));
        assert_eq!(old, new, "it is the same object");
        assert_eq!((old.loaded.len(), old.problems.len()), (1, 0));
        let refused = parse_file_of(Groups::Current, "t", text);
        assert_eq!((refused.loaded.len(), refused.broken.len()), (0, 1));
        assert_eq!(refused.problems[0].field.as_deref(), Some("apiVersion"));
        let hint = "(weft-control --legacy-spec-group)";
        assert!(refused.problems[0].message.contains(hint));
    }
    // Nothing that was never in it.
    for text in [
        of("v1alpha2", "HTTPRouteGroup", "matches: []"),
        of("v1alpha1", "UDPRoute", ""),
    ] {
        let parsed = parse_file_of(Groups::Legacy, "t", &text);
        assert_eq!(parsed.loaded, [], "{text}");
        assert_eq!(parsed.problems[0].field.as_deref(), Some("apiVersion"));
    }
}
