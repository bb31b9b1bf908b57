//! Health, metrics, configuration and the two orders an operator may give, on the admin port.
//!
//! Reading is for everybody who reaches the port; what changes or shows more is for loopback alone, by the right method,
//! and never for a web page (a `Host` or `Origin` that is not loopback).

use crate::discover::Discover;
use crate::metrics::Metrics;
use crate::metrics::format::Format;
use crate::tasks::{Drain, DrainWatch, Tasks};
use crate::tls::identity::State;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Of these, from one address: a neighbour that holds on to its own does not keep the orchestrator's probes out.
const MAX_OF_ONE: usize = 16;
/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of an order.
const MAX_BODY: usize = 4 * 1024;

type Answer = Response<Full<Bytes>>;

/// Sets the log filter; an error says what is wrong with it.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the admin port tells about, and acts on.
pub struct Admin {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Policy.
    pub discover: Discover,
    /// Our identity.
    pub identity: watch::Receiver<State>,
    /// Starts and watches the drain.
    pub drain: Arc<Drain>,
    /// Sees the drain.
    pub draining: DrainWatch,
    /// Does `POST /shutdown` end the process?
    pub may_shut_down: bool,
    /// Sets the log filter.
    pub set_log: SetLog,
}

impl Admin {
    /// Serves on every listener until dropped, or until another process does.
    pub async fn run(self: Arc<Self>, listeners: Vec<std::net::TcpListener>) {
        let tasks = Tasks::default();
        let slots = Slots::default();
        let accept = |listener| accept(self.clone(), listener, slots.clone(), tasks.clone());
        tokio::select! {
            _ = futures_util::future::join_all(listeners.into_iter().map(accept)) => {}
            () = self.draining.handed_over() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let local = is_local(&request, peer);
        match (path.as_str(), method) {
            ("/live", Method::GET | Method::HEAD) => text(StatusCode::OK, "live\n"),
            ("/ready", Method::GET | Method::HEAD) => match self.not_ready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {why}\n"),
                ),
            },
            ("/metrics", Method::GET | Method::HEAD) => {
                let accept = request.headers().get_all(header::ACCEPT).iter();
                let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
                let format = Format::accepted(&accept.join(","));
                typed(format.content_type(), self.metrics.render_as(format))
            }
            ("/config" | "/shutdown" | "/log-level", _) if !local => text(
                StatusCode::FORBIDDEN,
                "only from loopback, and not from a web page\n",
            ),
            ("/config", Method::GET) => typed("application/json", format!("{:#}\n", self.config())),
            ("/shutdown", Method::POST) if !self.may_shut_down => text(
                StatusCode::FORBIDDEN,
                "off: WEFT_PROXY_ADMIN_SHUTDOWN=true allows it\n",
            ),
            ("/shutdown", Method::POST) => {
                tracing::info!("shutdown asked for on the admin port");
                self.drain.announce();
                text(StatusCode::ACCEPTED, "shutting down\n")
            }
            ("/log-level", Method::PUT) => self.log_level(request).await,
            ("/live" | "/ready" | "/metrics" | "/config" | "/shutdown" | "/log-level", _) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "not by this method\n")
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "/live /ready /metrics /config /shutdown /log-level\n",
            ),
        }
    }

    /// What is missing before traffic should be sent here.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.draining.is_leaving() {
            return Some("shutting down".to_owned());
        }
        let why = |last: &Option<String>| {
            last.as_ref()
                .map_or(String::new(), |last| format!(" ({last})"))
        };
        match &*self.identity.borrow() {
            State::Asking(last) => return Some(format!("no identity yet{}", why(last))),
            State::Expired(last) => return Some(format!("the identity has expired{}", why(last))),
            State::Valid { .. } => {}
        }
        self.discover
            .inbound()
            .load()
            .is_none()
            .then(|| "no inbound policy yet".to_owned())
    }

    fn config(&self) -> serde_json::Value {
        let identity = match &*self.identity.borrow() {
            State::Valid { id, not_after, .. } => {
                let ends = not_after
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs());
                serde_json::json!({ "id": id.as_str(), "not_after": ends })
            }
            State::Asking(_) | State::Expired(_) => serde_json::Value::Null,
        };
        serde_json::json!({ "identity": identity, "not_ready": self.not_ready(), "plan": self.discover.config() })
    }

    async fn log_level(&self, request: Request<Incoming>) -> Answer {
        let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the filter is too long\n");
        };
        let body = body.to_bytes();
        let set = std::str::from_utf8(&body).map_err(|_| "not text".to_owned());
        match set.and_then(|filter| (self.set_log)(filter.trim())) {
            Ok(()) => text(StatusCode::OK, "set\n"),
            Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
    }
}

/// Connections now, by address.
#[derive(Debug, Clone, Default)]
struct Slots(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct Slot {
    slots: Slots,
    of: IpAddr,
}

impl Slots {
    /// `None`: there are too many, of all or of this one.
    fn take(&self, peer: SocketAddr) -> Option<Slot> {
        let of = peer.ip().to_canonical();
        let mut taken = self.0.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&of));
        if all >= MAX_CONNECTIONS || own.is_some_and(|own| *own >= MAX_OF_ONE) {
            return None;
        }
        *taken.entry(of).or_default() += 1;
        let slots = self.clone();
        Some(Slot { slots, of })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

async fn accept(admin: Arc<Admin>, listener: std::net::TcpListener, slots: Slots, tasks: Tasks) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return tracing::error!("no admin listener");
    };
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                // Over the limit: closed at once, so that a flood does not queue up behind itself.
                let Some(slot) = slots.take(peer) else {
                    continue;
                };
                let admin = admin.clone();
                let serve = async move {
                    serve(admin, tcp, peer).await;
                    drop(slot);
                };
                tasks.spawn(serve, || tracing::error!("an admin request panicked"));
            }
            Err(error) => {
                tracing::debug!(%error, "admin accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(admin: Arc<Admin>, tcp: TcpStream, peer: SocketAddr) {
    let service = service_fn(|request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(tcp), service).await {
        tracing::debug!(%error, %peer, "admin connection");
    }
}

/// From this machine, and not by way of a browser that was lured here.
fn is_local<B>(request: &Request<B>, peer: SocketAddr) -> bool {
    let names = |name| {
        request
            .headers()
            .get_all(name)
            .into_iter()
            .all(|value| value.to_str().is_ok_and(is_loopback))
    };
    peer.ip().to_canonical().is_loopback() && names(header::HOST) && names(header::ORIGIN)
}

/// `localhost:4191`, `http://127.0.0.1`, `[::1]:4191`.
fn is_loopback(value: &str) -> bool {
    let host = value.split_once("://").map_or(value, |(_, rest)| rest);
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

fn typed(kind: &'static str, body: String) -> Answer {
    let mut answer = text(StatusCode::OK, body);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admin(may_shut_down: bool) -> Arc<Admin> {
        let metrics = Metrics::new("shop");
        let client =
            crate::discover::ControlClient::new("127.0.0.1:1".into(), None, Arc::new(|_| None));
        let whoami = crate::discover::Whoami {
            namespace: "shop".into(),
            pod: "web-0".into(),
            zone: String::new(),
        };
        let (discover, _) = Discover::new(client, whoami, metrics.clone());
        let (drain, draining) = Drain::new();
        Arc::new(Admin {
            metrics,
            discover,
            identity: watch::channel(State::Asking(None)).1,
            drain: Arc::new(drain),
            draining,
            may_shut_down,
            set_log: Box::new(|_| Ok(())),
        })
    }

    /// The status a client with the address `peer` gets.
    async fn status(admin: &Arc<Admin>, peer: &str, method: &str, path: &str) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(serve(admin.clone(), tcp, peer.parse().unwrap()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost:4191\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        serving.await.unwrap();
        answer[9..12].parse().unwrap()
    }

    #[tokio::test]
    async fn anybody_may_look_at_health_and_metrics_and_nobody_but_loopback_at_the_rest() {
        let admin = admin(true);
        let rows = [
            ("GET", "/live", 200, 200),
            ("GET", "/ready", 503, 503),
            ("GET", "/metrics", 200, 200),
            ("POST", "/metrics", 405, 405),
            ("GET", "/config", 200, 403),
            ("POST", "/config", 405, 403),
            ("PUT", "/log-level", 200, 403),
            ("POST", "/log-level", 405, 403),
            ("GET", "/shutdown", 405, 403),
            ("GET", "/else", 404, 404),
        ];
        for (method, path, local, remote) in rows {
            assert_eq!(
                status(&admin, "[::1]:9", method, path).await,
                local,
                "{method} {path}"
            );
            assert_eq!(
                status(&admin, "10.0.0.1:9", method, path).await,
                remote,
                "{method} {path}"
            );
        }
        assert_eq!(status(&admin, "10.0.0.1:9", "POST", "/shutdown").await, 403);
        assert!(!admin.draining.is_leaving());
        assert_eq!(
            status(&admin, "127.0.0.1:9", "POST", "/shutdown").await,
            202
        );
        assert!(admin.draining.is_leaving());
    }

    #[tokio::test]
    async fn nobody_ends_the_process_where_that_was_not_allowed() {
        let admin = admin(false);
        assert_eq!(
            status(&admin, "127.0.0.1:9", "POST", "/shutdown").await,
            403
        );
        assert!(!admin.draining.is_leaving());
    }

    #[test]
    fn nobody_takes_all_connections_and_those_that_end_come_back() {
        let slots = Slots::default();
        let peer = |n: u8| SocketAddr::from(([10, 0, 0, n], 9));
        let hold = |n: u8| std::iter::from_fn(|| slots.take(peer(n))).collect::<Vec<_>>();
        let mut held: Vec<_> = (1..5).map(hold).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [MAX_OF_ONE; 4]);
        assert!(slots.take(peer(9)).is_none(), "that is all");
        held.pop();
        let alike: SocketAddr = "[::ffff:10.0.0.1]:9".parse().unwrap();
        assert!(slots.take(alike).is_none() && slots.take(peer(9)).is_some());
        drop(held);
        assert!(slots.0.lock().is_empty());
    }

    #[test]
    fn orders_come_from_loopback_and_not_from_web_pages() {
        let ask = |peer: &str, host: &str, origin: Option<&str>| {
            let mut request = Request::builder().header(header::HOST, host);
            if let Some(origin) = origin {
                request = request.header(header::ORIGIN, origin);
            }
            is_local(&request.body(()).unwrap(), peer.parse().unwrap())
        };
        assert!(ask("127.0.0.1:9", "localhost:4191", None));
        assert!(ask("[::1]:9", "[::1]:4191", None));
        assert!(ask(
            "[::ffff:127.0.0.1]:9",
            "127.0.0.1",
            Some("http://localhost:4191")
        ));
        assert!(!ask("10.0.0.1:9", "localhost", None));
        assert!(!ask("127.0.0.1:9", "evil.example", None));
        assert!(!ask(
            "127.0.0.1:9",
            "localhost",
            Some("https://evil.example")
        ));
        assert!(!ask("127.0.0.1:9", "localhost.evil.example", None));
        assert!(!ask("127.0.0.1:9", "localhost", Some("null")));
    }
}
