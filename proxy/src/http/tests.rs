//! The codecs, the check and the pool together: a client that speaks bytes, a stack, and an application behind it, all
//! in memory.
#![allow(clippy::unwrap_used)]

use super::client::Client;
use super::{Body, HttpService, HttpVersion, Request, Response, server};
use crate::connection::{CloseSignal, Connection, Direction, NoTls, Peer};
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::layers::budget::Budget;
use crate::layers::check::CheckLayer;
use crate::layers::respond::RespondLayer;
use crate::layers::retry::{Attempt, RetryLayer};
use crate::metrics::Metrics;
use crate::tasks::Drain;
use bytes::Bytes;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tower::{ServiceBuilder, service_fn};

mod corpus;
mod frames;
mod kept;
mod mixed;
mod rest;
mod serving;
mod streams;

fn connection() -> Arc<Connection> {
    let at = |text: &str| text.parse().unwrap();
    Arc::new(Connection {
        direction: Direction::Inbound,
        client: at("10.0.0.1:4000"),
        target: at("10.0.0.7:8080"),
        dial: at("10.0.0.7:8080"),
        peer: Peer::Plain(NoTls::NotTls),
        closed: CloseSignal::new(),
    })
}

/// A whole stack in front of `client`.
fn stack(client: Client, conn: &Connection) -> HttpService {
    let stack = ServiceBuilder::new()
        .layer(RespondLayer::new(Metrics::new("test"), Direction::Inbound))
        .layer(CheckLayer::inbound(conn))
        .map_request(crate::layers::Outgoing::from)
        .layer(RetryLayer::new(
            Budget::new(Default::default()),
            Metrics::new("test"),
            Direction::Inbound,
            String::new(),
        ))
        .map_request(|attempt: Attempt| attempt.request)
        .service(client);
    HttpService::new(stack)
}

/// An application made of a function, and how often it was dialled.
fn application<F, A>(answer: F, version: HttpVersion) -> (Client, Arc<AtomicUsize>)
where
    F: Fn(Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response, Error>> + Send + 'static,
{
    behind(move |io| {
        let (_drain, watch) = Drain::new();
        let service = HttpService::new(service_fn(answer.clone()));
        tokio::spawn(async move {
            let _keep = _drain;
            server::serve(Io::Memory(io), version, service, connection(), watch).await
        });
    })
}

/// An application made of bytes.
fn behind(serve: impl Fn(DuplexStream) + Send + Sync + 'static) -> (Client, Arc<AtomicUsize>) {
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = dialled.clone();
    let client = Client::memory(move |_| {
        count.fetch_add(1, Relaxed);
        let (ours, theirs) = duplex(1 << 16);
        serve(theirs);
        Ok(Io::Memory(ours))
    });
    (client, dialled)
}

/// A proxy in front of an application, with the client's end of a connection to it.
struct Proxy {
    io: DuplexStream,
    serving: JoinHandle<Result<(), Error>>,
    drain: Drain,
}

fn proxy(client: Client, version: HttpVersion) -> Proxy {
    let conn = connection();
    let service = stack(client, &conn);
    serving(service, conn, version)
}

fn serving(service: HttpService, conn: Arc<Connection>, version: HttpVersion) -> Proxy {
    let (io, theirs) = duplex(1 << 16);
    let (drain, watch) = Drain::new();
    let serving = tokio::spawn(server::serve(
        Io::Memory(theirs),
        version,
        service,
        conn,
        watch,
    ));
    Proxy { io, serving, drain }
}

impl Proxy {
    async fn send(&mut self, bytes: &str) {
        self.io.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads until `end` has come.
    async fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            let n = self.io.read_buf(&mut read).await.unwrap();
            assert!(n > 0, "ended after {}", read.escape_ascii());
        }
        String::from_utf8(read).unwrap()
    }

    /// Reads until the connection is closed.
    async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        self.io.read_to_end(&mut read).await.unwrap();
        String::from_utf8(read).unwrap()
    }
}

/// Answers with the request, as it arrived.
async fn echo(request: Request) -> Result<Response, Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let fields = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
    let fields: Vec<_> = fields.collect();
    let text = format!(
        "<{} {} {} [{}]>",
        head.method,
        head.uri,
        fields.join(","),
        body.escape_ascii()
    );
    Ok(Response::new(Body::full(text)))
}

#[tokio::test]
async fn requests_of_one_connection_share_one_to_the_application() {
    let (client, dialled) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client.clone(), HttpVersion::Http1);
    for path in ["/a", "/b//c", "/%64"] {
        proxy.send(&format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: keep-alive\r\nX-Weft: 1\r\nWeft_Client_Id: x\r\n\r\n")).await;
        let answer = proxy.until(">").await;
        let path = path.replace("//", "/").replace("%64", "d");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with(&format!("<GET {path} host=web,x-weft=1 []>")),
            "{answer}"
        );
    }
    assert_eq!((dialled.load(Relaxed), client.counts()), (1, (1, 0)));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("POST /1 HTTP/1.1\r\nHost: w\r\nContent-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: w\r\n\r\n").await;
    let answers = proxy.until("</2 ".replace("</", "<GET /").as_str()).await;
    assert!(
        answers.contains("<POST /1 host=w,content-length=2 [ab]>"),
        "{answers}"
    );
}

#[tokio::test]
async fn chunked_bodies_arrive_with_framing_of_their_own() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    for method in ["POST", "GET"] {
        proxy.send(&format!("{method} / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")).await;
        let answer = proxy.until(">").await;
        assert!(
            answer.ends_with(&format!(
                "<{method} / host=w,transfer-encoding=chunked [abcd]>"
            )),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_the_connection() {
    let rows = [
        (
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "both Content-Length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            "both Content-Length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "more than one Content-Length",
        ),
        ("GET / HTTP/1.1\r\nHost: w\nX: y\r\n\r\n", "without CR"),
        ("GET / HTTP/1.1\r\nHost: w\r\nX: y\r\n z\r\n\r\n", "folded"),
        (
            "GET / HTTP/1.1\r\nHost: w\r\nHost: w\r\n\r\n",
            "more than one Host",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "no Host"),
        ("GET /a%2fb HTTP/1.1\r\nHost: w\r\n\r\n", "escaped slash"),
    ];
    let (client, dialled) = application(echo, HttpVersion::Http1);
    for (request, why) in rows {
        let mut proxy = proxy(client.clone(), HttpVersion::Http1);
        proxy.send(request).await;
        proxy
            .send("GET /smuggled HTTP/1.1\r\nHost: w\r\n\r\n")
            .await;
        let answer = proxy.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{why}: {answer}"
        );
        assert!(
            answer.contains("weft-error: E101 bad-request\r\n") && answer.contains(why),
            "{why}: {answer}"
        );
        assert!(!answer.contains("smuggled"), "{answer}");
    }
    assert_eq!(dialled.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_ten_seconds_and_silence_between_requests_has_not() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n").await;
    proxy.until(">").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    proxy.send("GET / HTTP/1.1\r\nHo").await;
    let answer = proxy.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("weft-error: E124 header-timeout"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_came_with_the_end_of_another_has_ten_seconds_of_its_own() {
    let slow = async |request| {
        tokio::time::sleep(Duration::from_secs(12)).await;
        echo(request).await
    };
    let (client, _) = application(slow, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("GET /1 HTTP/1.1\r\nHo").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    proxy.send("st: w\r\n\r\nGET /2 HTTP/1.1\r\nHo").await;
    proxy.until("<GET /1 host=w []>").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    proxy.send("st: w\r\n\r\n").await;
    let answer = proxy.until(">").await;
    assert!(answer.ends_with("<GET /2 host=w []>"), "{answer}");
}

#[tokio::test]
async fn an_old_client_is_answered_and_the_connection_ends() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("GET /old HTTP/1.0\r\n\r\n").await;
    let answer = proxy.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("<GET /old host=10.0.0.7:8080 []>"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy
        .send("POST / HTTP/1.1\r\nHost: w\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    proxy.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    proxy.send("hi").await;
    assert!(proxy.until(">").await.contains("[hi]"));
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer() {
    let slow = async |request| {
        tokio::task::yield_now().await;
        echo(request).await
    };
    let (client, _) = application(slow, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("GET /half HTTP/1.1\r\nHost: w\r\n\r\n").await;
    proxy.io.shutdown().await.unwrap();
    assert!(proxy.rest().await.contains("/half"));
}

/// Answers a head with `head`, then echoes bytes.
fn switching(head: &'static str) -> (Client, Arc<AtomicUsize>) {
    behind(move |mut io| {
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(io.read_buf(&mut asked).await.unwrap() > 0);
            }
            io.write_all(head.as_bytes()).await.unwrap();
            let (mut from, mut to) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    })
}

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello;";

#[tokio::test]
async fn an_upgrade_turns_into_bytes_at_both_ends() {
    let (client, _) = switching(SWITCH);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy
        .send("GET /ws HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let head = proxy.until("hello;").await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket"),
        "{head}"
    );
    proxy.send("any\nbytes;").await;
    assert_eq!(proxy.until("bytes;").await, "any\nbytes;");
    proxy.io.shutdown().await.unwrap();
    assert_eq!(proxy.rest().await, "");
    proxy.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn protocols_are_not_switched_unasked() {
    let (client, _) = switching(SWITCH);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy
        .send("GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
        .await;
    let answer = proxy.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("E118 upstream-protocol"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    // Answers once, then closes without saying so.
    let (client, dialled) = behind(|mut io| {
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(io.read_buf(&mut asked).await.unwrap() > 0);
            }
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n>")
                .await
                .unwrap();
        });
    });
    let mut proxy = proxy(client, HttpVersion::Http1);
    for _ in 0..3 {
        proxy.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n").await;
        assert!(proxy.until(">").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(dialled.load(Relaxed), 3);
}

#[tokio::test]
async fn what_cannot_be_connected_is_answered() {
    let client = Client::memory(|_| Err(Error::new(ErrorKind::ConnectFailed)));
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy
        .send("GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
        .await;
    let answer = proxy.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("weft-error: E106 connect-failed"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_drain_lets_the_last_request_finish() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let answer = move |request| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            echo(request).await
        }
    };
    let (client, dialled) = application(answer, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("GET /last HTTP/1.1\r\nHost: w\r\n\r\n").await;
    while dialled.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    proxy.drain.start();
    go.send_replace(true);
    let answer = proxy.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.contains("/last"),
        "{answer}"
    );
    proxy.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn after_a_hand_over_an_idle_connection_gets_one_more_answer() {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.drain.hand_over();
    // The connection's task runs once, and hears it.
    tokio::task::yield_now().await;
    proxy.send("GET /next HTTP/1.1\r\nHost: w\r\n\r\n").await;
    let answer = proxy.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.contains("/next"),
        "{answer}"
    );
    proxy.serving.await.unwrap().unwrap();
}

/// A client of the proxy that speaks HTTP/2 through a pool of its own.
fn http2_client(upstream: Client) -> Client {
    Client::memory(move |_| {
        let proxy = proxy(upstream.clone(), HttpVersion::Http2);
        // The drain must outlive the connection.
        tokio::spawn(async move {
            let _keep = proxy.drain;
            proxy.serving.await
        });
        Ok(Io::Memory(proxy.io))
    })
}

fn http2(path: &str, body: Body) -> Request {
    let uri = format!("http://web{path}");
    let head = http::Request::builder()
        .version(http::Version::HTTP_2)
        .method("POST")
        .uri(uri);
    head.header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

async fn send(client: &Client, request: Request) -> Result<Response, Error> {
    tower::Service::call(&mut client.clone(), request).await
}
