//! Who may call a workload: the permissions in force, and the verdict on a connection or a request.

use super::matching::{HttpMatch, RequestView};
use super::settings::RateLimit;
use super::{Access, MetricsTier, Protocol};
use crate::identity::SpiffeId;
use std::net::IpAddr;

mod denial;
#[cfg(test)]
mod tests;

pub use denial::Denial;

/// The path of gRPC health checking, as an orchestrator asks it.
pub const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

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
    /// How much callers may ask for; each one that fits a request counts.
    pub rate_limits: Vec<RateLimit>,
    /// Whose annotation set `access`: `Pod ns/name` or `Namespace name`; empty: the default of the mesh.
    pub access_from: String,
    /// Refusals tell the client which rule, identity and object decided.
    pub explain_denials: bool,
    /// In how much detail the proxy says its metrics.
    pub metrics: MetricsTier,
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

/// A health probe of the orchestrator. An HTTP probe admits GET and HEAD of one exact path (POST where that path is
/// [`GRPC_HEALTH`]), whoever asks. A TCP probe
/// admits nothing: it connects and closes, and a caller that sends no byte needs no permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Port of the pod.
    pub port: u16,
    /// Exact path of an HTTP probe, normalised and without query; `None`: a TCP probe.
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

/// What was decided on a request, and why. Costs nothing to make: [`Inbound::by`] has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, by this.
    Allow(AllowedBy),
    /// Would be denied, but access is in audit mode: let it pass and count it.
    Audit(DenyReason),
    /// Denied.
    Deny(DenyReason),
}

/// What allowed something; [`Inbound::by`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AllowedBy {
    /// The permission at this index of [`Inbound::allow`].
    Rule(usize),
    /// One description of requests in a permission.
    Request {
        /// Index of the permission in [`Inbound::allow`].
        rule: usize,
        /// Index of the description in its [`Traffic::Http`].
        request: usize,
    },
    /// Access is permissive: rules are not enforced.
    Permissive,
    /// It is a health probe.
    Probe,
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

/// What may happen on a connection, known before its first request. It decides about bytes that are not HTTP; HTTP
/// is in every case judged request by request ([`Inbound::judge_request`]), so that a refusal can be a proper answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// Any bytes may flow.
    Allow(AllowedBy),
    /// Only HTTP; anything else is denied with [`DenyReason::NotHttp`].
    HttpOnly,
    /// Would be denied (or, with [`DenyReason::NotHttp`], would be held to HTTP), but access is in audit mode:
    /// anything may flow.
    Audit(DenyReason),
    /// Nothing may flow.
    Deny(DenyReason),
}

impl DenyReason {
    /// Every reason, for tables of metrics.
    pub const ALL: [DenyReason; 4] = [
        DenyReason::NoIdentity,
        DenyReason::NotASource,
        DenyReason::NoMatchingRoute,
        DenyReason::NotHttp,
    ];

    /// Stable label for metrics: `no_identity`, `not_a_source`, `no_matching_route`, `not_http`.
    pub fn label(self) -> &'static str {
        match self {
            DenyReason::NoIdentity => "no_identity",
            DenyReason::NotASource => "not_a_source",
            DenyReason::NoMatchingRoute => "no_matching_route",
            DenyReason::NotHttp => "not_http",
        }
    }

    /// A sentence for people: what is missing.
    pub fn explain(self) -> &'static str {
        match self {
            DenyReason::NoIdentity => {
                "the caller proved no identity: it has to call through a proxy of the mesh"
            }
            DenyReason::NotASource => {
                "no TrafficTarget lists the caller's service account as a source for this port"
            }
            DenyReason::NoMatchingRoute => {
                "a TrafficTarget lists the caller, but none of its rules describes this request"
            }
            DenyReason::NotHttp => {
                "a TrafficTarget lists the caller for HTTP only, and this is not HTTP: a rule with only a TCPRoute would allow it"
            }
        }
    }
}

impl Inbound {
    /// The words for what allowed something: the name of the object, `permissive` or `probe`. An index that is not
    /// of this policy (it changed meanwhile) is `unknown`.
    pub fn by(&self, by: AllowedBy) -> &str {
        match by {
            AllowedBy::Rule(index) | AllowedBy::Request { rule: index, .. } => self
                .allow
                .get(index)
                .map_or("unknown", |allow| &allow.object),
            AllowedBy::Permissive => "permissive",
            AllowedBy::Probe => "probe",
        }
    }

    /// The description of requests that allowed one; `None` where something else did.
    pub fn route(&self, by: AllowedBy) -> Option<&HttpMatch> {
        let AllowedBy::Request { rule, request } = by else {
            return None;
        };
        match &self.allow.get(rule)?.traffic {
            Traffic::Http(matches) => matches.get(request),
            Traffic::Any => None,
        }
    }

    /// What `port` was declared to speak.
    pub fn protocol(&self, port: u16) -> Protocol {
        self.ports
            .iter()
            .find(|(declared, _)| *declared == port)
            .map_or(Protocol::Detect, |(_, protocol)| *protocol)
    }

    /// Judges a new connection to `port`. A caller without permission may still be a probe: then `HttpOnly`.
    pub fn judge_connection(&self, caller: Caller<'_>, port: u16) -> ConnectionVerdict {
        if self.access == Access::Permissive {
            return ConnectionVerdict::Allow(AllowedBy::Permissive);
        }
        let mut http = self.is_http_probed(port);
        let mut reason = DenyReason::missing(caller);
        for (index, allow) in self
            .allow
            .iter()
            .enumerate()
            .filter(|(_, allow)| allow.names(caller, port))
        {
            match &allow.traffic {
                Traffic::Any => return ConnectionVerdict::Allow(AllowedBy::Rule(index)),
                Traffic::Http(_) => (http, reason) = (true, DenyReason::NotHttp),
            }
        }
        match self.access {
            Access::Audit => ConnectionVerdict::Audit(reason),
            _ if http => ConnectionVerdict::HttpOnly,
            _ => ConnectionVerdict::Deny(reason),
        }
    }

    /// Judges one request on `port`. Allocates nothing.
    pub fn judge_request(
        &self,
        caller: Caller<'_>,
        port: u16,
        request: &RequestView<'_>,
    ) -> Verdict {
        if self.access == Access::Permissive {
            return Verdict::Allow(AllowedBy::Permissive);
        }
        let mut reason = DenyReason::missing(caller);
        for (index, allow) in self
            .allow
            .iter()
            .enumerate()
            .filter(|(_, allow)| allow.names(caller, port))
        {
            if let Some(by) = allow.traffic.covers(index, request) {
                return Verdict::Allow(by);
            }
            reason = DenyReason::NoMatchingRoute;
        }
        match self.access {
            _ if self.is_probe(port, request) => Verdict::Allow(AllowedBy::Probe),
            Access::Audit => Verdict::Audit(reason),
            _ => Verdict::Deny(reason),
        }
    }

    fn is_http_probed(&self, port: u16) -> bool {
        self.probes
            .iter()
            .any(|probe| probe.port == port && probe.path.is_some())
    }

    fn is_probe(&self, port: u16, request: &RequestView<'_>) -> bool {
        let is_harmless = match request.method {
            "GET" | "HEAD" => true,
            "POST" => request.path == GRPC_HEALTH,
            _ => false,
        };
        is_harmless
            && self
                .probes
                .iter()
                .any(|probe| probe.port == port && probe.path.as_deref() == Some(request.path))
    }
}

impl DenyReason {
    /// The reason as long as no permission names the caller.
    fn missing(caller: Caller<'_>) -> Self {
        if caller.identity.is_some() {
            DenyReason::NotASource
        } else {
            DenyReason::NoIdentity
        }
    }
}

impl Allow {
    /// Is this permission about this caller and port, whatever the traffic?
    fn names(&self, caller: Caller<'_>, port: u16) -> bool {
        self.ports.contains(port) && self.sources.iter().any(|source| source.is(caller))
    }
}

impl Source {
    pub(super) fn is(&self, caller: Caller<'_>) -> bool {
        caller.identity == Some(&self.identity)
            && self
                .addresses
                .as_ref()
                .is_none_or(|list| list.contains(&caller.address.to_canonical()))
    }
}

impl Ports {
    /// Is `port` one of them?
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Ports::Any => true,
            Ports::Only(ports) => ports.contains(&port),
        }
    }
}

impl Traffic {
    /// What in this permission, which stands at `rule`, covers the request.
    fn covers(&self, rule: usize, request: &RequestView<'_>) -> Option<AllowedBy> {
        match self {
            Traffic::Any => Some(AllowedBy::Rule(rule)),
            Traffic::Http(matches) => {
                let request = matches.iter().position(|m| m.fits(request))?;
                Some(AllowedBy::Request { rule, request })
            }
        }
    }
}
