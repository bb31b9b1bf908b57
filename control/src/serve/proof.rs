//! What a token proves, and who can tell: our own key for tokens of the folder source, the API server for projected ones.

use crate::kube::review::Reviewer;
use crate::pod_ref::PodRef;
use crate::token::{ISSUER, TokenClaims, TokenError, TokenKey, issuer};
use std::net::IpAddr;
use std::time::SystemTime;

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The pod it is bound to.
    pub pod: PodRef,
    /// Its service account.
    pub account: String,
    /// Tells the pod from a later one of the same name, where that is known.
    pub uid: Option<String>,
}

/// Whose tokens are taken.
pub struct Tokens {
    own: Option<TokenKey>,
    reviewer: Option<Reviewer>,
}

impl Tokens {
    /// Those of Kubernetes, and beside them those of an own key, for workloads outside the cluster.
    pub fn reviewed(reviewer: Reviewer, own: Option<TokenKey>) -> Self {
        Self {
            own,
            reviewer: Some(reviewer),
        }
    }

    /// The key whose tokens are taken without asking anybody.
    pub fn own(&self) -> Option<&TokenKey> {
        self.own.as_ref()
    }

    /// What a token proves at `now`; `from`: who presents it.
    pub async fn verify(
        &self,
        token: &str,
        from: IpAddr,
        now: SystemTime,
    ) -> Result<Proven, TokenError> {
        // What a token says of its issuer only decides who is asked about it.
        let ours = || issuer(token).is_some_and(|issuer| issuer == ISSUER);
        match (&self.own, &self.reviewer) {
            (Some(own), Some(_)) if ours() => own.verify(token, now).map(Proven::from),
            (_, Some(reviewer)) => reviewer.verify(token.trim(), from).await,
            (Some(own), None) => own.verify(token, now).map(Proven::from),
            (None, None) => Err(TokenError::Unknown),
        }
    }
}

impl From<TokenKey> for Tokens {
    fn from(key: TokenKey) -> Self {
        Self {
            own: Some(key),
            reviewer: None,
        }
    }
}

impl From<TokenClaims> for Proven {
    fn from(claims: TokenClaims) -> Self {
        Self {
            pod: claims.pod(),
            account: claims.account().to_owned(),
            uid: None,
        }
    }
}
