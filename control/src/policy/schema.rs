//! The CustomResourceDefinition of ServicePolicy, made from the table of fields: a client's first check. The parser is the
//! one that decides.

use super::fields::{self, Form, Row};
use super::{GROUP, KIND, VERSION};
use serde_json::{Value, json};

/// Times as Go writes them, without a sign.
const TIME: &str = "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";

/// The definition, as `kubectl apply` takes it.
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("servicepolicies.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": "ServicePolicyList",
                "plural": "servicepolicies",
                "singular": "servicepolicy",
                "shortNames": ["sp"],
                "categories": ["weft"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    column("Service", "string", ".spec.service"),
                    column("Port", "integer", ".spec.port"),
                    column("Mode", "string", ".spec.mode"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
                "schema": { "openAPIV3Schema": object() },
            }],
        },
    })
}

fn column(name: &str, form: &str, path: &str) -> Value {
    json!({ "name": name, "type": form, "jsonPath": path })
}

fn object() -> Value {
    let mut spec = map("");
    let absent: Vec<String> = fields::WHOLE
        .iter()
        .map(|name| format!("!has(self.{name})"))
        .collect();
    spec["x-kubernetes-validations"] = json!([{
        "rule": format!("!has(self.matches) || ({})", absent.join(" && ")),
        "message": format!("{} are about the Service as a whole, not about matches", fields::WHOLE.join(", ")),
    }]);
    json!({
        "type": "object",
        "description": "How a Service of its namespace is called.",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
            "status": status(),
        },
    })
}

/// The fields directly in `path`.
fn map(path: &str) -> Value {
    let mut properties = serde_json::Map::new();
    for row in fields::within(path) {
        let name = row.split().1;
        properties.insert(name.to_owned(), described(row));
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        // A field that nobody knows is refused by the controller; pruned, it would be passed by.
        "x-kubernetes-preserve-unknown-fields": true,
    });
    if let Some((_, required)) = fields::REQUIRED.iter().find(|(of, _)| *of == path) {
        schema["required"] = json!(required);
    }
    schema
}

fn described(row: &Row) -> Value {
    let mut schema = form(row);
    schema["description"] = match row.default {
        "" => json!(row.meaning),
        default => json!(format!("{} Default: {default}.", row.meaning)),
    };
    schema
}

fn form(row: &Row) -> Value {
    match row.form {
        Form::Map => map(row.path),
        Form::Maps => {
            let items = map(&format!("{}[]", row.path));
            json!({ "type": "array", "minItems": 1, "items": items })
        }
        Form::Name => json!({ "type": "string", "minLength": 1, "maxLength": 256 }),
        Form::Names => json!({
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
        }),
        Form::Word(words) => json!({ "type": "string", "enum": words }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Count(from, to) => {
            json!({ "type": "integer", "format": "int32", "minimum": from, "maximum": to })
        }
        Form::Share => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
        Form::Time => json!({ "type": "string", "maxLength": 64, "pattern": TIME }),
        Form::Code => json!({ "x-kubernetes-int-or-string": true }),
        Form::Statuses | Form::Codes => json!({
            "type": "array",
            "maxItems": 32,
            "items": { "x-kubernetes-int-or-string": true },
        }),
    }
}

/// Conditions, as every kind of Kubernetes has them.
fn status() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": { "type": "integer", "format": "int64" },
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": text,
                        "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                        "reason": text,
                        "message": text,
                        "observedGeneration": { "type": "integer", "format": "int64" },
                        "lastTransitionTime": { "type": "string", "format": "date-time" },
                    },
                },
            },
        },
    })
}
