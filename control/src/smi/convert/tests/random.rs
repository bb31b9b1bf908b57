//! What holds for every object and every pair of versions. Deterministic: the same objects in every run.

use super::*;
use fastrand::Rng;

const VERSIONS: [&str; 4] = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
const KINDS: [&str; 4] = [
    "TrafficSplit",
    "TrafficTarget",
    "HTTPRouteGroup",
    "TCPRoute",
];

/// An object with fields of the version with this index, as its clients write them.
fn any(rng: &mut Rng, kind: &str, version: usize) -> Value {
    let fields = match kind {
        "TrafficSplit" => any_split(rng, version),
        "TrafficTarget" => any_target(rng, version),
        "HTTPRouteGroup" => any_group(rng, version),
        _ => any_route(rng, version),
    };
    let mut object = object(kind, VERSIONS[version], fields);
    if rng.bool() {
        object["status"] = json!({"conditions": []});
    }
    if rng.bool() {
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
    }
    object
}

fn any_split(rng: &mut Rng, version: usize) -> Value {
    let quantities = [
        "0",
        "1",
        "100",
        "1e3",
        "500m",
        "10m",
        "1.5",
        "2Ki",
        "1n",
        "9223372036854775807",
    ];
    let backends: Vec<Value> = (0..rng.usize(1..5))
        .map(|index| {
            let weight = match version {
                0 if rng.bool() => json!(quantities[rng.usize(..quantities.len())]),
                _ => json!(rng.u64(0..1000)),
            };
            json!({"service": format!("v{index}"), "weight": weight})
        })
        .collect();
    let mut spec = json!({"service": "web", "backends": backends});
    if version >= 2 && rng.bool() {
        let names = (0..rng.usize(0..3))
            .map(|n| json!({"kind": "HTTPRouteGroup", "name": format!("g{n}")}));
        spec["matches"] = names.collect();
    }
    json!({"spec": spec})
}

fn any_subject(rng: &mut Rng, version: usize) -> Value {
    let mut subject = json!({"kind": "ServiceAccount", "name": format!("n{}", rng.u8(..))});
    if version == 3 && rng.bool() {
        subject["kind"] = json!("IdentityBinding");
        subject["group"] = json!("access.smi-spec.io");
    } else if version == 3 && rng.bool() {
        subject["group"] = json!(["", "core"][rng.usize(..2)]);
    }
    subject
}

fn any_target(rng: &mut Rng, version: usize) -> Value {
    let mut destination = any_subject(rng, version);
    if rng.bool() {
        destination["port"] = [json!(8080), json!("8080")][rng.usize(..2)].clone();
    }
    let sources: Vec<Value> = (0..rng.usize(1..5))
        .map(|_| any_subject(rng, version))
        .collect();
    let kinds = ["HTTPRouteGroup", "TCPRoute", "UDPRoute"];
    let rules: Vec<Value> = (0..rng.usize(1..5))
        .map(|n| {
            let kind = kinds[rng.usize(..if version >= 2 { 3 } else { 2 })];
            let mut rule = json!({"kind": kind, "name": format!("r{n}")});
            if kind == "HTTPRouteGroup" && rng.bool() {
                rule["matches"] = json!(["a"]);
            }
            rule
        })
        .collect();
    match version {
        0 => json!({"destination": destination, "sources": sources, "specs": rules}),
        _ => json!({"spec": {"destination": destination, "sources": sources, "rules": rules}}),
    }
}

fn any_group(rng: &mut Rng, version: usize) -> Value {
    let matches: Vec<Value> = (0..rng.usize(0..5))
        .map(|n| {
            let mut item = json!({"name": format!("m{n}"), "pathRegex": "/api"});
            if rng.bool() {
                item["methods"] = json!(["GET", "*"]);
            }
            if version >= 1 && rng.bool() {
                item["headers"] =
                    [json!({"a": "b", "c": ".*"}), json!([{"a": "b"}])][rng.usize(..2)].clone();
            }
            item
        })
        .collect();
    match version {
        0 | 1 => json!({"matches": matches}),
        _ => json!({"spec": {"matches": matches}}),
    }
}

fn any_route(rng: &mut Rng, version: usize) -> Value {
    let ports: Vec<u16> = (0..rng.usize(0..3)).map(|_| rng.u16(1..)).collect();
    match version {
        0 | 1 => json!({}),
        3 if rng.bool() => json!({"spec": {"matches": {"ports": ports}}}),
        _ => json!({"spec": {}}),
    }
}

#[test]
fn d33_there_and_back_is_the_same_object_whatever_the_way() {
    let mut rng = Rng::with_seed(33);
    for round in 0..4000 {
        let (kind, from) = (KINDS[round % 4], round / 4 % 4);
        let first = any(&mut rng, kind, from);
        let mut way = vec![VERSIONS[from]];
        let mut now = first.clone();
        for _ in 0..rng.usize(1..5) {
            let next = VERSIONS[rng.usize(..4)];
            way.push(next);
            now = to(&now, next);
        }
        assert_eq!(to(&now, VERSIONS[from]), first, "{way:?}");
    }
}

#[test]
fn d33_the_stored_form_means_what_was_written() {
    let mut rng = Rng::with_seed(4);
    for round in 0..1000 {
        let (kind, from) = (KINDS[round % 4], round / 4 % 4);
        let first = any(&mut rng, kind, from);
        let stored = to(&first, "v1alpha4");
        assert_eq!(meaning(&stored), meaning(&first), "{first}");
        // And through any other version.
        let shown = to(&stored, VERSIONS[rng.usize(..4)]);
        assert_eq!(meaning(&to(&shown, "v1alpha4")), meaning(&first), "{shown}");
    }
}

#[test]
fn d33_what_is_identical_in_two_versions_is_left_alone() {
    let mut rng = Rng::with_seed(5);
    for (kind, pairs) in [
        ("TrafficSplit", [2, 3]),
        ("HTTPRouteGroup", [2, 3]),
        ("HTTPRouteGroup", [0, 0]),
    ] {
        for _ in 0..100 {
            let first = any(&mut rng, kind, pairs[0]);
            let mut other = to(&first, VERSIONS[pairs[1]]);
            other["apiVersion"] = first["apiVersion"].clone();
            assert_eq!(other, first);
        }
    }
}

/// Changes something somewhere.
fn damage(rng: &mut Rng, value: &mut Value) {
    let junk = [
        json!(null),
        json!(-1),
        json!(0.5),
        json!("IdentityBinding"),
        json!([]),
        json!({}),
        json!([null]),
        json!(1e300),
    ];
    let inner = match value {
        Value::Object(fields) if !fields.is_empty() => {
            let at = rng.usize(..fields.len());
            fields.values_mut().nth(at)
        }
        Value::Array(items) if !items.is_empty() => {
            let at = rng.usize(..items.len());
            items.get_mut(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) if rng.u8(..) > 40 => damage(rng, inner),
        _ => *value = junk[rng.usize(..junk.len())].clone(),
    }
}

#[test]
fn damaged_objects_never_panic() {
    let mut rng = Rng::with_seed(6);
    for round in 0..8000 {
        let (kind, from, wanted) = (KINDS[round % 4], rng.usize(..4), VERSIONS[rng.usize(..4)]);
        let mut object = any(&mut rng, kind, from);
        let between = VERSIONS[rng.usize(..4)];
        object = to(&object, between);
        if let Some(parts) = object["metadata"]["annotations"][SMI_PRESERVED].as_str() {
            let mut parts: Value = serde_json::from_str(parts).unwrap();
            damage(&mut rng, &mut parts);
            object["metadata"]["annotations"][SMI_PRESERVED] = parts.to_string().into();
        }
        damage(&mut rng, &mut object);
        let _ = convert(object, &format!("{}/{wanted}", group_of(kind)));
    }
}
