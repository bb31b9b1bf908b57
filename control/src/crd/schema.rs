//! Parts of structural schemas, and what all kinds have in common.

use crate::smi::Version;
use serde_json::{Map, Value, json};

/// Names and schemas of fields, in order.
type Properties<'a> = &'a [(&'a str, Value)];

/// A map of exactly these fields; others are dropped when the object is written.
pub(super) fn map(required: &[&str], properties: Properties<'_>) -> Value {
    let properties: Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut schema = json!({"type": "object"});
    // What is empty the API server leaves out, and kubectl would put it in again every time.
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A map that keeps fields nobody knows, so that the controller can refuse them (D35).
pub(super) fn open(required: &[&str], properties: Properties<'_>) -> Value {
    let mut schema = map(required, properties);
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

/// A list, replaced as a whole.
pub(super) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items, "x-kubernetes-list-type": "atomic"})
}

/// A text.
pub(super) fn text() -> Value {
    json!({"type": "string"})
}

/// One of these texts.
pub(super) fn one_of(texts: &[&str]) -> Value {
    json!({"type": "string", "enum": texts})
}

/// A port.
pub(super) fn port() -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})
}

/// The same schema, described.
pub(super) fn said(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// The whole object: these fields beside what every object has.
pub(super) fn object(description: &str, required: &[&str], properties: Properties<'_>) -> Value {
    let common = [
        ("apiVersion", text()),
        ("kind", text()),
        ("metadata", json!({"type": "object"})),
    ];
    let all: Vec<(&str, Value)> = common
        .into_iter()
        .chain(properties.iter().cloned())
        .chain([("status", status())])
        .collect();
    said(map(required, &all), description)
}

/// What the controller made of an object.
fn status() -> Value {
    let time = json!({"type": "string", "format": "date-time"});
    let number = json!({"type": "integer", "format": "int64", "minimum": 0});
    let condition = map(
        &["type", "status", "lastTransitionTime", "reason", "message"],
        &[
            ("type", text()),
            ("status", one_of(&["True", "False", "Unknown"])),
            ("observedGeneration", number.clone()),
            ("lastTransitionTime", time),
            ("reason", text()),
            ("message", text()),
        ],
    );
    let conditions = json!({
        "type": "array",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    });
    let status = open(
        &[],
        &[("observedGeneration", number), ("conditions", conditions)],
    );
    said(status, "What the controller made of it.")
}

/// A column that `kubectl get` prints.
pub(super) fn column(name: &str, path: &str) -> Value {
    json!({"name": name, "type": "string", "jsonPath": path})
}

/// The columns of every kind.
pub(super) fn columns(_: Version) -> Vec<Value> {
    vec![
        column(
            "Accepted",
            ".status.conditions[?(@.type==\"Accepted\")].status",
        ),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
    ]
}
