//! What the controller tells a proxy, as checked values, and the pure rules that give it meaning.

pub mod explain;
pub mod inbound;
pub mod matching;
pub mod outbound;
pub mod path;
pub mod settings;
pub mod weights;

use std::fmt;

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
