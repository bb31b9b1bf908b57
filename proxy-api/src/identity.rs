//! The identity of a workload: a SPIFFE id made of trust domain, namespace and service account.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 1.0 section 2.3: implementations need not accept more.
const MAX_TRUST_DOMAIN: usize = 255;
/// A Kubernetes namespace is a DNS label, an account a DNS subdomain.
const MAX_NAMESPACE: usize = 63;
const MAX_ACCOUNT: usize = 253;

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
        let text = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}");
        match check(trust_domain, namespace, account) {
            Ok(()) => Ok(Self(text.into())),
            Err(reason) => Err(refuse(&text, reason)),
        }
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `cluster.local` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// `a` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn namespace(&self) -> &str {
        self.parts().1
    }

    /// `b` of `spiffe://cluster.local/ns/a/sa/b`.
    pub fn account(&self) -> &str {
        self.parts().2
    }

    fn parts(&self) -> (&str, &str, &str) {
        // Checked when it was made; a value of this type always splits.
        split(&self.0).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (domain, namespace, account) = split(text).map_err(|reason| refuse(text, reason))?;
        check(domain, namespace, account).map_err(|reason| refuse(text, reason))?;
        Ok(Self(text.into()))
    }
}

fn split(text: &str) -> Result<(&str, &str, &str), &'static str> {
    let rest = text
        .strip_prefix(SCHEME)
        .ok_or("it does not start with spiffe://")?;
    let mut parts = rest.split('/');
    let mut next = || parts.next().unwrap_or_default();
    match (next(), next(), next(), next(), next(), parts.next()) {
        (domain, "ns", namespace, "sa", account, None) => Ok((domain, namespace, account)),
        _ => Err("it is not of the form spiffe://<trust-domain>/ns/<namespace>/sa/<account>"),
    }
}

fn check(domain: &str, namespace: &str, account: &str) -> Result<(), &'static str> {
    let label = |part: &str| is_dns_name(part, MAX_NAMESPACE) && !part.contains('.');
    match () {
        // The specification allows underscores here, unlike in a DNS name.
        _ if !is_dns_name(&domain.replace('_', "-"), MAX_TRUST_DOMAIN) => {
            Err("the trust domain is not a lower-case DNS name of at most 255 characters")
        }
        _ if !label(namespace) => {
            Err("the namespace is not a lower-case DNS label of at most 63 characters")
        }
        _ if !is_dns_name(account, MAX_ACCOUNT) => {
            Err("the service account is not a lower-case DNS name of at most 253 characters")
        }
        _ => Ok(()),
    }
}

fn is_dns_name(text: &str, max: usize) -> bool {
    text.len() <= max && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    label.bytes().all(|byte| letter(byte) || byte == b'-')
        && label.bytes().next().is_some_and(letter)
        && label.bytes().last().is_some_and(letter)
}

/// Cuts what is quoted: the text may come from a hostile certificate.
fn refuse(text: &str, reason: &'static str) -> IdentityError {
    IdentityError {
        text: text.chars().take(300).collect(),
        reason,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_is_its_three_parts() {
        let id = SpiffeId::new("cluster.local", "default", "web").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/default/sa/web");
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.account()),
            ("cluster.local", "default", "web")
        );
        assert_eq!(id.as_str().parse::<SpiffeId>().unwrap(), id);
        assert!(SpiffeId::new("td_1.example", "a", "name.with.dots").is_ok());
    }

    #[test]
    fn what_is_not_an_identity_is_refused() {
        let long = "a".repeat(64);
        let huge = format!("spiffe://{}/ns/a/sa/b", "a".repeat(100_000));
        for text in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/b?x=1",
            "spiffe://cluster.local/ns/a/sa/b#x",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/A/sa/b",
            "spiffe://cluster.local/ns/a/sa/-b",
            "spiffe://cluster.local/ns/a/sa/b-",
            "spiffe://cluster.local/ns/a/sa/b..c",
            "spiffe://cluster.local/ns/a.b/sa/c",
            "spiffe://cluster.local/ns/a/sa/*",
            "spiffe://cluster.local/ns/a/sa/b\0",
            "spiffe://cluster.local/ns/%61/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            &format!("spiffe://cluster.local/ns/{long}/sa/b"),
            &huge,
        ] {
            let error = text.parse::<SpiffeId>().expect_err(text).to_string();
            assert!(error.len() < 600, "{error}");
        }
    }

    #[test]
    fn parts_cannot_smuggle_a_slash() {
        assert!(SpiffeId::new("cluster.local", "a/sa/b", "c").is_err());
        assert!(SpiffeId::new("cluster.local", "a", "b/c").is_err());
    }
}
