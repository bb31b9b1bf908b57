//! A gRPC server and client in all four call kinds, small enough to see every byte: messages are plain text, five bytes
//! of prefix before each (the codec is the applications' own affair).

use anyhow::{Context, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Frames from a channel, as a body.
struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// Cuts a body into messages.
struct Messages {
    body: Incoming,
    buffer: BytesMut,
    trailers: HeaderMap,
}

impl Messages {
    fn new(body: Incoming) -> Self {
        let (buffer, trailers) = Default::default();
        Self {
            body,
            buffer,
            trailers,
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(mut prefix) = self.buffer.get(..5) {
                prefix.advance(1);
                let length = prefix.get_u32() as usize;
                if self.buffer.len() >= 5 + length {
                    let message = self.buffer.split_to(5 + length).split_off(5);
                    return Ok(Some(String::from_utf8(message.to_vec())?));
                }
            }
            let Some(frame) = self.body.frame().await.transpose()? else {
                ensure!(self.buffer.is_empty(), "half a message");
                return Ok(None);
            };
            match frame.into_data() {
                Ok(data) => self.buffer.put(data),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
    }
}

fn message(text: &str) -> Frame<Bytes> {
    let mut bytes = BytesMut::with_capacity(5 + text.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.put_slice(text.as_bytes());
    Frame::data(bytes.freeze())
}

fn status(code: u16) -> Frame<Bytes> {
    let code = hyper::header::HeaderValue::from(code);
    Frame::trailers(HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        code,
    )]))
}

/// Serves `test.Echo` on one connection.
pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let service = hyper::service::service_fn(|request| async { answer(request) });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

fn answer(request: Request<Incoming>) -> Result<Response<Frames>, hyper::http::Error> {
    let method = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let (to, frames) = mpsc::channel(4);
    let head = Response::builder().header("content-type", "application/grpc");
    if method == "Fail" {
        // Trailers-only: the status is in the head, and there is no body.
        drop(to);
        return head
            .header("grpc-status", "5")
            .header("grpc-message", "not found")
            .body(Frames(frames));
    }
    tokio::spawn(async move {
        // What cannot be read is an invalid argument.
        let asked = Messages::new(request.into_body());
        let code = call(&method, asked, &to).await.unwrap_or(3);
        let _ = to.send(status(code)).await;
    });
    head.body(Frames(frames))
}

/// Plays one call; gives its status.
async fn call(
    method: &str,
    mut asked: Messages,
    to: &mpsc::Sender<Frame<Bytes>>,
) -> anyhow::Result<u16> {
    let mut all = Vec::new();
    while let Some(text) = asked.next().await? {
        if method == "Bidi" {
            to.send(message(&format!("echo {text}"))).await?;
        }
        all.push(text);
    }
    match method {
        "Unary" => to.send(message(&format!("hello {}", all.join("")))).await?,
        "Download" => {
            for at in 0..5 {
                to.send(message(&format!("{} {at}", all.join("")))).await?;
            }
        }
        "Upload" => to.send(message(&all.join("+"))).await?,
        "Bidi" => {}
        "Late" => {
            to.send(message("one")).await?;
            return Ok(13);
        }
        _ => return Ok(12),
    }
    Ok(0)
}

/// Makes one call of each kind to `to` and prints what came of it, a line of JSON for each.
pub(crate) async fn client(to: &str) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to).await.context("connect")?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake::<_, Frames>(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    for (method, messages) in [
        ("Unary", &["world"][..]),
        ("Download", &["part"]),
        ("Upload", &["a", "b", "c"]),
        ("Bidi", &["1", "2", "3"]),
        ("Fail", &["x"]),
        ("Late", &["x"]),
        ("Unknown", &["x"]),
    ] {
        let line = one(sender.clone(), to, method, messages).await?;
        println!("{line}");
    }
    Ok(())
}

async fn one(
    mut sender: hyper::client::conn::http2::SendRequest<Frames>,
    to: &str,
    method: &str,
    messages: &[&str],
) -> anyhow::Result<Value> {
    let (out, frames) = mpsc::channel(4);
    let request = Request::post(format!("http://{to}/test.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Frames(frames))?;
    let mut waiting = Some(sender.send_request(request));
    let (mut got, mut answer) = (Vec::new(), None);
    for text in messages {
        out.send(message(text)).await?;
        // In a call of both streams the answer to each message comes before the next one is sent.
        if method == "Bidi" {
            if let Some(waiting) = waiting.take() {
                answer = Some(take(waiting.await?));
            }
            if let Some((_, _, messages)) = &mut answer {
                got.extend(messages.next().await?);
            }
        }
    }
    drop(out);
    if let Some(waiting) = waiting.take() {
        answer = Some(take(waiting.await?));
    }
    let (head, error, mut messages) = answer.context("no answer")?;
    while let Some(text) = messages.next().await? {
        got.push(text);
    }
    let in_head = head.is_some();
    let status = head.or_else(|| grpc_status(&messages.trailers));
    Ok(
        json!({ "call": method, "got": got, "status": status, "trailers_only": in_head, "error": error }),
    )
}

fn take(response: Response<Incoming>) -> (Option<String>, Option<String>, Messages) {
    let error = response
        .headers()
        .get("weft-error")
        .and_then(|error| error.to_str().ok().map(str::to_owned));
    let status = grpc_status(response.headers());
    (status, error, Messages::new(response.into_body()))
}

fn grpc_status(fields: &HeaderMap) -> Option<String> {
    let status = fields.get("grpc-status")?;
    status.to_str().ok().map(str::to_owned)
}
