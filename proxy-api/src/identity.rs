//! The identity of a workload: a SPIFFE id made of trust domain, namespace and service account.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>` (SPIFFE-ID 1.0 section 2).
///
/// Compared as text, never as a pattern. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

/// Why a text is not a workload's SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a workload identity: {reason}")]
pub struct IdentityError {
    text: String,
    reason: &'static str,
}

impl SpiffeId {
    /// The identity of a service account. Errors on a part that is empty, too long or not a DNS name.
    pub fn new(trust_domain: &str, namespace: &str, account: &str) -> Result<Self, IdentityError> {
        let _ = (trust_domain, namespace, account);
        todo!()
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `cluster.local` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn trust_domain(&self) -> &str {
        todo!()
    }

    /// `a` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn namespace(&self) -> &str {
        todo!()
    }

    /// `b` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn account(&self) -> &str {
        todo!()
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let _ = text;
        todo!()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
