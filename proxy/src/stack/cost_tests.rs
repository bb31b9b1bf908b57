//! What a request and a connection cost in memory. Everything runs on the one thread of the test, so that counting is
//! exact; bounds are a little above what is measured, and are there to be lowered.
#![allow(clippy::unwrap_used)]

use super::tests::{backend, connection, destination, service, shared};
use super::*;
use crate::allocations::{count, held};
use crate::http::server;
use crate::http::{Body, HttpVersion, Request, Response};
use crate::io::Io;
use crate::tasks::{Drain, DrainWatch};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::service_fn;

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nhost: web\r\naccept: */*\r\nuser-agent: test\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

/// Allocations that one HTTP/1.1 request may take in the outbound stack, both codecs included; 8 are measured, and what a
/// second or a sweep brings on a slow machine is not to matter.
const MOST_HTTP1: u64 = 10;
/// And one HTTP/2 request.
const MOST_HTTP2: u64 = 40;
/// Bytes a client's connection may keep while nobody asks anything, its socket's registration included.
const MOST_AT_REST: i64 = 2304;

/// An application that answers with the same bytes, without allocating.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut asked, mut got) = ([0; 1024], 0);
                while let Ok(n @ 1..) = tcp.read(&mut asked[got..]).await {
                    got += n;
                    if asked[..got].ends_with(b"\r\n\r\n") {
                        tcp.write_all(ANSWER).await.unwrap();
                        got = 0;
                    }
                }
            });
        }
    });
    at
}

async fn application_http2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let answer = |_: Request| std::future::ready(Ok(Response::new(Body::full("hello"))));
    tokio::spawn(async move {
        let (_drain, watch) = Drain::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let serving = server::serve(
                Io::from(tcp),
                HttpVersion::Http2,
                HttpService::new(service_fn(answer)),
                connection(at),
                watch.clone(),
            );
            tokio::spawn(serving);
        }
    });
    at
}

/// The outbound stack in front of `to`.
async fn proxy(to: SocketAddr, version: HttpVersion, drain: DrainWatch) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let shared = shared();
    let known = destination(&shared, service(vec![backend("web", 1)]), Some(&[to]));
    let stack = outbound(&shared, &known);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let serving = server::serve(
                Io::from(tcp),
                version,
                stack.clone(),
                connection(at),
                drain.clone(),
            );
            tokio::spawn(serving);
        }
    });
    at
}

async fn ask(tcp: &mut TcpStream) {
    tcp.write_all(ASK).await.unwrap();
    let (mut answer, mut got) = ([0; 1024], 0);
    while !answer[..got].ends_with(b"hello") {
        let n = tcp.read(&mut answer[got..]).await.unwrap();
        assert!(n > 0);
        got += n;
    }
}

#[tokio::test]
async fn an_http1_request_takes_few_allocations() {
    let (_drain, watch) = Drain::new();
    let at = proxy(application().await, HttpVersion::Http1, watch).await;
    let mut tcp = TcpStream::connect(at).await.unwrap();
    for _ in 0..20 {
        ask(&mut tcp).await;
    }
    let before = count();
    for _ in 0..100 {
        ask(&mut tcp).await;
    }
    let each = (count() - before) / 100;
    assert!(each <= MOST_HTTP1, "{each} allocations");
}

#[tokio::test]
async fn an_http2_request_takes_few_allocations() {
    let (_drain, watch) = Drain::new();
    let to = application_http2().await;
    let direct = each_http2(to).await;
    let at = proxy(to, HttpVersion::Http2, watch).await;
    let each = each_http2(at).await - direct;
    assert!(each <= MOST_HTTP2, "{each} allocations beside {direct}");
}

/// Allocations of a request, those of client and application included.
async fn each_http2(at: SocketAddr) -> u64 {
    let tcp = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut before = 0;
    for turn in 0..120 {
        if turn == 20 {
            before = count();
        }
        let request = http::Request::builder().uri("http://web/a");
        let request = request.header("user-agent", "test").body(Body::empty());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    (count() - before) / 100
}

#[tokio::test]
async fn a_connection_at_rest_keeps_little() {
    let (_drain, watch) = Drain::new();
    let at = proxy(application().await, HttpVersion::Http1, watch).await;
    // One after the other, so that they share one connection to the application; it is there before we count.
    let mut first = TcpStream::connect(at).await.unwrap();
    ask(&mut first).await;
    long_after().await;
    const MANY: i64 = 64;
    let before = held();
    let mut all = Vec::with_capacity(MANY as usize);
    for _ in 0..MANY {
        let mut tcp = TcpStream::connect(at).await.unwrap();
        ask(&mut tcp).await;
        all.push(tcp);
    }
    long_after().await;
    let each = (held() - before) / MANY - own().await;
    assert!(each <= MOST_AT_REST, "{each} bytes");
}

/// Waits for what is still on its way, without waiting.
async fn long_after() {
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(6)).await;
    tokio::time::resume();
}

/// Bytes our own end of a connection takes.
async fn own() -> i64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = held();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
    let own = held() - before;
    drop(tcp);
    own
}
