//! What goes wrong on the way to an endpoint, each with its own code, over loopback.
#![allow(clippy::unwrap_used)]

use super::tests::{
    application_of, backend, destination, endpoint, send, service, settled, shared,
};
use super::*;
use crate::error::Error;
use crate::http::{Body, Request, Response};
use crate::tls::Tls;
use crate::tls::tests::{DOMAIN, GOOD, TestCa, id, workload};
use http_body::Frame;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::service_fn;
use weft_proxy_api::policy::outbound as checked;

/// A stack to one pod that must prove who it is, by a proxy with or without a certificate.
async fn meshed(certified: bool, at: SocketAddr) -> (u16, String) {
    let ca = TestCa::new();
    let tls = Tls::new(DOMAIN, vec![ca.root.clone()]);
    if certified {
        let issued = ca.issue(&[id("client").as_str()], -60, 3600);
        tls.set_certificate(id("client"), issued.chain, issued.key)
            .unwrap();
    }
    let shared = super::tests::shared_as(tls);
    let pod = checked::Endpoint {
        identity: Some(id("web")),
        ..endpoint(at)
    };
    let to = destination(&shared, checked::Outbound::Endpoint(pod), None);
    let (status, error, _) = send(&outbound(&shared, &to)).await;
    (status, error)
}

#[tokio::test]
async fn who_cannot_be_called_under_mutual_tls_is_not_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(meshed(false, at).await, (503, "E125 no-identity".into()));
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            // Whoever this is, it is no proxy.
            tcp.write_all(b"220 mail\r\n").await.unwrap();
            let _ = tcp.read(&mut [0; 4096]).await;
        }
    });
    assert_eq!(meshed(true, at).await, (502, "E109 tls-handshake".into()));
}

/// A proxy of `web` that ends its first connection when it is asked something, with a word or without, and answers on
/// the next.
async fn ends_first(tls: Tls, with_a_word: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for first in [true, false] {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.server().unwrap());
            let mut io = acceptor.accept(tcp).await.unwrap();
            while io.read_u8().await.unwrap() != b'\n' {}
            match (first, with_a_word) {
                (true, true) => io.shutdown().await.unwrap(),
                (true, false) => {}
                (false, _) => {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    io.write_all(answer).await.unwrap();
                    let _ = io.read_to_end(&mut Vec::new()).await;
                }
            }
        }
    });
    at
}

#[tokio::test]
async fn a_proxy_that_says_goodbye_has_not_taken_the_request_and_one_that_breaks_off_may_have() {
    for (with_a_word, expected) in [(true, 200), (false, 502)] {
        let ca = TestCa::new();
        let at = ends_first(workload(&ca, "web", GOOD, &[&ca]), with_a_word).await;
        let shared = super::tests::shared_as(workload(&ca, "client", GOOD, &[&ca]));
        let pod = checked::Endpoint {
            identity: Some(id("web")),
            ..endpoint(at)
        };
        let to = destination(&shared, checked::Outbound::Endpoint(pod), None);
        let request = http::Request::builder()
            .method("POST")
            .uri("/")
            .header("host", "web")
            .body(Body::empty())
            .unwrap();
        let answer = outbound(&shared, &to).send(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{with_a_word}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    // Nobody accepts: once its queue is full the kernel drops whoever else asks.
    let moment = std::time::Duration::from_millis(200);
    let mut waiting = Vec::new();
    while let Ok(Ok(tcp)) = tokio::time::timeout(moment, TcpStream::connect(at)).await {
        waiting.push(tcp);
    }
    let shared = shared();
    let to = destination(&shared, service(vec![backend("web", 1)]), Some(&[at]));
    let answer = send(&outbound(&shared, &to)).await;
    assert_eq!((answer.0, answer.1.as_str()), (504, "E107 connect-timeout"));
}

#[tokio::test]
async fn a_service_whose_endpoints_are_all_set_aside_says_so() {
    let broken = |_: Request| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        std::future::ready(Ok(response))
    };
    let at = application_of(HttpService::new(service_fn(broken))).await;
    let shared = shared();
    let policy = settled(service(vec![backend("web", 1)]), |settings| {
        settings.ejection.consecutive = 2;
        // However slow we are, nobody is tried again meanwhile.
        settings.ejection.min_time = std::time::Duration::from_secs(60);
        settings.ejection.min_healthy_percent = 0;
    });
    let to = destination(&shared, policy.clone(), None);
    let plan = to.plan();
    if let (OutboundPlan::Service(plan), checked::Outbound::Service(service)) = (&**plan, &policy) {
        let set = &plan.routes[0].backends[0].endpoints;
        set.configure(&service.settings.balancer, service.settings.ejection);
        set.update(vec![endpoint(at)]);
    }
    let stack = outbound(&shared, &to);
    let mut said = Vec::new();
    for _ in 0..4 {
        let (status, error, _) = send(&stack).await;
        said.push((status, error));
    }
    assert_eq!(said[0].0, 500);
    assert_eq!(said.pop(), Some((503, "E122 ejected".into())));
}

#[tokio::test]
async fn an_upload_that_its_client_stalls_sets_no_endpoint_aside() {
    let reads_all = |request: Request| async move {
        request.into_body().collect().await?;
        Ok::<_, Error>(Response::new(Body::empty()))
    };
    let at = application_of(HttpService::new(service_fn(reads_all))).await;
    let shared = shared();
    let policy = settled(service(vec![backend("web", 1)]), |settings| {
        settings.requests.timeouts.request = Some(Duration::from_secs(1));
        settings.ejection.consecutive = 3;
        settings.ejection.min_time = Duration::from_secs(60);
        settings.ejection.min_healthy_percent = 0;
    });
    let to = destination(&shared, policy.clone(), None);
    let plan = to.plan();
    if let (OutboundPlan::Service(plan), checked::Outbound::Service(service)) = (&**plan, &policy) {
        let set = &plan.routes[0].backends[0].endpoints;
        set.configure(&service.settings.balancer, service.settings.ejection);
        set.update(vec![endpoint(at)]);
    }
    let stack = outbound(&shared, &to);
    for _ in 0..3 {
        let request = http::Request::builder()
            .method("POST")
            .uri("/")
            .header("host", "web")
            .body(Body::frames_then_nothing([Ok(Frame::data("begun".into()))]))
            .unwrap();
        let answer = stack.send(request).await.unwrap();
        assert_eq!(answer.headers()["weft-error"], "E116 request-timeout");
        assert_eq!(answer.status(), 504);
    }
    assert_eq!(send(&stack).await.0, 200, "it is still asked");
}
