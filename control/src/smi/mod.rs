//! Service Mesh Interface objects in checked form: one form per kind, whatever version it was written in.
//!
//! What is wrong in the text is refused or warned about here, where it was written can still be said. What depends on
//! other objects (does the group exist, has the Service that port) is decided by the views. The numbers D01… name the
//! decisions where SMI's text leaves a choice.
//!
//! A further version is a row in [`SUPPORTED`] and a branch where its layout differs; the form it is read into stays.

pub mod access;
mod names;
pub mod specs;
pub mod split;
mod weight;

use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::short;
use crate::manifest::{Kind, Object, k8s::ObjectMeta};
use std::sync::Arc;

/// Versions that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1alpha3`.
    V1Alpha3,
    /// `v1alpha4`.
    V1Alpha4,
}

/// The group of TrafficSplit.
pub const SPLIT_GROUP: &str = "split.smi-spec.io";
/// The group of TrafficTarget.
pub const ACCESS_GROUP: &str = "access.smi-spec.io";
/// The group of HTTPRouteGroup and TCPRoute.
pub const SPECS_GROUP: &str = "specs.smi-spec.io";

/// What can be read: group, kind, version.
const SUPPORTED: &[(&str, Kind, &str, Version)] = &[
    (
        SPLIT_GROUP,
        Kind::TrafficSplit,
        "v1alpha4",
        Version::V1Alpha4,
    ),
    (
        ACCESS_GROUP,
        Kind::TrafficTarget,
        "v1alpha3",
        Version::V1Alpha3,
    ),
    (
        SPECS_GROUP,
        Kind::HttpRouteGroup,
        "v1alpha4",
        Version::V1Alpha4,
    ),
    (SPECS_GROUP, Kind::TcpRoute, "v1alpha4", Version::V1Alpha4),
];

/// What an apiVersion and a kind stand for.
pub enum Lookup {
    /// An object that can be read.
    Known(Version, Kind),
    /// SMI, but not in this version or not of this kind.
    Unsupported {
        /// The field to blame.
        field: &'static str,
        /// What would be right.
        message: String,
        /// The kind, if only the version is wrong.
        kind: Option<Kind>,
    },
    /// Nothing of SMI.
    NotSmi,
}

/// Is it SMI, and can it be read (D33)?
pub fn lookup(api_version: &str, kind: &str) -> Lookup {
    let Some((group, version)) = api_version.split_once('/') else {
        return Lookup::NotSmi;
    };
    // The first releases called the specs group `spec.smi-spec.io`.
    if !(group.ends_with(".smi-spec.io") || group == "smi-spec.io") {
        return Lookup::NotSmi;
    }
    let of_kind = |row: &&(&str, Kind, &str, Version)| row.0 == group && row.1.as_str() == kind;
    let rows: Vec<_> = SUPPORTED.iter().filter(of_kind).collect();
    match (rows.iter().find(|row| row.2 == version), rows.first()) {
        (Some(row), _) => Lookup::Known(row.3, row.1.clone()),
        (None, Some(row)) => Lookup::Unsupported {
            field: "apiVersion",
            message: format!(
                "{} is not a supported version of {kind}; supported: {}",
                short(api_version),
                versions(&rows)
            ),
            kind: Some(row.1.clone()),
        },
        (None, None) => unknown_kind(group, kind),
    }
}

fn versions(rows: &[&(&str, Kind, &str, Version)]) -> String {
    rows.iter()
        .map(|row| format!("{}/{}", row.0, row.2))
        .collect::<Vec<_>>()
        .join(", ")
}

fn unknown_kind(group: &str, kind: &str) -> Lookup {
    let all: Vec<String> = SUPPORTED
        .iter()
        .map(|row| format!("{} ({}/{})", row.1, row.0, row.2))
        .collect();
    let known_group = SUPPORTED.iter().any(|row| row.0 == group);
    let (field, what) = if known_group {
        ("kind", kind)
    } else {
        ("apiVersion", group)
    };
    let message = format!(
        "{} is not a supported {}; supported: {}",
        short(what),
        if known_group {
            "kind of SMI"
        } else {
            "group of SMI"
        },
        all.join(", ")
    );
    Lookup::Unsupported {
        field,
        message,
        kind: None,
    }
}

/// Reads an object of a kind that [`lookup`] knows.
pub fn read(
    root: &Field<'_>,
    metadata: ObjectMeta,
    version: Version,
    kind: &Kind,
    report: &mut Report,
) -> Option<Object> {
    match kind {
        Kind::TrafficSplit => split::read(root, metadata, report)
            .map(Arc::new)
            .map(Object::TrafficSplit),
        Kind::TrafficTarget => access::read(root, metadata, version, report)
            .map(Arc::new)
            .map(Object::TrafficTarget),
        Kind::HttpRouteGroup => specs::read_http(root, metadata, report)
            .map(Arc::new)
            .map(Object::HttpRouteGroup),
        Kind::TcpRoute => specs::read_tcp(root, metadata, report)
            .map(Arc::new)
            .map(Object::TcpRoute),
        _ => None,
    }
}

/// The fields every object has.
pub(crate) const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

#[cfg(test)]
mod tests;
