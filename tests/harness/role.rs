//! What this test program becomes inside a pod: servers that say what they received, and servers that misbehave.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const MAX_BODY: usize = 64 << 20;

/// Plays the role named by the arguments after `role`, for ever.
pub fn play(args: &[String]) -> anyhow::Result<()> {
    let [role, to, ..] = args else {
        bail!("usage: role NAME PORT, or role CLIENT HOST:PORT")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match role.as_str() {
            "grpc-client" => super::grpc::client(to).await,
            "websocket-client" => super::websocket::client(to).await,
            "websocket-http2-client" => super::websocket::http2::client(to).await,
            "load" => super::load::run(&args[1..]).await,
            "hold" => super::held::hold(&args[1..], false).await,
            "idle" => super::held::hold(&args[1..], true).await,
            "streams" => super::held::streams(&args[1..]).await,
            "deaf" => super::held::deaf(&args[1..]).await,
            "mixed" => super::mixed::run(to, terminated()).await,
            _ => {
                let port = to.parse::<u16>().context("port")?;
                let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                tokio::select! {
                    done = serve(role, address) => done,
                    _ = terminated() => Ok(()),
                }
            }
        }
    })
}

async fn serve(role: &str, address: SocketAddr) -> anyhow::Result<()> {
    match role {
        // HTTP/1 and HTTP/2 by prior knowledge; answers with what it received.
        "echo" => accept(address, |stream| http(stream, answer)).await,
        // Always 500.
        "broken" => accept(address, |stream| http(stream, broken)).await,
        // As it is told at `/-/mood`.
        "moody" => accept(address, |stream| http(stream, super::moody::answer)).await,
        // gRPC in all four call kinds.
        "grpc" => accept(address, super::grpc::serve).await,
        // Frames come back as they were.
        "websocket" => accept(address, super::websocket::serve).await,
        "websocket-http2" => accept(address, super::websocket::http2::serve).await,
        // Bytes come back; the other half stays open after the client's end.
        "tcp" => accept(address, tcp).await,
        // Takes spans and prints them.
        "collector" => accept(address, super::collector::serve).await,
        // Speaks first, as SMTP or MySQL do.
        "banner" => accept(address, banner).await,
        other => bail!("there is no role {other}"),
    }
}

async fn accept<F, R>(address: SocketAddr, connection: F) -> anyhow::Result<()>
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

type Answer = Response<Full<Bytes>>;

async fn http<F, R>(stream: TcpStream, answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<Incoming>, SocketAddr) -> R + Copy + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let peer = stream.peer_addr()?;
    let mut start = [0; 4];
    while stream.peek(&mut start).await? < start.len() {
        if stream.peek(&mut start).await? == 0 {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, peer).await) });
    let io = TokioIo::new(stream);
    if &start == b"PRI " {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .await?;
    } else {
        let mut server = hyper::server::conn::http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .await?;
    }
    Ok(())
}

async fn answer(request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let (head, body) = request.into_parts();
    let version = if head.version == Version::HTTP_2 {
        "2"
    } else {
        "1"
    };
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(k, v)| json!([k.as_str(), String::from_utf8_lossy(v.as_bytes())]))
        .collect();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {error}"),
            );
        }
    };
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    let echo = json!({
        "pod": pod,
        "peer": peer.ip().to_canonical().to_string(),
        "version": version,
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "headers": headers,
        "body_bytes": body.len(),
    });
    let size = head
        .uri
        .query()
        .and_then(|query| query.strip_prefix("bytes="))
        .and_then(|n| n.parse::<usize>().ok());
    // `status=404` and `grpc=14` are answered like that.
    let asked = |name: &str| -> Option<u16> {
        let value = head.uri.query()?.strip_prefix(name)?;
        value.strip_prefix('=')?.parse().ok()
    };
    if let Some(status) = asked("status").and_then(|at| StatusCode::from_u16(at).ok()) {
        return text(status, echo.to_string());
    }
    if let Some(code) = asked("grpc") {
        let mut response = Response::new(Full::default());
        let fields = response.headers_mut();
        fields.insert("content-type", HeaderValue::from_static("application/grpc"));
        fields.insert("grpc-status", HeaderValue::from(code));
        return response;
    }
    match size {
        Some(size) => text(StatusCode::OK, "x".repeat(size.min(MAX_BODY))),
        None => text(StatusCode::OK, echo.to_string()),
    }
}

async fn broken(_: Request<Incoming>, _: SocketAddr) -> Answer {
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "broken on purpose\n".into(),
    )
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

async fn tcp(mut stream: TcpStream) -> anyhow::Result<()> {
    let (mut read, mut write) = stream.split();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read.read(&mut buffer).await? {
            0 => {
                // Still able to speak after the client has ended its half.
                write.write_all(b"bye\n").await?;
                return Ok(write.shutdown().await?);
            }
            n => write.write_all(&buffer[..n]).await?,
        }
    }
}

async fn banner(stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 ready\r\n").await?;
    let mut line = String::new();
    while (&mut stream).take(1000).read_line(&mut line).await? > 0 {
        stream.write_all(format!("250 {line}").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

async fn terminated() {
    if let Ok(mut signal) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        signal.recv().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
