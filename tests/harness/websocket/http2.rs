//! The same over one stream of an HTTP/2 connection (RFC 8441).

use super::{converse, echo};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long the other end may take to say what it can.
const SETTINGS: Duration = Duration::from_secs(60);
/// And how often it is asked.
const AGAIN: Duration = Duration::from_millis(10);

/// Serves one connection.
pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut codec = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    codec.enable_connect_protocol();
    let service =
        hyper::service::service_fn(|request| async { Ok::<_, Infallible>(open(request)) });
    Ok(codec
        .serve_connection(TokioIo::new(stream), service)
        .await?)
}

fn open(mut request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_ref() != b"websocket") {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    tokio::spawn(async move {
        let stream = hyper::upgrade::on(&mut request).await?;
        echo(TokioIo::new(stream)).await
    });
    response
}

/// Talks to the echo at `to` and prints what it found.
pub(crate) async fn client(to: &str) -> anyhow::Result<()> {
    let tcp = TokioIo::new(TcpStream::connect(to).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await?;
    let (told, mut allowed) = watch::channel(false);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        loop {
            // The codec wakes nobody for settings.
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = sleep(AGAIN) => {
                    told.send_replace(connection.is_extended_connect_protocol_enabled());
                }
            }
        }
    });
    timeout(SETTINGS, allowed.wait_for(|allowed| *allowed))
        .await
        .context("extended CONNECT is not offered")??;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{to}/chat"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(Empty::<Bytes>::new())?;
    let mut response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "{response:?}");
    let stream = hyper::upgrade::on(&mut response).await?;
    converse(TokioIo::new(stream)).await
}
