//! Connections that hold nothing while nobody asks anything, and take it again for the next request.

use super::super::h1::buffer::lent;
use super::*;
use crate::connection::CloseReason;
use crate::tasks::Drain;

const GET: &str = "GET /a HTTP/1.1\r\nHost: w\r\n\r\n";
/// Far longer than anything waits for.
const LONG: Duration = Duration::from_secs(6);

async fn asked_once() -> Proxy {
    let (client, _) = application(echo, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send(GET).await;
    proxy.until(">").await;
    proxy
}

async fn at_rest() -> Proxy {
    let proxy = asked_once().await;
    tokio::time::sleep(LONG).await;
    assert_eq!(lent(), 0);
    proxy
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_rests_and_is_served_again_however_the_request_comes() {
    let mut proxy = asked_once().await;
    for _ in 0..3 {
        tokio::time::sleep(LONG).await;
        // The application's side of the test is such a connection, too.
        assert_eq!(lent(), 0);
        for piece in GET.as_bytes().chunks(5) {
            proxy.send(std::str::from_utf8(piece).unwrap()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(lent() > 0 || piece.ends_with(b"\n"));
        }
        assert!(proxy.until(">").await.contains("<GET /a "));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_does_not_rest() {
    let slow = async |request: Request| {
        let body = request.into_body().collect().await?.to_bytes();
        tokio::time::sleep(LONG).await;
        let text = format!("{} bytes", body.len());
        Ok(Response::new(Body::full(text)))
    };
    let (client, dialled) = application(slow, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send("POST /").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    proxy
        .send(" HTTP/1.1\r\nHost: w\r\nContent-Length: 4\r\n\r\n")
        .await;
    for _ in 0..4 {
        tokio::time::sleep(LONG).await;
        assert!(lent() > 0);
        proxy.send("x").await;
    }
    let answer = proxy.until("bytes").await;
    assert!(answer.ends_with("4 bytes"), "{answer}");
    assert_eq!(dialled.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_slowly_comes_whole() {
    let ticks = async |_| Ok(Response::new(Body::ticking(LONG, 3)));
    let (client, _) = application(ticks, HttpVersion::Http1);
    let mut proxy = proxy(client, HttpVersion::Http1);
    proxy.send(GET).await;
    for _ in 0..3 {
        proxy.until("tick").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_has_ten_seconds_after_a_rest_as_well() {
    let mut proxy = at_rest().await;
    proxy.send("GET / HTTP/1.1\r\nHo").await;
    let answer = proxy.rest().await;
    assert!(answer.contains("E124 header-timeout"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_resting_connection_ends_with_the_drain_the_signal_or_the_client() {
    let mut proxy = at_rest().await;
    proxy.drain.start();
    assert_eq!(proxy.rest().await, "");
    proxy.serving.await.unwrap().unwrap();

    let mut proxy = at_rest().await;
    proxy.io.shutdown().await.unwrap();
    assert_eq!(proxy.rest().await, "");
    proxy.serving.await.unwrap().unwrap();

    let (conn, (mut io, theirs)) = (connection(), duplex(1 << 16));
    let (_drain, watch) = Drain::new();
    let service = HttpService::new(service_fn(echo));
    let serving = server::serve(
        Io::Memory(theirs),
        HttpVersion::Http1,
        service,
        conn.clone(),
        watch,
    );
    let serving = tokio::spawn(serving);
    tokio::time::sleep(LONG).await;
    conn.closed.close(CloseReason::Withdrawn);
    assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resting_connection_that_was_handed_over_gets_one_more_answer() {
    let mut proxy = at_rest().await;
    proxy.drain.hand_over();
    tokio::time::sleep(LONG).await;
    proxy.send(GET).await;
    let answer = proxy.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with(">"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_after_a_rest_turns_into_bytes() {
    let (client, _) = switching(SWITCH);
    let mut proxy = proxy(client, HttpVersion::Http1);
    tokio::time::sleep(LONG).await;
    assert_eq!(lent(), 0);
    proxy
        .send("GET /ws HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst;")
        .await;
    let answer = proxy.until("first;").await;
    assert!(answer.ends_with("hello;first;"), "{answer}");
    tokio::time::sleep(LONG).await;
    proxy.send("later;").await;
    assert_eq!(proxy.until("later;").await, "later;");
}
