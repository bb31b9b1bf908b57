//! TrafficTarget and IdentityBinding.

use super::schema::{self, column, list, map, object, one_of, open, said, text};
use crate::smi::Version;
use serde_json::{Value, json};

pub(super) fn target(version: Version) -> Value {
    let mut sources = list(subject(version, &[]));
    let mut rules = list(rule(version));
    if version == Version::V1Alpha4 {
        // In older versions there may be sources and rules that cannot be shown.
        sources["minItems"] = json!(1);
        rules["minItems"] = json!(1);
    }
    let port = json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 1,
        "maximum": 65535,
        "pattern": "^[0-9]{1,5}$",
    });
    let port = said(port, "Only this port.");
    let destination = subject(version, &[("port", port)]);
    let fields = [
        (
            "destination",
            said(
                destination,
                "Whose pods may be called; of the same namespace.",
            ),
        ),
        ("sources", said(sources, "Who may call.")),
        (rules_name(version), said(rules, "What they may call.")),
    ];
    let meaning = "Who may send what to the pods of a service account; everything else is denied.";
    match version {
        Version::V1Alpha1 => object(meaning, &[], &fields),
        Version::V1Alpha4 => {
            let spec = map(&["destination", "sources", "rules"], &fields);
            object(meaning, &["spec"], &[("spec", spec)])
        }
        // A destination that is an IdentityBinding cannot be shown; that there is one is checked at the conversion.
        _ => object(meaning, &["spec"], &[("spec", map(&[], &fields))]),
    }
}

fn rules_name(version: Version) -> &'static str {
    match version {
        Version::V1Alpha1 => "specs",
        _ => "rules",
    }
}

fn subject(version: Version, more: &[(&str, Value)]) -> Value {
    let kinds: &[&str] = match version {
        Version::V1Alpha4 => &["ServiceAccount", "IdentityBinding"],
        _ => &["ServiceAccount"],
    };
    let mut fields = vec![
        ("kind", one_of(kinds)),
        ("name", text()),
        (
            "namespace",
            said(text(), "The target's own where it is omitted."),
        ),
    ];
    if version == Version::V1Alpha4 {
        fields.push(("group", text()));
    }
    fields.extend(more.iter().cloned());
    open(&["kind", "name"], &fields)
}

fn rule(version: Version) -> Value {
    let kinds: &[&str] = match version {
        Version::V1Alpha1 | Version::V1Alpha2 => &["HTTPRouteGroup", "TCPRoute"],
        _ => &["HTTPRouteGroup", "TCPRoute", "UDPRoute"],
    };
    let matches = said(
        list(text()),
        "Names of matches of the group; all, where it is empty.",
    );
    open(
        &["kind", "name"],
        &[
            ("kind", one_of(kinds)),
            ("name", text()),
            ("matches", matches),
        ],
    )
}

pub(super) fn columns(version: Version) -> Vec<Value> {
    let path = match version {
        Version::V1Alpha1 => ".destination.name",
        _ => ".spec.destination.name",
    };
    let mut columns = vec![column("Destination", path)];
    columns.extend(schema::columns(version));
    columns
}

pub(super) fn binding(_: Version) -> Value {
    let labels =
        json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1});
    let schemes = open(
        &[],
        &[
            (
                "podLabelSelector",
                open(&["matchLabels"], &[("matchLabels", labels)]),
            ),
            ("spiffeIdentities", list(text())),
            (
                "serviceAccount",
                said(
                    text(),
                    "Of the same namespace; not together with podLabelSelector.",
                ),
            ),
        ],
    );
    let mut schemes = said(schemes, "Any of them makes somebody this identity.");
    schemes["x-kubernetes-validations"] = json!([{
        "rule": "!(has(self.podLabelSelector) && has(self.serviceAccount))",
        "message": "podLabelSelector and serviceAccount exclude each other",
    }]);
    object(
        "Which identities belong to a workload of this namespace.",
        &["spec"],
        &[("spec", map(&["schemes"], &[("schemes", schemes)]))],
    )
}
