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
use tokio::time::timeout;
use weft_proxy_api::names::webhook_paths;

/// Largest AdmissionReview: two states of an object, which etcd holds to 1.5 MiB each.
const MAX_REVIEW: usize = 3 << 20;
/// Largest ConversionReview: a page of a list comes in one.
const MAX_CONVERSION: usize = 16 << 20;
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
        let review = match Review::read(&body) {
            Ok(review) => review,
            Err(error) => return Answer::refused(&error.to_string()),
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
        compute(move || {
            review.answer(|request: &Request| inject::answer(request, &namespace, asked, &settings))
        })
        .await
    }

    async fn validate(body: Vec<u8>) -> Answer {
        compute(move || match Review::read(&body) {
            Ok(review) => review.answer(validate::answer),
            Err(error) => Answer::refused(&error.to_string()),
        })
        .await
    }

    async fn convert(body: Vec<u8>) -> Answer {
        compute(move || match convert::review(&body) {
            Ok(json) => Answer::json(json, "converted"),
            Err(error) => Answer::refused(&error.to_string()),
        })
        .await
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

/// Aside: the control API goes on meanwhile, and a panic ends nothing but this answer.
async fn compute(answer: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(answer)
        .await
        .unwrap_or_else(|_| Answer::failed("it could not be computed"))
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
            webhook_paths::VALIDATE => Self::validate(body).await,
            _ => Self::convert(body).await,
        };
        shared.counters.webhook_answered(answer.outcome);
        answer
    }
}
