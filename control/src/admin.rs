//! What an operator can look at: the dashboard at `/`, `/live`, `/ready`, `/metrics`, `/status`, `/problems`, and with a
//! token `/api/v1/` ([`crate::traffic::api`]). Nothing here changes the mesh; it listens on loopback all the same unless told otherwise.

use crate::dashboard;
use crate::index::Numbers;
use crate::live;
use crate::manifest::{ObjectKey, Problem, Severity};
use crate::pod_ref::PodRef;
use crate::serve::Shared;
use crate::serve::counters::{Counter, Counters};
use crate::serve::places::Places;
use crate::serve::proxies::ProxyStatus;
use crate::serve::tls::OwnIdentity;
use crate::source::kube::ledger::Ledger;
use crate::traffic::Inventory;
use crate::traffic::api::{self, Api};
use crate::traffic::gate::Caller;
use crate::views::Mesh;
use crate::views::world::World;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use weft_proxy_api::names;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 512;
/// Of these, from one address: whoever asks whether we live must find a place.
const MAX_OF_ADDRESS: usize = 64;
/// How long a request's head may take, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a list of requests may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// What the index tells about itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Objects in force.
    pub objects: usize,
    /// Everything wrong with the manifests.
    pub problems: Vec<Problem>,
    /// How many views there are, and what they cost.
    pub numbers: Numbers,
}

/// Where facts come from.
pub trait Overview: Send + Sync + 'static {
    /// The facts now.
    fn facts(&self) -> Facts;
    /// Everything that traffic is explained with.
    fn inventory(&self) -> Inventory {
        Inventory::default()
    }
    /// A copy of the state in force.
    fn world(&self) -> World {
        World::new(Mesh::default(), BTreeSet::new())
    }
    /// What is wrong within what was written, without what is wrong between objects.
    fn file_problems(&self) -> Vec<Problem> {
        vec![]
    }
    /// Is there such an object?
    fn has(&self, _key: &ObjectKey) -> bool {
        false
    }
    /// Pods whose proxies ought to be connected, to whichever controller: they have one, and are ready.
    fn expected(&self) -> BTreeSet<PodRef> {
        BTreeSet::new()
    }
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
    /// What is known of objects at the API server.
    pub ledger: Arc<Ledger>,
    /// The traffic.
    pub api: Api,
}

impl Admin {
    /// Serves until dropped.
    pub async fn run(self, listener: TcpListener) {
        let this = Arc::new(self);
        let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
        let places = Places::new(MAX_OF_ADDRESS);
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((tcp, from)) => {
                    let Some(place) = places.take(from.ip().to_canonical()) else {
                        this.shared.counters.connections_refused.add(1);
                        continue;
                    };
                    let this = this.clone();
                    connections.spawn(async move {
                        this.connection(tcp, Caller(place.address())).await;
                        drop((slot, place));
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await, // out of descriptors: not in a circle
            }
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, caller: Caller) {
        let service = service_fn(move |mut request: Request<_>| {
            request.extensions_mut().insert(caller);
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(16 << 10);
        let _ = http.serve_connection(TokioIo::new(tcp), service).await; // a broken client is its own problem
    }

    async fn respond<B>(&self, request: Request<B>) -> api::Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        let is_api = path.starts_with(api::PREFIX);
        match *request.method() {
            // A question that is too long for an address; it changes nothing either.
            Method::POST if path == api::SIMULATE => {
                let (head, body) = request.into_parts();
                let list = async {
                    let body = Limited::new(body, live::MAX_BODY).collect();
                    let body = tokio::time::timeout(BODY_LIMIT, body).await;
                    body.ok().and_then(Result::ok).map(|body| body.to_bytes())
                };
                self.api.simulate(&head, list).await
            }
            Method::GET | Method::POST if is_api => self.api.answer(&request).await,
            _ => self.answer(&request).map(BodyExt::boxed_unsync),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        // Programs may come by any name; what a browser could be made to read is only shown to one that meant to come here.
        let path = request.uri().path();
        let open = ["/live", "/ready", "/metrics"].contains(&path);
        if !open && dashboard::may_be_rebound(request.headers()) {
            let text = "ask by an address, or by a name inside the cluster\n";
            return self::text(StatusCode::MISDIRECTED_REQUEST, text.into());
        }
        if let Some(file) = dashboard::file(path) {
            return file;
        }
        match path {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" if *self.ready.borrow() => text(StatusCode::OK, "ready\n".into()),
            // Proxies are refused until all is read, but who is not ready is not asked to convert either.
            "/ready" if self.ledger.is_needed() => text(
                StatusCode::OK,
                "the API server needs the webhook to list objects of an older version\n".into(),
            ),
            "/ready" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not everything has been read yet\n".into(),
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
                "there are / /live /ready /metrics /status /problems and /api/v1/\n".into(),
            ),
        }
    }

    fn metrics(&self) -> String {
        let (facts, shared, mut page) = (self.overview.facts(), &self.shared, Page::default());
        let counters = &shared.counters;
        page.family("build_info").one("version", names::VERSION, 1);
        page.bare("ready", u64::from(*self.ready.borrow()));
        proxy_metrics(&mut page, &shared.proxies.list());
        sync_metrics(&mut page, counters);
        certificate_metrics(&mut page, counters, self.own.not_after());
        page.bare("connections_total", counters.connections.get());
        let refused = counters.connections_refused.get();
        page.bare("connections_refused_total", refused);
        page.bare("handshakes_failed_total", counters.handshakes_failed.get());
        page.bare("accept_errors_total", counters.accept_errors.get());
        page.bare("summaries_total", counters.summaries.get());
        page.family("peer_questions_total")
            .one("outcome", "answered", counters.peers_asked.get())
            .one("outcome", "silent", counters.peers_silent.get());
        page.bare("edges", shared.traffic.len() as u64);
        fact_metrics(&mut page, &facts);
        page.text
    }
}

fn proxy_metrics(page: &mut Page, proxies: &[ProxyStatus]) {
    let synced = proxies.iter().filter(|proxy| proxy.synced()).count();
    page.family("proxies")
        .one("state", "synced", synced as u64)
        .one("state", "stale", (proxies.len() - synced) as u64);
    let subscriptions = proxies.iter().map(|proxy| proxy.subscriptions as u64);
    page.bare("subscriptions", subscriptions.sum());
}

fn sync_metrics(page: &mut Page, counters: &Counters) {
    let [unchanged, whole, delta] = counters.items.each_ref().map(Counter::get);
    page.family("items_sent_total")
        .one("kind", "unchanged", unchanged)
        .one("kind", "whole", whole)
        .one("kind", "delta", delta);
    page.bare("items_too_large_total", counters.too_large.get());
    page.bare("messages_sent_total", counters.messages.get());
    page.bare("acks_total", counters.acks.get());
    page.bare("nacks_total", counters.nacks.get());
    page.bare("streams_refused_total", counters.streams_refused.get());
}

fn certificate_metrics(page: &mut Page, counters: &Counters, own_expiry: u64) {
    page.bare("certificates_issued_total", counters.certificates.get());
    let mut refused = page.family("certificates_refused_total");
    for (reason, count) in counters.certificates_refused() {
        refused = refused.one("reason", reason, count);
    }
    page.bare("certificate_expiry_timestamp_seconds", own_expiry);
    let mut answers = page.family("webhook_answers_total");
    for (outcome, count) in counters.webhook_answers() {
        answers = answers.one("outcome", outcome, count);
    }
}

fn fact_metrics(page: &mut Page, facts: &Facts) {
    let Numbers {
        views,
        computed,
        endpoints,
    } = facts.numbers;
    page.bare("objects", facts.objects as u64);
    page.bare("views", views as u64);
    page.bare("views_computed_total", computed);
    page.bare("endpoints", endpoints as u64);
    let problems = |severity| {
        let all = facts.problems.iter();
        all.filter(|problem| problem.severity == severity).count() as u64
    };
    page.family("problems")
        .one("severity", "error", problems(Severity::Error))
        .one("severity", "warning", problems(Severity::Warning))
        .one("severity", "info", problems(Severity::Info));
}

/// Everything at `/metrics`: name (after `weft_control_`), kind, help; in its order.
pub const METRICS: &[(&str, &str, &str)] = &[
    ("build_info", "gauge", "Version of the controller."),
    ("ready", "gauge", "1 once every object has been read."),
    (
        "proxies",
        "gauge",
        "Connected proxies, by whether they hold the current version of everything (state).",
    ),
    (
        "subscriptions",
        "gauge",
        "Subscriptions of connected proxies.",
    ),
    (
        "items_sent_total",
        "counter",
        "Answers sent to proxies, by kind (unchanged, whole, delta).",
    ),
    (
        "items_too_large_total",
        "counter",
        "Answers not sent, because they are more than a proxy takes.",
    ),
    (
        "messages_sent_total",
        "counter",
        "Messages sent to proxies.",
    ),
    ("acks_total", "counter", "Versions that proxies took over."),
    ("nacks_total", "counter", "Versions that proxies refused."),
    (
        "streams_refused_total",
        "counter",
        "Policy streams refused.",
    ),
    (
        "certificates_issued_total",
        "counter",
        "Certificates signed.",
    ),
    (
        "certificates_refused_total",
        "counter",
        "Certificates not signed, by reason.",
    ),
    (
        "certificate_expiry_timestamp_seconds",
        "gauge",
        "When the controller's own certificate expires.",
    ),
    (
        "webhook_answers_total",
        "counter",
        "Answers of the webhook, by outcome (injected, passed, refused, converted, malformed, failed).",
    ),
    ("connections_total", "counter", "Connections accepted."),
    (
        "connections_refused_total",
        "counter",
        "Connections closed at once: their address has too many.",
    ),
    (
        "handshakes_failed_total",
        "counter",
        "Connections that failed the TLS handshake.",
    ),
    (
        "accept_errors_total",
        "counter",
        "Times accepting failed for want of descriptors or memory.",
    ),
    ("summaries_total", "counter", "Traffic summaries taken in."),
    (
        "peer_questions_total",
        "counter",
        "Questions about traffic to other controllers, by outcome (answered, silent).",
    ),
    ("edges", "gauge", "Edges of traffic known."),
    ("objects", "gauge", "Objects in force."),
    (
        "views",
        "gauge",
        "Answers held for proxies; those that ask the same share one.",
    ),
    (
        "views_computed_total",
        "counter",
        "Answers computed, the first time or because of a change.",
    ),
    (
        "endpoints",
        "gauge",
        "Endpoints in the sets that proxies hold.",
    ),
    (
        "problems",
        "gauge",
        "Problems in the manifests, by severity (error, warning, info).",
    ),
];

/// The text format of Prometheus, as much of it as is needed here.
#[derive(Default)]
struct Page {
    text: String,
}

struct Family<'a> {
    page: &'a mut String,
    name: String,
}

impl Page {
    fn family(&mut self, name: &str) -> Family<'_> {
        let row = METRICS.iter().find(|(known, ..)| *known == name);
        let (_, kind, help) = row.unwrap_or(&("", "untyped", "")); // a test sees to it that none is
        let name = format!("{}control_{name}", names::METRIC_PREFIX);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            page: &mut self.text,
            name,
        }
    }

    /// A family of one series without labels.
    fn bare(&mut self, name: &str, value: u64) {
        let family = self.family(name);
        let _ = writeln!(family.page, "{} {value}", family.name);
    }
}

impl Family<'_> {
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
