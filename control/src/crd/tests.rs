//! What an API server asks of a definition, checked without one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::smi::whole::whole;

fn conversion() -> Conversion {
    Conversion {
        namespace: "weft-system".into(),
        ca_bundle: "Q0E=".into(),
    }
}

/// Every schema of every version: kind, version, schema.
fn schemas() -> Vec<(String, String, Value)> {
    let mut schemas = Vec::new();
    for definition in smi(Some(&conversion())) {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let name = version["name"].as_str().unwrap();
            let schema = version["schema"]["openAPIV3Schema"].clone();
            schemas.push((kind.to_owned(), name.to_owned(), schema));
        }
    }
    schemas
}

fn keeps_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// The rules for structural schemas.
fn check(schema: &Value, path: &str) {
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let kind = schema["type"].as_str();
    assert!(
        kind.is_some() || int_or_string || keeps_unknown(schema),
        "{path}: no type"
    );
    assert!(
        !(kind.is_some() && int_or_string),
        "{path}: a type beside int-or-string"
    );
    let known = [
        "type",
        "description",
        "properties",
        "required",
        "items",
        "enum",
        "format",
        "minimum",
        "maximum",
        "minItems",
        "minProperties",
        "pattern",
        "anyOf",
        "additionalProperties",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    ];
    for name in schema.as_object().unwrap().keys() {
        assert!(
            known.contains(&name.as_str()),
            "{path}: {name} is not allowed here"
        );
    }
    let properties = schema["properties"].as_object();
    assert!(
        properties.is_none() || schema.get("additionalProperties").is_none(),
        "{path}: properties beside additionalProperties"
    );
    if let Some(required) = schema["required"].as_array() {
        for name in required {
            let known = properties.is_some_and(|it| it.contains_key(name.as_str().unwrap()));
            assert!(known, "{path}: {name} is required and unknown");
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        weft_proxy_api::policy::matching::TextMatch::regex_full(pattern).unwrap();
    }
    // In `anyOf` there may be no types but for int-or-string, in exactly this form.
    if let Some(any) = schema.get("anyOf") {
        assert!(int_or_string, "{path}");
        assert_eq!(
            *any,
            json!([{"type": "integer"}, {"type": "string"}]),
            "{path}"
        );
    }
    match kind {
        Some("array") => check(&schema["items"], &format!("{path}[]")),
        Some("object") => {
            for (name, child) in properties.into_iter().flatten() {
                check(child, &format!("{path}.{name}"));
            }
        }
        _ => assert!(properties.is_none(), "{path}: properties of no map"),
    }
    if schema["x-kubernetes-list-type"] == "map" {
        for key in schema["x-kubernetes-list-map-keys"].as_array().unwrap() {
            let required = schema["items"]["required"].as_array().unwrap();
            assert!(
                required.contains(key),
                "{path}: the key {key} is not required"
            );
        }
    }
}

#[test]
fn every_schema_is_structural() {
    let schemas = schemas();
    assert_eq!(schemas.len(), 18);
    for (kind, version, schema) in schemas {
        let path = format!("{kind}/{version}");
        check(&schema, &path);
        assert_eq!(schema["type"], "object");
        assert_eq!(
            schema["properties"]["metadata"],
            json!({"type": "object"}),
            "{path}"
        );
        assert!(!keeps_unknown(&schema), "{path}: the top is pruned");
    }
}

#[test]
fn d33_all_versions_are_served_and_the_newest_is_stored() {
    for definition in smi(Some(&conversion())) {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let spec = &definition["spec"];
        let names = &spec["names"];
        let (plural, group) = (
            names["plural"].as_str().unwrap(),
            spec["group"].as_str().unwrap(),
        );
        assert_eq!(name, format!("{plural}.{group}"));
        let kind = names["kind"].as_str().unwrap();
        assert_eq!(names["singular"].as_str().unwrap(), kind.to_lowercase());
        assert_eq!(names["listKind"].as_str().unwrap(), format!("{kind}List"));
        let versions = spec["versions"].as_array().unwrap();
        let stored: Vec<_> = versions.iter().filter(|it| it["storage"] == true).collect();
        assert_eq!((stored.len(), &stored[0]["name"]), (1, &json!("v1alpha4")));
        assert!(versions.iter().all(|it| it["served"] == true));
        let strategy = if versions.len() > 1 {
            "Webhook"
        } else {
            "None"
        };
        assert_eq!(spec["conversion"]["strategy"], strategy, "{name}");
    }
    let split = &smi(Some(&conversion()))[0];
    let client = &split["spec"]["conversion"]["webhook"]["clientConfig"];
    let service = json!({"namespace": "weft-system", "name": "weft-control", "port": 8443, "path": "/convert"});
    assert_eq!(
        (&client["service"], &client["caBundle"]),
        (&service, &json!("Q0E="))
    );
}

#[test]
fn d33_without_a_webhook_only_versions_of_the_stored_layout_are_served() {
    let mut served = Vec::new();
    for definition in smi(None) {
        assert_eq!(
            definition["spec"]["conversion"],
            json!({"strategy": "None"})
        );
        let versions = definition["spec"]["versions"].as_array().unwrap().clone();
        let names = versions.iter().filter(|it| it["served"] == true);
        let names: Vec<&str> = names.map(|it| it["name"].as_str().unwrap()).collect();
        let short = definition["spec"]["names"]["shortNames"][0]
            .as_str()
            .unwrap();
        served.push(format!("{short} {}", names.join(" ")));
    }
    assert_eq!(
        served,
        [
            "ts v1alpha3 v1alpha4",
            "tt v1alpha4",
            "ib v1alpha4",
            "htr v1alpha3 v1alpha4",
            "tr v1alpha4",
            "ur v1alpha4"
        ]
    );
}

/// What an API server leaves of a value.
fn prune(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let keep = |(name, value): (&String, &Value)| {
                let known = &schema["properties"][name];
                match known.is_null() {
                    false => Some((name.clone(), prune(known, value))),
                    true if keeps_unknown(schema) => Some((name.clone(), value.clone())),
                    true if schema.get("additionalProperties").is_some() => {
                        Some((name.clone(), value.clone()))
                    }
                    true => None,
                }
            };
            fields.iter().filter_map(keep).collect()
        }
        Value::Array(_) if schema["items"].is_null() => value.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| prune(&schema["items"], item))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn nothing_that_a_version_knows_is_pruned() {
    for (kind, version, schema) in schemas() {
        let object = whole(&kind, &version);
        assert_eq!(prune(&schema, &object), object, "{kind}/{version}");
    }
}

/// Every map of a value gets a field that nobody knows.
fn sprinkle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(sprinkle);
            fields.insert("typo".into(), json!(1));
        }
        Value::Array(items) => items.iter_mut().for_each(sprinkle),
        _ => {}
    }
}

#[test]
fn d35_a_typo_stays_where_it_could_narrow_and_is_pruned_elsewhere() {
    let typo = |value: &Value| value.get("typo").is_some();
    for (kind, version, schema) in schemas() {
        let mut object = whole(&kind, &version);
        sprinkle(&mut object);
        let left = prune(&schema, &object);
        assert!(!typo(&left), "{kind}/{version}");
        let (spec, nested) = (&left["spec"], &left["spec"]["matches"]);
        match kind.as_str() {
            "TrafficSplit" => assert!(!typo(spec) && !typo(&spec["backends"][0])),
            "TrafficTarget" => {
                let parts = if version == "v1alpha1" { &left } else { spec };
                let rules = if version == "v1alpha1" {
                    "specs"
                } else {
                    "rules"
                };
                assert!(
                    typo(&parts["destination"])
                        && typo(&parts["sources"][0])
                        && typo(&parts[rules][0])
                );
            }
            "IdentityBinding" => {
                assert!(typo(&spec["schemes"]) && typo(&spec["schemes"]["podLabelSelector"]))
            }
            "HTTPRouteGroup" => assert!(typo(&nested[0]) || typo(&left["matches"][0])),
            _ => assert!(typo(spec) || spec.is_null()),
        }
    }
}

#[test]
fn d35_a_condition_of_a_split_reaches_whoever_refuses_it() {
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    for (_, version, schema) in schemas()
        .into_iter()
        .filter(|(kind, ..)| kind == "TrafficSplit")
    {
        let mut object = whole("TrafficSplit", &version);
        object["spec"]["matches"] = matches.clone();
        object["matches"] = matches.clone();
        assert_eq!(prune(&schema, &object), object, "{version}");
    }
}

#[test]
fn every_kind_is_defined_once() {
    let definitions = all(None);
    let names = definitions
        .iter()
        .map(|it| it["metadata"]["name"].as_str().unwrap());
    let names: std::collections::BTreeSet<&str> = names.collect();
    assert_eq!((names.len(), definitions.len()), (7, 7));
    assert!(names.contains("servicepolicies.weft.mesh"));
}
