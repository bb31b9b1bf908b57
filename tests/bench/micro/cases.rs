//! Single steps of a request, by themselves.

use super::{Micro, whole};
use anyhow::Context;
use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig};
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use weft_proxy::balance::{self, EndpointSet, Outcome, Wish};
use weft_proxy::detect::detect;
use weft_proxy::http::h1::look;
use weft_proxy::metrics::{Code, Metrics};
use weft_proxy::policy::outbound::Compiler;
use weft_proxy_api::policy::matching::{HttpMatch, RequestView, TextMatch};
use weft_proxy_api::policy::outbound::{Backend, Endpoint, Outbound, Route, Service};
use weft_proxy_api::policy::{Protocol, ServicePort};
use weft_proxy_api::wire::{Body, Item, decode, encode, generated};

const fn micro(name: &'static str, turns: usize, run: super::Turns) -> Micro {
    Micro { name, turns, run }
}

pub(crate) const ALL: &[Micro] = &[
    micro("detect", 20_000, detect_http),
    micro("scan_head", 20_000, scan_head),
    micro("route_match", 20_000, route_match),
    micro("pick", 20_000, pick),
    micro("record", 20_000, record),
    micro("policy", 200, policy),
    micro("tls_record_16k", 1_000, tls_record),
    micro("h1_direct", 500, whole::http1_direct),
    micro("h1_floor", 500, whole::http1_floor),
    micro("h1_outbound", 500, whole::http1_outbound),
    micro("h1_inbound", 500, whole::http1_inbound),
    micro("h1_many_floor", 500, whole::http1_many_floor),
    micro("h1_many_outbound", 500, whole::http1_many_outbound),
    micro("h1_many_inbound", 500, whole::http1_many_inbound),
    micro("h2_direct", 500, whole::http2_direct),
    micro("h2_floor", 500, whole::http2_floor),
    micro("h2_outbound", 500, whole::http2_outbound),
    micro("h2_inbound", 500, whole::http2_inbound),
];

/// What a browser or a client library sends, about.
pub(super) const HEAD: &str = "GET /api/orders/17?full=1 HTTP/1.1\r\nhost: web.shop:8080\r\nuser-agent: bench/1.0\r\n\
    accept: */*\r\naccept-encoding: gzip, br\r\nx-request-id: 5d0b4c1e-71a8-4a41-9d45\r\n\r\n";

fn detect_http(turns: usize) -> anyhow::Result<()> {
    for _ in 0..turns {
        black_box(detect(black_box(HEAD.as_bytes()), false));
    }
    Ok(())
}

fn scan_head(turns: usize) -> anyhow::Result<()> {
    let mut bytes = BytesMut::new();
    for _ in 0..turns {
        bytes.extend_from_slice(black_box(HEAD.as_bytes()));
        anyhow::ensure!(black_box(look::head(&mut bytes)), "no head");
    }
    Ok(())
}

fn name(of: &str) -> ServicePort {
    ServicePort {
        namespace: "shop".into(),
        name: of.into(),
        port: 80,
    }
}

/// A Service with twenty routes of two backends each, of which the last but one fits.
fn service() -> anyhow::Result<Service> {
    let mut routes = Vec::new();
    for n in 0..20 {
        let pattern = if n == 18 {
            "/api/orders/.*".to_owned()
        } else {
            format!("/v{n}/.*")
        };
        let matches = HttpMatch {
            object: "HTTPRouteGroup shop/api".into(),
            name: format!("r{n}"),
            path: Some(TextMatch::regex_prefix(&pattern)?),
            methods: vec!["GET".into()],
            headers: Vec::new(),
        };
        let backend = |of: &str, weight| Backend {
            name: name(of),
            weight,
            endpoints: name(of).to_string(),
        };
        routes.push(Route {
            object: Some(format!("TrafficSplit shop/s{n}")),
            matches: if n == 19 { Vec::new() } else { vec![matches] },
            backends: vec![backend("v1", 90), backend("v2", 10)],
        });
    }
    Ok(Service {
        name: name("web"),
        protocol: Protocol::Http1,
        routes,
        settings: Box::default(),
    })
}

fn route_match(turns: usize) -> anyhow::Result<()> {
    let (service, headers) = (service()?, http::HeaderMap::new());
    for _ in 0..turns {
        let view = RequestView {
            method: "GET",
            path: black_box("/api/orders/17"),
            host: "web.shop",
            headers: &headers,
        };
        black_box(service.route_http(&view));
    }
    Ok(())
}

pub(super) fn endpoint(address: std::net::SocketAddr, protocol: Protocol) -> Endpoint {
    Endpoint {
        address,
        identity: None,
        namespace: "shop".into(),
        pod: format!("web-{}", address.port()),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol,
    }
}

fn pick(turns: usize) -> anyhow::Result<()> {
    let metrics = Metrics::new("shop");
    let set = EndpointSet::new("web", metrics.backend("web"));
    let endpoints = (1..=10u8).map(|n| endpoint(([10, 0, 0, n], 80).into(), Protocol::Http1));
    set.update(endpoints.collect());
    for _ in 0..turns {
        let now = balance::now();
        let pick = set.pick_for(now, Wish::default());
        let pick = pick.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let mut in_flight = pick.in_flight;
        let took = Duration::from_micros(900);
        in_flight.answered_at(now, took);
        in_flight.done_at(now, Outcome::Success, took);
    }
    Ok(())
}

fn record(turns: usize) -> anyhow::Result<()> {
    let edge = Metrics::new("shop").inbound_edge(None);
    for n in 0..turns {
        edge.request();
        edge.bytes(100, 1000);
        edge.answered(Code::Http(200), Duration::from_micros(n as u64 & 0xfff));
    }
    Ok(())
}

/// From bytes of the wire to a compiled plan.
fn policy(turns: usize) -> anyhow::Result<()> {
    use prost::Message;
    let item = Item {
        id: 1,
        version: 7,
        body: Body::Outbound(Outbound::Service(service()?)),
    };
    let bytes = encode::response(&[item]).encode_to_vec();
    let metrics = Metrics::new("shop");
    for _ in 0..turns {
        let message = generated::SyncResponse::decode(&bytes[..])?;
        for item in decode::response(&message) {
            let item = item.map_err(|bad| anyhow::anyhow!("{}", bad.error))?;
            if let Body::Outbound(outbound) = item.body {
                let mut sets = |set: &weft_proxy::policy::outbound::WantedSet<'_>| {
                    EndpointSet::new(set.name, metrics.backend(set.name))
                };
                let mut compiler = Compiler {
                    metrics: &metrics,
                    sets: &mut sets,
                };
                black_box(compiler.compile(outbound));
            }
        }
    }
    Ok(())
}

/// 16 KiB sealed at one end and opened at the other, as the proxies set TLS up.
fn tls_record(turns: usize) -> anyhow::Result<()> {
    let (mut client, mut server) = session()?;
    let (payload, mut read) = (vec![7; 16 * 1024], vec![0; 32 * 1024]);
    let mut wire = Vec::with_capacity(32 * 1024);
    for _ in 0..turns {
        client.writer().write_all(&payload)?;
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut rest = &wire[..];
        let mut got = 0;
        while got < payload.len() {
            server.read_tls(&mut rest)?;
            server.process_new_packets()?;
            got += match server.reader().read(&mut read) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error.into()),
            };
        }
        wire.clear();
    }
    Ok(())
}

fn session() -> anyhow::Result<(Connection, Connection)> {
    let key = rcgen::KeyPair::generate()?;
    let own = rcgen::CertificateParams::new(vec!["mesh.bench".to_owned()])?.self_signed(&key)?;
    let certificate: CertificateDer<'static> = own.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(weft_proxy::tls::provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let secret = PrivateKeyDer::try_from(key.serialize_der())
        .ok()
        .context("key")?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], secret)?;
    let to = ServerName::try_from("mesh.bench")?;
    let mut client = Connection::from(ClientConnection::new(client.into(), to)?);
    let mut server = Connection::from(rustls::ServerConnection::new(server.into())?);
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    pass(&mut server, &mut client)?;
    Ok((client, server))
}

fn pass(from: &mut Connection, to: &mut Connection) -> anyhow::Result<()> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire)?;
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(())
}
