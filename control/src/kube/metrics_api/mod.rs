//! The aggregated API server of `metrics.smi-spec.io`: traffic as objects, for `kubectl` and what speaks its language.
//!
//! ```text
//! kubectl ─▶ API server ── who asks, and may they? ──TLS, its front-proxy certificate──▶ [`server`] ─▶ [`asked`]
//!                                                                        traffic report ─▶ [`documents`] ◀─┘
//! ```
//!
//! The API server knows who asks and what RBAC allows them before it passes a request on; here only it is believed
//! ([`front`]). The figures are those of `meshctl stat` and `meshctl edges`: pods, and what pods belong to, as their own
//! proxies saw it; Services and splits as callers saw it.
//!
//! | path below `/apis/metrics.smi-spec.io/v1alpha1` (or `v1alpha2`) | answer |
//! |---|---|
//! | nothing | the resources |
//! | `/{resource}`, `/namespaces/{ns}/{resource}` | a list |
//! | `/namespaces/{ns}/{resource}/{name}`, `/namespaces/{ns}`, `/nodes/{name}` | one object; of a split a list, one item for each backend |
//! | the same with `/edges` | what it sent and what was sent to it, by the other end |
//!
//! Queries: `t` (a Go duration from 1s to 10m, default 30s) and `labelSelector`, which leaves items out and no figures.

mod asked;
mod discovery;
mod documents;
mod edges;
mod figures;
pub mod front;
mod refusal;
mod resource;
mod select;
pub mod server;
pub mod start;

#[cfg(test)]
mod tests;

use crate::traffic::Report;
use crate::traffic::api::Api;
use asked::Asked;
use http::{Method, StatusCode, Uri};
use serde_json::Value;
use std::future::Future;
use std::time::Duration;

/// The API group.
pub const GROUP: &str = "metrics.smi-spec.io";
/// Its versions, the preferred one first. They differ in nothing that we answer.
pub const VERSIONS: [&str; 2] = ["v1alpha1", "v1alpha2"];

/// Names of the APIServices that lead here.
pub fn services() -> impl Iterator<Item = String> {
    VERSIONS.iter().map(|version| format!("{version}.{GROUP}"))
}

/// An answer: a status and a JSON document.
pub type Answer = (StatusCode, Value);

/// Where figures come from.
pub trait Reports: Send + Sync + 'static {
    /// The traffic of the last `window`, as fresh as it can be had.
    fn report(&self, window: Duration) -> impl Future<Output = Report> + Send;
}

impl Reports for Api {
    fn report(&self, window: Duration) -> impl Future<Output = Report> + Send {
        self.traffic(Some(window), true)
    }
}

/// Answers a request whose sender is known.
pub async fn handle(reports: &impl Reports, method: &Method, uri: &Uri) -> Answer {
    let asked = match Asked::read(method, uri.path(), uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.answer(),
    };
    let document = match asked {
        Asked::Group => Ok(discovery::group()),
        Asked::Resources(version) => Ok(discovery::resources(version)),
        Asked::Traffic(traffic) => {
            let report = reports.report(traffic.window).await;
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
            documents::document(&traffic, &report, &now.to_string())
        }
    };
    match document {
        Ok(document) => (StatusCode::OK, document),
        Err(refusal) => refusal.answer(),
    }
}
