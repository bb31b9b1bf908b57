//! What happens to a request, and why.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reaches the application.
    Allow,
    /// Policy denies it.
    Deny,
    /// The mesh answers it with an error, for another reason than policy.
    Refuse,
    /// It depends on the backend or pod that it happens to be sent to; each backend has its own verdict.
    Mixed,
    /// It leaves the mesh, and nothing of the mesh decides about it.
    Passthrough,
}

impl Verdict {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Refuse => "refuse",
            Verdict::Mixed => "mixed",
            Verdict::Passthrough => "passthrough",
        }
    }
}

/// What decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DecidedBy {
    /// The object, e.g. `TrafficTarget default/web`; `mesh`: the default of the whole mesh.
    pub object: Option<String>,
    /// What of it, e.g. `HTTPRouteGroup default/api, match read`.
    pub rule: Option<String>,
}

impl DecidedBy {
    /// An object and what of it.
    pub fn new(object: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            object: Some(object.into()),
            rule: Some(rule.into()),
        }
    }
}

/// Something that is there, is about this traffic, and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NotApplied {
    /// The object, e.g. `TrafficSplit default/web`.
    pub object: String,
    /// Why.
    pub why: String,
}

/// A setting that holds for this traffic besides what decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Applies {
    /// The object that gives it, e.g. `ServicePolicy default/web`.
    pub object: String,
    /// Which, as the field is called there, e.g. `timeouts`.
    pub setting: String,
    /// What it says.
    pub value: String,
}

/// What is decided about one way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// HTTP status the caller sees: of the mesh's own answer, or 200 for the application's. `None`: no HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// gRPC code of the mesh's own answer to a gRPC caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// Code and name of the error that the mesh answers with, for `meshctl explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Stable word for the reason of a denial: `no_identity`, `not_a_source`, `no_matching_route`, `not_http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Cow<'static, str>>,
    /// It passes only because access is in audit mode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// A sentence: why.
    pub reason: String,
    /// What decided.
    pub decided_by: DecidedBy,
}

/// A Service that receives a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendAnswer {
    /// Its name.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port.
    pub port: u16,
    /// Per cent of the requests (or connections), exact to four digits.
    pub share: f64,
    /// The weight as proxies have it.
    pub weight: u64,
    /// Endpoints that could serve.
    pub endpoints: usize,
    /// What is decided there, where not all backends decide alike.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What is decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// Identity of the caller; `None`: it proves none.
    pub from: Option<String>,
    /// What is called, e.g. `Service default/web:80`.
    pub to: String,
    /// What is asked, e.g. `GET /a` or `tcp`.
    pub request: String,
    /// What chose the backends; empty: the Service's own endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<DecidedBy>,
    /// Who serves, and how much of it.
    pub backends: Vec<BackendAnswer>,
    /// What else holds for this traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_applies: Vec<Applies>,
    /// What is about this traffic and changed nothing.
    pub not_applied: Vec<NotApplied>,
    /// What would allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_allow: Vec<String>,
    /// What the manifests do not say and was taken to be so.
    pub assumed: Vec<String>,
}

/// The share of `weight` in `total`, per cent, rounded to four digits (half up) from the exact quotient.
pub fn share(weight: u64, total: u128) -> f64 {
    if total == 0 {
        return 0.0;
    }
    // 2^64 × 10^6 × 2 stays far below 2^128.
    let millionths = (u128::from(weight) * 2_000_000 + total) / (2 * total);
    millionths as f64 / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_to_four_digits() {
        for (weight, total, expected) in [
            (1, 3, 33.3333),
            (2, 3, 66.6667),
            (90, 100, 90.0),
            (0, 5, 0.0),
            (1, 1, 100.0),
            (500, 1500, 33.3333),
            (1, 1_000_000, 0.0001),
            (1, 10_000_000, 0.0),
            (u64::MAX, u128::from(u64::MAX) * 2, 50.0),
            (5, 0, 0.0),
        ] {
            assert_eq!(share(weight, total), expected, "{weight} of {total}");
        }
    }
}
