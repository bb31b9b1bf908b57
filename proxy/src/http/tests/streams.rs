//! HTTP/2 as well-behaved clients and endpoints speak it: trailers, many streams, tunnels on one stream, and heads that
//! come late or too large.

use super::super::bridge::Far;
use super::super::watch::{Limits, Watch};
use super::*;
use http_body::Frame;
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};

#[tokio::test]
async fn http2_carries_trailers_both_ways() {
    let answer = async |request: Request| {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        let read = request.into_body().collect().await?;
        let mut trailers = read.trailers().cloned().unwrap();
        assert_eq!(trailers["sum"], "1");
        assert!(!trailers.contains_key("weft-client-id"));
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        Ok(Response::new(Body::frames([
            Ok(Frame::data(read.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ])))
    };
    let (application, _) = application(answer, HttpVersion::Http2);
    let client = http2_client(application);
    let trailers =
        http::HeaderMap::from_iter([("sum", "1"), ("weft-client-id", "me")].map(|(k, v)| {
            (
                http::HeaderName::from_static(k),
                http::HeaderValue::from_static(v),
            )
        }));
    let body = Body::frames([
        Ok(Frame::data(Bytes::from_static(b"payload"))),
        Ok(Frame::trailers(trailers)),
    ]);
    let read = send(&client, http2("/p.S/m", body))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(read.to_bytes(), "payload");
}

#[tokio::test]
async fn a_full_http2_connection_gets_a_second_one() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let answer = move |_: Request| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            Ok(Response::new(Body::empty()))
        }
    };
    let (client, dialled) = application(answer, HttpVersion::Http2);
    let requests: Vec<_> = (0..150)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { send(&client, http2("/", Body::empty())).await })
        })
        .collect();
    while dialled.load(Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    go.send_replace(true);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((dialled.load(Relaxed), client.counts().1), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_breaks_off_is_not_the_failure_of_who_answers_it() {
    let late = || {
        let mut body = Body::frames_then_nothing([Ok(Frame::data(Bytes::from_static(b"a")))]);
        let limits = Limits {
            whole: Some(tokio::time::Instant::now() + Duration::from_secs(1)),
            ..Limits::default()
        };
        body.limit(Watch::new(limits, None, false));
        body
    };
    // Before the head of its answer,
    let (client, _) = application(echo, HttpVersion::Http2);
    let error = send(&client, http2("/", late())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientGone);
    // and behind it.
    let early = async |request: Request| Ok(Response::new(request.into_body()));
    let (client, _) = application(early, HttpVersion::Http2);
    let response = send(&client, http2("/", late())).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientGone);
}

#[tokio::test]
async fn nobody_waits_for_a_dial_that_has_panicked() {
    let dialled = AtomicUsize::new(0);
    let client = Client::memory(move |_| match dialled.fetch_add(1, Relaxed) {
        0 => panic!("on purpose"),
        _ => Err(Error::new(ErrorKind::ConnectTimeout)),
    });
    for expected in [ErrorKind::ConnectFailed, ErrorKind::ConnectTimeout] {
        let error = send(&client, http2("/", Body::empty())).await.unwrap_err();
        assert_eq!(error.kind(), expected);
    }
}

#[tokio::test]
async fn an_http2_error_for_grpc_is_trailers_only() {
    let client = http2_client(Client::memory(|_| {
        Err(Error::new(ErrorKind::ConnectFailed))
    }));
    let response = send(&client, http2("/p.S/m", Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["weft-error"], "E106 connect-failed");
}

/// An endpoint that echoes the bytes of every stream it is asked to open a tunnel on.
fn tunnels(extended_connect: bool) -> Client {
    let answer = async |mut request: http::Request<hyper::body::Incoming>| {
        let protocol = request.extensions().get::<Protocol>().cloned();
        assert_eq!(protocol.unwrap().as_ref(), b"websocket");
        assert_eq!(request.uri().path(), "/chat");
        tokio::spawn(async move {
            let stream = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
    };
    let (client, _) = behind(move |io| {
        let mut codec = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        if extended_connect {
            codec.enable_connect_protocol();
        }
        let service = hyper::service::service_fn(answer);
        tokio::spawn(codec.serve_connection(TokioIo::new(io), service));
    });
    client
}

fn websocket() -> Request {
    let head = http::Request::builder()
        .version(http::Version::HTTP_2)
        .method("CONNECT")
        .uri("http://web/chat")
        .extension(Protocol::from_static("websocket"));
    head.header("sec-websocket-version", "13")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn extended_connect_makes_a_tunnel_of_one_stream() {
    let client = http2_client(tunnels(true));
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut response = send(&client, websocket()).await.unwrap();
        assert_eq!(response.status(), 200);
        let Some(Far::Stream(stream)) = response.extensions_mut().remove::<Far>() else {
            panic!("no stream was granted");
        };
        open.push(TokioIo::new(stream.await.unwrap()));
    }
    for (at, stream) in open.iter_mut().enumerate() {
        let words = format!("any\0bytes {at}");
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut back = vec![0; words.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, words.as_bytes());
    }
    // Each ends by itself.
    for mut stream in open {
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_extended_connect_is_not_asked() {
    let client = http2_client(tunnels(false));
    let response = send(&client, websocket()).await.unwrap();
    assert_eq!(response.status(), 501);
    assert_eq!(response.headers()["weft-error"], "E127 unsupported-upgrade");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so_in_our_words() {
    let (application, dialled) = application(echo, HttpVersion::Http2);
    let client = http2_client(application);
    let mut request = http2("/", Body::empty());
    for at in 0..5 {
        let value = http::HeaderValue::from_str(&"x".repeat(8_000)).unwrap();
        let name = http::HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap();
        request.headers_mut().insert(name, value);
    }
    request.headers_mut().remove("content-type");
    let response = send(&client, request).await.unwrap();
    assert_eq!(response.status(), 431);
    assert_eq!(response.headers()["weft-error"], "E121 header-too-large");
    assert_eq!(dialled.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_is_ended_after_ten_seconds() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // HEADERS of one byte (`:method: GET`), to be continued.
    let open = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
    let rows: [(&str, Vec<u8>); 3] = [
        ("half a head", [&preface[..], &settings, &open].concat()),
        (
            "half a frame",
            [&preface[..], &settings, &open[..9]].concat(),
        ),
        ("no first frame", preface.to_vec()),
    ];
    for (name, bytes) in rows {
        let (client, _) = application(echo, HttpVersion::Http2);
        let mut proxy = proxy(client, HttpVersion::Http2);
        let began = tokio::time::Instant::now();
        proxy.io.write_all(&bytes).await.unwrap();
        let ended = proxy.serving.await.unwrap();
        assert_eq!(
            ended.unwrap_err().kind(),
            ErrorKind::HeaderTimeout,
            "{name}"
        );
        assert_eq!(began.elapsed().as_secs(), 10, "{name}");
    }
}
