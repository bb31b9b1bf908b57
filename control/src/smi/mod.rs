//! Service Mesh Interface objects in checked form: one form per kind, whatever version it was written in.
//!
//! What is wrong in the text is refused or warned about here, where it was written can still be said. What depends on
//! other objects (does the group exist, has the Service that port) is decided by the views. The numbers D01… name the
//! decisions where SMI's text leaves a choice.
//!
//! A further version is an entry in [`SUPPORTED`] and a branch where its layout differs; the form it is read into stays.

pub mod access;
pub mod binding;
pub mod convert;
mod names;
pub(crate) mod quantity;
pub mod routes;
pub mod specs;
pub mod split;
mod weight;

use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::short;
use crate::manifest::{Kind, Object, k8s::ObjectMeta};
use Version::{V1Alpha1, V1Alpha2, V1Alpha3, V1Alpha4};
use std::sync::Arc;
use weft_proxy_api::names::keys::SMI_PRESERVED;

/// Versions that are read. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1alpha1`.
    V1Alpha1,
    /// `v1alpha2`.
    V1Alpha2,
    /// `v1alpha3`.
    V1Alpha3,
    /// `v1alpha4`.
    V1Alpha4,
}

/// The group of TrafficSplit.
pub const SPLIT_GROUP: &str = "split.smi-spec.io";
/// The group of TrafficTarget and IdentityBinding.
pub const ACCESS_GROUP: &str = "access.smi-spec.io";
/// The group of HTTPRouteGroup, TCPRoute and UDPRoute.
pub const SPECS_GROUP: &str = "specs.smi-spec.io";

/// What SMI's first releases called it; they had HTTPRouteGroup and TCPRoute, in `v1alpha1`.
pub const LEGACY_SPECS_GROUP: &str = "spec.smi-spec.io";
/// The kinds that were in it.
pub const LEGACY_KINDS: [Kind; 2] = [Kind::HttpRouteGroup, Kind::TcpRoute];

/// Which names of groups count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Groups {
    /// Those of today.
    #[default]
    Current,
    /// [`LEGACY_SPECS_GROUP`] as well.
    Legacy,
}

/// A kind of SMI and the versions it is read in.
#[derive(Debug)]
pub struct Supported {
    /// The group.
    pub group: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The versions, oldest first.
    pub versions: &'static [Version],
}

/// Every version of most kinds.
const ALL: &[Version] = &[V1Alpha1, V1Alpha2, V1Alpha3, V1Alpha4];

/// What can be read.
pub const SUPPORTED: &[Supported] = &[
    Supported {
        group: SPLIT_GROUP,
        kind: Kind::TrafficSplit,
        versions: ALL,
    },
    Supported {
        group: ACCESS_GROUP,
        kind: Kind::TrafficTarget,
        versions: ALL,
    },
    Supported {
        group: ACCESS_GROUP,
        kind: Kind::IdentityBinding,
        versions: &[V1Alpha4],
    },
    Supported {
        group: SPECS_GROUP,
        kind: Kind::HttpRouteGroup,
        versions: ALL,
    },
    Supported {
        group: SPECS_GROUP,
        kind: Kind::TcpRoute,
        versions: ALL,
    },
    Supported {
        group: SPECS_GROUP,
        kind: Kind::UdpRoute,
        versions: &[V1Alpha4],
    },
];

impl Version {
    /// As it is written after the group.
    pub fn as_str(self) -> &'static str {
        match self {
            V1Alpha1 => "v1alpha1",
            V1Alpha2 => "v1alpha2",
            V1Alpha3 => "v1alpha3",
            V1Alpha4 => "v1alpha4",
        }
    }

    /// The version with this name.
    pub fn parse(text: &str) -> Option<Self> {
        ALL.iter().copied().find(|version| version.as_str() == text)
    }
}

impl Supported {
    /// The row of a kind in a group.
    pub fn find(group: &str, kind: &str) -> Option<&'static Self> {
        SUPPORTED
            .iter()
            .find(|row| row.group == group && row.kind.as_str() == kind)
    }

    /// Its versions as they are written: `split.smi-spec.io/v1alpha1, …`.
    fn api_versions(&self) -> String {
        let versions = self.versions.iter();
        let texts: Vec<_> = versions
            .map(|version| format!("{}/{}", self.group, version.as_str()))
            .collect();
        texts.join(", ")
    }
}

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
pub fn lookup(api_version: &str, kind: &str, groups: Groups) -> Lookup {
    let Some((group, version)) = api_version.split_once('/') else {
        return Lookup::NotSmi;
    };
    if group == LEGACY_SPECS_GROUP {
        return legacy(version, kind, groups);
    }
    if !(group.ends_with(".smi-spec.io") || group == "smi-spec.io") {
        return Lookup::NotSmi;
    }
    let Some(row) = Supported::find(group, kind) else {
        return unknown_kind(group, kind);
    };
    match Version::parse(version).filter(|version| row.versions.contains(version)) {
        Some(version) => Lookup::Known(version, row.kind.clone()),
        None => Lookup::Unsupported {
            field: "apiVersion",
            message: format!(
                "{} is not a supported version of {kind}; supported: {}",
                short(api_version),
                row.api_versions()
            ),
            kind: Some(row.kind.clone()),
        },
    }
}

/// What is in the group of the first releases.
fn legacy(version: &str, kind: &str, groups: Groups) -> Lookup {
    let known = LEGACY_KINDS.into_iter().find(|it| it.as_str() == kind);
    let refused = |why: &str| Lookup::Unsupported {
        field: "apiVersion",
        message: format!(
            "{LEGACY_SPECS_GROUP} is what the first releases called {SPECS_GROUP}; {why}"
        ),
        kind: known.clone(),
    };
    let is_first = version == V1Alpha1.as_str();
    match (groups, &known) {
        (Groups::Current, _) => {
            refused("write that, or let the old name count too (weft-control --legacy-spec-group)")
        }
        (Groups::Legacy, Some(kind)) if is_first => Lookup::Known(V1Alpha1, kind.clone()),
        (Groups::Legacy, _) => {
            refused("by that name there are HTTPRouteGroup and TCPRoute in v1alpha1")
        }
    }
}

fn unknown_kind(group: &str, kind: &str) -> Lookup {
    let all: Vec<String> = SUPPORTED
        .iter()
        .map(|row| format!("{} ({})", row.kind, row.api_versions()))
        .collect();
    let known_group = SUPPORTED.iter().any(|row| row.group == group);
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
    expect_whole(root, &metadata, version, report)?;
    match kind {
        Kind::TrafficSplit => split::read(root, metadata, version, report)
            .map(Arc::new)
            .map(Object::TrafficSplit),
        Kind::TrafficTarget => access::read(root, metadata, version, report)
            .map(Arc::new)
            .map(Object::TrafficTarget),
        Kind::IdentityBinding => binding::read(root, metadata, report)
            .map(Arc::new)
            .map(Object::IdentityBinding),
        Kind::HttpRouteGroup => specs::read(root, metadata, version, report)
            .map(Arc::new)
            .map(Object::HttpRouteGroup),
        Kind::TcpRoute => routes::read_tcp(root, metadata, version, report)
            .map(Arc::new)
            .map(Object::TcpRoute),
        Kind::UdpRoute => routes::read_udp(root, metadata, report)
            .map(Arc::new)
            .map(Object::UdpRoute),
        _ => None,
    }
}

/// An object that an API server showed in an old version may have parts in an annotation. Without them it would often
/// mean more than it does.
fn expect_whole(
    root: &Field<'_>,
    metadata: &ObjectMeta,
    version: Version,
    report: &mut Report,
) -> Option<()> {
    let preserved = metadata.annotations.get(SMI_PRESERVED);
    if version == V1Alpha4 || !preserved.is_some_and(|parts| convert::preserved::is_needed(parts)) {
        return Some(());
    }
    let annotations = root.get("metadata").get("annotations");
    let message = format!(
        "holds parts that {} cannot show; write the object as v1alpha4",
        version.as_str()
    );
    report.error(&annotations.get(SMI_PRESERVED), message);
    None
}

/// The fields every object has.
pub(crate) const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod whole;
