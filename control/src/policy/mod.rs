//! ServicePolicy: what SMI does not say about calling a Service, said in its style.
//!
//! * [`fields`]: every field once, with its form, default and meaning: the parser asks it which fields there are, the schema and
//!   the table in the README are made from it.
//! * [`read`](mod@read): a tree becomes a [`ServicePolicy`], or errors that name the field; [`values`]: the small forms in it.
//! * [`schema`]: the CustomResourceDefinition.
//!
//! What depends on other objects (is there such a Service, which of two holds) is decided by the views.

pub mod fields;
mod read;
pub mod schema;
mod values;

use crate::manifest::k8s::ObjectMeta;
use std::time::Duration;
use weft_proxy_api::policy::settings::{Balancer, Budget, Ejection, RequestSettings};

pub use read::read;

/// The group of Weft's own kinds.
pub const GROUP: &str = "weft.mesh";
/// The version that is read.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "ServicePolicy";

/// A ServicePolicy. What is `None` was not asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePolicy {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Name of the Service, in the policy's namespace.
    pub service: String,
    /// The one port it is about.
    pub port: Option<u16>,
    /// The requests it is about; `None`: every one. Never empty.
    pub matches: Option<Vec<MatchRef>>,
    /// How a request is treated: timeouts, retries, fault.
    pub requests: Option<RequestSettings>,
    /// How many tries beyond the first.
    pub budget: Option<Budget>,
    /// When an endpoint is set aside.
    pub ejection: Option<Ejection>,
    /// How much may be asked at once.
    pub breaker: Option<Breaker>,
    /// Which endpoint a request goes to.
    pub balancer: Option<Balancer>,
    /// How much callers may ask for: in all, for each of them, or both.
    pub limits: Vec<Limit>,
    /// Nothing is done to traffic; limits are counted.
    pub audit: bool,
}

/// Matches of one HTTPRouteGroup of the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchRef {
    /// Name of the group.
    pub group: String,
    /// Names of matches; empty: all of the group.
    pub names: Vec<String>,
}

/// How much one proxy may ask of the Service at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Connections.
    pub connections: Option<u32>,
    /// Requests that wait.
    pub pending: Option<u32>,
    /// Requests in flight.
    pub requests: Option<u32>,
    /// Asked instead.
    pub fallback: Option<Fallback>,
}

/// A Service of the policy's namespace that is asked instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Its name.
    pub service: String,
    /// Its port; `None`: the number that was called.
    pub port: Option<u16>,
}

/// A limit on what a workload accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Requests in each `per`.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// Requests that may come at once.
    pub burst: u32,
    /// Counted for each client identity by itself.
    pub per_client: bool,
}

#[cfg(test)]
mod tests;
