//! Versions, old layouts, unknown fields, and objects that are written twice or wrong.

use super::*;

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
fn every_mistake_is_told_in_one_go() {
    let (_, problems) = read(&split_text(
        "service: '', backends: [{service: v1, weight: -1}, {service: B, weight: x}], matches: [{}]",
    ));
    assert_eq!(problems.len(), 6, "{problems:#?}");
}
