//! Tunnels to a listener that stands for a peer's proxy.
#![allow(clippy::unwrap_used)]

use super::*;

/// A listener that stands for the proxy of `web`: echoes what comes on its streams, or as bytes.
struct FakePeer {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
}

impl FakePeer {
    async fn start(tls: Tls, answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, streams) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let peer = Self {
            address,
            accepted: accepted.clone(),
            streams: streams.clone(),
        };
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Relaxed);
                let acceptor = TlsAcceptor::from(tls.server().unwrap());
                let streams = streams.clone();
                tokio::spawn(async move {
                    let Ok(mut io) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let alpn = io.get_ref().1.alpn_protocol().and_then(Alpn::from_bytes);
                    if alpn == Some(Alpn::Opaque) {
                        let (mut r, mut w) = tokio::io::split(io);
                        let _ = tokio::io::copy(&mut r, &mut w).await;
                        return;
                    }
                    let mut heard = Vec::new();
                    if !answers {
                        let _ = io.read_to_end(&mut heard).await;
                        return;
                    }
                    let mut connection = server::settings().handshake(io).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        streams.fetch_add(1, Relaxed);
                        let send = respond.send_response(Response::new(()), false).unwrap();
                        let stream = Stream::new(send, request.into_body(), None);
                        tokio::spawn(async move {
                            let (mut r, mut w) = tokio::io::split(stream);
                            let _ = tokio::io::copy(&mut r, &mut w).await;
                        });
                    }
                });
            }
        });
        peer
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            identity: Some(id("web")),
            namespace: "default".into(),
            pod: "web-0".into(),
            workload: "sa/web".into(),
            zone: String::new(),
            weight: 1,
            protocol: Protocol::Opaque,
        }
    }

    fn seen(&self) -> (usize, usize) {
        (self.accepted.load(Relaxed), self.streams.load(Relaxed))
    }
}

fn tunnels(tls: &Tls) -> (Tunnels, Arc<Metrics>) {
    let metrics = Metrics::new("shop");
    let connector = Connector::without_redirection(tls.clone(), None, metrics.clone());
    (Tunnels::new(connector, metrics.clone()), metrics)
}

async fn echoes(io: &mut Io) {
    io.write_all(b"hello").await.unwrap();
    io.flush().await.unwrap();
    let mut heard = [0; 5];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn connections_share_a_tunnel_until_our_certificate_changes() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), true).await;
    let tls = workload(&ca, "api", GOOD, &[&ca]);
    let (tunnels, metrics) = tunnels(&tls);
    let to = peer.endpoint();
    let opened = tokio::join!(
        tunnels.connect(&to),
        tunnels.connect(&to),
        tunnels.connect(&to)
    );
    let mut all = [opened.0, opened.1, opened.2].map(|carrier| carrier.unwrap().io);
    for io in &mut all {
        assert!(io.is_mutual());
        echoes(io).await;
    }
    assert_eq!(peer.seen(), (1, 3), "one handshake, three streams");
    assert_eq!(metrics.tunnels_open(Direction::Outbound).get(), 1.0);

    let renewed = ca.issue(&[id("api").as_str()], GOOD.0, GOOD.1);
    tls.set_certificate(id("api"), renewed.chain, renewed.key)
        .unwrap();
    let mut new = tunnels.connect(&to).await.unwrap().io;
    echoes(&mut new).await;
    assert_eq!(peer.seen(), (2, 4), "new streams are under today's trust");
    for io in &mut all {
        echoes(io).await;
    }
    assert_eq!(metrics.tunnel_streams(Direction::Outbound).get(), 4);
}

#[tokio::test]
async fn beyond_its_streams_a_tunnel_is_followed_by_another() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), true).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let mut held = Vec::new();
    for _ in 0..=MAX_STREAMS {
        held.push(tunnels.connect(&peer.endpoint()).await.unwrap().io);
    }
    assert_eq!(peer.seen(), (2, MAX_STREAMS + 1));
    drop(held);
    let _again = tunnels.connect(&peer.endpoint()).await.unwrap().io;
    assert_eq!(peer.seen().0, 2, "places come back");
}

/// A server whose certificate came after it was told to take no tunnels.
fn without_tunnels(ca: &TestCa) -> Tls {
    let web = workload(ca, "web", GOOD, &[ca]);
    web.refuse_tunnels();
    let issued = ca.issue(&[id("web").as_str()], GOOD.0, GOOD.1);
    web.set_certificate(id("web"), issued.chain, issued.key)
        .unwrap();
    web
}

#[tokio::test]
async fn a_peer_that_speaks_no_tunnel_is_called_directly() {
    let ca = TestCa::new();
    let peer = FakePeer::start(without_tunnels(&ca), true).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    for _ in 0..3 {
        let mut io = tunnels.connect(&peer.endpoint()).await.unwrap().io;
        assert!(matches!(io, Io::TlsClient(_)));
        echoes(&mut io).await;
    }
    assert_eq!(peer.seen(), (3, 0));
}

#[tokio::test]
async fn a_peer_without_tunnels_is_forgotten_a_while_after_its_last_call() {
    let ca = TestCa::new();
    let peer = FakePeer::start(without_tunnels(&ca), true).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let left_after = |seconds| {
        tunnels.sweep(std::time::Instant::now() + Duration::from_secs(seconds));
        tunnels.peers()
    };
    let carrier = tunnels.connect(&peer.endpoint()).await.unwrap();
    assert_eq!(left_after(100), 1, "a connection is open");
    drop(carrier);
    assert_eq!((left_after(10), left_after(100)), (1, 0));
}

#[tokio::test]
async fn who_switched_it_off_offers_none() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), true).await;
    let tls = workload(&ca, "api", GOOD, &[&ca]);
    tls.refuse_tunnels();
    let (tunnels, _) = tunnels(&tls);
    let mut io = tunnels.connect(&peer.endpoint()).await.unwrap().io;
    assert!(matches!(io, Io::TlsClient(_)));
    echoes(&mut io).await;
}

#[tokio::test]
async fn a_tunnel_that_does_not_answer_is_not_relied_on() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), false).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let mut io = tunnels.connect(&peer.endpoint()).await.unwrap().io;
    assert!(matches!(io, Io::TlsClient(_)));
    echoes(&mut io).await;
    assert_eq!(peer.seen(), (2, 0));
}

#[tokio::test]
async fn one_finds_out_for_all_that_tunnels_are_not_answered() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), false).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let to = peer.endpoint();
    let opened = tokio::join!(
        tunnels.connect(&to),
        tunnels.connect(&to),
        tunnels.connect(&to)
    );
    let later = tunnels.connect(&to).await;
    for carrier in [opened.0, opened.1, opened.2, later] {
        let mut io = carrier.unwrap().io;
        assert!(matches!(io, Io::TlsClient(_)));
        echoes(&mut io).await;
    }
    assert_eq!(peer.seen(), (5, 0), "one tunnel, and four connections");
}

#[tokio::test]
async fn all_who_waited_hear_why_there_is_no_tunnel() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "other", GOOD, &[&ca]), true).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let to = peer.endpoint();
    let (one, two) = tokio::join!(tunnels.connect(&to), tunnels.connect(&to));
    for failed in [one, two] {
        assert_eq!(failed.err().unwrap().kind(), ErrorKind::PeerIdentity);
    }
    assert_eq!(peer.seen().0, 1);
}

#[tokio::test]
async fn a_certificate_of_the_past_lasts_no_longer() {
    assert!(end_of(0) < std::time::SystemTime::now());
    assert_eq!(end_of(-5), std::time::SystemTime::UNIX_EPOCH);
    let tls = workload(&TestCa::new(), "api", GOOD, &[]);
    let epoch = tls.epoch();
    tls.newer_than(epoch - 1).await;
    tls.drop_certificate();
    tls.newer_than(epoch).await;
}

#[tokio::test]
async fn bulk_is_followed_by_connections_of_their_own_until_small_ones_come() {
    let ca = TestCa::new();
    let peer = FakePeer::start(workload(&ca, "web", GOOD, &[&ca]), true).await;
    let (tunnels, _) = tunnels(&workload(&ca, "api", GOOD, &[&ca]));
    let shared = async |bytes| {
        let carrier = tunnels.connect(&peer.endpoint()).await.unwrap();
        carrier.size.unwrap().add(bytes);
        matches!(carrier.io, Io::Stream(_))
    };
    assert!(shared(10 << 20).await, "nobody knew");
    assert!(!shared(10 << 20).await);
    for _ in 0..8 {
        assert!(!shared(1).await);
    }
    assert!(shared(1).await);
}
