//! The gRPC backend: `loom.Colour/Pick` answers with the colour of its version, or fails when it was told to.

use super::http::{self, Request};
use super::names;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const METHOD: &str = "/loom.Colour/Pick";
/// gRPC code "unavailable".
const UNAVAILABLE: &str = "14";

/// What is asked: a cell of the cloth.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Cell {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
}

/// What is answered.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Thread {
    #[prost(string, tag = "1")]
    pub(super) colour: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// Serves until stopped.
pub(super) async fn serve(
    address: SocketAddr,
    version: String,
    delay: Duration,
) -> anyhow::Result<()> {
    let failing = Arc::new(AtomicBool::new(false));
    tokio::spawn(take_orders(failing.clone()));
    let version: Arc<str> = version.into();
    http::accept(address, move |stream| {
        let (version, failing) = (version.clone(), failing.clone());
        async move {
            let service = service_fn(move |request| {
                let answer = pick(request, version.clone(), failing.load(Relaxed));
                async move {
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    answer.await
                }
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

type Stream = StreamBody<
    futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>,
>;

async fn pick(
    request: Request,
    version: Arc<str>,
    failing: bool,
) -> Result<Response<Stream>, std::convert::Infallible> {
    let known = request.uri().path() == METHOD;
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes());
    let cell = body
        .ok()
        .and_then(|body| http::unframe(body).ok())
        .and_then(|message| Cell::decode(message).ok());
    Ok(match cell {
        _ if failing => reply(None, UNAVAILABLE),
        Some(cell) if known => {
            let colour = if version.ends_with('2') {
                "#c2410c"
            } else {
                "#1d4ed8"
            };
            let thread = Thread {
                colour: colour.into(),
                version: version.to_string(),
            };
            let _ = cell.number;
            reply(Some(thread), "0")
        }
        Some(_) => reply(None, "12"),
        None => reply(None, "3"),
    })
}

fn reply(thread: Option<Thread>, status: &'static str) -> Response<Stream> {
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "grpc-status",
        hyper::header::HeaderValue::from_static(status),
    );
    let mut frames = Vec::new();
    if let Some(thread) = thread {
        frames.push(Ok(Frame::data(http::frame(&thread.encode_to_vec()))));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    let kind = hyper::header::HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// Only reachable from inside the pod, where a pod has an inside.
fn orders() -> SocketAddr {
    SocketAddr::new(names::bind().unwrap_or(Ipv4Addr::LOCALHOST.into()), 9901)
}

/// Listens for `on` and `off` inside the pod.
async fn take_orders(failing: Arc<AtomicBool>) {
    let served = http::serve1(orders(), move |request: Request| {
        failing.store(request.uri().path() == "/on", Relaxed);
        std::future::ready(http::answer(200, "text/plain", "done\n"))
    });
    if let Err(error) = served.await {
        eprintln!("cannot take orders: {error:#}");
    }
}

/// Tells the colour service of this pod to fail (`on`) or to work (`off`).
pub(super) async fn order(state: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(orders())
        .await
        .context("no colour service runs in this pod")?;
    stream
        .write_all(
            format!("GET /{state} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "the colour service did not obey"
    );
    Ok(())
}
