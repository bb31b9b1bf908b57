//! The few lines of HTTP the roles share: a server for each version, and clients that reconnect when they must.

use super::names;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The most a body of this application may hold.
const MAX_BODY: usize = 64 * 1024;
/// How long one call may take: more than a busy machine lets two of the programs on its way stand still.
pub(super) const LIMIT: Duration = Duration::from_secs(15);

pub(super) type Request = hyper::Request<Incoming>;
pub(super) type Response<B = Full<Bytes>> = hyper::Response<B>;

/// An answer with a body of text.
pub(super) fn answer(status: u16, kind: &str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(kind) = kind.parse() {
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, kind);
    }
    response
}

/// Serves HTTP/1.1 for ever.
pub(super) async fn serve1<F, R>(address: SocketAddr, handle: F) -> anyhow::Result<()>
where
    F: Fn(Request) -> R + Clone + Send + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    accept(address, move |stream| {
        let handle = handle.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = handle(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            let connection = server
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        }
    })
    .await
}

/// Accepts for ever, a task for each connection.
pub(super) async fn accept<F, R>(address: SocketAddr, connection: F) -> anyhow::Result<()>
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {address}");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// An HTTP/1.1 client with idle connections kept.
pub(super) struct Client1 {
    host: String,
    idle: Mutex<Vec<conn::http1::SendRequest<Full<Bytes>>>>,
}

impl Client1 {
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Status and body of one GET.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        tokio::time::timeout(LIMIT, self.call(path))
            .await
            .map_err(|_| anyhow!("no answer within {LIMIT:?}"))?
    }

    async fn call(&self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        let mut sender = self.sender().await?;
        let request = hyper::Request::get(path)
            .header("host", &self.host)
            .body(Full::default())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = http_body_util::Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await;
        let body = body
            .map_err(|error| anyhow!("the body broke off: {error}"))?
            .to_bytes();
        if sender.ready().await.is_ok() {
            self.idle.lock().await.push(sender);
        }
        Ok((status, body))
    }

    async fn sender(&self) -> anyhow::Result<conn::http1::SendRequest<Full<Bytes>>> {
        while let Some(mut sender) = self.idle.lock().await.pop() {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = connect(&self.host).await?;
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// An HTTP/2 client with one connection.
pub(super) struct Client2 {
    host: String,
    open: Mutex<Option<conn::http2::SendRequest<Full<Bytes>>>>,
}

impl Client2 {
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            open: Mutex::new(None),
        }
    }

    /// One gRPC unary call, message bytes to message bytes; the error is the gRPC status or what went wrong below.
    pub(super) async fn unary(&self, path: &str, message: &[u8]) -> anyhow::Result<Bytes> {
        tokio::time::timeout(LIMIT, self.call(path, message))
            .await
            .map_err(|_| anyhow!("no answer within {LIMIT:?}"))?
    }

    async fn call(&self, path: &str, message: &[u8]) -> anyhow::Result<Bytes> {
        let mut sender = self.sender().await?;
        let request = hyper::Request::post(format!("http://{}{path}", self.host))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame(message)))?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow!("the body broke off: {error}"))?;
        let trailer = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"));
        let status = trailer.or_else(|| head.headers.get("grpc-status"));
        match status.map(|status| status.as_bytes()) {
            Some(b"0") => unframe(body.to_bytes()),
            Some(other) => Err(anyhow!("grpc-status {}", String::from_utf8_lossy(other))),
            None => Err(anyhow!(
                "HTTP status {} and no grpc-status",
                head.status.as_u16()
            )),
        }
    }

    async fn sender(&self) -> anyhow::Result<conn::http2::SendRequest<Full<Bytes>>> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        let stream = connect(&self.host).await?;
        let (sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *open = Some(sender.clone());
        Ok(sender)
    }
}

async fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let stream = names::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A gRPC message as it travels: a flag, a length, the bytes.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// The bytes of the one message in a gRPC body.
pub(super) fn unframe(mut body: Bytes) -> anyhow::Result<Bytes> {
    let length = body
        .get(1..5)
        .and_then(|length| length.try_into().ok())
        .map(u32::from_be_bytes);
    match length {
        Some(length) if body.len() == 5 + length as usize => Ok(body.split_off(5)),
        _ => Err(anyhow!("not one whole gRPC message")),
    }
}
