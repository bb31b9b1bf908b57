//! Keeps the serving certificate, its authority (a Secret), and what the API server trusts (`caBundle`) right.
//!
//! Every replica does; none has to be elected. A change of the authority names the version of the Secret that was read,
//! so of two that make it at once one fails and takes over what the other wrote; and what follows from the Secret is the
//! same for all. Nothing is written that is right already.

use super::authority::Authorities;
use super::serving::Serving;
use crate::kube::metrics_api;
use anyhow::{Context, Result, bail};
use http::{Method, Request, header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use weft_proxy_api::names::CONTROL_ACCOUNT;

/// The Secret with the authority.
pub const WEBHOOK_CA_SECRET: &str = "weft-webhook-ca";
/// The MutatingWebhookConfiguration.
pub const INJECTOR: &str = "weft-injector";
/// The ValidatingWebhookConfiguration.
pub const VALIDATOR: &str = "weft-validator";
/// The same for objects under the old name of their group, where it counts.
pub const LEGACY_VALIDATOR: &str = "weft-validator-legacy";

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Replicas may write at the same moment; more often than this it is no race.
const ATTEMPTS: usize = 5;

/// Where the API server keeps whom it trusts: the object, the list in it (if it is one), and the way from there.
struct Place {
    url: String,
    list: Option<&'static str>,
    bundle: &'static [&'static str],
}

/// Keeps everything right until it is dropped.
pub struct Keeper {
    /// The API server.
    pub client: Client,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Life of the authority.
    pub life: Duration,
    /// What is shown.
    pub serving: Arc<Serving>,
    /// What the API server was last seen to trust everywhere; begins empty.
    pub trusted: Mutex<String>,
}

impl Keeper {
    /// For ever; what does not work is tried again.
    pub async fn run(self) {
        let mut last = None;
        loop {
            let failure = match timeout(LIMIT, self.look()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some(format!("not done after {LIMIT:?}")),
            };
            if let Some(failure) = failure.as_ref().filter(|it| last.as_ref() != Some(*it)) {
                tracing::warn!("the webhook's certificates: {failure}");
            }
            last = failure;
            sleep(EVERY.min(self.life / 30)).await;
        }
    }

    /// One look at everything.
    pub async fn look(&self) -> Result<()> {
        let authorities = self.authorities().await?;
        if self
            .serving
            .renew(&authorities, OffsetDateTime::now_utc())?
        {
            tracing::info!("the webhook shows a new certificate");
        }
        let text = authorities.bundle();
        let bundle = json!(ByteString(text.clone().into_bytes()));
        let mut failures = Vec::new();
        for place in places() {
            if let Err(error) = self.trust(&place, &bundle).await {
                failures.push(format!("{}: {error:#}", place.url));
            }
        }
        if !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        *self.trusted.lock() = text;
        Ok(())
    }

    /// The authorities in the Secret, made where there is none and moved on when it is time.
    async fn authorities(&self) -> Result<Authorities> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams::default();
        for _ in 0..ATTEMPTS {
            let now = OffsetDateTime::now_utc();
            let found = api.get_opt(WEBHOOK_CA_SECRET).await;
            let written = match found.context("cannot read the Secret")? {
                None => {
                    let made = Authorities::new(self.life, now)?;
                    (api.create(&params, &secret(&made)).await, made)
                }
                Some(mut found) => {
                    let data = found.data.take().unwrap_or_default();
                    let known = Authorities::from_data(&data).context("the Secret is not ours")?;
                    let Some(next) = known.step(self.life, now)? else {
                        return Ok(known);
                    };
                    // Whom the API server does not trust yet does not sign yet, however long that takes.
                    if next.replaces(&known) && *self.trusted.lock() != known.bundle() {
                        return Ok(known);
                    }
                    // Its resourceVersion goes back with it: what changed meanwhile is not overwritten.
                    found.data = Some(next.to_data());
                    let replaced = api.replace(WEBHOOK_CA_SECRET, &params, &found).await;
                    (replaced, next)
                }
            };
            match written {
                (Ok(_), authorities) => return Ok(authorities),
                (Err(kube::Error::Api(status)), _) if status.code == 409 => {}
                (Err(error), _) => return Err(error).context("cannot write the Secret"),
            }
        }
        bail!("the Secret {WEBHOOK_CA_SECRET} changes all the time")
    }

    /// Has the API server trust the bundle for one object; one that is not installed is no mistake.
    async fn trust(&self, place: &Place, bundle: &Value) -> Result<()> {
        let request = Request::get(&place.url).body(Vec::new())?;
        let object: Value = match self.client.request(request).await {
            Ok(object) => object,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut patch = place.patch(&object, &self.namespace, bundle);
        if patch.is_empty() {
            return Ok(());
        }
        let version = &object["metadata"]["resourceVersion"];
        patch.insert(
            0,
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}),
        );
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{}?fieldManager=weft-control", place.url))
            .header(header::CONTENT_TYPE, "application/json-patch+json")
            .body(Value::from(patch).to_string().into_bytes())?;
        self.client.request::<Value>(request).await?;
        tracing::info!("{} trusts the webhook", place.url);
        Ok(())
    }
}

impl Place {
    /// Operations of a JSON patch that put the bundle in; none where it is, or where it is not we who are asked: another
    /// product may have made definitions of the same names.
    fn patch(&self, object: &Value, namespace: &str, bundle: &Value) -> Vec<Value> {
        let roots: Vec<String> = match self.list {
            None => vec![String::new()],
            Some(list) => {
                let items = object[list].as_array().map_or(0, Vec::len);
                (0..items).map(|at| format!("/{list}/{at}")).collect()
            }
        };
        let is_ours = |service: &Value| {
            service["name"] == CONTROL_ACCOUNT && service["namespace"] == namespace
        };
        let way: String = self.bundle.iter().map(|key| format!("/{key}")).collect();
        let mut patch = Vec::new();
        for parent in roots.iter().map(|root| format!("{root}{way}")) {
            let Some(config) = object.pointer(&parent) else {
                continue;
            };
            if is_ours(&config["service"]) && config.get("caBundle") != Some(bundle) {
                let path = format!("{parent}/caBundle");
                patch.push(json!({"op": "add", "path": path, "value": bundle}));
            }
        }
        patch
    }
}

fn places() -> Vec<Place> {
    let webhooks = |kind: &str, name: &str| Place {
        url: format!("/apis/admissionregistration.k8s.io/v1/{kind}/{name}"),
        list: Some("webhooks"),
        bundle: &["clientConfig"],
    };
    let mut places = vec![
        webhooks("mutatingwebhookconfigurations", INJECTOR),
        webhooks("validatingwebhookconfigurations", VALIDATOR),
        webhooks("validatingwebhookconfigurations", LEGACY_VALIDATOR),
    ];
    places.extend(converted().map(|name| Place {
        url: format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"),
        list: None,
        bundle: &["spec", "conversion", "webhook", "clientConfig"],
    }));
    places.extend(metrics_api::services().map(|name| Place {
        url: format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}"),
        list: None,
        bundle: &["spec"],
    }));
    places
}

/// Names of the definitions whose objects are converted.
pub fn converted() -> impl Iterator<Item = String> {
    crate::crd::all(None).into_iter().filter_map(|definition| {
        let versions = definition["spec"]["versions"].as_array()?.len();
        let name = definition["metadata"]["name"].as_str()?;
        (versions > 1).then(|| name.to_owned())
    })
}

fn secret(authorities: &Authorities) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(WEBHOOK_CA_SECRET.into()),
            ..ObjectMeta::default()
        },
        data: Some(authorities.to_data()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_written() {
        let service = json!({"name": "weft-control", "namespace": "mesh"});
        let ours = json!({"service": service, "caBundle": "b"});
        let stale = json!({"service": service, "caBundle": "a"});
        let absent = json!({"service": service});
        let url = json!({"url": "https://elsewhere"});
        let other = json!({"service": {"name": "other", "namespace": "mesh"}, "caBundle": "o"});
        let elsewhere = json!({"service": {"name": "weft-control", "namespace": "other"}});
        let list = [&ours, &stale, &absent, &url, &other, &elsewhere];
        let list = list.map(|config| json!({"clientConfig": config}));
        let place = &places()[0];
        let patch = place.patch(&json!({"webhooks": list}), "mesh", &json!("b"));
        let paths: Vec<&str> = patch.iter().filter_map(|it| it["path"].as_str()).collect();
        let expected = [
            "/webhooks/1/clientConfig/caBundle",
            "/webhooks/2/clientConfig/caBundle",
        ];
        assert_eq!(paths, expected);
        for odd in [json!({}), json!({"webhooks": 3}), json!({"webhooks": [1]})] {
            assert!(place.patch(&odd, "mesh", &json!("b")).is_empty(), "{odd}");
        }
    }

    #[test]
    fn definitions_with_one_version_are_left_alone() {
        let names: Vec<String> = converted().collect();
        assert!(
            names.contains(&"trafficsplits.split.smi-spec.io".to_owned()),
            "{names:?}"
        );
        assert!(
            !names.iter().any(|name| name.starts_with("udproutes")),
            "{names:?}"
        );
        let definition = json!({"spec": {"conversion": {"strategy": "None"}}});
        assert!(
            places()
                .iter()
                .all(|place| place.patch(&definition, "mesh", &json!("b")).is_empty())
        );
    }
}
