//! Who may see what of the traffic: whoever holds the token of the state folder everything; others as somebody else knows,
//! where there is somebody (an API server, by the rights of its users).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::future::BoxFuture;
use http::Extensions;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What one wants to see or do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Right {
    /// Figures of the mesh, and what its state means.
    Figures,
    /// Single requests, in this namespace; empty: all.
    Tap(String),
    /// Another detail of metrics, in this namespace; empty: all.
    Metrics(String),
}

/// Where a request comes from; among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub IpAddr);

impl Caller {
    /// As the extensions of a request have it.
    pub fn of(extensions: &Extensions) -> IpAddr {
        let known = extensions.get::<Self>();
        known.map_or(Ipv4Addr::UNSPECIFIED.into(), |from| from.0)
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows the token.
    Unknown,
    /// Whoever it stands for lacks the right; as said to the caller.
    Forbidden(String),
    /// It could not be found out.
    Unable(String),
}

/// Knows whom a token stands for, and what they may.
pub trait Gate: Send + Sync + 'static {
    /// Who it is, if they have this right. `from`: where it is shown.
    fn admit<'a>(
        &'a self,
        token: &'a str,
        right: &'a Right,
        from: IpAddr,
    ) -> BoxFuture<'a, Result<String, Refusal>>;
}

/// All who may.
#[derive(Clone)]
pub struct Keys {
    /// Opens everything.
    pub token: String,
    /// Whoever else may be let in.
    pub others: Option<Arc<dyn Gate>>,
}

impl Keys {
    /// Who shows this, if they have that right.
    pub async fn admit(
        &self,
        shown: &[u8],
        right: &Right,
        from: IpAddr,
    ) -> Result<String, Refusal> {
        // In constant time: how much of it was right must not be told.
        if verify_slices_are_equal(shown, self.token.as_bytes()).is_ok() {
            return Ok("the holder of observe.token".to_owned());
        }
        match (&self.others, std::str::from_utf8(shown)) {
            (Some(others), Ok(token)) if !token.is_empty() => {
                others.admit(token, right, from).await
            }
            _ => Err(Refusal::Unknown),
        }
    }
}

impl From<String> for Keys {
    fn from(token: String) -> Self {
        Self {
            token,
            others: None,
        }
    }
}

impl Right {
    /// Verb, resource, its part, and namespace (empty: all), in the way of Kubernetes.
    pub fn attributes(&self) -> (&'static str, &'static str, &'static str, &str) {
        match self {
            Right::Figures => ("get", "traffic", "", ""),
            Right::Tap(namespace) => ("watch", "pods", "tap", namespace),
            Right::Metrics(namespace) => ("update", "pods", "metrics", namespace),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, resource, part, namespace) = self.attributes();
        let slash = if part.is_empty() { "" } else { "/" };
        write!(f, "{verb} {resource}{slash}{part} of weft.mesh in ")?;
        match namespace {
            "" => f.write_str("all namespaces"),
            one => write!(f, "namespace {one}"),
        }
    }
}
