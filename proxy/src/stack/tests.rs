//! The outbound and inbound chains as they are, over loopback: real plans, balancer, pools and sockets.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::balance::EndpointSet;
use crate::connection::{CloseSignal, NoTls, Peer};
use crate::discover::{ControlClient, Discover, Whoami};
use crate::http::{Body, HttpVersion, Request, Response, server};
use crate::io::Io;
use crate::known::Known;
use crate::policy::outbound::{Compiler, WantedSet};
use crate::tasks::Drain;
use crate::tls::Tls;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};
use tower::service_fn;
use weft_proxy_api::policy::outbound as checked;
use weft_proxy_api::policy::settings;
use weft_proxy_api::policy::{Protocol, ServicePort};

const TARGET: &str = "10.96.0.1:80";

pub(super) fn shared() -> Arc<Shared> {
    shared_as(Tls::new("cluster.local", Vec::new()))
}

/// The same for a proxy that is somebody.
pub(super) fn shared_as(tls: Tls) -> Arc<Shared> {
    let metrics = Metrics::new("shop");
    let client = ControlClient::new("127.0.0.1:1".into(), None, Arc::new(|_| None));
    let whoami = Whoami {
        namespace: "shop".into(),
        pod: "web-0".into(),
        zone: String::new(),
    };
    let (discover, _) = Discover::new(client, whoami, metrics.clone());
    let connector = Connector::without_redirection(tls, None, metrics.clone());
    Shared::new(
        metrics,
        connector,
        discover.inbound(),
        None,
        Default::default(),
    )
}

/// An application that answers with `name`; the address it listens on.
async fn application(name: &'static str) -> SocketAddr {
    let answer = move |_: Request| std::future::ready(Ok(Response::new(Body::full(name))));
    application_of(HttpService::new(service_fn(answer))).await
}

pub(super) async fn application_of(service: HttpService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (_drain, watch) = Drain::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let conn = connection(at);
            let serving = server::serve(
                Io::from(tcp),
                HttpVersion::Http1,
                service.clone(),
                conn,
                watch.clone(),
            );
            tokio::spawn(serving);
        }
    });
    at
}

pub(super) fn connection(target: SocketAddr) -> Arc<Connection> {
    let client = SocketAddr::from(([10, 0, 0, 1], 4000));
    let (peer, closed) = (Peer::Plain(NoTls::NotTls), CloseSignal::new());
    Arc::new(Connection {
        direction: Direction::Inbound,
        client,
        target,
        dial: target,
        peer,
        closed,
    })
}

/// An address where nobody listens, and nobody else can, as it stays taken.
fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let at = socket.local_addr().unwrap();
    std::mem::forget(socket);
    at
}

pub(super) fn endpoint(address: SocketAddr) -> checked::Endpoint {
    checked::Endpoint {
        address,
        identity: None,
        namespace: "shop".into(),
        pod: format!("pod-{}", address.port()),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Http1,
    }
}

pub(super) fn backend(name: &str, weight: u64) -> checked::Backend {
    let name = ServicePort {
        namespace: "shop".into(),
        name: name.into(),
        port: 80,
    };
    checked::Backend {
        endpoints: name.to_string(),
        name,
        weight,
    }
}

pub(super) fn service(backends: Vec<checked::Backend>) -> checked::Outbound {
    let route = checked::Route {
        object: None,
        matches: Vec::new(),
        backends,
    };
    let name = ServicePort {
        namespace: "shop".into(),
        name: "web".into(),
        port: 80,
    };
    checked::Outbound::Service(checked::Service {
        name,
        protocol: Protocol::Http1,
        routes: vec![route],
        settings: Box::default(),
    })
}

/// The same Service under other settings.
pub(super) fn settled(
    mut of: checked::Outbound,
    change: impl FnOnce(&mut settings::ServiceSettings),
) -> checked::Outbound {
    if let checked::Outbound::Service(service) = &mut of {
        change(&mut service.settings);
    }
    of
}

/// A destination where every backend has the endpoints at these addresses; `None`: not told yet.
pub(super) fn destination(
    shared: &Shared,
    policy: checked::Outbound,
    at: Option<&[SocketAddr]>,
) -> Arc<Destination> {
    let to = Destination::new(TARGET.parse().unwrap());
    let mut sets = |set: &WantedSet<'_>| {
        let name = set.name;
        let set = EndpointSet::new(name, shared.metrics.backend(name));
        if let Some(at) = at {
            set.update(at.iter().copied().map(endpoint).collect());
        }
        set
    };
    let plan = Compiler {
        metrics: &shared.metrics,
        sets: &mut sets,
    }
    .compile(policy);
    to.put(plan, 1);
    to
}

/// Sends one request; status, `weft-error` and body of the answer.
pub(super) async fn send(service: &HttpService) -> (u16, String, String) {
    let request = http::Request::builder()
        .uri("/")
        .header("host", "web")
        .body(Body::empty())
        .unwrap();
    let (head, body) = service.send(request).await.unwrap().into_parts();
    let error = head
        .headers
        .get("weft-error")
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    (
        head.status.as_u16(),
        error,
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn requests_reach_an_endpoint_and_are_counted_on_its_edge() {
    let shared = shared();
    let at = application("v1").await;
    let to = destination(&shared, service(vec![backend("web", 1)]), Some(&[at]));
    let stack = outbound(&shared, &to);
    for _ in 0..3 {
        assert_eq!(send(&stack).await, (200, String::new(), "v1".into()));
    }
    let summary = shared.metrics.summary();
    let counted: Vec<_> = summary.iter().filter(|edge| edge.requests > 0).collect();
    assert_eq!(counted.len(), 1);
    assert_eq!(
        (
            counted[0].requests,
            counted[0].success,
            counted[0].bytes_out
        ),
        (3, 3, 6)
    );
    assert_eq!(
        counted[0].labels.peer,
        Group::new("shop", "deploy/web", false)
    );
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_costs_no_request_while_there_is_another() {
    let shared = shared();
    let endpoints = [nobody(), application("alive").await];
    let to = destination(&shared, service(vec![backend("web", 1)]), Some(&endpoints));
    let stack = outbound(&shared, &to);
    for _ in 0..20 {
        assert_eq!(send(&stack).await.2, "alive");
    }
}

#[tokio::test]
async fn what_cannot_be_served_says_why() {
    let shared = shared();
    let dead = [nobody()];
    let rows = [
        (
            service(vec![backend("web", 0)]),
            Some(&dead[..]),
            503,
            "E105 all-weights-zero",
        ),
        (
            service(vec![backend("web", 1)]),
            Some(&[][..]),
            503,
            "E104 no-endpoints",
        ),
        (
            service(vec![backend("web", 1)]),
            Some(&dead[..]),
            502,
            "E106 connect-failed",
        ),
        (
            checked::Outbound::Refused {
                reason: "no".into(),
            },
            None,
            403,
            "E113 refused-target",
        ),
    ];
    for (policy, at, status, error) in rows {
        let to = destination(&shared, policy, at);
        let answer = send(&outbound(&shared, &to)).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, error));
    }
    let unknown = Destination::new(TARGET.parse().unwrap());
    assert_eq!(
        send(&outbound(&shared, &unknown)).await.1,
        "E126 control-unreachable"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_a_moment_for_endpoints() {
    let shared = shared();
    let to = destination(&shared, service(vec![backend("web", 1)]), None);
    let before = tokio::time::Instant::now();
    // Not that there is nobody: nobody said.
    let error = send(&outbound(&shared, &to)).await.1;
    assert_eq!(error, "E126 control-unreachable");
    assert_eq!(before.elapsed().as_secs(), 5);
}

/// The endpoints become known at any moment of the way, also between two looks of the same request.
#[tokio::test]
async fn the_first_request_is_answered_whenever_the_endpoints_are_told() {
    let shared = shared();
    let at = application("there").await;
    for round in 0..2_000 {
        let to = destination(&shared, service(vec![backend("web", 1)]), None);
        let OutboundPlan::Service(plan) = &**to.plan() else {
            unreachable!();
        };
        let set = plan.routes[0].backends[0].endpoints.clone();
        let teller = std::thread::spawn(move || {
            (0..round * 7 % 3_000).for_each(|_| std::hint::spin_loop());
            set.update(vec![endpoint(at)]);
        });
        let answer = send(&outbound(&shared, &to)).await;
        // A machine that stands still for as long as is waited is told that nobody said, and not that there is nobody.
        let told = answer.2 == "there" || answer.1 == "E126 control-unreachable";
        assert!(told, "{round}: {answer:?}");
        teller.join().unwrap();
    }
}

#[tokio::test]
async fn without_policy_nothing_reaches_the_application() {
    let shared = shared();
    let at = application("secret").await;
    let answer = send(&inbound(&shared, &connection(at))).await;
    assert_eq!((answer.0, answer.1.as_str()), (503, "E110 policy-unknown"));
}

#[tokio::test]
async fn a_destination_that_has_become_something_else_is_counted_as_that() {
    let shared = shared();
    let to = destination(&shared, checked::Outbound::PassThrough, None);
    let known = Known::new(to.clone());
    let refuse = async |stack: HttpService| {
        let request = http::Request::builder()
            .uri("/")
            .header("host", "web")
            .header("host", "other")
            .body(Body::empty())
            .unwrap();
        assert_eq!(stack.send(request).await.unwrap().status(), 400);
    };
    let requests = || {
        let text = shared.metrics.render();
        let of = |line: &&str| {
            line.starts_with("weft_requests_total{") && line.contains("service=\"shop/web:80\"")
        };
        let line = text
            .lines()
            .find(of)
            .map(|line| line.rsplit(' ').next().map(str::to_owned));
        line.flatten()
    };
    refuse(known.http(&shared)).await;
    assert_eq!(requests(), None);
    let policy = service(vec![backend("web", 1)]);
    let now = destination(&shared, policy, Some(&[]));
    let OutboundPlan::Service(plan) = &**now.plan() else {
        panic!("not a Service");
    };
    to.put(OutboundPlan::Service(plan.clone()), 2);
    refuse(known.http(&shared)).await;
    refuse(known.http(&shared)).await;
    assert_eq!(requests().as_deref(), Some("2"));
}

/// The value of a series of connections that the proxy opened to `deploy/web`.
fn opened(shared: &Shared, metric: &str) -> f64 {
    let text = shared.metrics.render();
    let of = |line: &&str| {
        line.starts_with(&format!("{metric}{{"))
            && line.contains("side=\"dst\"")
            && line.contains("peer_workload=\"deploy/web\"")
    };
    let line = text.lines().find(of).unwrap_or("0 0");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn connections_that_the_proxy_opens_are_counted_with_their_bytes() {
    let shared = shared();
    let at = [application("web").await];
    let to = destination(&shared, service(vec![backend("web", 1)]), Some(&at));
    let stack = outbound(&shared, &to);
    for _ in 0..3 {
        assert_eq!(send(&stack).await.2, "web");
    }
    assert_eq!(opened(&shared, "weft_connections_opened_total"), 1.0);
    assert_eq!(opened(&shared, "weft_connections_open"), 1.0);
    assert!(opened(&shared, "weft_connection_written_bytes_total") > 60.0);
    assert!(opened(&shared, "weft_connection_read_bytes_total") > 100.0);
}

#[tokio::test]
async fn a_withdrawn_endpoint_is_let_go_at_once_and_what_it_is_answering_still_ends() {
    let shared = shared();
    let (asked, release) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let at = slow_application(asked.clone(), release.clone()).await;
    let set = EndpointSet::new("web", shared.metrics.backend("web"));
    set.update(vec![endpoint(at)]);
    let to = Destination::new(TARGET.parse().unwrap());
    let plan = Compiler {
        metrics: &shared.metrics,
        sets: &mut |_| set.clone(),
    };
    to.put({ plan }.compile(service(vec![backend("web", 1)])), 1);
    let stack = outbound(&shared, &to);
    // Two at once make two connections; one of them is idle when the endpoint goes.
    let slow = tokio::spawn({
        let stack = stack.clone();
        async move { send(&stack).await }
    });
    asked.notified().await;
    let other = tokio::spawn({
        let stack = stack.clone();
        async move { send(&stack).await }
    });
    asked.notified().await;
    release.notify_one();
    let first = tokio::select! { a = slow => a, b = other => b };
    assert_eq!(first.unwrap().2, "slow");
    assert_eq!(opened(&shared, "weft_connections_open"), 2.0);
    set.update(Vec::new());
    until(|| opened(&shared, "weft_connections_open") == 1.0).await;
    assert_eq!(send(&stack).await.1, "E104 no-endpoints");
    release.notify_one();
    until(|| opened(&shared, "weft_connections_open") == 0.0).await;
    let answered = shared
        .metrics
        .summary()
        .iter()
        .map(|edge| edge.success)
        .sum::<u64>();
    assert_eq!(answered, 2, "both were answered");
}

/// Says when it is asked, and answers when it is told to.
async fn slow_application(
    asked: Arc<tokio::sync::Notify>,
    release: Arc<tokio::sync::Notify>,
) -> SocketAddr {
    let answer = move |_: Request| {
        let (asked, release) = (asked.clone(), release.clone());
        async move {
            asked.notify_one();
            release.notified().await;
            Ok(Response::new(Body::full("slow")))
        }
    };
    application_of(HttpService::new(service_fn(answer))).await
}

/// Waits until it is so; the test's own time limit ends it otherwise.
async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn another_try_stays_within_the_backend_that_was_chosen() {
    let shared = shared();
    let dead = nobody();
    let alive = application("v2").await;
    let to = Destination::new(TARGET.parse().unwrap());
    let mut sets = |set: &WantedSet<'_>| {
        let name = set.name;
        let set = EndpointSet::new(name, shared.metrics.backend(name));
        set.update(vec![endpoint(if name.contains("v1") {
            dead
        } else {
            alive
        })]);
        set
    };
    let plan = Compiler {
        metrics: &shared.metrics,
        sets: &mut sets,
    };
    let policy = settled(
        service(vec![backend("v1", 1), backend("v2", 1)]),
        |settings| settings.budget.percent = 1000,
    );
    to.put({ plan }.compile(policy), 1);
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(send(&outbound(&shared, &to)).await.0 != 200);
    }
    let text = shared.metrics.render();
    let line = |line: &&str| {
        line.starts_with("weft_backend_connect_failures_total{") && line.contains("v1")
    };
    let tries = text.lines().find(line).unwrap().rsplit(' ').next().unwrap();
    // Drawn anew, a try would now and then have reached the other backend after a failure.
    assert_eq!(tries, (3 * failed).to_string());
    assert!(failed > 0);
}
