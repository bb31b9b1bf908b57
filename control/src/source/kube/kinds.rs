//! Which kinds are watched, and in which version each is asked for.

use crate::manifest::Kind;
use crate::smi;

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
}

/// Every version an SMI group ever had, the one that is stored first: read like that, nothing depends on conversion.
const SMI: &[&str] = &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];
const V1: &[&str] = &["v1"];
/// The group of our own kinds.
pub const OWN_GROUP: &str = "weft.mesh";

/// Every kind that is watched. What the views need first comes first.
pub const WATCHED: &[Watched] = &[
    native("", "Namespace", "namespaces"),
    native("", "ServiceAccount", "serviceaccounts"),
    native("", "Service", "services"),
    native("", "Pod", "pods"),
    native("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    custom(smi::SPLIT_GROUP, "TrafficSplit", "trafficsplits", SMI),
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

const fn native(group: &'static str, kind: &'static str, plural: &'static str) -> Watched {
    Watched {
        group,
        kind,
        plural,
        versions: V1,
        custom: false,
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
            let known = || smi::lookup(&self.api_version(version), self.kind);
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

    /// The watched kind of an object; `None` for one that does not come from an API server.
    pub fn of(kind: &Kind) -> Option<&'static Self> {
        WATCHED.iter().find(|watched| watched.kind == kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_can_be_read_of_it() {
        let split = Watched::of(&Kind::TrafficSplit).expect("watched");
        assert_eq!(split.resource(), "trafficsplits.split.smi-spec.io");
        assert_eq!(split.readable().next(), Some("v1alpha4"));
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
