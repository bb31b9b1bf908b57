//! Streams in memory.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::connect::Connector;
use crate::error::ErrorKind;
use crate::io::Io;
use crate::metrics::Metrics;
use crate::tcp::copy;
use crate::tls::tests::{GOOD, TestCa, id, workload};
use crate::tls::{Alpn, Tls};
use bytes::Bytes;
use http::{Method, Request, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::Endpoint;

mod peers;

/// Both ends of `count` streams of one connection.
async fn streams(count: usize) -> Vec<(Stream, Stream)> {
    streams_to(count, server::settings()).await
}

/// The same, to a side with such settings.
async fn streams_to(count: usize, serving: h2::server::Builder) -> Vec<(Stream, Stream)> {
    let (near, far) = duplex(64 * 1024);
    let settings = client::settings();
    let client = async {
        let (sender, connection) = settings.handshake::<_, Bytes>(near).await.unwrap();
        tokio::spawn(connection);
        let mut opened = Vec::new();
        for _ in 0..count {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, send) = sender.send_request(asked(), false).unwrap();
            opened.push(Stream::new(send, answer.await.unwrap().into_body(), None));
        }
        opened
    };
    let server = async {
        let mut connection = serving.handshake(far).await.unwrap();
        let mut accepted = Vec::new();
        while accepted.len() < count {
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(Response::new(()), false).unwrap();
            accepted.push(Stream::new(send, request.into_body(), None));
        }
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        accepted
    };
    let (near, far) = tokio::join!(client, server);
    near.into_iter().zip(far).collect()
}

async fn one() -> (Stream, Stream) {
    streams(1).await.pop().unwrap()
}

#[tokio::test]
async fn either_direction_ends_by_itself() {
    let (mut client, mut server) = one().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    server.write_all(b"the answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "the answer");
}

#[tokio::test]
async fn a_reset_is_seen_as_one_on_either_side() {
    let (mut client, mut server) = one().await;
    server.reset();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let (mut client, mut server) = one().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    client.reset();
    drop(client);
    assert!(server.read_u8().await.is_err());
}

#[tokio::test]
async fn dropping_an_open_stream_is_no_clean_end() {
    let (client, mut server) = one().await;
    drop(client);
    assert!(server.read_u8().await.is_err());
}

#[tokio::test]
async fn many_streams_carry_their_bytes_whole_and_in_order() {
    const LENGTH: usize = 700_000;
    let byte = |stream: usize, at: usize| (at / 5 * (stream + 3)) as u8;
    let mut work = Vec::new();
    for (n, (client, server)) in streams(20).await.into_iter().enumerate() {
        let data: Vec<u8> = (0..LENGTH).map(|at| byte(n, at)).collect();
        for (mut write, mut read) in both(client, server) {
            let data = data.clone();
            let expected = data.clone();
            work.push(tokio::spawn(async move {
                write.write_all(&data).await.unwrap();
                write.shutdown().await.unwrap();
            }));
            work.push(tokio::spawn(async move {
                let mut arrived = Vec::new();
                read.read_to_end(&mut arrived).await.unwrap();
                assert!(arrived == expected, "stream {n}");
            }));
        }
    }
    for work in work {
        work.await.unwrap();
    }
}

type Way = (
    Box<dyn AsyncWrite + Send + Unpin>,
    Box<dyn AsyncRead + Send + Unpin>,
);

/// The two directions between two ends.
fn both(client: Stream, server: Stream) -> [Way; 2] {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    [
        (Box::new(to_client), Box::new(from_server)),
        (Box::new(to_server), Box::new(from_client)),
    ]
}

#[tokio::test]
async fn streams_nobody_reads_leave_room_for_others_and_hold_a_window_each() {
    let mut all = streams(MAX_STREAMS).await;
    let (mut client, mut server) = all.pop().unwrap();
    for (slow, _) in &mut all {
        let mut written = 0;
        let piece = [0; 32 * 1024];
        // As much as is taken without anybody reading.
        while let Ok(n) = tokio::time::timeout(Duration::from_millis(20), slow.write(&piece)).await
        {
            written += n.unwrap();
            assert!(written <= STREAM_WINDOW as usize + SEND_BUFFER, "{written}");
        }
    }
    for _ in 0..100 {
        client.write_all(&[7; 1000]).await.unwrap();
        let mut heard = [0; 1000];
        server.read_exact(&mut heard).await.unwrap();
    }
}

#[tokio::test]
async fn tiny_pieces_for_a_reader_that_waits_do_not_end_the_tunnel_of_others() {
    let mut settings = server::settings();
    // A hundred pieces of a byte, where nobody takes them in.
    settings.data_frame_budget(100 * 256);
    let mut all = streams_to(2, settings).await;
    let ((mut client, server), (mut other, mut others)) = (all.remove(0), all.remove(0));
    let (near, mut slow) = duplex(1);
    tokio::spawn(async move {
        let (mut from, mut to) = (Io::Stream(Box::new(server)), Io::Memory(near));
        copy(&mut from, &mut to, |_, _, _| ()).await
    });
    let said: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    for byte in &said {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.shutdown().await.unwrap();
    other.write_all(b"x").await.unwrap();
    assert_eq!(others.read_u8().await.unwrap(), b'x');
    let mut heard = Vec::new();
    slow.read_to_end(&mut heard).await.unwrap();
    assert!(heard == said, "whole and in order");
}

/// A request for a stream.
fn asked() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "weft".parse().unwrap();
    request
}

/// Lets every task that can go on do so.
async fn a_while() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_given_up_while_their_peer_stood_still_end_no_other() {
    let (near, far) = duplex(64 * 1024);
    let (calling, serving) = (client::settings(), server::settings());
    let (calling, serving) = tokio::join!(
        calling.handshake::<_, Bytes>(near),
        serving.handshake::<_, Bytes>(far)
    );
    let ((sender, calling), mut serving) = (calling.unwrap(), serving.unwrap());
    tokio::spawn(calling);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (go_on, goes_on) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (request, mut respond) = serving.accept().await.unwrap().unwrap();
        let send = respond.send_response(Response::new(()), false).unwrap();
        let stream = Stream::new(send, request.into_body(), None);
        tokio::spawn(async move {
            let (mut r, mut w) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut r, &mut w).await;
        });
        tokio::select! {
            _ = serving.accept() => panic!("nobody else asks yet"),
            _ = stopped => {}
        }
        goes_on.await.unwrap();
        while let Some(Ok(_)) = serving.accept().await {}
    });
    let mut first = sender.clone().ready().await.unwrap();
    let (answer, send) = first.send_request(asked(), false).unwrap();
    let mut kept = Stream::new(send, answer.await.unwrap().into_body(), None);
    stop.send(()).unwrap();
    a_while().await;
    let mut given_up = Vec::new();
    for _ in 0..MAX_STREAMS / 2 {
        let mut sender = sender.clone().ready().await.unwrap();
        given_up.push(sender.send_request(asked(), false).unwrap());
    }
    a_while().await;
    drop(given_up);
    a_while().await;
    go_on.send(()).unwrap();
    kept.write_all(b"x").await.unwrap();
    assert_eq!(kept.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn what_was_absorbed_comes_before_how_the_stream_ended() {
    for reset in [false, true] {
        let (mut client, mut server) = one().await;
        client.write_all(b"last words").await.unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        match reset {
            true => client.reset(),
            false => client.shutdown().await.unwrap(),
        }
        for _ in 0..100 {
            let absorbed = std::future::poll_fn(|cx| {
                server.absorb(cx);
                Poll::Ready(())
            });
            absorbed.await;
            tokio::task::yield_now().await;
        }
        let mut rest = Vec::new();
        let ended = server.read_to_end(&mut rest).await;
        assert_eq!((&rest[..], ended.is_err()), (&b" words"[..], reset));
    }
}
