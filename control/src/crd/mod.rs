//! CustomResourceDefinitions of the kinds the controller reads, as an API server wants them. Pure: what is served follows from
//! [`smi::SUPPORTED`](crate::smi::SUPPORTED), so definition and reader cannot disagree about a version.
//!
//! The schemas name the fields and refuse what is plainly wrong (a negative weight, a kind that does not exist). Where
//! a field that nobody knows might narrow what is allowed, it is kept and not pruned, so that the controller can refuse
//! it (D35).

mod access;
mod schema;
mod specs;
mod split;
#[cfg(test)]
mod tests;

use crate::manifest::Kind;
use crate::policy;
use crate::smi::{LEGACY_KINDS, LEGACY_SPECS_GROUP, SUPPORTED, Supported, Version};
use serde_json::{Value, json};
use weft_proxy_api::names::{self, ports, webhook_paths};

/// Versions that are stored; every other one is converted.
pub const STORAGE: Version = Version::V1Alpha4;

/// How an API server reaches the conversion webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// Namespace of the controller's Service.
    pub namespace: String,
    /// The root its serving certificate is signed by: PEM in base64. Empty: the controller fills it in.
    pub ca_bundle: String,
}

/// The definitions of all kinds: those of SMI, and ServicePolicy.
pub fn all(conversion: Option<&Conversion>) -> Vec<Value> {
    let mut definitions = smi(conversion);
    definitions.push(policy::schema::definition());
    definitions
}

/// The definitions of all kinds of SMI. Without a webhook only those versions are served that look like the stored one:
/// an API server that converts nothing drops the fields of any other.
pub fn smi(conversion: Option<&Conversion>) -> Vec<Value> {
    SUPPORTED
        .iter()
        .map(|row| definition(row, conversion))
        .collect()
}

/// The definitions of the kinds of [`LEGACY_SPECS_GROUP`]. Of one version, so that nothing has to convert it; without a status,
/// which others would read by the other name; and without short names, which are those of the other.
pub fn legacy() -> Vec<Value> {
    let definition = |kind: &Kind| {
        let shape = shape(kind)?;
        Some(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{LEGACY_SPECS_GROUP}", shape.plural)},
            "spec": {
                "group": LEGACY_SPECS_GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": kind.as_str(),
                    "listKind": format!("{kind}List"),
                    "singular": shape.singular,
                    "plural": shape.plural,
                },
                "versions": [{
                    "name": Version::V1Alpha1.as_str(),
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": (shape.schema)(Version::V1Alpha1)},
                    "additionalPrinterColumns": [
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }],
                "conversion": {"strategy": "None"},
            },
        }))
    };
    LEGACY_KINDS.iter().filter_map(definition).collect()
}

/// What a kind looks like in the definitions.
struct Shape {
    singular: &'static str,
    plural: &'static str,
    short: &'static str,
    schema: fn(Version) -> Value,
    columns: fn(Version) -> Vec<Value>,
    /// The first version that looks like the stored one.
    alike_since: Version,
}

fn shape(kind: &Kind) -> Option<Shape> {
    let shape = |singular, plural, short, schema, columns, alike_since| Shape {
        singular,
        plural,
        short,
        schema,
        columns,
        alike_since,
    };
    let (v3, v4) = (Version::V1Alpha3, Version::V1Alpha4);
    Some(match kind {
        Kind::TrafficSplit => {
            let (schema, columns) = (split::schema as fn(_) -> _, split::columns as fn(_) -> _);
            shape("trafficsplit", "trafficsplits", "ts", schema, columns, v3)
        }
        Kind::TrafficTarget => {
            let (schema, columns) = (access::target as fn(_) -> _, access::columns as fn(_) -> _);
            shape("traffictarget", "traffictargets", "tt", schema, columns, v4)
        }
        Kind::IdentityBinding => {
            let (schema, columns) = (access::binding as fn(_) -> _, schema::columns as fn(_) -> _);
            shape(
                "identitybinding",
                "identitybindings",
                "ib",
                schema,
                columns,
                v4,
            )
        }
        Kind::HttpRouteGroup => {
            let (schema, columns) = (specs::group as fn(_) -> _, schema::columns as fn(_) -> _);
            shape(
                "httproutegroup",
                "httproutegroups",
                "htr",
                schema,
                columns,
                v3,
            )
        }
        Kind::TcpRoute => {
            let (schema, columns) = (specs::route as fn(_) -> _, schema::columns as fn(_) -> _);
            shape("tcproute", "tcproutes", "tr", schema, columns, v4)
        }
        Kind::UdpRoute => {
            let (schema, columns) = (specs::route as fn(_) -> _, schema::columns as fn(_) -> _);
            shape("udproute", "udproutes", "ur", schema, columns, v4)
        }
        _ => return None,
    })
}

fn definition(row: &Supported, conversion: Option<&Conversion>) -> Value {
    let Some(shape) = shape(&row.kind) else {
        return Value::Null;
    };
    let versions = row.versions.iter().map(|version| {
        let served = conversion.is_some() || *version >= shape.alike_since;
        json!({
            "name": version.as_str(),
            "served": served,
            "storage": *version == STORAGE,
            "schema": {"openAPIV3Schema": (shape.schema)(*version)},
            "subresources": {"status": {}},
            "additionalPrinterColumns": (shape.columns)(*version),
        })
    });
    let versions: Vec<Value> = versions.collect();
    let conversion = conversion.filter(|_| versions.len() > 1);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", shape.plural, row.group)},
        "spec": {
            "group": row.group,
            "scope": "Namespaced",
            "names": {
                "kind": row.kind.as_str(),
                "listKind": format!("{}List", row.kind),
                "singular": shape.singular,
                "plural": shape.plural,
                "shortNames": [shape.short],
                "categories": ["smi", "weft"],
            },
            "versions": versions,
            "conversion": conversion.map_or_else(|| json!({"strategy": "None"}), webhook),
        },
    })
}

fn webhook(conversion: &Conversion) -> Value {
    let mut config = json!({
        "service": {
            "namespace": conversion.namespace,
            "name": names::CONTROL_ACCOUNT,
            "port": ports::WEBHOOK,
            "path": webhook_paths::CONVERT,
        },
    });
    if !conversion.ca_bundle.is_empty() {
        config["caBundle"] = conversion.ca_bundle.as_str().into();
    }
    json!({
        "strategy": "Webhook",
        "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": config},
    })
}
