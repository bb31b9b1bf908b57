//! What the controller tells a proxy, as checked values, and the pure rules that give it meaning.

pub mod explain;
pub mod inbound;
pub mod matching;
pub mod outbound;
pub mod path;
pub mod settings;
pub mod weights;

use std::fmt;
use std::str::FromStr;

/// How strictly rules are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// What is not allowed is denied.
    Strict,
    /// Rules are not enforced.
    Permissive,
    /// Rules are evaluated and counted; nothing is denied.
    Audit,
}

/// In how much detail a proxy says its metrics. Each says what the one before it says, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MetricsTier {
    /// By edge: who calls whom.
    Edges,
    /// Also by route.
    #[default]
    Routes,
    /// Also by endpoint: one by one, which pod answered.
    Endpoints,
}

/// What a port is declared to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Nothing is declared: look at the first bytes.
    #[default]
    Detect,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC (HTTP/2).
    Grpc,
    /// TLS of the application's own.
    Tls,
    /// Bytes.
    Opaque,
}

/// Namespace, name and port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Port of the Service (not of its pods).
    pub port: u16,
}

impl fmt::Display for ServicePort {
    /// `namespace/name:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Strict => "strict",
            Access::Permissive => "permissive",
            Access::Audit => "audit",
        })
    }
}

impl MetricsTier {
    /// All, the least detailed first.
    pub const ALL: [Self; 3] = [Self::Edges, Self::Routes, Self::Endpoints];
}

impl fmt::Display for MetricsTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MetricsTier::Edges => "edges",
            MetricsTier::Routes => "routes",
            MetricsTier::Endpoints => "endpoints",
        })
    }
}

impl FromStr for MetricsTier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.into_iter();
        let mut named = all.filter(|tier| tier.to_string() == text.trim());
        let none = || format!("{text:?} is not edges, routes or endpoints");
        named.next().ok_or_else(none)
    }
}
