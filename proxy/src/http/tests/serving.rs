//! The server's codec by itself: what becomes of a connection after answers of every kind, and of bodies that nobody reads.

use super::*;
use http_body::Frame;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

const GET: &str = "GET /next HTTP/1.1\r\nHost: w\r\n\r\n";

/// A client of a service that is a function.
fn serve<F, A>(answer: F) -> Proxy
where
    F: Fn(Request) -> A + Send + 'static,
    A: Future<Output = Result<Response, Error>> + Send + 'static,
{
    let service = HttpService::new(service_fn(answer));
    serving(service, connection(), HttpVersion::Http1)
}

fn text(request: &Request) -> Response {
    Response::new(Body::full(format!("<{}>", request.uri())))
}

/// Answers before it has read anything, and reads nothing.
async fn early(request: Request) -> Result<Response, Error> {
    Ok(text(&request))
}

fn post(fields: &str) -> String {
    format!("POST /post HTTP/1.1\r\nHost: w\r\n{fields}\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_small_body_that_nobody_reads_is_read_away() {
    for (fields, body) in [
        ("Content-Length: 10\r\n", "0123456789"),
        (
            "Transfer-Encoding: chunked\r\n",
            "2\r\nab\r\n0\r\nt: 1\r\n\r\n",
        ),
    ] {
        for split in [0, 1, body.len()] {
            let mut proxy = serve(early);
            proxy.send(&(post(fields) + &body[..split])).await;
            let answer = proxy.until("</post>").await;
            assert!(!answer.contains("connection: close"), "{answer}");
            proxy.send(&body[split..]).await;
            proxy.send(GET).await;
            proxy.until("</next>").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_that_nobody_reads_ends_the_connection_but_not_the_answer() {
    let mut proxy = serve(early);
    proxy.send(&post("Content-Length: 1000000\r\n")).await;
    let answer = proxy.until("</post>").await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    // More than the pipe holds: somebody takes it in, so that no reset overtakes the answer.
    let much = "x".repeat(1 << 18);
    proxy.send(&much).await;
    assert_eq!(proxy.rest().await, "");
    // And not for ever.
    proxy.serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let mut proxy = serve(early);
    proxy.send(&post("Content-Length: 5\r\n")).await;
    proxy.until("</post>").await;
    assert_eq!(proxy.rest().await, "");
    proxy.serving.await.unwrap().unwrap();

    // A client that waits to be told may send it or not.
    let mut proxy = serve(early);
    let fields = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    proxy.send(&post(fields)).await;
    let answer = proxy.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_may_be_read_by_another_task_after_the_answer() {
    let (done, read) = tokio::sync::mpsc::unbounded_channel();
    let answer = move |request: Request| {
        let done = done.clone();
        async move {
            let answer = text(&request);
            tokio::spawn(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let _ = done.send(body);
            });
            Ok(answer)
        }
    };
    let (mut proxy, mut read) = (serve(answer), read);
    for size in [1, 5, 200_000] {
        proxy
            .send(&post(&format!("Content-Length: {size}\r\n")))
            .await;
        proxy.until("</post>").await;
        for piece in "x".repeat(size).as_bytes().chunks(30_000) {
            proxy.send(std::str::from_utf8(piece).unwrap()).await;
        }
        assert_eq!(read.recv().await.unwrap().len(), size);
        proxy.send(GET).await;
        proxy.until("</next>").await;
        assert_eq!(read.recv().await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_body_that_somebody_keeps_does_not_keep_the_connection() {
    let (give, take) = oneshot::channel();
    let give = parking_lot::Mutex::new(Some(give));
    let answer = move |request: Request| {
        let answer = Ok(text(&request));
        let _ = give
            .lock()
            .take()
            .map(|give| give.send(request.into_body()));
        async { answer }
    };
    let mut proxy = serve(answer);
    proxy.send(&post("Content-Length: 5\r\n")).await;
    let body = take.await.unwrap();
    proxy.until("</post>").await;
    proxy.serving.abort();
    assert_eq!(proxy.rest().await, "");
    let error = body.collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientGone);
}

#[tokio::test]
async fn whoever_waits_for_a_body_hears_that_its_connection_is_gone() {
    let (give, take) = oneshot::channel();
    let give = parking_lot::Mutex::new(Some(give));
    let answer = move |request: Request| {
        let answer = Ok(text(&request));
        let reading = tokio::spawn(request.into_body().collect());
        let _ = give.lock().take().map(|give| give.send(reading));
        async { answer }
    };
    let mut proxy = serve(answer);
    proxy.send(&post("Content-Length: 5\r\n")).await;
    let reading = take.await.unwrap();
    proxy.until("</post>").await;
    proxy.serving.abort();
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientGone);
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    for (request, status, expected) in [
        ("HEAD", 200, "content-length: 5"),
        ("GET", 204, "HTTP/1.1 204 No Content"),
        ("GET", 304, "content-length: 5"),
    ] {
        let answer = move |_| {
            let answer = http::Response::builder().status(status);
            let answer = answer.header("content-length", "5").body(Body::empty());
            std::future::ready(Ok(answer.unwrap()))
        };
        let mut proxy = serve(answer);
        let request = format!("{request} / HTTP/1.1\r\nHost: w\r\n\r\n");
        proxy.send(&request.repeat(2)).await;
        proxy.io.shutdown().await.unwrap();
        let answers = proxy.rest().await;
        assert_eq!(answers.matches(expected).count(), 2, "{answers}");
        assert_eq!(answers.matches("\r\n\r\n").count(), 2, "{answers}");
        assert_eq!(answers.matches("\r\ndate: ").count(), 2, "{answers}");
    }
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let mut proxy = serve(early);
    for _ in 0..2 {
        proxy
            .send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let answer = proxy.until("</old>").await;
        assert!(answer.contains("connection: keep-alive\r\n"), "{answer}");
    }
    // Without a length, the end of the connection is the end of the answer.
    let streamed = |_| async {
        let frames = ["a", "b"].map(|text| Ok(Frame::data(Bytes::from(text))));
        Ok(Response::new(Body::frames(frames)))
    };
    let mut proxy = serve(streamed);
    proxy
        .send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let answer = proxy.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nab"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_is_not_ended() {
    // What has not left yet is not begun.
    for (size, whole) in [(10, 0), (70_000, 70_000)] {
        let broken = move |_| async move {
            let error = Error::new(ErrorKind::UpstreamReset);
            let frames = [Ok(Frame::data(Bytes::from(vec![b'x'; size]))), Err(error)];
            Ok(Response::new(Body::frames(frames)))
        };
        let mut proxy = serve(broken);
        proxy.send(GET).await;
        let answer = proxy.rest().await;
        assert_eq!(answer.matches('x').count(), whole);
        assert!(!answer.ends_with("0\r\n\r\n"));
        let error = proxy.serving.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UpstreamReset);
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_reset_where_it_is_cut_off() {
    let endless = |_| async {
        let frames = [Ok(Frame::data(Bytes::from("begun")))];
        Ok::<_, Error>(Response::new(Body::frames_then_nothing(frames)))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (_drain, watch) = Drain::new();
    let conn = connection();
    let serving = tokio::spawn(server::serve(
        Io::from(listener.accept().await.unwrap().0),
        HttpVersion::Http1,
        HttpService::new(service_fn(endless)),
        conn.clone(),
        watch,
    ));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"begun") {
        assert!(client.read_buf(&mut read).await.unwrap() > 0);
    }
    conn.closed.close(crate::connection::CloseReason::Withdrawn);
    serving.await.unwrap().unwrap();
    let error = client.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_longer_or_shorter_than_it_said_breaks() {
    for length in ["2", "4"] {
        let wrong = move |_| async move {
            let frames = [Ok(Frame::data(Bytes::from("abc")))];
            let answer = http::Response::builder().header("content-length", length);
            Ok(answer.body(Body::frames(frames)).unwrap())
        };
        let mut proxy = serve(wrong);
        proxy.send(&GET.repeat(2)).await;
        let answer = proxy.rest().await;
        assert!(!answer.contains("abc"), "{answer}");
        let error = proxy.serving.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UpstreamProtocol);
    }
}

#[tokio::test]
async fn a_client_that_resets_takes_its_request_with_it() {
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (asked, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asks, drops) = (asked.clone(), dropped.clone());
    let never = move |_| {
        asks.notify_one();
        let guard = OnDrop(drops.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Err(Error::new(ErrorKind::Internal))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (_drain, watch) = Drain::new();
    let serving = tokio::spawn(server::serve(
        Io::from(listener.accept().await.unwrap().0),
        HttpVersion::Http1,
        HttpService::new(service_fn(never)),
        connection(),
        watch,
    ));
    client.write_all(GET.as_bytes()).await.unwrap();
    asked.notified().await;
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    dropped.notified().await;
    let error = serving.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientGone);
}

#[tokio::test]
async fn many_pipelined_requests_are_answered_in_order_and_in_turns() {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request| {
        let number = count.fetch_add(1, Relaxed);
        async move {
            if number.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            let text = format!("<{number} {}>", request.uri());
            Ok(Response::new(Body::full(text)))
        }
    };
    let mut proxy = serve(answer);
    let requests: String = (0..500)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: w\r\n\r\n"))
        .collect();
    let (mut read, mut write) = tokio::io::split(&mut proxy.io);
    let sending = async {
        write.write_all(requests.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut answers = String::new();
    let (_, end) = tokio::join!(sending, read.read_to_string(&mut answers));
    end.unwrap();
    let mut rest = answers.as_str();
    for n in 0..500 {
        let at = rest.find(&format!("<{n} /{n}>"));
        rest = &rest[at.unwrap_or_else(|| panic!("{n} is missing"))..];
    }
}

#[tokio::test]
async fn every_way_of_cutting_a_conversation_gives_the_same_answers() {
    let bytes = "\r\nPOST /1 HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\n\r\nabc\
        POST /2 HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\n\
        GET /3 HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n";
    for size in 1..bytes.len() {
        let mut proxy = serve(echo);
        let (read, mut write) = tokio::io::split(&mut proxy.io);
        let sending = async {
            for piece in bytes.as_bytes().chunks(size) {
                write.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut answers = String::new();
        let mut read = read;
        let (_, end) = tokio::join!(sending, read.read_to_string(&mut answers));
        end.unwrap();
        let bodies = answers.matches('<').count();
        let (one, two) = (
            "<POST /1 host=w,content-length=3 [abc]>",
            "[abc]>HTTP/1.1 200",
        );
        assert!(
            answers.contains(one) && answers.contains(two),
            "{size}: {answers}"
        );
        assert!(
            answers.ends_with("<GET /3 host=w,connection=close []>"),
            "{size}: {answers}"
        );
        assert_eq!(bodies, 3, "{size}: {answers}");
    }
}
