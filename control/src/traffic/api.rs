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

use super::gate::{Caller, Keys, Refusal, Right};
use super::report::API_VERSION;
use super::rows::{self, Query};
use super::show::{self, Shows};
use super::{Report, authz, edges, why};
use crate::admin::Overview;
use crate::dashboard::document::Document;
use crate::live::{self, Live};
use crate::peers::{Heard, Peers, Question};
use crate::pod_ref::PodRef;
use crate::serve::Shared;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use query::{Asked, Order, right, wanted};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft_proxy_api::wire::{encode, generated as pb};

/// Where the paths of this API begin.
pub const PREFIX: &str = "/api/v1/";
/// Where requests are foretold, by POST.
pub const SIMULATE: &str = "/api/v1/simulate";
/// Where a token is shown by who comes through an API server, which keeps `authorization` to itself.
pub const FORWARDED: &str = "weft-authorization";

/// What is answered: whole, or line by line.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The API.
pub struct Api {
    /// What proxies said.
    pub shared: Arc<Shared>,
    /// Who else was told something.
    pub peers: Peers,
    /// What there is.
    pub overview: Arc<dyn Overview>,
    /// Who may ask.
    pub keys: Keys,
    /// The state in force.
    pub live: Arc<Live>,
}

impl Api {
    /// Answers a request below [`PREFIX`].
    pub async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let path = request.uri().path().strip_prefix(PREFIX);
        let right = right(path, query);
        let who = match self
            .admit(request.headers(), request.extensions(), &right)
            .await
        {
            Ok(who) => who,
            Err(refusal) => return refused(&refusal),
        };
        if request.method() == Method::GET
            && let Some(answer) = self.live.get(path.unwrap_or_default(), query).await
        {
            return told(answer);
        }
        match (path, request.method()) {
            (Some("tap"), &Method::GET) => return self.tap(query, &who).await,
            (Some("metrics"), &Method::POST) => return self.metrics(query, &who).await,
            (_, &Method::GET) => {}
            _ => return error(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
        }
        let asked = match Asked::read(query) {
            Ok(asked) => asked,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let report = self.traffic(asked.window, asked.fresh).await;
        match path {
            Some("traffic") => json(&report),
            Some("stat") => stat(&report, asked),
            Some("dashboard") => json(&Document::new(&report, &self.overview.facts())),
            Some("why") => explain(&report, &asked),
            Some("edges") => {
                let edges = edges::edges(&report);
                of(
                    &report,
                    json!({"apiVersion": API_VERSION, "kind": "Edges", "edges": edges}),
                )
            }
            Some("authz") => {
                let rows = authz::authz(&report);
                of(
                    &report,
                    json!({"apiVersion": API_VERSION, "kind": "Authz", "rows": rows}),
                )
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "there are traffic, stat, edges, authz, why, dashboard, tap, simulate (POST), analyze, describe, export \
                 and sync below /api/v1/",
            ),
        }
    }

    /// Answers requests that nobody makes; `None`: their list did not arrive, or is too long. Nothing of it is read for
    /// those who may not ask.
    pub async fn simulate(
        &self,
        head: &Parts,
        list: impl Future<Output = Option<Bytes>>,
    ) -> Answer {
        if let Err(refusal) = self
            .admit(&head.headers, &head.extensions, &Right::Figures)
            .await
        {
            return refused(&refusal);
        }
        let Some(list) = list.await else {
            let most = live::MAX_BODY;
            let text = format!("the requests did not arrive, or are more than {most} bytes");
            return error(StatusCode::PAYLOAD_TOO_LARGE, &text);
        };
        // Aside: a long list takes its time, and proxies wait for nobody.
        let read = tokio::task::spawn_blocking(move || serde_json::from_slice(&list));
        match read.await {
            Ok(Ok(requests)) => told(self.live.simulate(requests).await),
            Ok(Err(why)) => error(StatusCode::BAD_REQUEST, &format!("no requests: {why}")),
            Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
        }
    }

    /// Requests as they pass. Who looks, and for what, is in the log.
    async fn tap(&self, query: &str, who: &str) -> Answer {
        let wanted = match wanted(query) {
            Ok(wanted) => wanted,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let everybody = self.connected().await;
        let inventory = self.overview.inventory();
        let fitting = wanted.fitting(&inventory.pods, &everybody.pods());
        let (looked, pods) = (wanted.describe(), fitting.pods.len());
        tracing::info!(target: "audit", who, pods, "tap: {looked}");
        let start = wanted.start.clone();
        let Some(tap) = self.shared.taps.start(wanted.start, fitting.pods.clone()) else {
            let text = "too many look at requests already";
            return error(StatusCode::TOO_MANY_REQUESTS, text);
        };
        let mut shows = vec![Shows {
            controller: None,
            passed: tap.stream(),
        }];
        let mut missing = everybody.missing.into_iter().collect::<Vec<_>>();
        // All at once: one that is silent must not hold up the others.
        let others = everybody.others.into_iter();
        let others = others.filter(|(_, theirs)| !theirs.is_disjoint(&fitting.pods));
        let asked = others.map(|(at, _)| {
            let shown = self.peers.tap(at, start.clone(), &fitting.pods);
            async move { (at, shown.await) }
        });
        for (at, shown) in join_all(asked).await {
            match shown {
                Ok(passed) => shows.push(Shows {
                    controller: Some(at.to_string()),
                    passed,
                }),
                Err(why) => missing.push(format!("the controller {at} shows nothing: {why}")),
            }
        }
        let missing = (!missing.is_empty()).then(|| missing.join("; "));
        let first = fitting.line(missing);
        let frames = show::lines(&first, shows).map(|line| Ok(Frame::data(line)));
        headed(
            StatusCode::OK,
            "application/x-ndjson",
            StreamBody::new(frames).boxed_unsync(),
        )
    }

    /// Another detail of metrics. Who asks for it is in the log.
    async fn metrics(&self, query: &str, who: &str) -> Answer {
        let order = match Order::read(query) {
            Ok(order) => order,
            Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
        };
        let everybody = self.connected().await;
        let inventory = self.overview.inventory();
        let fitting = order.pods.fitting(&inventory.pods, &everybody.pods());
        let (asked, pods) = (order.pods.describe(), fitting.pods.len());
        tracing::info!(target: "audit", who, pods, tier = ?order.tier, "metrics: {asked}");
        self.shared.tiers.ask(&fitting.pods, order.tier);
        let passed_on = pb::MetricsFor {
            tier: order.tier.map_or(0, |(tier, _)| encode::metrics_tier(tier)),
            seconds: order.tier.map_or(0, |(_, time)| {
                u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
            }),
        };
        self.peers.detail(&fitting.pods, passed_on).await;
        json(&fitting.line(everybody.missing))
    }

    /// The traffic of the last `window` (`None`: since the proxies started) in the whole mesh. `fresh`: after the next reports of
    /// the proxies.
    pub async fn traffic(&self, window: Option<Duration>, fresh: bool) -> Report {
        let question = Question {
            window,
            fresh,
            proxies_only: false,
            up_to_date: false,
        };
        let since = self.shared.look();
        let own = async {
            if fresh {
                self.shared.reported_after(since).await;
            }
        };
        let ((), others) = tokio::join!(own, self.peers.ask(question));
        let now = Instant::now();
        let mut heard = Heard::of(&self.shared, question, now);
        for (_, theirs) in others.heard {
            heard.add(theirs, window);
        }
        let inventory = self.overview.inventory();
        let mut report = Report::new(window, inventory, &heard.proxies, heard.traffic, now);
        report.controllers = others.controllers;
        report
    }

    /// Who is connected to whom.
    async fn connected(&self) -> Connected {
        let question = Question::PROXIES;
        let pods = |heard: Heard| heard.proxies.into_iter().map(|at| at.pod).collect();
        let others = self.peers.ask(question).await;
        let controllers = others.controllers.as_ref();
        Connected {
            missing: controllers.and_then(|at| at.missing()),
            own: pods(Heard::of(&self.shared, question, Instant::now())),
            others: others
                .heard
                .into_iter()
                .map(|(at, heard)| (at, pods(heard)))
                .collect(),
        }
    }

    async fn admit(
        &self,
        fields: &HeaderMap,
        known: &Extensions,
        right: &Right,
    ) -> Result<String, Refusal> {
        let shown = fields.get(header::AUTHORIZATION);
        let shown = shown.or_else(|| fields.get(FORWARDED));
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let (shown, from) = (shown.unwrap_or_default(), Caller::of(known));
        self.keys.admit(shown, right, from).await
    }
}

/// Pods whose proxies are connected.
struct Connected {
    /// Here.
    own: BTreeSet<PodRef>,
    /// To the other controllers.
    others: Vec<(SocketAddr, BTreeSet<PodRef>)>,
    /// Controllers that could not be asked.
    missing: Option<String>,
}

impl Connected {
    fn pods(&self) -> BTreeSet<PodRef> {
        let others = self.others.iter().flat_map(|(_, pods)| pods);
        self.own.iter().chain(others).cloned().collect()
    }
}

fn stat(report: &Report, asked: Asked) -> Answer {
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
    match rows::stat(report, &query) {
        Ok(rows) => {
            let (version, window) = (&report.api_version, report.window_seconds);
            let document = json!({"apiVersion": version, "kind": "Stat", "windowSeconds": window, "rows": rows});
            of(report, document)
        }
        Err(reason) => error(StatusCode::BAD_REQUEST, &reason),
    }
}

fn explain(report: &Report, asked: &Asked) -> Answer {
    let namespace = asked.namespace.as_deref().unwrap_or("default");
    let Some(service) = &asked.service else {
        return error(StatusCode::BAD_REQUEST, "service is missing");
    };
    match why::why(report, namespace, service) {
        Some(why) => of(report, json!(why)),
        None => {
            let text = format!("there is no service {service} in namespace {namespace}");
            error(StatusCode::NOT_FOUND, &text)
        }
    }
}

/// A document made from a report: it says as well which controllers had a say.
fn of(report: &Report, mut document: Value) -> Answer {
    if let Some(controllers) = &report.controllers {
        document["controllers"] = json!(controllers);
    }
    json(&document)
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
