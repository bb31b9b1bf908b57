#![allow(clippy::unwrap_used)]
use super::*;
use crate::http::client::Client;
use crate::http::watch::{Limits, Watch};
use crate::http::{Body, HttpService};
use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// An endpoint, connection by connection, and how many there were.
fn endpoint<F, S>(serve: F) -> (Client, Arc<AtomicUsize>)
where
    F: Fn(usize, DuplexStream) -> S + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = dialled.clone();
    let client = Client::memory(move |_| {
        let (ours, theirs) = duplex(1 << 12);
        tokio::spawn(serve(count.fetch_add(1, Relaxed), theirs));
        Ok(Io::Memory(ours))
    });
    (client, dialled)
}

fn request(body: Body) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/x?y".parse().unwrap();
    let host = HeaderValue::from_static("w");
    request.headers_mut().insert(http::header::HOST, host);
    request
}

async fn ask(client: &Client, request: Request) -> Result<Response, Error> {
    HttpService::new(client.clone()).send(request).await
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Reads up to and with `end`. `None`: the connection ended before.
async fn until(io: &mut DuplexStream, end: &str) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(read).unwrap())
}

/// Reads whatever comes until the connection ends, and says how much it was.
async fn drained(mut io: DuplexStream) -> usize {
    let mut all = Vec::new();
    let _ = io.read_to_end(&mut all).await;
    all.len()
}

fn large(size: usize) -> Body {
    let frames = vec![Bytes::from(vec![b'x'; 1000]); size / 1000];
    Body::frames(frames.into_iter().map(|bytes| Ok(Frame::data(bytes))))
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_connection_carries_one_exchange_after_the_other() {
    let (client, dialled) = endpoint(|_, mut io| async move {
        let head = "POST /x?y HTTP/1.1\r\nhost: w\r\ncontent-length: 5\r\n\r\nhello";
        while let Some(asked) = until(&mut io, "hello").await {
            assert_eq!(asked, head);
            // In pieces, so that the body is read by whoever wants it.
            for piece in [
                "HTTP/1.1 200 Fine\r\nContent-Le",
                "ngth: 4\r\n\r\n",
                "ab",
                "cd",
            ] {
                io.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..3 {
        let response = ask(&client, request(Body::full("hello"))).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.body().size_hint().exact(), Some(4));
        assert_eq!(text(response).await, "abcd");
        assert_eq!(client.counts().0, 1);
    }
    assert_eq!(dialled.load(Relaxed), 1);
}

#[tokio::test]
async fn what_an_idle_connection_says_is_nobodys_answer() {
    for unasked in [&b""[..], OK, b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let (client, dialled) = endpoint(move |number, mut io| {
            let told = told.clone();
            async move {
                until(&mut io, "\r\n\r\n").await;
                io.write_all(OK).await.unwrap();
                if number > 0 {
                    drained(io).await;
                    return;
                }
                tokio::task::yield_now().await;
                // And ends the connection.
                io.write_all(unasked).await.unwrap();
                drop(io);
                told.send(()).unwrap();
            }
        });
        let first = ask(&client, request(Body::empty())).await.unwrap();
        assert_eq!(text(first).await, "hi");
        ended.recv().await.unwrap();
        let second = ask(&client, request(Body::empty())).await.unwrap();
        assert_eq!(text(second).await, "hi");
        assert_eq!(dialled.load(Relaxed), 2);
    }
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_its_answer() {
    let (told, mut read) = tokio::sync::mpsc::unbounded_channel();
    let (client, dialled) = endpoint(move |_, mut io| {
        let told = told.clone();
        async move {
            while until(&mut io, "\r\n\r\n").await.is_some() {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na";
                io.write_all(head).await.unwrap();
                let body = until(&mut io, "0\r\n\r\n").await.unwrap();
                told.send(body.len()).unwrap();
                io.write_all(b"bc").await.unwrap();
            }
        }
    });
    for _ in 0..2 {
        let response = ask(&client, request(large(50_000))).await.unwrap();
        assert!(read.recv().await.unwrap() > 50_000, "all of it");
        assert_eq!(text(response).await, "abc");
        assert_eq!(client.counts().0, 1);
    }
    assert_eq!(dialled.load(Relaxed), 1);
}

#[tokio::test]
async fn an_answer_that_ends_first_waits_for_the_upload_before_the_connection_is_used_again() {
    let (client, dialled) = endpoint(|_, mut io| async move {
        while until(&mut io, "\r\n\r\n").await.is_some() {
            io.write_all(OK).await.unwrap();
            if until(&mut io, "0\r\n\r\n").await.is_none() {
                return;
            }
        }
    });
    let response = ask(&client, request(large(50_000))).await.unwrap();
    assert_eq!(text(response).await, "hi");
    while client.counts().0 == 0 {
        tokio::task::yield_now().await;
    }
    let response = ask(&client, request(large(50_000))).await.unwrap();
    assert_eq!(text(response).await, "hi");
    assert_eq!(dialled.load(Relaxed), 1);
}

#[tokio::test]
async fn an_answer_is_heard_although_the_request_was_not() {
    for early in [
        &b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nhi"[..],
        b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 413 No\r\n\r\nhi",
    ] {
        let (client, _) = endpoint(move |_, mut io| async move {
            until(&mut io, "\r\n\r\n").await;
            io.write_all(early).await.unwrap();
        });
        for _ in 0..3 {
            let response = ask(&client, request(large(50_000))).await.unwrap();
            assert_eq!(response.status(), 413);
            assert_eq!(text(response).await, "hi");
            assert_eq!(client.counts().0, 0);
        }
    }
}

#[tokio::test]
async fn whoever_leaves_takes_the_connection_along() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let (client, _) = endpoint(move |number, mut io| {
        let told = told.clone();
        async move {
            until(&mut io, "\r\n\r\n").await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
            if number != 0 {
                io.write_all(answer).await.unwrap();
            }
            drained(io).await;
            told.send(number).unwrap();
        }
    });
    // While the answer is waited for.
    let waiting = ask(&client, request(Body::empty()));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(20), waiting).await;
    assert!(waited.is_err());
    assert_eq!(ended.recv().await, Some(0));
    // While it is read.
    drop(ask(&client, request(Body::empty())).await.unwrap());
    assert_eq!(ended.recv().await, Some(1));
    // And while the request is still being sent.
    let unfinished = Body::frames_then_nothing([Ok(Frame::data("a".into()))]);
    drop(ask(&client, request(unfinished)).await.unwrap());
    assert_eq!(ended.recv().await, Some(2));
    assert_eq!(client.counts().0, 0);
}

#[tokio::test]
async fn an_exchange_that_is_cut_off_is_reset_and_a_connection_at_rest_ends() {
    for (said, expected) in [
        ("", Err(io::ErrorKind::ConnectionReset)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            Err(io::ErrorKind::ConnectionReset),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Ok(0)),
        ("HTTP/1.1 200 OK\r\n\r\nab", Ok(0)),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let client = Client::memory(move |_| {
            let tcp = std::net::TcpStream::connect(at).unwrap();
            tcp.set_nonblocking(true).unwrap();
            Ok(Io::Tcp(tokio::net::TcpStream::from_std(tcp).unwrap()))
        });
        let mut asking = Box::pin(async move {
            let answer = ask(&client, request(Body::empty())).await.unwrap();
            if !said.contains("Length: 5") {
                assert_eq!(text(answer).await, "ab");
            }
        });
        let mut server = {
            let accepted = listener.accept();
            let (accepted, _) = tokio::select! {
                accepted = accepted => accepted.unwrap(),
                () = &mut asking => panic!("nobody has answered"),
            };
            accepted
        };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            tokio::select! {
                byte = server.read_u8() => head.push(byte.unwrap()),
                () = &mut asking => panic!("nobody has answered"),
            }
        }
        server.write_all(said.as_bytes()).await.unwrap();
        match said {
            "" => drop(asking),
            text if text.contains("Length") => asking.await,
            _ => {
                server.shutdown().await.unwrap();
                asking.await;
            }
        }
        let ended = server.read(&mut [0]).await.map_err(|error| error.kind());
        assert_eq!(ended, expected, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_is_over_has_to_keep_moving() {
    let early: &[u8] = b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n";
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let (client, _) = endpoint(move |_, mut io| {
        let told = told.clone();
        async move {
            until(&mut io, "\r\n\r\n").await;
            io.write_all(early).await.unwrap();
            told.send(drained(io).await).unwrap();
        }
    });
    let ask_with = async |body| {
        let began = tokio::time::Instant::now();
        let response = ask(&client, request(body)).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), text(response).await.len()),
            (413, 0)
        );
        began
    };
    let silent = Body::frames_then_nothing([Ok(Frame::data("a".into()))]);
    let began = ask_with(silent).await;
    assert!(ended.recv().await.unwrap() > 0);
    assert_eq!(began.elapsed().as_secs(), beside::STANDS_STILL.as_secs());
    let every = beside::STANDS_STILL / 2;
    let began = ask_with(Body::ticking(every, 4)).await;
    ended.recv().await.unwrap();
    assert_eq!(
        began.elapsed().as_secs(),
        (4 * every + beside::STANDS_STILL).as_secs()
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_off_takes_its_answer_along() {
    let (client, _) = endpoint(|_, mut io| async move {
        until(&mut io, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
        io.write_all(answer).await.unwrap();
        drained(io).await;
    });
    let gone = Err(Error::new(ErrorKind::ClientGone));
    let error = ask(&client, request(Body::frames([gone]))).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ClientGone);
    // Behind the head of the answer: its body waits for the endpoint, and the endpoint for the request.
    let mut late = Body::frames_then_nothing([Ok(Frame::data("a".into()))]);
    let limits = Limits {
        whole: Some(tokio::time::Instant::now() + std::time::Duration::from_secs(1)),
        ..Limits::default()
    };
    late.limit(Watch::new(limits, None, false));
    let response = ask(&client, request(late)).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    // The endpoint is not to blame.
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
}

#[tokio::test]
async fn failures_say_whose_they_are_and_whether_trying_again_helps() {
    use ErrorKind::{UpstreamProtocol, UpstreamReset};
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    let rows = [
        (b"".to_vec(), UpstreamReset),
        (b"HTTP/1.1 20".to_vec(), UpstreamReset),
        (interim.to_vec(), UpstreamReset),
        (b"SSH-2.0-x\r\n".to_vec(), UpstreamProtocol),
        (interim.repeat(MOST_INTERIM + 1), UpstreamProtocol),
        (b"HTTP/1.1 101 x\r\n\r\n".to_vec(), UpstreamProtocol),
    ];
    for (bytes, kind) in rows {
        let again = bytes.clone();
        let (client, _) = endpoint(move |_, mut io| {
            let bytes = again.clone();
            async move {
                until(&mut io, "\r\n\r\n").await;
                io.write_all(OK).await.unwrap();
                until(&mut io, "\r\n\r\n").await;
                let _ = io.write_all(&bytes).await;
            }
        });
        let first = ask(&client, request(Body::empty())).await.unwrap();
        assert_eq!(text(first).await, "hi");
        let error = ask(&client, request(Body::empty())).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        // Closed for being idle, most likely; once something was said it is not that.
        assert_eq!(error.retry_is_safe_if_idempotent(), bytes.is_empty());
        assert!(!error.retry_is_safe());
    }
}

#[tokio::test]
async fn one_that_ends_at_once_was_never_asked() {
    for said in [&b""[..], b"220 mail\r\n"] {
        let client = Client::memory(move |_| {
            let (ours, theirs) = duplex(100);
            let mut theirs = Io::Memory(theirs);
            let _ = at_once(|cx| Pin::new(&mut theirs).poll_write(cx, said));
            Ok(Io::Memory(ours))
        });
        let mut error = ask(&client, request(Body::full("x"))).await.unwrap_err();
        assert!(error.retry_is_safe());
        assert!(error.take_request().is_some());
    }
}

#[tokio::test]
async fn chunks_trailers_and_bodies_without_length_pass() {
    let (client, dialled) = endpoint(|number, mut io| async move {
        while let Some(asked) = until(&mut io, "\r\n\r\n").await {
            let answer: &[u8] = match (asked.starts_with("HEAD"), number) {
                (true, _) => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                (_, 0) => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nSum: 1\r\n\r\n"
                }
                _ => return io.write_all(b"HTTP/1.1 200 OK\r\n\r\nrest").await.unwrap(),
            };
            io.write_all(answer).await.unwrap();
        }
    });
    let mut head = request(Body::empty());
    *head.method_mut() = Method::HEAD;
    let response = ask(&client, head).await.unwrap();
    assert_eq!(response.headers()["content-length"], "9");
    assert_eq!(text(response).await, "");
    let response = ask(&client, request(Body::empty())).await.unwrap();
    let all = response.into_body().collect().await.unwrap();
    assert_eq!(all.trailers().unwrap()["sum"], "1");
    assert_eq!((all.to_bytes(), client.counts().0), ("ab".into(), 1));
    assert_eq!(dialled.load(Relaxed), 1);
    client.pool().retire();
    let response = ask(&client, request(Body::empty())).await.unwrap();
    assert_eq!(text(response).await, "rest");
    assert_eq!(client.counts().0, 0);
}

#[tokio::test]
async fn large_answers_pass_whole_however_long_they_are_said_to_be() {
    let body = |size: usize| {
        (0..size)
            .map(|at| b'a' + (at % 23) as u8)
            .collect::<Vec<_>>()
    };
    for size in [1, 8_000, 8_192, 9_000, 65_536, 500_000] {
        let (client, dialled) = endpoint(move |_, mut io| async move {
            until(&mut io, "\r\n\r\n").await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            io.write_all(head.as_bytes()).await.unwrap();
            io.write_all(&body(size)).await.unwrap();
            until(&mut io, "\r\n\r\n").await;
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            io.write_all(&body(size)).await.unwrap();
        });
        for _ in 0..2 {
            let answered = ask(&client, request(Body::empty())).await.unwrap();
            assert!(text(answered).await.as_bytes() == body(size), "{size}");
        }
        assert_eq!(dialled.load(Relaxed), 1);
    }
}

#[tokio::test]
async fn what_follows_a_granted_upgrade_belongs_to_the_other_protocol() {
    let (client, _) = endpoint(|_, mut io| async move {
        until(&mut io, "\r\n\r\n").await;
        let granted = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst ";
        io.write_all(granted).await.unwrap();
        assert_eq!(until(&mut io, "ping").await.unwrap(), "ping");
        io.write_all(b"pong").await.unwrap();
    });
    let mut asked = request(Body::empty());
    let value = HeaderValue::from_static;
    asked.headers_mut().insert("connection", value("upgrade"));
    asked.headers_mut().insert("upgrade", value("x"));
    let mut response = ask(&client, asked).await.unwrap();
    assert_eq!(response.status(), 101);
    let endpoint = response.extensions_mut().remove::<Far>().unwrap();
    let stream = None;
    let (mut ours, theirs) = duplex(100);
    tokio::spawn(crate::http::bridge::Upgrade { endpoint, stream }.run(theirs));
    ours.write_all(b"ping").await.unwrap();
    let mut all = String::new();
    ours.read_to_string(&mut all)
        .await
        .unwrap_or_else(|error| panic!("{all}: {error}"));
    assert_eq!(all, "first pong");
    assert_eq!(client.counts().0, 0);
}

#[tokio::test]
async fn an_exchange_is_small() {
    let (client, _) = endpoint(|_, io| async move { assert_eq!(drained(io).await, 0) });
    let conn = Conn::new(Io::Memory(duplex(1).0));
    let sending = send(conn, request(Body::empty()), client.pool());
    let sizes = (
        size_of_val(&sending),
        size_of::<Exchange>(),
        size_of::<Conn>(),
        size_of::<Answer>(),
    );
    println!("future, exchange, connection at rest, answer: {sizes:?}");
    assert!(
        sizes.0 <= 2048 && sizes.2 <= 256 && sizes.3 <= 512,
        "{sizes:?}"
    );
}
