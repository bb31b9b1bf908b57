//! Who may look at the traffic, where an API server decides: a caller's own token says who it is (TokenReview), and the
//! rights of that user say what it may see (SubjectAccessReview). Rights are those of the group `weft.mesh`:
//!
//! | what | resource | verb |
//! |---|---|---|
//! | figures, and what the state in force means | `traffic` | `get` |
//! | single requests | `pods/tap` | `watch` |
//! | another detail of metrics | `pods/metrics` | `update` |
//!
//! The last two are asked for in the namespace that is looked at; without one, in all of them.

use super::doubt::Doubt;
use super::remembered::Remembered;
use super::review::{fingerprint, timed};
use crate::policy::GROUP;
use crate::serve::rate::{Limiter, Rate};
use crate::token::MAX_TOKEN;
use crate::traffic::gate::{Gate, Refusal, Right};
use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest name of a namespace (RFC 1123 label): what is remembered is bounded by it.
const MAX_NAMESPACE: usize = 63;
/// What whoever presents made-up tokens can cost the API server.
const RATE: Rate = Rate {
    burst: 50,
    interval: Duration::from_millis(100),
};

/// Of this, what one address may ask in vain.
const OF_ADDRESS: Rate = Rate {
    burst: 20,
    interval: Duration::from_secs(1),
};

type Verdict = Result<String, Refusal>;
/// A token's fingerprint, and what it was to be good for.
type Question = ([u8; 32], Right);

/// Asks the API server.
pub struct Observers {
    tokens: Api<TokenReview>,
    access: Api<SubjectAccessReview>,
    remembered: Remembered<Question, Verdict>,
    rate: Mutex<Limiter<()>>,
    doubt: Doubt,
}

impl Observers {
    /// One that has asked nothing yet.
    pub fn new(client: Client) -> Self {
        Self {
            tokens: Api::all(client.clone()),
            access: Api::all(client),
            remembered: Remembered::default(),
            rate: Mutex::new(Limiter::new(RATE)),
            doubt: Doubt::new(OF_ADDRESS),
        }
    }

    async fn judge(&self, token: &str, right: &Right, from: IpAddr) -> Verdict {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Unknown);
        }
        let (.., namespace) = right.attributes();
        if namespace.len() > MAX_NAMESPACE {
            let why = format!("the name of a namespace has at most {MAX_NAMESPACE} characters");
            return Err(Refusal::Forbidden(why));
        }
        let key = (fingerprint(token), right.clone());
        if let Some(verdict) = self.remembered.recall(&key, Instant::now()) {
            return verdict;
        }
        let busy = |why: &str| Refusal::Unable(why.to_owned());
        let charge = self.doubt.charge(from, Instant::now());
        let mut charge = charge.ok_or_else(|| busy("too much was asked in vain from there"))?;
        let turn = self.rate.lock().check((), Instant::now());
        turn.map_err(|_| busy("too many ask"))?;
        // Also for who does not wait for the answer.
        charge.stands = true;
        let verdict = self.ask(token, right).await;
        charge.stands = matches!(verdict, Err(Refusal::Unknown | Refusal::Forbidden(_)));
        // What could not be asked may be asked again at once.
        if !matches!(verdict, Err(Refusal::Unable(_))) {
            self.remembered.keep(key, verdict.clone(), Instant::now());
        }
        verdict
    }

    async fn ask(&self, token: &str, right: &Right) -> Verdict {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let reviewed = timed(self.tokens.create(&params, &review)).await;
        let status = reviewed
            .map_err(Refusal::Unable)?
            .status
            .unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(Refusal::Unknown);
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.clone().unwrap_or_default();
        let asked = SubjectAccessReview {
            spec: subject(user, right),
            ..SubjectAccessReview::default()
        };
        let answered = timed(self.access.create(&params, &asked)).await;
        let status = answered
            .map_err(Refusal::Unable)?
            .status
            .unwrap_or_default();
        match status.allowed && status.denied != Some(true) {
            true => Ok(name),
            false => Err(Refusal::Forbidden(format!("{name} may not {right}"))),
        }
    }
}

impl Gate for Observers {
    fn admit<'a>(
        &'a self,
        token: &'a str,
        right: &'a Right,
        from: IpAddr,
    ) -> BoxFuture<'a, Verdict> {
        Box::pin(self.judge(token, right, from))
    }
}

/// What this user wants to do, as the API server is asked about it.
fn subject(user: UserInfo, right: &Right) -> SubjectAccessReviewSpec {
    let (verb, resource, subresource, namespace) = right.attributes();
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReviewSpec {
        user: user.username,
        uid: user.uid,
        groups: user.groups,
        extra: user.extra,
        resource_attributes: Some(ResourceAttributes {
            group: named(GROUP),
            resource: named(resource),
            subresource: named(subresource),
            verb: named(verb),
            namespace: named(namespace),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
#[path = "observers_tests.rs"]
mod tests;
