//! Conversions case by case; `random` has the properties that hold for all of them.
#![allow(clippy::unwrap_used)]

mod empty;
mod random;

use super::{ReviewError, convert, review};
use crate::manifest::{Object, parse};
use serde_json::{Value, json};
use weft_proxy_api::names::keys::SMI_PRESERVED;

fn group_of(kind: &str) -> &'static str {
    match kind {
        "TrafficSplit" => "split.smi-spec.io",
        "TrafficTarget" | "IdentityBinding" => "access.smi-spec.io",
        _ => "specs.smi-spec.io",
    }
}

/// An object of a version, with these fields.
fn object(kind: &str, version: &str, fields: Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{}/{version}", group_of(kind)),
        "kind": kind,
        "metadata": {"name": "x", "namespace": "shop", "uid": "1-2", "annotations": {"a": "b"}},
    });
    for (name, value) in fields.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn to(object: &Value, version: &str) -> Value {
    let group = group_of(object["kind"].as_str().unwrap());
    convert(object.clone(), &format!("{group}/{version}")).unwrap()
}

fn fails(object: &Value, version: &str, expected: &str) {
    let group = group_of(object["kind"].as_str().unwrap());
    let error = convert(object.clone(), &format!("{group}/{version}")).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

/// What the controller makes of it, without its metadata.
fn meaning(object: &Value) -> Object {
    let mut object = object.clone();
    object["metadata"] = json!({"name": "x", "namespace": "shop"});
    let (mut loaded, problems) = parse("t", &object.to_string());
    loaded
        .pop()
        .unwrap_or_else(|| panic!("{problems:?}\n{object}"))
        .object
}

fn preserved(object: &Value) -> Value {
    let text = object["metadata"]["annotations"][SMI_PRESERVED].as_str();
    text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn split(version: &str, weights: Value) -> Value {
    let weights = weights.as_array().unwrap().iter().enumerate();
    let backends: Vec<Value> = weights
        .map(|(index, weight)| json!({"service": format!("v{index}"), "weight": weight}))
        .collect();
    object(
        "TrafficSplit",
        version,
        json!({"spec": {"service": "web", "backends": backends}}),
    )
}

fn weights(object: &Value) -> Value {
    let backends = object["spec"]["backends"].as_array().unwrap();
    backends
        .iter()
        .map(|backend| backend["weight"].clone())
        .collect()
}

#[test]
fn d33_whole_weights_stay_what_they_are() {
    let first = split("v1alpha1", json!(["0", "100"]));
    for version in ["v1alpha2", "v1alpha3", "v1alpha4"] {
        let shown = to(&first, version);
        assert_eq!(weights(&shown), json!([0, 100]));
        assert_eq!(shown["metadata"], first["metadata"], "nothing to preserve");
        assert_eq!(to(&shown, "v1alpha1"), first);
    }
}

#[test]
fn d33_quantities_become_whole_numbers_in_the_same_ratio() {
    for (written, whole) in [
        (json!(["1", "500m"]), json!([10, 5])),
        (json!([1, "500m"]), json!([10, 5])),
        (json!(["1e3", "0"]), json!([1000, 0])),
        (json!(["10m", "100m", "1500m"]), json!([1, 10, 150])),
        (json!(["1", "1n"]), json!([1_000_000_000, 1])),
        (json!([50, 50]), json!([50, 50])),
    ] {
        let first = split("v1alpha1", written.clone());
        let stored = to(&first, "v1alpha4");
        assert_eq!(weights(&stored), whole);
        assert_eq!(preserved(&stored)["weights"]["written"], written);
        assert_eq!(to(&stored, "v1alpha1"), first, "as it was written");
        // Through a version that has neither quantities nor conditions.
        assert_eq!(to(&to(&stored, "v1alpha2"), "v1alpha1"), first);
        // Somebody changes one weight: all are shown as numbers, in the new ratio.
        let mut edited = stored.clone();
        edited["spec"]["backends"][1]["weight"] = json!(7);
        let shown = to(&edited, "v1alpha1");
        assert_eq!(weights(&shown)[0], json!(whole[0].to_string()));
        assert_eq!(
            (weights(&shown)[1].clone(), preserved(&shown)),
            (json!("7"), Value::Null)
        );
    }
    // An annotation cannot change the ratio.
    let mut forged = to(&split("v1alpha1", json!(["1", "500m"])), "v1alpha4");
    let parts = json!({"weights": {"written": ["1", "9"], "as": [10, 5]}});
    forged["metadata"]["annotations"][SMI_PRESERVED] = parts.to_string().into();
    assert_eq!(weights(&to(&forged, "v1alpha1")), json!(["10", "5"]));
}

#[test]
fn d18_a_weight_that_is_none_is_an_error() {
    for (weight, why) in [
        (json!("-1"), "spec.backends[0].weight: must not be negative"),
        (json!("x"), "is not a quantity"),
        (json!(null), "is missing"),
        (json!(true), "must be a quantity"),
        (json!("10E"), "must be at most"),
    ] {
        fails(&split("v1alpha1", json!([weight])), "v1alpha4", why);
    }
    for weight in [json!("500m"), json!(0.5), json!(-1)] {
        fails(
            &split("v1alpha4", json!([weight])),
            "v1alpha1",
            "spec.backends[0].weight",
        );
    }
}

#[test]
fn d35_a_condition_survives_every_edit_in_a_version_without_conditions() {
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    let mut stored = split("v1alpha4", json!([0, 100]));
    stored["spec"]["matches"] = matches.clone();
    for version in ["v1alpha1", "v1alpha2"] {
        let shown = to(&stored, version);
        assert_eq!(shown["spec"].get("matches"), None);
        assert_eq!(to(&shown, "v1alpha4"), stored);
        let mut edited = shown.clone();
        edited["spec"]["backends"] = json!([{"service": "other", "weight": 1}]);
        edited["spec"]["service"] = json!("elsewhere");
        assert_eq!(to(&edited, "v1alpha4")["spec"]["matches"], matches);
        edited["metadata"]["annotations"][SMI_PRESERVED] = json!("{");
        fails(&edited, "v1alpha4", "must not be lost");
        edited["metadata"]["annotations"][SMI_PRESERVED] = json!("{\"matches\": [7]}");
        fails(&edited, "v1alpha4", "must not be lost");
        // And a folder that holds what the API server showed is refused, not widened.
        let (loaded, problems) = parse("t", &shown.to_string());
        assert!(
            loaded.is_empty() && problems[0].message.contains("cannot show"),
            "{problems:?}"
        );
    }
    // In the newest version the annotation is nobody's business.
    stored["metadata"]["annotations"][SMI_PRESERVED] = json!("{");
    assert_eq!(to(&stored, "v1alpha3")["spec"], stored["spec"]);
}

fn target(version: &str, destination: Value, sources: Value, rules: Value) -> Value {
    let fields = match version {
        "v1alpha1" => json!({"destination": destination, "sources": sources, "specs": rules}),
        _ => json!({"spec": {"destination": destination, "sources": sources, "rules": rules}}),
    };
    object("TrafficTarget", version, fields)
}

#[test]
fn d11_the_port_of_a_destination_survives_every_version() {
    let subject = json!({"kind": "ServiceAccount", "name": "front", "namespace": "far"});
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "g", "matches": ["a"]}]);
    let versions = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
    for port in [json!(8080), json!("8080")] {
        let destination = json!({"kind": "ServiceAccount", "name": "web", "port": port});
        let all = versions.map(|version| {
            target(
                version,
                destination.clone(),
                json!([subject]),
                rules.clone(),
            )
        });
        for from in &all {
            for (version, wanted) in versions.iter().zip(&all) {
                assert_eq!(to(from, version), *wanted);
            }
        }
    }
}

#[test]
fn d14_bindings_are_kept_and_never_shown_as_accounts() {
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name});
    let bound = |name: &str| json!({"kind": "IdentityBinding", "name": name, "group": "access.smi-spec.io"});
    let rules = json!([{"kind": "TCPRoute", "name": "t"}]);
    let stored = target(
        "v1alpha4",
        bound("web"),
        json!([account("a"), bound("b"), account("c")]),
        rules,
    );
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let shown = to(&stored, version);
        let parts = if version == "v1alpha1" {
            &shown
        } else {
            &shown["spec"]
        };
        assert_eq!(parts.get("destination"), None);
        assert_eq!(parts["sources"], json!([account("a"), account("c")]));
        assert_eq!(to(&shown, "v1alpha4"), stored);
    }
    let mut edited = to(&stored, "v1alpha3");
    edited["spec"]["sources"] = json!([account("d")]);
    let raised = to(&edited, "v1alpha4");
    assert_eq!(raised["spec"]["sources"], json!([account("d"), bound("b")]));
    assert_eq!(raised["spec"]["destination"], bound("web"));
    edited["spec"]["destination"] = account("other");
    assert_eq!(
        to(&edited, "v1alpha4")["spec"]["destination"],
        account("other")
    );
    // Written into a version that does not know it, a binding is an error.
    edited["spec"]["sources"] = json!([bound("b")]);
    fails(
        &edited,
        "v1alpha4",
        "spec.sources[0].kind: IdentityBinding is known since v1alpha4",
    );
    edited["spec"]["sources"] = json!([]);
    edited["spec"]["destination"] = bound("b");
    fails(&edited, "v1alpha4", "spec.destination.kind");
    edited["spec"]
        .as_object_mut()
        .unwrap()
        .remove("destination");
    edited["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    fails(&edited, "v1alpha4", "spec.destination: is missing");
}

#[test]
fn d09_udp_rules_are_kept_where_a_version_has_none() {
    let account = json!({"kind": "ServiceAccount", "name": "a"});
    let rules = json!([{"kind": "UDPRoute", "name": "u"}, {"kind": "TCPRoute", "name": "t"}]);
    let stored = target("v1alpha4", account.clone(), json!([account]), rules.clone());
    for version in ["v1alpha1", "v1alpha2"] {
        let shown = to(&stored, version);
        let parts = if version == "v1alpha1" {
            &shown["specs"]
        } else {
            &shown["spec"]["rules"]
        };
        assert_eq!(*parts, json!([rules[1]]));
        assert_eq!(to(&shown, "v1alpha4"), stored);
    }
    fails(
        &target("v1alpha2", account.clone(), json!([account]), rules),
        "v1alpha4",
        "spec.rules[0].kind: UDPRoute",
    );
}

#[test]
fn d34_the_layout_of_another_version_is_not_guessed() {
    let nested = object(
        "TrafficTarget",
        "v1alpha1",
        json!({"spec": {"destination": {}}}),
    );
    fails(&nested, "v1alpha4", "spec: does not exist in v1alpha1");
    let called = object(
        "TrafficTarget",
        "v1alpha1",
        json!({"destination": {}, "rules": []}),
    );
    fails(&called, "v1alpha4", "rules: is called specs");
    let clash = object(
        "TrafficTarget",
        "v1alpha4",
        json!({"spec": {"destination": {}, "metadata": {}}}),
    );
    fails(&clash, "v1alpha1", "spec.metadata");
}

fn group(version: &str, matches: Value) -> Value {
    let fields = match version {
        "v1alpha1" | "v1alpha2" => json!({"matches": matches}),
        _ => json!({"spec": {"matches": matches}}),
    };
    object("HTTPRouteGroup", version, fields)
}

#[test]
fn d35_headers_survive_the_version_without_headers() {
    let headers = json!({"x-user": "beta"});
    let matches = json!([{"name": "a", "pathRegex": "/", "headers": headers}, {"name": "b", "methods": ["GET"]}]);
    let stored = group("v1alpha4", matches.clone());
    assert_eq!(to(&stored, "v1alpha2"), group("v1alpha2", matches));
    let shown = to(&stored, "v1alpha1");
    assert_eq!(
        shown["matches"],
        json!([{"name": "a", "pathRegex": "/"}, {"name": "b", "methods": ["GET"]}])
    );
    assert_eq!(to(&shown, "v1alpha4"), stored);

    let edit = |matches: Value| {
        let mut edited = shown.clone();
        edited["matches"] = matches;
        edited
    };
    // Another path, another order: the headers stay with their match.
    let moved = to(
        &edit(json!([{"name": "b"}, {"name": "a", "pathRegex": "/new"}])),
        "v1alpha4",
    );
    assert_eq!(
        moved["spec"]["matches"][1],
        json!({"name": "a", "pathRegex": "/new", "headers": headers})
    );
    // Deleted: gone.
    assert_eq!(
        to(&edit(json!([{"name": "b"}])), "v1alpha4"),
        group("v1alpha4", json!([{"name": "b"}]))
    );
    // Renamed it would describe more than before.
    fails(
        &edit(json!([{"name": "b"}, {"name": "c", "pathRegex": "/"}])),
        "v1alpha4",
        "\"a\" has headers",
    );
    fails(
        &edit(json!([{"name": "a", "headers": {"x": "y"}}])),
        "v1alpha4",
        "matches[0].headers: is known since v1alpha2",
    );
}

#[test]
fn d34_a_flat_group_of_a_new_version_is_understood() {
    let flat = object(
        "HTTPRouteGroup",
        "v1alpha4",
        json!({"matches": [{"name": "a", "headers": {"x": "y"}}]}),
    );
    assert_eq!(to(&flat, "v1alpha2")["matches"], flat["matches"]);
    assert_eq!(to(&flat, "v1alpha1")["matches"], json!([{"name": "a"}]));
    assert_eq!(
        meaning(&to(&to(&flat, "v1alpha1"), "v1alpha4")),
        meaning(&flat)
    );
    let twice = object(
        "HTTPRouteGroup",
        "v1alpha2",
        json!({"matches": [], "spec": {"matches": []}}),
    );
    fails(&twice, "v1alpha4", "twice");
}

#[test]
fn d35_ports_survive_the_versions_without_ports() {
    let ports = json!({"spec": {"matches": {"ports": [80, 443]}}});
    let stored = object("TCPRoute", "v1alpha4", ports.clone());
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let shown = to(&stored, version);
        assert_eq!(
            shown.get("spec"),
            (version == "v1alpha3").then_some(&json!({}))
        );
        assert_eq!(to(&shown, "v1alpha4"), stored);
        fails(
            &object("TCPRoute", version, ports.clone()),
            "v1alpha4",
            "spec.matches: is known since v1alpha4",
        );
        let mut edited = shown.clone();
        edited["metadata"]["annotations"][SMI_PRESERVED] = json!("{\"matches\": [80]}");
        fails(&edited, "v1alpha4", "must not be lost");
    }
}

#[test]
fn versions_kinds_and_things_that_are_no_objects() {
    let split = split("v1alpha4", json!([1]));
    for version in ["v1alpha5", "v1", ""] {
        fails(&split, version, "is not a version of \"TrafficSplit\"");
    }
    assert!(convert(split.clone(), "specs.smi-spec.io/v1alpha4").is_err());
    assert!(convert(split.clone(), "v1alpha4").is_err());
    for wrong in [
        json!(null),
        json!([]),
        json!({}),
        json!({"kind": "TrafficSplit"}),
    ] {
        assert!(convert(wrong, "split.smi-spec.io/v1alpha1").is_err());
    }
    let udp = object(
        "UDPRoute",
        "v1alpha4",
        json!({"spec": {"matches": {"ports": [53]}}}),
    );
    assert_eq!(to(&udp, "v1alpha4"), udp);
    fails(&udp, "v1alpha3", "is not a version");
}

fn question(uid: &str, to: &str, objects: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
    })
}

#[test]
fn a_review_is_answered_with_all_objects_or_with_the_reason() {
    let answer = |question: Value| -> Value {
        serde_json::from_slice(&review(question.to_string().as_bytes()).unwrap()).unwrap()
    };
    let (one, two) = (
        split("v1alpha1", json!(["1"])),
        split("v1alpha3", json!([2])),
    );
    let good = answer(question(
        "u-1",
        "split.smi-spec.io/v1alpha4",
        json!([one, two]),
    ));
    assert_eq!(
        (&good["kind"], &good["response"]["uid"]),
        (&json!("ConversionReview"), &json!("u-1"))
    );
    assert_eq!(good["response"]["result"], json!({"status": "Success"}));
    let converted = json!([to(&one, "v1alpha4"), to(&two, "v1alpha4")]);
    assert_eq!(good["response"]["convertedObjects"], converted);

    let bad = split("v1alpha1", json!(["-1"]));
    let failed = answer(question(
        "u-2",
        "split.smi-spec.io/v1alpha4",
        json!([one, bad]),
    ));
    let result = json!({
        "status": "Failure",
        "message": "TrafficSplit shop/x: spec.backends[0].weight: must not be negative",
    });
    assert_eq!(
        (&failed["response"]["uid"], &failed["response"]["result"]),
        (&json!("u-2"), &result)
    );
    assert_eq!(failed["response"]["convertedObjects"], json!([]));
}

#[test]
fn what_is_no_review_is_refused() {
    let sound = question("u", "split.smi-spec.io/v1alpha4", json!([]));
    let mut old = sound.clone();
    old["apiVersion"] = json!("apiextensions.k8s.io/v1beta1");
    assert!(matches!(
        review(old.to_string().as_bytes()),
        Err(ReviewError::Other)
    ));
    let mut answer = sound.clone();
    answer.as_object_mut().unwrap().remove("request");
    assert!(matches!(
        review(answer.to_string().as_bytes()),
        Err(ReviewError::NoRequest)
    ));
    for junk in ["", "{", "[]", "{}", &"[".repeat(100_000)] {
        assert!(matches!(
            review(junk.as_bytes()),
            Err(ReviewError::Malformed(_))
        ));
    }
}
