//! An installation: is all of it there and right, and does the webhook answer?

use super::Asked;
use super::cluster::time_of;
use super::report::{Section, Verdict};
use crate::install::live::{Change, path};
use crate::install::{CONFIG_MAP, Install};
use crate::kube::rbac::STATUS_LEASE;
use crate::kube::secret::CA_SECRET;
use crate::webhook::authority::Authorities;
use crate::webhook::keeper::{INJECTOR, VALIDATOR, WEBHOOK_CA_SECRET};
use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use weft_proxy_api::names::{self, CONTROL_ACCOUNT, keys};

/// Whoever writes status renews its Lease every 2 s, and loses it after 15 s; clocks may differ, seconds.
const SILENT: i64 = 30;
/// Authorities that end sooner than this are worth a look.
const SOON: time::Duration = time::Duration::days(60);
/// The webhook's is replaced by itself, long before this.
const LATE: time::Duration = time::Duration::days(7);
/// Which part of its life is left to one that is not replaced as it should be: the controller does it when at least a sixth
/// is left, others that sign for short times when a third is.
const PART: i32 = 8;

pub(super) async fn controller(asked: &Asked) -> Section {
    let mut section = Section::new("weft-control");
    let namespace = &asked.namespace;
    let there = asked.get(&format!("/api/v1/namespaces/{namespace}")).await;
    let is_missing = matches!(there, Ok(None));
    let there = match there {
        Ok(Some(_)) => Verdict::fine(),
        Ok(None) => Verdict::failure(format!(
            "there is no namespace {namespace}: what the controller keeps, and the status of objects, is written nowhere"
        )),
        Err(error) => Verdict::failure(format!("{error:#}")),
    };
    section.add("namespace", "the controller has a namespace", there);
    if is_missing {
        return section;
    }
    let written = status_written(asked).await;
    section.add(
        "status-written",
        "a controller writes status",
        written.into(),
    );
    let config = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}");
    let config = asked.get(&config).await;
    let found = match &config {
        Ok(Some(_)) => Verdict::fine(),
        Ok(None) => Verdict::failure(format!("there is no ConfigMap {CONFIG_MAP} in {namespace}")),
        Err(error) => Verdict::failure(format!("{error:#}")),
    };
    section.add("installed", "the mesh is installed", found);
    let Ok(Some(config)) = config else {
        return section;
    };
    section.add(
        "same-version",
        "it is of the version of this meshctl",
        version(&config),
    );
    let access = asked.live.values(namespace).await;
    section.add(
        "access",
        "what no TrafficTarget allows is denied",
        access
            .map(|values| enforced(values.get("access").as_str()))
            .into(),
    );
    let changes = changes(asked).await;
    let (rights, others): (Vec<_>, Vec<_>) = match &changes {
        Ok(changes) => changes
            .iter()
            .partition(|(title, _)| title.contains("Role")),
        Err(_) => Default::default(),
    };
    let lines = |changes: Vec<&(String, Change)>| {
        let lines = changes
            .into_iter()
            .map(|(title, change)| format!("{title}: {change}"));
        lines.collect::<Vec<_>>()
    };
    let rendered = match &changes {
        Ok(_) => Verdict::unless(lines(others), || {
            Verdict::warning("somebody has changed or removed what was installed")
        }),
        Err(error) => Verdict::failure(format!("{error:#}")),
    };
    section.add(
        "as-rendered",
        "its objects are as they were printed",
        rendered,
    );
    let rights = Verdict::unless(lines(rights), || Verdict::failure("rights were taken away"));
    section.add("rights", "the controller has the rights it needs", rights);
    let served = definitions(asked).await;
    section.add(
        "definitions-served",
        "all kinds are served in all versions",
        served.into(),
    );
    section.add(
        "replicas",
        "its replicas are ready",
        replicas(asked).await.into(),
    );
    let metrics = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.metrics.smi-spec.io";
    if let Ok(Some(service)) = asked.get(metrics).await {
        section.add(
            "metrics-api",
            "the metrics API of SMI answers",
            available(&service),
        );
    }
    section
}

/// By the Lease of whoever writes it.
async fn status_written(asked: &Asked) -> Result<Verdict> {
    let namespace = &asked.namespace;
    let url = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{STATUS_LEASE}");
    let lease = asked.get(&url).await?;
    let now = asked.date().await?.as_deref().and_then(time_of);
    Ok(held(lease.as_ref(), now))
}

/// Is it held, as seen by the clock of the API server?
fn held(lease: Option<&Value>, now: Option<Timestamp>) -> Verdict {
    let Some(lease) = lease else {
        return Verdict::failure(format!(
            "there is no Lease {STATUS_LEASE}: none has ever written any"
        ));
    };
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    if holder.is_empty() {
        return Verdict::failure(format!("nobody holds the Lease {STATUS_LEASE}"));
    }
    let renewed = spec["renewTime"].as_str();
    let renewed = renewed.and_then(|time| time.parse::<Timestamp>().ok());
    let (Some(renewed), Some(now)) = (renewed, now) else {
        return Verdict::warning("nobody can say when the Lease was renewed");
    };
    let silent = now.as_second() - renewed.as_second();
    match silent > SILENT {
        true => Verdict::failure(format!(
            "{holder} holds the Lease {STATUS_LEASE} and has been silent for {silent} s"
        )),
        false => Verdict::fine(),
    }
}

/// By what the mesh was installed with; namespaces and pods may say otherwise.
fn enforced(access: Option<&str>) -> Verdict {
    match access {
        Some("strict") => Verdict::fine(),
        other => Verdict::warning(format!(
            "access is {}: everybody may call everybody, whatever TrafficTargets say, where no annotation is stricter",
            other.unwrap_or("unknown")
        )),
    }
}

fn version(config: &Value) -> Verdict {
    match config["data"]["version"].as_str() {
        Some(names::VERSION) => Verdict::fine(),
        other => {
            let other = other.unwrap_or("unknown");
            Verdict::warning(format!("it is {other}, and meshctl is {}", names::VERSION))
        }
    }
}

async fn changes(asked: &Asked) -> Result<Vec<(String, Change)>> {
    let install = Install {
        namespace: asked.namespace.clone(),
        values: asked.live.values(&asked.namespace).await?,
    };
    asked.live.changes(&install.render()).await
}

async fn definitions(asked: &Asked) -> Result<Verdict> {
    let mut wrong = Vec::new();
    let wanted = Install::default().render();
    for wanted in wanted
        .iter()
        .filter(|it| it["kind"] == "CustomResourceDefinition")
    {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let Some(found) = asked.live.object(wanted).await? else {
            wrong.push(format!("{name}: not there"));
            continue;
        };
        if condition(&found, "Established") != Some("True") {
            wrong.push(format!("{name}: not established"));
        }
        let served = |versions: &Value, version: &Value| {
            let mut versions = versions.as_array().into_iter().flatten();
            versions.any(|it| it["name"] == version["name"] && it["served"] == true)
        };
        for version in wanted["spec"]["versions"].as_array().into_iter().flatten() {
            if !served(&found["spec"]["versions"], version) {
                let version = version["name"].as_str().unwrap_or_default();
                wrong.push(format!("{name}: {version} is not served"));
            }
        }
    }
    Ok(Verdict::unless(wrong, || {
        Verdict::failure("objects of these kinds cannot be applied")
    }))
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|it| it["type"] == name)?["status"].as_str()
}

fn available(service: &Value) -> Verdict {
    match condition(service, "Available") {
        Some("True") => Verdict::fine(),
        _ => Verdict::warning("the APIService is not available"),
    }
}

async fn replicas(asked: &Asked) -> Result<Verdict> {
    let url = format!(
        "/apis/apps/v1/namespaces/{}/deployments/{CONTROL_ACCOUNT}",
        asked.namespace
    );
    let found = asked.get(&url).await?;
    let found = found.context("there is no Deployment of the controller")?;
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (wanted, ready) = (
        count(&found["spec"]["replicas"]),
        count(&found["status"]["readyReplicas"]),
    );
    let message = format!("{ready} of {wanted} are ready");
    Ok(match ready {
        0 => Verdict::failure(message),
        _ if ready < wanted => Verdict::warning(message),
        _ => Verdict::fine(),
    })
}

pub(super) async fn webhook(asked: &Asked) -> Section {
    let mut section = Section::new("weft-webhook");
    let authorities = authorities(asked).await;
    let verdict = match &authorities {
        Ok(authorities) => lasting(&authorities.bundle(), LATE, "it"),
        Err(error) => Verdict::failure(format!("{error:#}")),
    };
    section.add(
        "webhook-authority",
        "the authority of its certificates is good",
        verdict,
    );
    if let Ok(authorities) = authorities {
        let bundle = json!(ByteString(authorities.bundle().into_bytes()));
        let trusted = trusted(asked, &bundle).await;
        section.add(
            "ca-bundle",
            "the API server trusts it everywhere",
            trusted.into(),
        );
    }
    section.add(
        "injection-works",
        "a pod is injected (dry run)",
        injection(asked).await,
    );
    section.add(
        "conversion-works",
        "an object is converted (dry run)",
        conversion(asked).await,
    );
    section
}

async fn authorities(asked: &Asked) -> Result<Authorities> {
    let data = secret(asked, WEBHOOK_CA_SECRET).await?;
    Authorities::from_data(&data)
}

async fn secret(asked: &Asked, name: &str) -> Result<BTreeMap<String, ByteString>> {
    let url = format!("/api/v1/namespaces/{}/secrets/{name}", asked.namespace);
    let secret = asked.get(&url).await?;
    let mut secret = secret.with_context(|| format!("there is no Secret {name}"))?;
    serde_json::from_value(secret["data"].take()).context("its data cannot be read")
}

/// Does the first certificate of a PEM text last? `soon`: what is late for one of a long life.
fn lasting(pem: &str, soon: time::Duration, what: &str) -> Verdict {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return Verdict::failure(format!("{what} is not a certificate"));
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return Verdict::failure(format!("{what} is not a certificate"));
    };
    let validity = certificate.validity();
    let until = validity.not_after.to_datetime();
    let soon = soon.min((until - validity.not_before.to_datetime()) / PART);
    match until - OffsetDateTime::now_utc() {
        left if left.is_negative() => Verdict::failure(format!("{what} expired at {until}")),
        left if left < soon => Verdict::warning(format!("{what} expires at {until}")),
        _ => Verdict::fine(),
    }
}

async fn trusted(asked: &Asked, bundle: &Value) -> Result<Verdict> {
    let mut wrong = Vec::new();
    for object in Install::default().render() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let is_webhook = [INJECTOR, VALIDATOR].contains(&name);
        if !is_webhook && object["kind"] != "CustomResourceDefinition" {
            continue;
        }
        let found = asked.live.object(&object).await?.unwrap_or_default();
        let hooks = found["webhooks"].as_array().into_iter().flatten();
        let conversion = found["spec"]["conversion"].get("webhook");
        let mut configs = hooks.chain(conversion).map(|hook| &hook["clientConfig"]);
        if configs.any(|config| config["caBundle"] != *bundle) {
            wrong.push(path(&object));
        }
    }
    Ok(Verdict::unless(wrong, || {
        Verdict::failure("caBundle is not that of the Secret")
    }))
}

/// By the whole way: the API server asks the webhook.
async fn injection(asked: &Asked) -> Verdict {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "weft-check-", "annotations": {keys::INJECT: "enabled"}},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "check", "image": "weft.mesh/check"}],
        },
    });
    let url = "/api/v1/namespaces/default/pods?dryRun=All";
    match asked.post(url, &pod).await {
        Ok(pod)
            if pod["metadata"]["annotations"]
                .get(keys::INJECTED_AT_VERSION)
                .is_some() =>
        {
            Verdict::fine()
        }
        Ok(_) => Verdict::failure("the pod came back without a sidecar"),
        Err(error) => tried(&error),
    }
}

async fn conversion(asked: &Asked) -> Verdict {
    let split = json!({
        "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit",
        "metadata": {"generateName": "weft-check-"},
        "spec": {"service": "weft-check", "backends": [{"service": "weft-check", "weight": "1"}]},
    });
    let url = "/apis/split.smi-spec.io/v1alpha1/namespaces/default/trafficsplits?dryRun=All";
    match asked.post(url, &split).await {
        Ok(_) => Verdict::fine(),
        Err(error) => tried(&error),
    }
}

/// Whoever may not try has not found anything out.
fn tried(error: &anyhow::Error) -> Verdict {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 403 => {
            Verdict::warning(format!("it could not be tried: {}", status.message))
        }
        Some(kube::Error::Api(status)) => Verdict::failure(status.message.clone()),
        _ => Verdict::failure(format!("{error:#}")),
    }
}

pub(super) async fn authority(asked: &Asked) -> Section {
    let mut section = Section::new("weft-identity");
    let verdict = secret(asked, CA_SECRET).await.map(|data| {
        let pem = data
            .get("ca.crt")
            .map(|pem| pem.0.clone())
            .unwrap_or_default();
        lasting(&String::from_utf8_lossy(&pem), SOON, "the issuer")
    });
    section.add(
        "mesh-authority",
        "the certificate authority of the mesh is good",
        verdict.into(),
    );
    section
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn d12_access_that_is_not_strict_is_said_plainly() {
        assert_eq!(enforced(Some("strict")), Verdict::fine());
        for access in ["permissive", "audit"] {
            let verdict = format!("{:?}", enforced(Some(access)));
            assert!(
                verdict.contains("everybody may call everybody"),
                "{verdict}"
            );
        }
    }

    #[test]
    fn what_is_late_for_a_certificate_depends_on_its_life() {
        const DAY: u64 = 24 * 3600;
        let found = |life: u64, left: u64| {
            let made = OffsetDateTime::now_utc() - Duration::from_secs(life - left);
            let authorities = Authorities::new(Duration::from_secs(life), made);
            format!("{:?}", lasting(&authorities.unwrap().bundle(), LATE, "it"))
        };
        let fine = format!("{:?}", Verdict::fine());
        for (life, left) in [(360 * DAY, 8 * DAY), (3 * DAY, DAY), (3600, 601)] {
            assert_eq!(found(life, left), fine, "{life} {left}");
        }
        for (life, left) in [(360 * DAY, 6 * DAY), (3 * DAY, DAY / 3), (3600, 300)] {
            let found = found(life, left);
            assert!(found.contains("expires at"), "{life} {left}: {found}");
        }
    }

    #[test]
    fn who_writes_status_renews_its_lease() {
        let now: Option<Timestamp> = "2026-11-21T12:00:00Z".parse().ok();
        let lease =
            |holder: &str, at: &str| json!({"spec": {"holderIdentity": holder, "renewTime": at}});
        let fresh = "2026-11-21T11:59:58.123456Z";
        assert_eq!(held(Some(&lease("us", fresh)), now), Verdict::fine());
        let ahead = "2026-11-21T12:00:20.000000Z";
        assert_eq!(held(Some(&lease("us", ahead)), now), Verdict::fine());
        for (lease, now, part) in [
            (None, now, "there is no Lease"),
            (Some(lease("", fresh)), now, "nobody holds"),
            (
                Some(lease("us", "2026-11-21T11:59:00.000000Z")),
                now,
                "us holds the Lease weft-control-status and has been silent for 60 s",
            ),
            (Some(lease("us", "then")), now, "nobody can say"),
            (Some(lease("us", fresh)), None, "nobody can say"),
        ] {
            let verdict = format!("{:?}", held(lease.as_ref(), now));
            assert!(verdict.contains(part), "{verdict}");
        }
    }
}
