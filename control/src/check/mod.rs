//! Whether the mesh can be installed, and whether it works: questions to an API server, each with an answer for people and
//! one for programs.
//!
//! * [`report`]: the answers and how they are shown; [`hints`]: what to do about each.
//! * [`cluster`]: before an installation; [`control`]: an installation; [`proxies`]: what the proxies say of themselves.

pub mod cluster;
pub mod control;
pub mod hints;
pub mod proxies;
pub mod report;

pub use report::{Check, Report, Section};

use crate::install::live::Live;
use crate::kube::connect::{self, Settings};
use anyhow::{Context, Result, bail};
use http::{Method, Request, header};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Whom the checks ask.
pub struct Asked {
    client: Client,
    live: Live,
    /// Namespace of the controller.
    pub namespace: String,
}

impl Asked {
    /// A client; nothing is asked yet.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let client = connect::client(settings).await?;
        Ok(Self {
            live: Live::new(client.clone()),
            client,
            namespace: settings.namespace.clone(),
        })
    }

    /// An answer to a GET; `None`: there is no such thing.
    async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.live.get(path).await
    }

    /// An answer to a POST.
    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())?;
        match timeout(LIMIT, self.client.request(request)).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => bail!("the API server has not answered within {LIMIT:?}"),
        }
    }

    /// The `Date` of an answer.
    async fn date(&self) -> Result<Option<String>> {
        let request = Request::get("/version").body(Body::empty())?;
        let answer = timeout(LIMIT, self.client.send(request)).await;
        let answer = answer.context("the API server does not answer")??;
        let date = answer.headers().get(header::DATE);
        Ok(date.and_then(|date| date.to_str().ok()).map(str::to_owned))
    }
}

/// Before an installation.
pub async fn before(asked: &Asked) -> Report {
    let mut report = Report::default();
    let api = cluster::api(asked).await;
    let reachable = api.reachable();
    report.sections.push(api);
    if reachable {
        report.sections.push(cluster::room(asked).await);
    }
    report
}

/// An installation.
pub async fn installed(asked: &Asked) -> Report {
    let mut report = Report::default();
    let api = cluster::api(asked).await;
    let reachable = api.reachable();
    report.sections.push(api);
    if reachable {
        report.sections.push(control::controller(asked).await);
        report.sections.push(control::webhook(asked).await);
        report.sections.push(control::authority(asked).await);
    }
    report
}

/// An installation and its proxies.
pub async fn with_proxies(asked: &Asked) -> Report {
    let mut report = installed(asked).await;
    if report.sections.len() > 1 {
        report.sections.push(proxies::in_cluster(asked).await);
    }
    report
}
