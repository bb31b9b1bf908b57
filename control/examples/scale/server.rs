//! As much of a Kubernetes API server as a controller asks for: lists in pages, watches that resume, Leases, status. It
//! stands in for the real one where that, and not the controller, would be measured.

use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Events that a watch may have missed.
const KEPT: usize = 20_000;
/// The one custom kind that is served.
const SPLITS: &str = "split.smi-spec.io/v1alpha4";

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Default)]
pub(crate) struct Server {
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    version: u64,
    kinds: HashMap<String, BTreeMap<String, Value>>,
    log: VecDeque<(u64, String, Bytes)>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// What a controller made by itself, by path.
    made: HashMap<String, Value>,
}

impl Server {
    /// A server on a port of loopback.
    pub(crate) async fn start() -> std::io::Result<(Arc<Self>, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Self::default());
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let server = serving.clone();
                let answer = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = TokioIo::new(connection);
                tokio::spawn(http1::Builder::new().serve_connection(connection, answer));
            }
        });
        Ok((server, address))
    }

    /// Makes or replaces an object, and tells whoever watches.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let store = &mut *self.store.lock();
        store.version += 1;
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let kind = store.kinds.entry(plural.to_owned()).or_default();
        let type_ = match kind.contains_key(name) {
            true => "MODIFIED",
            false => "ADDED",
        };
        let line = Bytes::from(format!("{}\n", json!({"type": type_, "object": &object})));
        kind.insert(name.to_owned(), object);
        store
            .watches
            .retain(|(of, watch)| of != plural || watch.send(line.clone()).is_ok());
        store
            .log
            .push_back((store.version, plural.to_owned(), line));
        if store.log.len() > KEPT {
            store.log.pop_front();
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query: HashMap<&str, &str> = parts.uri.query().map(asked).unwrap_or_default();
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        if path.contains("/namespaces/") || path.ends_with("/events") {
            let body = body
                .collect()
                .await
                .map(|it| it.to_bytes())
                .unwrap_or_default();
            let object = serde_json::from_slice(&body).unwrap_or_default();
            return self.made(&parts.method, path, object);
        }
        if path.starts_with("/apis/") && path.matches('/').count() == 3 {
            return match path.ends_with(SPLITS) {
                true => whole(StatusCode::OK, &resources()),
                false => missing(),
            };
        }
        match query.get("watch") {
            Some(_) => self.watch(plural, query.get("resourceVersion").copied()),
            None => self.list(&path, &plural, &query),
        }
    }

    fn list(&self, path: &str, plural: &str, query: &HashMap<&str, &str>) -> Answer {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(500),
        );
        let store = self.store.lock();
        let none = BTreeMap::new();
        let all = store.kinds.get(plural).unwrap_or(&none);
        let items: Vec<&Value> = all.values().skip(from).take(limit).collect();
        let next = from + items.len();
        let more = (next < all.len()).then(|| next.to_string());
        let kind = items
            .first()
            .map_or("Unknown", |it| it["kind"].as_str().unwrap_or_default());
        let version = path
            .trim_start_matches("/apis/")
            .trim_start_matches("/api/");
        let version = version.trim_end_matches(plural).trim_end_matches('/');
        let metadata = json!({"resourceVersion": store.version.to_string(), "continue": more});
        let kind = format!("{kind}List");
        let list =
            json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items});
        whole(StatusCode::OK, &list)
    }

    fn watch(&self, plural: String, since: Option<&str>) -> Answer {
        let since: u64 = since.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (tx, rx) = mpsc::unbounded_channel();
        let mut store = self.store.lock();
        let missed = store
            .log
            .iter()
            .filter(|(version, of, _)| *version > since && *of == plural);
        missed.for_each(|(.., line)| drop(tx.send(line.clone())));
        store.watches.push((plural, tx));
        let lines = UnboundedReceiverStream::new(rx);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    }

    /// Leases, status, Events: kept as they were written, and replaced only by who has read them.
    fn made(&self, method: &Method, path: String, mut object: Value) -> Answer {
        let store = &mut *self.store.lock();
        store.version += 1;
        let version = store.version.to_string();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = match *method == Method::POST {
            true => format!("{path}/{name}"),
            false => path,
        };
        let before = store.made.get(&path);
        match *method {
            Method::GET => before.map_or_else(missing, |it| whole(StatusCode::OK, it)),
            Method::PATCH => {
                // Status is taken, and nobody is told: what it costs to hear of it again is no part of this.
                let name = path.rsplit('/').nth(1).unwrap_or_default();
                whole(StatusCode::OK, &json!({"metadata": {"name": name}}))
            }
            _ => {
                let read = &object["metadata"]["resourceVersion"];
                let conflict = match before {
                    Some(before) => before["metadata"]["resourceVersion"] != *read,
                    None => false,
                };
                if conflict {
                    return whole(StatusCode::CONFLICT, &status(409));
                }
                object["metadata"]["resourceVersion"] = version.into();
                let answer = whole(StatusCode::CREATED, &object);
                store.made.insert(path, object);
                answer
            }
        }
    }
}

fn asked(query: &str) -> HashMap<&str, &str> {
    query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .collect()
}

fn resources() -> Value {
    let split = json!({"name": "trafficsplits", "singularName": "", "namespaced": true, "kind": "TrafficSplit", "verbs": []});
    json!({"kind": "APIResourceList", "groupVersion": SPLITS, "resources": [split]})
}

fn status(code: u16) -> Value {
    // Clients go by the reason.
    let reason = match code {
        404 => "NotFound",
        _ => "Conflict",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "no", "reason": reason,
    })
}

fn missing() -> Answer {
    whole(StatusCode::NOT_FOUND, &status(404))
}

fn whole(code: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}
