//! The traffic for programs: JSON over HTTP at the controller's admin port. Only with the token, and only reading, but for
//! one order that ends by itself.
//!
//! | path | answer |
//! |---|---|
//! | `/api/v1/traffic` | the whole [`Report`] |
//! | `/api/v1/edges` | who calls whom ([`edges`]) |
//! | `/api/v1/authz` | permissions and denials ([`authz`]) |
//! | `/api/v1/dashboard` | what the dashboard shows, of one moment ([`Document`]) |
//! | `/api/v1/why` | `service` of `namespace`, explained ([`why`]) |
//! | `/api/v1/tap` | a stream of lines ([`show::Line`]): requests as they pass, of the pods of `resource` in `namespace` that fit `method`, `path`, `peer`, `service`, `header`, `status`, `denied`, `direction`; `max-rps` of each proxy; `headers` and `secrets` show fields |
//! | `/api/v1/metrics` | by POST: the proxies of the pods of `resource` in `namespace` say their metrics by `tier` (`edges`, `routes`, `endpoints`) for `seconds`; without `tier` again as their policy says. Answers with these pods |
//! | `/api/v1/simulate`, `analyze`, `describe`, `export`, `sync` | the state in force ([`live`]) |
//! | `/api/v1/stat` | rows of `resource` (`deploy`, `svc/web`, …), narrowed by `namespace`, `label` (`k=v`, may be repeated), `from`, `to` |
//!
//! The others take `window` in seconds (`10`, `60`, `600`; `start`: since the proxies started; default 60). Asking makes the
//! proxies report every second for a while; `fresh` waits for their next reports, two seconds at most.

mod query;

pub use query::{decoded, encoded, label, window};

use super::gate::{Keys, Refusal, Right};
use super::report::API_VERSION;
use super::rows::{self, Query};
use super::show;
use super::{Report, TrafficSource, authz, edges, why};
use crate::admin::Overview;
use crate::dashboard::document::Document;
use crate::live::{self, Live};
use crate::serve::Shared;
use bytes::Bytes;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use query::{Asked, Order, right, wanted};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the paths of this API begin.
pub const PREFIX: &str = "/api/v1/";
/// Where requests are foretold, by POST.
pub const SIMULATE: &str = "/api/v1/simulate";
/// Where a token is shown by who comes through an API server, which keeps `authorization` to itself.
pub const FORWARDED: &str = "weft-authorization";
/// How long fresh reports are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is answered: whole, or line by line.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The API.
pub struct Api {
    /// What proxies said.
    pub shared: Arc<Shared>,
    /// What there is.
    pub overview: Arc<dyn Overview>,
    /// Who may ask.
    pub keys: Keys,
    /// The state in force.
    pub live: Arc<Live>,
}

impl TrafficSource for Api {
    fn traffic(&self, window: Option<Duration>) -> Report {
        let now = Instant::now();
        let traffic = self.shared.traffic.snapshot(window, now);
        let proxies = self.shared.proxies.list();
        Report::new(window, self.overview.inventory(), &proxies, traffic, now)
    }
}

impl Api {
    /// Answers a request below [`PREFIX`].
    pub async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let path = request.uri().path().strip_prefix(PREFIX);
        let right = right(path, query);
        let who = match self.admit(request.headers(), &right).await {
            Ok(who) => who,
            Err(refusal) => return refused(&refusal),
        };
        if request.method() == Method::GET
            && let Some(answer) = self.live.get(path.unwrap_or_default(), query).await
        {
            return told(answer);
        }
        match (path, request.method()) {
            (Some("tap"), &Method::GET) => return self.tap(query, &who),
            (Some("metrics"), &Method::POST) => return self.metrics(query, &who),
            (_, &Method::GET) => {}
            _ => return error(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
        }
        let asked = match Asked::read(query) {
            Ok(asked) => asked,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let since = self.look();
        if asked.fresh {
            self.wait_for_reports(since).await;
        }
        match path {
            Some("traffic") => json(&self.traffic(asked.window)),
            Some("stat") => self.stat(asked),
            Some("dashboard") => json(&Document::new(
                &self.traffic(asked.window),
                &self.overview.facts(),
            )),
            Some("why") => self.why(&asked),
            Some("edges") => {
                let report = self.traffic(asked.window);
                let edges = edges::edges(&report);
                json(&json!({"apiVersion": API_VERSION, "kind": "Edges", "edges": edges}))
            }
            Some("authz") => {
                let rows = authz::authz(&self.traffic(asked.window));
                json(&json!({"apiVersion": API_VERSION, "kind": "Authz", "rows": rows}))
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "there are traffic, stat, edges, authz, why, dashboard, tap, simulate (POST), analyze, describe, export \
                 and sync below /api/v1/",
            ),
        }
    }

    /// Answers requests that nobody makes; `None`: their list did not arrive, or is too long.
    pub async fn simulate(&self, head: &Parts, list: Option<Bytes>) -> Answer {
        if let Err(refusal) = self.admit(&head.headers, &Right::Figures).await {
            return refused(&refusal);
        }
        let Some(list) = list else {
            let most = live::MAX_BODY;
            let text = format!("the requests did not arrive, or are more than {most} bytes");
            return error(StatusCode::PAYLOAD_TOO_LARGE, &text);
        };
        match serde_json::from_slice(&list) {
            Ok(requests) => told(self.live.simulate(requests).await),
            Err(why) => error(StatusCode::BAD_REQUEST, &format!("no requests: {why}")),
        }
    }

    /// Requests as they pass. Who looks, and for what, is in the log.
    fn tap(&self, query: &str, who: &str) -> Answer {
        let wanted = match wanted(query) {
            Ok(wanted) => wanted,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let proxies = self.shared.proxies.list().into_iter();
        let connected: BTreeSet<_> = proxies.map(|proxy| proxy.pod).collect();
        let fitting = wanted.fitting(&self.overview.inventory().pods, &connected);
        let first = fitting.line();
        let (looked, pods) = (wanted.describe(), fitting.pods.len());
        tracing::info!(target: "audit", who, pods, "tap: {looked}");
        let Some(tap) = self.shared.taps.start(wanted.start, fitting.pods) else {
            let text = "too many look at requests already";
            return error(StatusCode::TOO_MANY_REQUESTS, text);
        };
        let frames = show::lines(&first, tap).map(|line| Ok(Frame::data(line)));
        headed(
            StatusCode::OK,
            "application/x-ndjson",
            StreamBody::new(frames).boxed_unsync(),
        )
    }

    /// Another detail of metrics. Who asks for it is in the log.
    fn metrics(&self, query: &str, who: &str) -> Answer {
        let order = match Order::read(query) {
            Ok(order) => order,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let proxies = self.shared.proxies.list().into_iter();
        let connected: BTreeSet<_> = proxies.map(|proxy| proxy.pod).collect();
        let fitting = order
            .pods
            .fitting(&self.overview.inventory().pods, &connected);
        let (asked, pods) = (order.pods.describe(), fitting.pods.len());
        tracing::info!(target: "audit", who, pods, tier = ?order.tier, "metrics: {asked}");
        self.shared.tiers.ask(&fitting.pods, order.tier);
        json(&fitting.line())
    }

    fn stat(&self, asked: Asked) -> Answer {
        let Some(resource) = asked.resource else {
            return error(StatusCode::BAD_REQUEST, "resource is missing, e.g. deploy");
        };
        let query = Query {
            resource,
            namespace: asked.namespace,
            labels: asked.labels,
            from: asked.from,
            to: asked.to,
        };
        let report = self.traffic(asked.window);
        match rows::stat(&report, &query) {
            Ok(rows) => json(&json!({
                "apiVersion": report.api_version,
                "kind": "Stat",
                "windowSeconds": report.window_seconds,
                "rows": rows,
            })),
            Err(reason) => error(StatusCode::BAD_REQUEST, &reason),
        }
    }

    fn why(&self, asked: &Asked) -> Answer {
        let namespace = asked.namespace.as_deref().unwrap_or("default");
        let Some(service) = &asked.service else {
            return error(StatusCode::BAD_REQUEST, "service is missing");
        };
        match why::why(&self.traffic(asked.window), namespace, service) {
            Some(why) => json(&why),
            None => {
                let text = format!("there is no service {service} in namespace {namespace}");
                error(StatusCode::NOT_FOUND, &text)
            }
        }
    }

    /// The traffic of a window after the proxies' next reports.
    pub async fn fresh(&self, window: Duration) -> Report {
        let since = self.look();
        self.wait_for_reports(since).await;
        self.traffic(Some(window))
    }

    /// Makes the proxies report often for a while.
    fn look(&self) -> Instant {
        let now = Instant::now();
        self.shared.looked_at.send_replace(Some(now));
        now
    }

    /// Until every connected proxy has reported after `since`, or patience ends.
    async fn wait_for_reports(&self, since: Instant) {
        let deadline = since + PATIENCE;
        while Instant::now() < deadline {
            let proxies = self.shared.proxies.list();
            let late = |pod| {
                self.shared
                    .traffic
                    .reported(pod)
                    .is_none_or(|at| at < since)
            };
            if !proxies.iter().any(|proxy| late(&proxy.pod)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn admit(&self, fields: &HeaderMap, right: &Right) -> Result<String, Refusal> {
        let shown = fields.get(header::AUTHORIZATION);
        let shown = shown.or_else(|| fields.get(FORWARDED));
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        self.keys.admit(shown.unwrap_or_default(), right).await
    }
}

fn refused(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Unknown => {
            let text = "this needs the header `authorization: Bearer TOKEN`: the token in the file observe.token of \
                        the controller's state folder or, in Kubernetes, one of an account with the right";
            error(StatusCode::UNAUTHORIZED, text)
        }
        Refusal::Forbidden(why) => error(StatusCode::FORBIDDEN, why),
        Refusal::Unable(why) => error(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn told(answer: Result<Value, live::Refused>) -> Answer {
    match answer {
        Ok(value) => json(&value),
        Err((status, why)) => error(status, &why),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason.to_string()),
    }
}

fn error(status: StatusCode, reason: &str) -> Answer {
    let text = format!("{reason}\n");
    answer(status, "text/plain; charset=utf-8", text.into_bytes())
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    headed(status, kind, Full::from(body).boxed_unsync())
}

fn headed(
    status: StatusCode,
    kind: &'static str,
    body: UnsyncBoxBody<Bytes, Infallible>,
) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    let never = header::HeaderValue::from_static("no-store");
    fields.insert(header::CACHE_CONTROL, never);
    response
}
