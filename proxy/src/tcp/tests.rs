//! Connections of bytes to an endpoint that judges our certificate, over loopback.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::connect::Connector;
use crate::metrics::Metrics;
use crate::tls::Alpn;
use crate::tls::tests::{GOOD, TestCa, id, workload};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::Endpoint;
use weft_proxy_api::policy::settings::Ejection;

/// A proxy of `web` that echoes to whom it trusts.
async fn echoing(tls: crate::tls::Tls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(tls.server().unwrap());
            if let Ok(io) = acceptor.accept(tcp).await {
                let (mut r, mut w) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut r, &mut w).await;
            }
        }
    });
    at
}

/// A set of one endpoint that is set aside by its first failure.
fn strict(address: SocketAddr) -> Arc<EndpointSet> {
    let set = EndpointSet::new("shop/web:80", Arc::default());
    let ejection = Ejection {
        consecutive: 1,
        min_healthy_percent: 0,
        ..Ejection::default()
    };
    set.configure(&Default::default(), ejection);
    set.update(vec![Endpoint {
        address,
        identity: Some(id("web")),
        namespace: "shop".into(),
        pod: "web-0".into(),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Opaque,
    }]);
    set
}

#[tokio::test]
async fn an_endpoint_that_refuses_our_certificate_has_failed_though_the_handshake_is_over() {
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    for (trusted, refused) in [(&ca, false), (&stranger, true)] {
        let at = echoing(workload(&ca, "web", GOOD, &[trusted])).await;
        let metrics = Metrics::new("shop");
        let api = workload(&ca, "api", GOOD, &[&ca]);
        let connector = Connector::without_redirection(api, None, metrics);
        let set = strict(at);
        let picked = set.pick(balance::now(), Wish::default()).map_err(|_| ());
        let in_flight = picked.unwrap().in_flight;
        let endpoint = in_flight.endpoint().clone();
        let mut io = connector
            .connect(&endpoint.spec, Alpn::Opaque)
            .await
            .unwrap();
        assert!(!io.is_proven(), "the server may still refuse");

        let (mut client, near) = duplex(64);
        let mut near = Io::Memory(near);
        let talk = async {
            client.write_all(b"hello").await.unwrap();
            let heard = client.read_exact(&mut [0; 5]).await;
            client.shutdown().await.unwrap();
            heard.is_err()
        };
        let mut said = false;
        let count = |_, _, proven| said |= proven;
        // Whoever is refused hears nothing: the copy ends first.
        let ended = tokio::select! {
            copied = copy(&mut near, &mut io, count) => copied.is_err(),
            unheard = talk => unheard,
        };
        assert_eq!((ended, said, io.is_proven()), (refused, !refused, !refused));
        let trial = Trial {
            in_flight,
            connect: Duration::ZERO,
        };
        let whose = if ended { Whose::Endpoint } else { Whose::Other };
        trial.ended(io.is_proven(), whose);
        assert_eq!(endpoint.is_ejected(), refused);
    }
}
