//! Which kinds are watched, and in which version each is asked for.

use crate::manifest::{Kind, ObjectKey};
use crate::smi::{self, Groups};

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// API group; empty: the core group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Versions that are understood, best first.
    pub versions: &'static [&'static str],
    /// Defined by a CustomResourceDefinition, which may be missing.
    pub custom: bool,
    /// Of a group under its old name: these objects stand in for others, and have no status.
    pub legacy: bool,
}

/// Every version an SMI group ever had, the one that is stored first: read like that, nothing depends on conversion.
const SMI: &[&str] = &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];
/// Of somebody else's definition that converts nothing, objects of v1alpha1 are served as v1alpha2 too, and a quantity is no
/// whole number: what reads both is v1alpha1.
const SPLITS: &[&str] = &["v1alpha4", "v1alpha3", "v1alpha1", "v1alpha2"];
const V1: &[&str] = &["v1"];
/// Before what stands for the file of an object that was never in one.
const ORIGIN: &str = "kubernetes:";
/// The group of our own kinds.
pub const OWN_GROUP: &str = "weft.mesh";

/// Every kind that is watched. What the views need first comes first.
pub const WATCHED: &[Watched] = &[
    native("", "Namespace", "namespaces"),
    native("", "ServiceAccount", "serviceaccounts"),
    native("", "Service", "services"),
    native("", "Pod", "pods"),
    native("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    custom(smi::SPLIT_GROUP, "TrafficSplit", "trafficsplits", SPLITS),
    custom(smi::ACCESS_GROUP, "TrafficTarget", "traffictargets", SMI),
    custom(
        smi::ACCESS_GROUP,
        "IdentityBinding",
        "identitybindings",
        SMI,
    ),
    custom(smi::SPECS_GROUP, "HTTPRouteGroup", "httproutegroups", SMI),
    custom(smi::SPECS_GROUP, "TCPRoute", "tcproutes", SMI),
    custom(smi::SPECS_GROUP, "UDPRoute", "udproutes", SMI),
    custom(OWN_GROUP, "ServicePolicy", "servicepolicies", &["v1alpha1"]),
];

/// What is watched besides, where the old name of a group counts too.
pub const LEGACY: &[Watched] = &[
    legacy("HTTPRouteGroup", "httproutegroups"),
    legacy("TCPRoute", "tcproutes"),
];

/// What is watched where these names of groups count.
pub fn watched(groups: Groups) -> impl Iterator<Item = &'static Watched> {
    let legacy = match groups {
        Groups::Current => &[],
        Groups::Legacy => LEGACY,
    };
    WATCHED.iter().chain(legacy)
}

/// The same kinds, as the index knows them.
const KINDS: [Kind; 12] = [
    Kind::Namespace,
    Kind::ServiceAccount,
    Kind::Service,
    Kind::Pod,
    Kind::EndpointSlice,
    Kind::TrafficSplit,
    Kind::TrafficTarget,
    Kind::IdentityBinding,
    Kind::HttpRouteGroup,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::ServicePolicy,
];

const fn native(group: &'static str, kind: &'static str, plural: &'static str) -> Watched {
    Watched {
        group,
        kind,
        plural,
        versions: V1,
        custom: false,
        legacy: false,
    }
}

const fn legacy(kind: &'static str, plural: &'static str) -> Watched {
    Watched {
        group: smi::LEGACY_SPECS_GROUP,
        kind,
        plural,
        versions: &["v1alpha1"],
        custom: true,
        legacy: true,
    }
}

const fn custom(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> Watched {
    Watched {
        group,
        kind,
        plural,
        versions,
        custom: true,
        legacy: false,
    }
}

impl Watched {
    /// `group/version`, or `version` of the core group.
    pub fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// The versions this build can read, best first.
    pub fn readable(&self) -> impl Iterator<Item = &'static str> {
        let smi = self.group.ends_with(".smi-spec.io");
        self.versions.iter().copied().filter(move |version| {
            let known = || smi::lookup(&self.api_version(version), self.kind, Groups::Legacy);
            !smi || matches!(known(), smi::Lookup::Known(..))
        })
    }

    /// `services`, `trafficsplits.split.smi-spec.io`: as `kubectl get` takes it.
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// What stands for a file where there is none: `kubernetes:trafficsplits.split.smi-spec.io/default/web`.
    pub fn origin(&self, namespace: &str, name: &str) -> String {
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{ORIGIN}{}/{namespace}{slash}{name}", self.resource())
    }

    /// The watched kind of an object; `None` for one that does not come from an API server.
    pub fn of(kind: &Kind) -> Option<&'static Self> {
        WATCHED.iter().find(|watched| watched.kind == kind.as_str())
    }
}

/// Does this stand for an object that is written under the old name of its group?
pub fn is_legacy(origin: &str) -> bool {
    let resource = origin
        .strip_prefix(ORIGIN)
        .and_then(|it| it.split_once('/'));
    resource.is_some_and(|(resource, _)| LEGACY.iter().any(|it| it.resource() == resource))
}

/// The object that [`Watched::origin`] stands for.
pub fn from_origin(origin: &str) -> Option<ObjectKey> {
    let (resource, path) = origin.strip_prefix(ORIGIN)?.split_once('/')?;
    let watched = WATCHED.iter().find(|it| it.resource() == resource)?;
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let kind = KINDS.into_iter().find(|it| it.as_str() == watched.kind)?;
    Some(ObjectKey::new(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_leads_back_to_its_object() {
        assert_eq!(KINDS.len(), WATCHED.len());
        for kind in KINDS {
            let watched = Watched::of(&kind).expect("watched");
            let namespace = if kind == Kind::Namespace {
                ""
            } else {
                "default"
            };
            let origin = watched.origin(namespace, "web");
            let key = ObjectKey::new(kind, namespace, "web");
            assert_eq!(from_origin(&origin), Some(key));
        }
        for watched in LEGACY {
            let origin = watched.origin("default", "web");
            assert_eq!(from_origin(&origin), None, "it has no status of ours");
            assert!(is_legacy(&origin) && watched.readable().eq(["v1alpha1"]));
        }
        let current = WATCHED.iter().map(|it| it.origin("default", "web"));
        assert!(!current.into_iter().any(|it| is_legacy(&it)));
        for other in ["web.yaml", "kubernetes:", "kubernetes:others/web"] {
            assert_eq!(from_origin(other), None, "{other}");
        }
    }

    #[test]
    fn every_kind_says_what_can_be_read_of_it() {
        let split = Watched::of(&Kind::TrafficSplit).expect("watched");
        assert_eq!(split.resource(), "trafficsplits.split.smi-spec.io");
        let versions: Vec<_> = split.readable().collect();
        assert_eq!(versions, ["v1alpha4", "v1alpha3", "v1alpha1", "v1alpha2"]);
        let service = Watched::of(&Kind::Service).expect("watched");
        assert_eq!(
            (
                service.resource().as_str(),
                service.api_version("v1").as_str()
            ),
            ("services", "v1")
        );
        assert_eq!(service.readable().collect::<Vec<_>>(), ["v1"]);
        assert!(Watched::of(&Kind::ConfigMap).is_none());
    }
}
