//! Whole requests over loopback, one after the other on one thread: client, stack and application. Without TLS, which is
//! counted by itself. `direct` is the client and the application alone, to be taken off; `floor` is the libraries alone.

use super::cases::{HEAD, endpoint};
use crate::floor::{self, Dial, Kind};
use crate::pooled::Pool;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::balance::EndpointSet;
use weft_proxy::connect::Connector;
use weft_proxy::connection::{CloseSignal, Connection, Direction, NoTls, Peer};
use weft_proxy::discover::InboundHandle;
use weft_proxy::http::{HttpVersion, server};
use weft_proxy::io::Io;
use weft_proxy::metrics::Metrics;
use weft_proxy::policy::outbound::{Compiler, WantedSet};
use weft_proxy::policy::{Destination, InboundPlan};
use weft_proxy::stack::{self, Shared};
use weft_proxy::tasks::Drain;
use weft_proxy::tls::Tls;
use weft_proxy_api::policy::inbound::Inbound;
use weft_proxy_api::policy::outbound::{Backend, Outbound, Route, Service};
use weft_proxy_api::policy::{Access, Protocol, ServicePort};

const BODY: usize = 1024;
/// Connections of the cases in which many are awake at a time.
const MANY: usize = 50;

/// What stands between the client and the application.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Floor,
    Outbound,
    Inbound,
}

pub(super) fn http1_direct(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, 1, Way::Direct))
}

pub(super) fn http1_floor(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, 1, Way::Floor))
}

pub(super) fn http1_outbound(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, 1, Way::Outbound))
}

pub(super) fn http1_inbound(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, 1, Way::Inbound))
}

pub(super) fn http2_direct(turns: usize) -> anyhow::Result<()> {
    run(http2(turns, Way::Direct))
}

pub(super) fn http2_floor(turns: usize) -> anyhow::Result<()> {
    run(http2(turns, Way::Floor))
}

pub(super) fn http2_outbound(turns: usize) -> anyhow::Result<()> {
    run(http2(turns, Way::Outbound))
}

pub(super) fn http2_inbound(turns: usize) -> anyhow::Result<()> {
    run(http2(turns, Way::Inbound))
}

pub(super) fn http1_many_floor(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, MANY, Way::Floor))
}

pub(super) fn http1_many_outbound(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, MANY, Way::Outbound))
}

pub(super) fn http1_many_inbound(turns: usize) -> anyhow::Result<()> {
    run(http1(turns, MANY, Way::Inbound))
}

fn run(what: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(what)
}

async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Each of `connections` sends its request before the first answer is read.
async fn http1(turns: usize, connections: usize, way: Way) -> anyhow::Result<()> {
    let (listener, at) = listen().await?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(answer_http1(tcp));
        }
    });
    let through = through(way, HttpVersion::Http1, at).await?;
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let tcp = TcpStream::connect(through).await?;
        tcp.set_nodelay(true)?;
        clients.push(tcp);
    }
    for _ in 0..turns.div_ceil(connections) {
        for tcp in &mut clients {
            tcp.write_all(HEAD.as_bytes()).await?;
        }
        for tcp in &mut clients {
            read_answer(tcp).await?;
        }
    }
    Ok(())
}

async fn read_answer(tcp: &mut TcpStream) -> anyhow::Result<()> {
    let (mut answer, mut got) = ([0; 4096], 0);
    while got < BODY + 4 || !answer[..got].ends_with(b"e") {
        let n = tcp.read(&mut answer[got..]).await?;
        ensure!(
            n > 0,
            "the connection ended: {}",
            answer[..got].escape_ascii()
        );
        got += n;
    }
    Ok(())
}

/// Plain bytes, so that the application costs next to nothing.
async fn answer_http1(mut tcp: TcpStream) -> anyhow::Result<()> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.extend(std::iter::repeat_n(b'x', BODY - 1));
    answer.push(b'e');
    tcp.set_nodelay(true)?;
    let (mut asked, mut got) = ([0; 4096], 0);
    loop {
        got += tcp.read(&mut asked[got..]).await?;
        if asked[..got].ends_with(b"\r\n\r\n") {
            tcp.write_all(&answer).await?;
            got = 0;
        }
        ensure!(got < asked.len());
    }
}

async fn http2(turns: usize, way: Way) -> anyhow::Result<()> {
    let (listener, at) = listen().await?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let codec = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(codec.serve_connection(TokioIo::new(tcp), service_fn(answer_http2)));
        }
    });
    let tcp = TcpStream::connect(through(way, HttpVersion::Http2, at).await?).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    for _ in 0..turns {
        let request = http::Request::builder()
            .uri("http://web.shop:8080/api/orders/17?full=1")
            .header("user-agent", "bench/1.0")
            .header("accept", "*/*")
            .header("x-request-id", "5d0b4c1e-71a8-4a41-9d45")
            .body(Full::<Bytes>::default())?;
        let answer = sender.send_request(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(body.len() == BODY);
    }
    Ok(())
}

async fn answer_http2(_: http::Request<Incoming>) -> anyhow::Result<http::Response<Full<Bytes>>> {
    static BYTES: [u8; BODY] = [b'x'; BODY];
    Ok(http::Response::new(Full::new(Bytes::from_static(&BYTES))))
}

/// The address to call: the application's, or that of a stack in front of it.
async fn through(way: Way, version: HttpVersion, to: SocketAddr) -> anyhow::Result<SocketAddr> {
    if way == Way::Direct {
        return Ok(to);
    }
    let (listener, at) = listen().await?;
    if way == Way::Floor {
        tokio::spawn(libraries(listener, version, to));
        return Ok(at);
    }
    let metrics = Metrics::new("shop");
    let tls = Tls::new("cluster.local", Vec::new());
    let connector = Connector::without_redirection(tls, None, metrics.clone());
    let plan = InboundPlan::new(inbound(), 1, &metrics);
    let shared = Shared::new(
        metrics.clone(),
        connector,
        InboundHandle::fixed(plan, metrics),
        None,
        Default::default(),
    );
    let outbound = stack::outbound(&shared, &destination(&shared, version, to)?);
    tokio::spawn(async move {
        let (_drain, watch) = Drain::new();
        while let Ok((tcp, client)) = listener.accept().await {
            let direction = match way {
                Way::Outbound => Direction::Outbound,
                _ => Direction::Inbound,
            };
            let conn = Arc::new(Connection {
                direction,
                client,
                target: to,
                dial: to,
                peer: Peer::Plain(NoTls::NotTls),
                closed: CloseSignal::new(),
            });
            let service = match direction {
                Direction::Outbound => outbound.clone(),
                Direction::Inbound => stack::inbound(&shared, &conn),
            };
            let serving = server::serve(Io::from(tcp), version, service, conn, watch.clone());
            tokio::spawn(serving);
        }
    });
    Ok(at)
}

async fn libraries(listener: TcpListener, version: HttpVersion, to: SocketAddr) {
    let kind = match version {
        HttpVersion::Http1 => Kind::Http1,
        HttpVersion::Http2 => Kind::Http2,
    };
    let pool = Arc::new(Pool::new(To(to)));
    while let Ok((tcp, _)) = listener.accept().await {
        tokio::spawn(floor::serve(tcp, kind, pool.clone()));
    }
}

/// The libraries' way to the application.
struct To(SocketAddr);

impl Dial for To {
    type Io = TcpStream;

    async fn dial(&self, _: Kind) -> anyhow::Result<TcpStream> {
        let tcp = TcpStream::connect(self.0).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// Everybody may call.
fn inbound() -> Inbound {
    Inbound {
        workload: "deploy/web".into(),
        access: Access::Permissive,
        ports: Vec::new(),
        allow: Vec::new(),
        probes: Vec::new(),
        rate_limits: Vec::new(),
        access_from: String::new(),
        explain_denials: false,
        metrics: Default::default(),
    }
}

fn destination(
    shared: &Shared,
    version: HttpVersion,
    at: SocketAddr,
) -> anyhow::Result<Arc<Destination>> {
    let protocol = match version {
        HttpVersion::Http1 => Protocol::Http1,
        HttpVersion::Http2 => Protocol::Http2,
    };
    let name = ServicePort {
        namespace: "shop".into(),
        name: "web".into(),
        port: 8080,
    };
    let backend = Backend {
        endpoints: name.to_string(),
        name: name.clone(),
        weight: 1,
    };
    let service = Service {
        name,
        protocol,
        routes: vec![Route {
            object: None,
            matches: Vec::new(),
            backends: vec![backend],
        }],
        settings: Box::default(),
    };
    let mut sets = |set: &WantedSet<'_>| {
        let made = EndpointSet::new(set.name, shared.metrics.backend(set.name));
        made.update(vec![endpoint(at, protocol)]);
        made
    };
    let plan = Compiler {
        metrics: &shared.metrics,
        sets: &mut sets,
    }
    .compile(Outbound::Service(service));
    let to = Destination::new("10.96.0.1:8080".parse().context("address")?);
    to.put(plan, 1);
    Ok(to)
}
