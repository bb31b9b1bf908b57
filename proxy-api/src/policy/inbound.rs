//! Who may call a workload: the permissions in force, and the verdict on a connection or a request.

use super::matching::{HttpMatch, RequestView};
use super::{Access, Protocol};
use crate::identity::SpiffeId;
use std::net::IpAddr;

/// The policy of one workload, for every port of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Label of the workload, e.g. `deploy/web`.
    pub workload: String,
    /// How strictly `allow` is applied.
    pub access: Access,
    /// What ports were declared to speak; any other port is detected.
    pub ports: Vec<(u16, Protocol)>,
    /// Permissions; each is judged by itself, one that fits is enough.
    pub allow: Vec<Allow>,
    /// Health probes admitted without an identity.
    pub probes: Vec<Probe>,
}

/// One statement of permission (one rule of one TrafficTarget).
#[derive(Debug, Clone, PartialEq)]
pub struct Allow {
    /// The object that says so, e.g. `TrafficTarget default/web`.
    pub object: String,
    /// Who is allowed.
    pub sources: Vec<Source>,
    /// Ports of the pod.
    pub ports: Ports,
    /// What is allowed there.
    pub traffic: Traffic,
}

/// A caller that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The identity the caller must prove.
    pub identity: SpiffeId,
    /// Where it must call from; `None`: anywhere.
    pub addresses: Option<Vec<IpAddr>>,
}

/// A set of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    Any,
    /// These; an empty list is no port.
    Only(Vec<u16>),
}

/// What kind of traffic a permission covers.
#[derive(Debug, Clone, PartialEq)]
pub enum Traffic {
    /// Any bytes, HTTP included.
    Any,
    /// Only HTTP requests that one of these describes; an empty list is no request.
    Http(Vec<HttpMatch>),
}

/// A health probe of the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Port of the pod.
    pub port: u16,
    /// Exact path of an HTTP probe; `None`: a TCP probe.
    pub path: Option<String>,
}

/// Who calls, as far as it is proven.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Identity from the client certificate; `None`: no certificate.
    pub identity: Option<&'a SpiffeId>,
    /// Address of the peer.
    pub address: IpAddr,
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed by this object (`permissive`, `probe` or the name of the object).
    Allow {
        /// What decided.
        by: String,
    },
    /// Would be denied, but access is in audit mode.
    Audit {
        /// Why it would be denied.
        reason: DenyReason,
    },
    /// Denied.
    Deny {
        /// Why.
        reason: DenyReason,
    },
}

/// Why something was denied; the text says what would allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The caller proved no identity.
    NoIdentity,
    /// No permission names this identity (on this port).
    NotASource,
    /// A permission names it, but only for other requests.
    NoMatchingRoute,
    /// A permission names it, but for HTTP only, and these bytes are not HTTP.
    NotHttp,
}

impl DenyReason {
    /// Stable label for metrics: `no_identity`, `not_a_source`, `no_matching_route`, `not_http`.
    pub fn label(self) -> &'static str {
        todo!()
    }

    /// A sentence for people: what is missing.
    pub fn explain(self) -> &'static str {
        todo!()
    }
}

/// What may happen on a connection, known before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// Any bytes may flow.
    Allow {
        /// What decided.
        by: String,
    },
    /// Only HTTP; every request is judged by itself.
    HttpOnly,
    /// Would be denied, but access is in audit mode: anything may flow.
    Audit {
        /// Why it would be denied.
        reason: DenyReason,
    },
    /// Nothing may flow.
    Deny {
        /// Why.
        reason: DenyReason,
    },
}

impl Inbound {
    /// What `port` was declared to speak.
    pub fn protocol(&self, port: u16) -> Protocol {
        let _ = port;
        todo!()
    }

    /// True if some permission on `port` (or a probe) looks into HTTP: bytes that are not HTTP never pass there.
    pub fn has_http_rules(&self, port: u16) -> bool {
        let _ = port;
        todo!()
    }

    /// Judges a new connection to `port`. A caller without identity may still be a probe: then `HttpOnly`.
    pub fn judge_connection(&self, caller: Caller<'_>, port: u16) -> ConnectionVerdict {
        let _ = (caller, port);
        todo!()
    }

    /// Judges one request on `port`.
    pub fn judge_request(&self, caller: Caller<'_>, port: u16, request: &RequestView<'_>) -> Verdict {
        let _ = (caller, port, request);
        todo!()
    }
}
