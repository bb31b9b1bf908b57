//! Whom a projected service-account token stands for: asked of the API server (TokenReview), which alone knows whether the
//! pod it is bound to still exists. Answers are remembered for a moment, and how often is asked is bounded: for all together,
//! and for tokens that are worth nothing also by the address that they come from.

use super::doubt::Doubt;
use super::remembered::Remembered;
use crate::pod_ref::PodRef;
use crate::serve::proof::Proven;
use crate::serve::rate::{Limiter, Rate};
use crate::token::{MAX_TOKEN, TokenError};
use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_proxy_api::names::inject::TOKEN_AUDIENCE;

/// Questions under way at once.
const MAX_ASKING: usize = 16;
/// How long the API server may think.
const LIMIT: Duration = Duration::from_secs(5);
/// What all tokens together can cost the API server.
const RATE: Rate = Rate {
    burst: 400,
    interval: Duration::from_millis(10),
};
/// Of these, tokens of one address that are worth nothing: enough for all pods of a node that are behind it and start at once.
const OF_ADDRESS: Rate = Rate {
    burst: 128,
    interval: Duration::from_secs(1),
};

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

type Verdict = Result<Proven, TokenError>;

/// Asks the API server.
pub struct Reviewer {
    api: Api<TokenReview>,
    remembered: Remembered<[u8; 32], Verdict>,
    asking: Semaphore,
    rate: Mutex<Limiter<()>>,
    doubt: Doubt,
}

impl Reviewer {
    /// One that has asked nothing yet.
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            remembered: Remembered::default(),
            asking: Semaphore::new(MAX_ASKING),
            rate: Mutex::new(Limiter::new(RATE)),
            doubt: Doubt::new(OF_ADDRESS),
        }
    }

    /// The pod that a token is bound to, and its account. `from`: who presents it.
    pub async fn verify(&self, token: &str, from: IpAddr) -> Verdict {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let key = fingerprint(token);
        if let Some(verdict) = self.remembered.recall(&key, Instant::now()) {
            return verdict;
        }
        let charge = self.doubt.charge(from, Instant::now());
        let mut charge = charge.ok_or(TokenError::Doubted)?;
        let _turn = self.asking.acquire().await.map_err(|_| TokenError::Busy)?;
        // Whoever waited may find that somebody else has asked the same.
        let now = Instant::now();
        if let Some(verdict) = self.remembered.recall(&key, now) {
            return verdict;
        }
        self.rate
            .lock()
            .check((), now)
            .map_err(|_| TokenError::Busy)?;
        // Also for who does not wait for the answer.
        charge.stands = true;
        let answer = self.ask(token).await;
        // A server that cannot answer says nothing about whoever asked.
        charge.stands = answer.is_ok();
        let verdict = judge(answer?);
        charge.stands = verdict.is_err();
        self.remembered.keep(key, verdict.clone(), Instant::now());
        verdict
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, TokenError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let failed = |reason: String| {
            tracing::warn!(reason, "no TokenReview"); // never the token
            TokenError::Review
        };
        let reviewed = timed(self.api.create(&params, &review)).await;
        let review = reviewed.map_err(failed)?;
        Ok(review.status.unwrap_or_default())
    }
}

/// What the API server answers, if it does in time.
pub(super) async fn timed<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, String> {
    match timeout(LIMIT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    }
}

/// Tokens themselves are not kept.
pub(super) fn fingerprint(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// What an answer of the API server proves.
fn judge(status: TokenReviewStatus) -> Verdict {
    if status.authenticated != Some(true) {
        return Err(TokenError::Unknown);
    }
    // An API server that does not know audiences answers with none: then the token was not made for us.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|it| it == TOKEN_AUDIENCE)
    {
        return Err(TokenError::Audience);
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let account = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let (namespace, account) = account.ok_or(TokenError::Subject)?;
    let extra = user.extra.unwrap_or_default();
    let bound = |name: &str| match extra.get(name).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Ok(one.clone()),
        _ => Err(TokenError::Unbound),
    };
    Ok(Proven {
        pod: PodRef::new(namespace, bound(POD_NAME)?),
        account: account.to_owned(),
        uid: Some(bound(POD_UID)?),
    })
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
