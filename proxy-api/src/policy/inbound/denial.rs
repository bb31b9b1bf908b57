//! A refusal in words: which rule, identity and object decided, and what would allow it.

use super::{Access, Caller, DenyReason, Inbound};
use crate::identity::SpiffeId;
use std::fmt;

/// Stands for a rule where no permission names the caller.
const NO_RULE: &str = "none";

/// What was decided on, for logs and for clients that may know. Costs nothing to make; showing it writes one line:
/// `reason=…; rule=…; identity=…; access=…; port=…; needs=…`.
#[derive(Debug, Clone, Copy)]
pub struct Denial<'a> {
    /// What is missing.
    pub reason: DenyReason,
    /// The permission that came nearest, e.g. `TrafficTarget shop/web`; `none`: no permission names the caller.
    pub rule: &'a str,
    /// Who called, as far as it was proven.
    pub identity: Option<&'a SpiffeId>,
    /// How strictly rules are applied.
    pub access: Access,
    /// Whose annotation says so; empty: it is the mesh's default.
    pub access_from: &'a str,
    /// Port of the pod.
    pub port: u16,
}

impl Inbound {
    /// Index of the permission that came nearest to allowing this: the first that names the caller on this port, as one for
    /// any traffic would have allowed it.
    pub fn nearest(&self, caller: Caller<'_>, port: u16) -> Option<usize> {
        self.allow
            .iter()
            .position(|allow| allow.names(caller, port))
    }

    /// The words for a refusal.
    pub fn denial<'a>(&'a self, caller: Caller<'a>, port: u16, reason: DenyReason) -> Denial<'a> {
        let nearest = self.nearest(caller, port);
        let rule = nearest.and_then(|index| self.allow.get(index));
        Denial {
            reason,
            rule: rule.map_or(NO_RULE, |allow| &allow.object),
            identity: caller.identity,
            access: self.access,
            access_from: &self.access_from,
            port,
        }
    }
}

impl Denial<'_> {
    /// What would allow it.
    fn needs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.identity) {
            (DenyReason::NotASource, Some(id)) => write!(
                f,
                "a TrafficTarget for this workload and port with source ServiceAccount {}/{}",
                id.namespace(),
                id.account()
            ),
            (DenyReason::NoIdentity | DenyReason::NotASource, _) => {
                f.write_str("a call through a proxy of the mesh, and a TrafficTarget that names it")
            }
            (DenyReason::NoMatchingRoute, _) => write!(
                f,
                "a rule of {} whose HTTPRouteGroup describes this request",
                self.rule
            ),
            (DenyReason::NotHttp, _) => {
                write!(
                    f,
                    "a TrafficTarget with only a TCPRoute beside {}",
                    self.rule
                )
            }
        }
    }
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.identity.map_or(NO_RULE, SpiffeId::as_str);
        let from = match self.access_from {
            "" => "the mesh",
            from => from,
        };
        write!(
            f,
            "reason={}; rule={}; identity={identity}; access={} by {from}; port={}; needs=",
            self.reason.label(),
            self.rule,
            self.access,
            self.port
        )?;
        self.needs(f)
    }
}
