//! Connections of the application while the controller is away.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;
use crate::connect::Connector;
use crate::connection::CloseReason;
use crate::discover::{ControlClient, Discover, Driver, Whoami};
use crate::metrics::Metrics;
use crate::room::Room;
use crate::stack::Shared;
use crate::tasks::Drain;
use crate::tls::Tls;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use weft_proxy_api::names::proxy_env as env;

/// A worker that never hears of the controller.
fn lonely_worker() -> (Arc<Worker>, Drain, Driver) {
    let settings = [
        (env::WORKLOAD, "shop/web-0"),
        (env::CONTROL_ADDR, "127.0.0.1:1"),
        (env::TOKEN_FILE, "/nowhere"),
        (env::OPAQUE_PORTS, "3306"),
    ];
    let get = |name: &str| {
        settings
            .iter()
            .find(|(at, _)| *at == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let config = Arc::new(Config::read(get).unwrap());
    let metrics = Metrics::new("shop");
    let client = ControlClient::new("127.0.0.1:1".into(), None, Arc::new(|_| None));
    let whoami = Whoami {
        namespace: "shop".into(),
        pod: "web-0".into(),
        zone: String::new(),
    };
    let (discover, driver) = Discover::new(client, whoami, metrics.clone());
    let tls = Tls::new("cluster.local", Vec::new());
    let connector = Connector::new(tls.clone(), None, metrics.clone());
    let shared = Shared::new(
        metrics,
        connector,
        discover.inbound(),
        None,
        Default::default(),
    );
    let (drain, watch) = Drain::new();
    (
        Worker::new(shared, discover, tls, config, watch, Room::new(100)),
        drain,
        driver,
    )
}

/// What a client hears that says `words` to `target`.
async fn hears(target: &str, words: &str) -> String {
    let (worker, _drain, _driver) = lonely_worker();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (tcp, from) = listener.accept().await.unwrap();
    let target: SocketAddr = target.parse().unwrap();
    let accepted = Accepted {
        direction: Direction::Outbound,
        client: from,
        target,
        dial: target,
        fixed: false,
    };
    let serving = tokio::spawn(async move {
        match serve(&worker, tcp, accepted).await? {
            Some(next) => next.run(&worker).await,
            None => Ok(()),
        }
    });
    client.write_all(words.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // A reset is as good as an end.
    let _ = client.read_to_end(&mut heard).await;
    let _ = serving.await.unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn without_policy_http_is_told_so_and_everybody_else_is_let_go() {
    let ask = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let answer = hears("10.96.0.1:80", ask).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("weft-error: E126 control-unreachable"),
        "{answer}"
    );
    assert_eq!(hears("10.96.0.1:3306", ask).await, "");
    assert_eq!(hears("10.96.0.1:80", "\0binary\0").await, "");
    assert_eq!(hears("10.96.0.1:80", "").await, "");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_whose_server_has_gone_without_a_word_is_let_go() {
    let (worker, _drain, _driver) = lonely_worker();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let (mut tcp, _) = listener.accept().await.unwrap();
    let (server, gone) = tokio::io::duplex(64);
    drop(gone);
    let edge = worker.metrics.inbound_edge(None);
    let upstream = Upstream::local(&worker.shared, Io::Memory(server), edge);
    let mut bytes = BytesMut::new();
    let spoke = whoever_speaks(&worker, Direction::Inbound, &mut tcp, &mut bytes, upstream);
    let opening = tokio::time::timeout(2 * GIVE_UP, spoke).await;
    assert!(matches!(opening, Ok(Ok(Opening::Nobody))));
}

#[tokio::test]
async fn bytes_that_outlive_the_drain_are_cut_off() {
    let (worker, _drain, _driver) = lonely_worker();
    let target = SocketAddr::from(([10, 96, 0, 1], 3306));
    let accepted = Accepted {
        direction: Direction::Outbound,
        client: ([127, 0, 0, 1], 40_000).into(),
        target,
        dial: target,
        fixed: false,
    };
    let conn = worker.connection(&accepted, Peer::Plain(NoTls::Local));
    let (client, _theirs) = tokio::io::duplex(64);
    let (app, _its) = tokio::io::duplex(64);
    let edge = worker.metrics.inbound_edge(None);
    let upstream = Upstream::local(&worker.shared, Io::Memory(app), edge);
    conn.closed.close(CloseReason::Shutdown);
    let relay = Relay::new(Io::Memory(client), upstream, conn, "opaque");
    let Err(End::Failed(error)) = relay.run(&worker).await else {
        panic!()
    };
    assert_eq!(error.code(), "E119");
}

#[tokio::test]
async fn the_application_does_not_reach_its_own_proxy_through_it() {
    let (worker, _drain, _driver) = lonely_worker();
    for port in [4140, 4143, 4191] {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let accepted = Accepted {
            direction: Direction::Outbound,
            client: ([127, 0, 0, 1], 40_000).into(),
            target,
            dial: target,
            fixed: false,
        };
        let End::Failed(error) = refuse_loop(&worker, &accepted).unwrap_err() else {
            panic!("{port}")
        };
        assert_eq!(error.code(), "E112");
    }
}

#[tokio::test]
async fn who_comes_and_goes_without_a_word_does_not_count_as_the_first_to_speak() {
    let (worker, _drain, _driver) = lonely_worker();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = Known::new(crate::policy::Destination::new(address));
    for (words, first) in [("", First::Unknown), ("\0", First::Client)] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(words.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut tcp, _) = listener.accept().await.unwrap();
        // However slow we are, the client has said all it will.
        tcp.readable().await.unwrap();
        let mut bytes = BytesMut::new();
        let opening = first_words(&worker, &known, 0, &mut tcp, &mut bytes).await;
        assert_eq!(opening.unwrap().label() == "silent", words.is_empty());
        assert_eq!(known.first(), first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_cannot_be_handed_over_can_be_made_again() {
    // Nobody takes wishes: more than may wait cannot be handed over.
    let (worker, _drain, _driver) = lonely_worker();
    let mut overloaded = None;
    for port in 1..3000 {
        let target = SocketAddr::from(([10, 96, 0, 1], port));
        let asking = worker.discover.outbound(target);
        // Told at once, or left waiting for an answer.
        if let Some(Err(error)) = futures_util::FutureExt::now_or_never(asking)
            && error.kind() == ErrorKind::Overloaded
        {
            overloaded = Some(target);
            break;
        }
    }
    assert!(worker.discover.asked(overloaded.unwrap()).is_none());
}
