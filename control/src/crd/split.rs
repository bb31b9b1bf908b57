//! TrafficSplit.

use super::schema::{self, column, list, map, object, one_of, open, said, text};
use crate::smi::Version;
use serde_json::{Value, json};

/// What is no negative quantity is none of a weight; the controller reads it to the last digit.
const QUANTITY: &str = r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$";

pub(super) fn schema(version: Version) -> Value {
    let backend = map(
        &["service", "weight"],
        &[
            (
                "service",
                said(text(), "Name of a Service of the same namespace."),
            ),
            ("weight", weight(version)),
        ],
    );
    let mut fields = vec![
        (
            "service",
            said(text(), "Name of the Service that clients call."),
        ),
        (
            "backends",
            said(list(backend), "Services that share the requests."),
        ),
    ];
    if version >= Version::V1Alpha3 {
        let group = open(
            &["kind", "name"],
            &[
                ("apiGroup", text()),
                ("kind", one_of(&["HTTPRouteGroup"])),
                ("name", text()),
            ],
        );
        let meaning =
            "Only requests that one of these HTTPRouteGroups describes; all, where it is empty.";
        fields.push(("matches", said(list(group), meaning)));
    } else {
        fields.push(("matches", kept("Known since v1alpha3; refused here.")));
    }
    let spec = map(&["service", "backends"], &fields);
    let misplaced = kept("Belongs under spec; refused here.");
    object(
        "How the requests to one Service are shared between several.",
        &["spec"],
        &[("spec", spec), ("matches", misplaced)],
    )
}

/// A condition where there is none: dropped, it would leave a split that applies to every request (D35).
fn kept(description: &str) -> Value {
    said(
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        description,
    )
}

fn weight(version: Version) -> Value {
    let schema = match version {
        Version::V1Alpha1 => json!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "pattern": QUANTITY,
        }),
        _ => json!({"type": "integer", "format": "int64", "minimum": 0}),
    };
    said(schema, "Its share, relative to the others.")
}

pub(super) fn columns(version: Version) -> Vec<Value> {
    let mut columns = vec![
        column("Service", ".spec.service"),
        column("Backends", ".spec.backends[*].service"),
    ];
    columns.extend(schema::columns(version));
    columns
}
