//! What an API server asks before it stores or shows an object: HTTPS on port 8443.
//!
//! ```text
//! AdmissionReview  ──/inject──▶ inject (the same as `meshctl inject`) ──▶ JSON patch
//!                  ──/validate─▶ the reader of the sources             ──▶ refusal that names the field
//! ConversionReview ──/convert──▶ conversion between versions of SMI
//! ```
//!
//! * [`server`]: connections and their limits; [`review`]: the envelope of admission; [`inject`], [`validate`]: pure.
//! * [`authority`]: who signs the serving certificate, kept in a Secret and replaced in time (pure); [`serving`]: the
//!   certificate; [`keeper`]: keeps both right, and what the API server trusts.

pub mod authority;
pub mod inject;
pub mod keeper;
pub mod review;
pub mod server;
pub mod serving;
pub mod start;
pub mod validate;

#[cfg(test)]
mod tests;

use crate::index::Index;
use crate::inject::{Settings as Injection, Trust};
use crate::manifest::{Kind, Object, ObjectKey};
use crate::serve::Shared;
use crate::smi::convert;
use crate::state::{Secrecy, StateDir, TRUST_ANCHORS};
use anyhow::Result;
use inject::{Asked, Namespace};
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::api::Api;
use review::{Request, Review};
use server::{Answer, Handler};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use weft_proxy_api::names::webhook_paths;

/// Largest AdmissionReview: two states of an object, which etcd holds to 1.5 MiB each.
const MAX_REVIEW: usize = 3 << 20;
/// Largest ConversionReview: a page of a list comes in one.
const MAX_CONVERSION: usize = 16 << 20;
/// Bodies worked on at once, KiB: read, one may take thirty times its length, and anybody in the cluster can send some.
const MAX_WORKED: usize = MAX_CONVERSION >> 10;
/// How long the API server may take to tell about a namespace that the index does not know yet.
const NAMESPACE_LIMIT: Duration = Duration::from_secs(3);

/// Answers reviews.
pub struct Webhook {
    index: Arc<Index>,
    shared: Arc<Shared>,
    client: Client,
    state: StateDir,
    injection: Injection,
    own_namespace: String,
    working: Arc<Semaphore>,
}

impl Webhook {
    /// `state` has the roots that injected proxies trust at first; pods of `own_namespace` are never injected.
    pub fn new(
        index: Arc<Index>,
        shared: Arc<Shared>,
        client: Client,
        state: StateDir,
        injection: Injection,
        own_namespace: String,
    ) -> Self {
        Self {
            index,
            shared,
            client,
            state,
            injection,
            own_namespace,
            working: Arc::new(Semaphore::new(MAX_WORKED)),
        }
    }

    /// How a pod is injected now: roots may have been rotated since the start.
    fn settings(&self) -> Result<Injection> {
        let roots = self.state.read(TRUST_ANCHORS, Secrecy::Public)?;
        let mut settings = self.injection.clone();
        if let Some(roots) = roots {
            settings.trust = Trust::Text(roots);
        }
        Ok(settings)
    }

    async fn inject(self: Arc<Self>, body: Vec<u8>, asked: Asked) -> Answer {
        let turn = self.turn(&body).await;
        let (review, turn) = match aside(move || (Review::read(&body), turn)).await {
            Some((Ok(review), turn)) => (review, turn),
            Some((Err(error), _)) => return Answer::refused(&error.to_string()),
            None => return not_computed(),
        };
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(error) => return Answer::failed(&format!("{error:#}")),
        };
        let name = review.request().namespace.clone();
        if inject::is_excluded(&name, &self.own_namespace) {
            return review.answer(|_| review::Response::allowed());
        }
        // Not known is not the same as asking for nothing: what becomes of the pod is then the failure policy's to say.
        let namespace = match self.namespace(&name).await {
            Ok(namespace) => namespace,
            Err(reason) => return Answer::failed(&format!("namespace {name}: {reason}")),
        };
        compute(turn, move || {
            review.answer(|request: &Request| inject::answer(request, &namespace, asked, &settings))
        })
        .await
    }

    async fn validate(&self, body: Vec<u8>) -> Answer {
        let turn = self.turn(&body).await;
        compute(turn, move || match Review::read(&body) {
            Ok(review) => review.answer(validate::answer),
            Err(error) => Answer::refused(&error.to_string()),
        })
        .await
    }

    async fn convert(&self, body: Vec<u8>) -> Answer {
        let turn = self.turn(&body).await;
        compute(turn, move || match convert::review(&body) {
            Ok(json) => Answer::json(json, "converted"),
            Err(error) => Answer::refused(&error.to_string()),
        })
        .await
    }

    /// Waits until a body may be worked on. Kept until that is done, which may be after whoever asked has left.
    async fn turn(&self, body: &[u8]) -> Turn {
        let kib = body.len().div_ceil(1024).clamp(1, MAX_WORKED);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        self.working.clone().acquire_many_owned(kib).await.ok()
    }

    /// What a namespace says. One that was made a moment ago may not have been watched yet: then the API server is asked.
    async fn namespace(&self, name: &str) -> Result<Namespace, String> {
        let key = ObjectKey::new(Kind::Namespace, "", name);
        let known = self.index.read(|world| match &world.object(&key)?.object {
            Object::Namespace(namespace) => Some(namespace.metadata.clone()),
            _ => None,
        });
        if let Some(known) = known {
            return Ok(Namespace {
                labels: known.labels,
                annotations: known.annotations,
            });
        }
        let api: Api<core::Namespace> = Api::all(self.client.clone());
        let found = match timeout(NAMESPACE_LIMIT, api.get_opt(name)).await {
            Ok(found) => found.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no answer within {NAMESPACE_LIMIT:?}")),
        };
        let metadata = found.unwrap_or_default().metadata;
        Ok(Namespace {
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        })
    }
}

/// The right to work on a body.
type Turn = Option<OwnedSemaphorePermit>;

/// Aside: the control API goes on meanwhile, and a panic (`None`) ends nothing but this answer.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

async fn compute(turn: Turn, answer: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let computed = aside(move || {
        let answer = answer();
        drop(turn);
        answer
    });
    computed.await.unwrap_or_else(not_computed)
}

fn not_computed() -> Answer {
    Answer::failed("it could not be computed")
}

impl Handler for Webhook {
    fn limit(&self, path: &str) -> Option<usize> {
        match path {
            webhook_paths::INJECT | webhook_paths::INJECT_NAMESPACE | webhook_paths::VALIDATE => {
                Some(MAX_REVIEW)
            }
            webhook_paths::CONVERT => Some(MAX_CONVERSION),
            _ => None,
        }
    }

    async fn answer(self: Arc<Self>, path: &str, body: Vec<u8>) -> Answer {
        let shared = self.shared.clone();
        let answer = match path {
            webhook_paths::INJECT => self.inject(body, Asked::ByAnnotation).await,
            webhook_paths::INJECT_NAMESPACE => self.inject(body, Asked::ByLabel).await,
            webhook_paths::VALIDATE => self.validate(body).await,
            _ => self.convert(body).await,
        };
        shared.counters.webhook_answered(answer.outcome);
        answer
    }
}
