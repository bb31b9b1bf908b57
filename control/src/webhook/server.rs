//! HTTPS for an API server: connections bounded in number and time, bodies in size, all bodies together in memory.

use super::serving::Serving;
use crate::serve::counters::Counter;
use crate::serve::places::{Place, Places};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use serde_json::json;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 2048;
/// Of these, from one address: more than an API server asks at once, and nobody can take them all.
const MAX_OF_ADDRESS: usize = 512;
/// Bodies held at once, KiB.
const MAX_HELD: usize = 96 << 10;
/// Of these, from one address, in pieces: nobody takes them all, and each of its connections may hold a short one.
const MAX_HELD_OF_ADDRESS: usize = 1024;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request's head may take, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Longest body that a path takes; `None`: there is no such path.
    fn limit(&self, path: &str) -> Option<usize>;
    /// The answer to a body.
    fn answer(self: Arc<Self>, path: &str, body: Vec<u8>) -> impl Future<Output = Answer> + Send;
}

/// An answer: a status and a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub code: StatusCode,
    /// JSON.
    pub body: Vec<u8>,
    /// What it comes to, for metrics.
    pub outcome: &'static str,
}

impl Answer {
    /// A JSON text.
    pub fn json(body: Vec<u8>, outcome: &'static str) -> Self {
        Self {
            code: StatusCode::OK,
            body,
            outcome,
        }
    }

    /// The question cannot be read.
    pub fn refused(message: &str) -> Self {
        Self::status(StatusCode::BAD_REQUEST, message)
    }

    /// We are to blame.
    pub fn failed(message: &str) -> Self {
        Self {
            outcome: "failed",
            ..Self::status(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }

    /// A failure in the form of the Kubernetes API (`Status`).
    fn status(code: StatusCode, message: &str) -> Self {
        let message: String = message.chars().take(1024).collect();
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "code": code.as_u16(), "message": message,
        });
        Self {
            code,
            body: status.to_string().into_bytes(),
            outcome: "malformed",
        }
    }
}

/// Serves until dropped; connections that are closed at once are counted.
pub async fn run<H: Handler>(
    handler: Arc<H>,
    serving: Arc<Serving>,
    listener: TcpListener,
    refused: &Counter,
) -> Result<()> {
    let server = Arc::new(Server {
        handler,
        acceptor: TlsAcceptor::from(Arc::new(tls(serving)?)),
        held: Arc::new(Semaphore::new(MAX_HELD)),
        shares: Places::new(MAX_HELD_OF_ADDRESS),
    });
    let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
    let places = Places::new(MAX_OF_ADDRESS);
    loop {
        let slot = slots.clone().acquire_owned().await?;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, from)) => {
                let Some(place) = places.take(from.ip().to_canonical()) else {
                    refused.add(1);
                    continue;
                };
                let server = server.clone();
                connections.spawn(async move {
                    server.connection(tcp, place.address()).await;
                    drop((slot, place));
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await, // out of descriptors: not in a circle
        }
    }
}

/// TLS 1.3 only; whoever asks shows no certificate, as API servers do unless they are told to.
fn tls(serving: Arc<Serving>) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("no TLS 1.3")?
        .with_no_client_auth()
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

struct Server<H> {
    handler: Arc<H>,
    acceptor: TlsAcceptor,
    held: Arc<Semaphore>,
    /// Pieces of bodies, by address.
    shares: Arc<Places>,
}

/// A body, and the memory it was granted.
struct Held {
    body: Vec<u8>,
    _granted: Vec<OwnedSemaphorePermit>,
    _pieces: Vec<Place>,
}

impl<H: Handler> Server<H> {
    async fn connection(self: Arc<Self>, tcp: TcpStream, from: IpAddr) {
        let Ok(Ok(stream)) = timeout(HANDSHAKE_LIMIT, self.acceptor.accept(tcp)).await else {
            return tracing::debug!("a TLS handshake with the webhook failed");
        };
        let service = service_fn(move |request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(response(this.respond(request, from).await)) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(16 << 10);
        let _ = http.serve_connection(TokioIo::new(stream), service).await; // a broken client is its own problem
    }

    async fn respond(&self, request: Request<Incoming>, from: IpAddr) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(limit) = self.handler.limit(&path) else {
            return Answer::status(StatusCode::NOT_FOUND, "there is no such webhook");
        };
        if request.method() != Method::POST {
            return Answer::status(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        }
        if !is_json(request.headers()) {
            let message = "only application/json";
            return Answer::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        }
        match timeout(BODY_LIMIT, self.read(request.into_body(), limit, from)).await {
            Ok(Ok(held)) => self.handler.clone().answer(&path, held.body).await,
            Ok(Err(refusal)) => refusal,
            Err(_) => Answer::status(StatusCode::REQUEST_TIMEOUT, "the body takes too long"),
        }
    }

    async fn read(
        &self,
        mut incoming: Incoming,
        limit: usize,
        from: IpAddr,
    ) -> Result<Held, Answer> {
        let (mut body, mut granted, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| Answer::refused("the body broke off"))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if body.len() + data.len() > limit {
                let message = format!("the body is longer than {limit} bytes");
                return Err(Answer::status(StatusCode::PAYLOAD_TOO_LARGE, &message));
            }
            take_pieces(&self.shares, from, &mut pieces, body.len() + data.len())?;
            granted.push(self.grant(data.len())?);
            body.extend_from_slice(&data);
        }
        Ok(Held {
            body,
            _granted: granted,
            _pieces: pieces,
        })
    }

    fn grant(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Answer> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(|_| busy())?;
        let granted = self.held.clone().try_acquire_many_owned(kib);
        granted.map_err(|_| busy())
    }
}

/// Pieces for a body of so many bytes, beside those that it has.
fn take_pieces(
    shares: &Arc<Places>,
    from: IpAddr,
    pieces: &mut Vec<Place>,
    bytes: usize,
) -> Result<(), Answer> {
    while pieces.len() * PIECE < bytes {
        pieces.push(shares.take(from).ok_or_else(busy)?);
    }
    Ok(())
}

fn busy() -> Answer {
    let message = "too much at once, try again";
    Answer::status(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn is_json(headers: &HeaderMap) -> bool {
    let form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|form| form.to_str().ok());
    let form = form.and_then(|form| form.split(';').next());
    form.is_some_and(|form| form.trim().eq_ignore_ascii_case("application/json"))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_hold_all_the_room_for_bodies() {
        let shares = Places::new(MAX_HELD_OF_ADDRESS);
        let [greedy, other] = [1u8, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut held = Vec::new();
        for pieces in 1.. {
            if take_pieces(&shares, greedy, &mut held, pieces * PIECE).is_err() {
                break;
            }
        }
        assert_eq!(held.len(), MAX_HELD_OF_ADDRESS);
        assert!(held.len() * PIECE < MAX_HELD << 10, "there is room left");
        assert!(take_pieces(&shares, other, &mut Vec::new(), 1).is_ok());
        held.clear();
        assert!(take_pieces(&shares, greedy, &mut held, 16 << 20).is_ok());
    }
}
