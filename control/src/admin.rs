//! What an operator can look at: `/live`, `/ready`, `/metrics`, `/status`, `/problems`. Nothing here changes anything,
//! and nothing here is secret; it listens on loopback all the same unless told otherwise.

use crate::manifest::{Problem, Severity};
use crate::serve::Shared;
use crate::serve::proxies::ProxyStatus;
use crate::serve::tls::OwnIdentity;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use weft_proxy_api::names;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// What the index tells about itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Objects in force.
    pub objects: usize,
    /// Everything wrong with the manifests.
    pub problems: Vec<Problem>,
}

/// Where facts come from.
pub trait Overview: Send + Sync + 'static {
    /// The facts now.
    fn facts(&self) -> Facts;
}

/// What the admin server shows.
pub struct Admin {
    /// The index.
    pub overview: Arc<dyn Overview>,
    /// The services.
    pub shared: Arc<Shared>,
    /// The controller's own certificate.
    pub own: Arc<OwnIdentity>,
    /// True once everything that was there at the start has been read.
    pub ready: watch::Receiver<bool>,
}

impl Admin {
    /// Serves until dropped.
    pub async fn run(self, listener: TcpListener) {
        let this = Arc::new(self);
        let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((tcp, _)) => {
                    let this = this.clone();
                    connections.spawn(async move {
                        this.connection(tcp).await;
                        drop(slot);
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await, // out of descriptors: not in a circle
            }
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream) {
        let service = service_fn(move |request| {
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(16 << 10);
        let _ = http.serve_connection(TokioIo::new(tcp), service).await; // a broken client is its own problem
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" if *self.ready.borrow() => text(StatusCode::OK, "ready\n".into()),
            "/ready" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the folders have not been read yet\n".into(),
            ),
            "/metrics" => text(StatusCode::OK, self.metrics()),
            "/problems" => text(
                StatusCode::OK,
                problem_lines(&self.overview.facts().problems),
            ),
            "/status" => {
                let proxies = self.shared.proxies.list();
                json_answer(&status(
                    *self.ready.borrow(),
                    &proxies,
                    &self.overview.facts(),
                    Instant::now(),
                ))
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /live /ready /metrics /status /problems\n".into(),
            ),
        }
    }

    fn metrics(&self) -> String {
        let (facts, shared, mut page) = (self.overview.facts(), &self.shared, Page::default());
        let counters = &shared.counters;
        let proxies = shared.proxies.list();
        let synced = proxies.iter().filter(|proxy| proxy.synced()).count();
        let [unchanged, whole, delta] = counters.items.each_ref().map(|counter| counter.get());
        let problems = |severity| {
            facts
                .problems
                .iter()
                .filter(|problem| problem.severity == severity)
                .count()
        };
        page.gauge("build_info", "Version of the controller.")
            .one("version", names::VERSION, 1);
        page.gauge("ready", "1 once every folder has been read.")
            .bare(u64::from(*self.ready.borrow()));
        page.gauge(
            "proxies",
            "Connected proxies, by whether they hold the current version of everything.",
        )
        .one("state", "synced", synced as u64)
        .one("state", "stale", (proxies.len() - synced) as u64);
        page.gauge("subscriptions", "Subscriptions of connected proxies.")
            .bare(proxies.iter().map(|proxy| proxy.subscriptions as u64).sum());
        page.counter("items_sent_total", "Answers sent to proxies, by kind.")
            .one("kind", "unchanged", unchanged)
            .one("kind", "whole", whole)
            .one("kind", "delta", delta);
        page.counter("messages_sent_total", "Messages sent to proxies.")
            .bare(counters.messages.get());
        page.counter("acks_total", "Versions that proxies took over.")
            .bare(counters.acks.get());
        page.counter("nacks_total", "Versions that proxies refused.")
            .bare(counters.nacks.get());
        page.counter("streams_refused_total", "Policy streams refused.")
            .bare(counters.streams_refused.get());
        page.counter("certificates_issued_total", "Certificates signed.")
            .bare(counters.certificates.get());
        let mut refused = page.counter(
            "certificates_refused_total",
            "Certificates not signed, by reason.",
        );
        for (reason, count) in counters.certificates_refused() {
            refused = refused.one("reason", reason, count);
        }
        page.gauge(
            "certificate_expiry_timestamp_seconds",
            "When the controller's own certificate expires.",
        )
        .bare(self.own.not_after());
        page.counter("connections_total", "Connections accepted.")
            .bare(counters.connections.get());
        page.counter(
            "handshakes_failed_total",
            "Connections that failed the TLS handshake.",
        )
        .bare(counters.handshakes_failed.get());
        page.counter(
            "accept_errors_total",
            "Times accepting failed for want of descriptors or memory.",
        )
        .bare(counters.accept_errors.get());
        page.counter("summaries_total", "Traffic summaries taken in.")
            .bare(counters.summaries.get());
        page.gauge("edges", "Edges of traffic known.")
            .bare(shared.edges.len() as u64);
        page.gauge("objects", "Objects in force.")
            .bare(facts.objects as u64);
        page.gauge("problems", "Problems in the manifests, by severity.")
            .one("severity", "error", problems(Severity::Error) as u64)
            .one("severity", "warning", problems(Severity::Warning) as u64)
            .one("severity", "info", problems(Severity::Info) as u64);
        page.0
    }
}

/// The text format of Prometheus, as much of it as is needed here.
#[derive(Default)]
struct Page(String);

struct Family<'a> {
    page: &'a mut String,
    name: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        let name = format!("{}control_{name}", names::METRIC_PREFIX);
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            page: &mut self.0,
            name,
        }
    }

    fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }
}

impl Family<'_> {
    fn bare(self, value: u64) {
        let _ = writeln!(self.page, "{} {value}", self.name);
    }

    fn one(self, label: &str, text: &str, value: u64) -> Self {
        let _ = writeln!(self.page, "{}{{{label}=\"{text}\"}} {value}", self.name); // our own texts: nothing to escape
        self
    }
}

/// Everything in `/status`.
fn status(ready: bool, proxies: &[ProxyStatus], facts: &Facts, now: Instant) -> Value {
    let seconds = |since: Instant| now.saturating_duration_since(since).as_millis() as f64 / 1000.0;
    let proxies: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            json!({
                "namespace": proxy.pod.namespace,
                "pod": proxy.pod.name,
                "zone": proxy.zone,
                "version": proxy.version,
                "state": if proxy.synced() { "SYNCED" } else { "STALE" },
                "staleSeconds": proxy.stale_since.map(seconds),
                "connectedSeconds": seconds(proxy.connected),
                "subscriptions": proxy.subscriptions,
                "lastNack": proxy.last_nack,
            })
        })
        .collect();
    let problems: Vec<Value> = facts.problems.iter().map(problem_json).collect();
    json!({
        "version": names::VERSION,
        "ready": ready,
        "objects": facts.objects,
        "proxies": proxies,
        "problems": problems,
    })
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": &*problem.origin.file,
        "line": problem.origin.line,
        "object": problem.object,
        "field": problem.field,
        "message": problem.message,
        "severity": problem.severity.to_string(),
    })
}

fn problem_lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    answer(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
