//! How requests are shared: TrafficSplit.

use super::*;

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
fn d17_d18_quantities_of_v1alpha1() {
    let shares = |a: &str, b: &str| {
        let spec = format!(
            "service: web, backends: [{{service: v1, weight: {a}}}, {{service: v2, weight: {b}}}]"
        );
        split_text(&spec).replace("v1alpha4", "v1alpha1")
    };
    for (a, b, expected) in [
        ("90", "10", (90, 10)),
        ("'90'", "'0'", (90, 0)),
        ("1000m", "500m", (10, 5)),
        ("1", "500m", (10, 5)),
        ("'1'", "0m", (1, 0)),
        ("100m", "900m", (1, 9)),
        ("10m", "1500m", (1, 150)),
        ("1e3", "2k", (1000, 2000)),
        ("'1e3'", "1Ki", (1000, 1024)),
        ("0.25", "0.75", (25, 75)),
        ("1", "1n", (1_000_000_000, 1)),
        ("9223372036854775807", "1", (i64::MAX as u64, 1)),
        ("9223372036854775807", "1n", (i64::MAX as u64, 1)),
    ] {
        let found = weights(&shares(a, b));
        assert_eq!((found[0].1, found[1].1), expected, "{a} {b}");
    }
    for (wrong, why) in [
        ("-1", "must not be negative"),
        ("-1m", "must not be negative"),
        ("'5 m'", "is not a quantity"),
        ("50%", "is not a quantity"),
        ("''", "is not a quantity"),
        ("null", "is missing"),
        ("true", "must be a quantity"),
        ("[1]", "must be a quantity"),
        ("9223372036854775808", "must be at most"),
        ("10E", "must be at most"),
        ("'1e999999999'", "too large"),
    ] {
        refused(&shares("1", wrong), "spec.backends[1].weight", why);
    }
    refused(
        &backed("[{service: v1, weight: 500m}]"),
        "spec.backends[0].weight",
        "quantities are of v1alpha1 only",
    );
    let twice = split_text(
        "service: web, backends: [{service: v1, weight: 500m}, {service: v2, weight: 1}, {service: v1, weight: 250m}]",
    );
    let (object, _) = read(&twice.replace("v1alpha4", "v1alpha1"));
    assert_eq!(split(object.unwrap()).backends[0].weight, 75);
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
