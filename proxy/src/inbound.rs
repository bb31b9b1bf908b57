//! A connection to the application, top to bottom.

use crate::accept::{Accepted, may_be_dialled};
use crate::addresses;
use crate::connect::HANDSHAKE_TIMEOUT;
use crate::connection::{Connection, Direction, NoTls, Peer};
use crate::detect::{self, Protocol as Seen};
use crate::error::ErrorKind;
use crate::http::HttpVersion;
use crate::io::{Io, ReadAhead};
use crate::outbound::{Opening, SILENCE, client_within, quiet, whoever_speaks, with_prefix};
use crate::policy::InboundPlan;
use crate::room::Unproven;
use crate::stack;
use crate::tcp::{Relay, Upstream};
use crate::tls::verify::{self, PeerError};
use crate::tls::{Alpn, BULK};
use crate::tunnel;
use crate::worker::{Carries, End, Next, Requests, Worker};
use bytes::BytesMut;
use rustls_pki_types::UnixTime;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::inbound::{Caller, ConnectionVerdict};

/// How long a connection waits for the first policy; it is never admitted without one.
const POLICY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may be silent where only its own words can open the way.
const SILENT_CLIENT: Duration = Duration::from_secs(60);

/// Serves one connection to the application; one that carries bytes is given back to be relayed. `unproven` is held until
/// the client has shown who it is, or what it wants.
pub async fn serve(
    worker: &Arc<Worker>,
    mut tcp: TcpStream,
    accepted: Accepted,
    unproven: Unproven,
) -> Result<Option<Next>, End> {
    if !accepted.fixed {
        may_be_dialled(accepted.target, &worker.own_ports(), addresses::is_own)
            .map_err(End::Refused)?;
    }
    let plan = policy(worker).await.ok_or(ErrorKind::PolicyUnknown)?;
    let mut bytes = BytesMut::new();
    let opening = first_words(worker, &plan, &mut tcp, &mut bytes, &accepted).await?;
    let label = opening.label();
    worker.metrics.detected(Direction::Inbound, label).inc();
    match opening {
        Opening::Nobody => Ok(None),
        Opening::Client(Seen::Tls(hello)) if hello.is_ours() => {
            mutual(worker, tcp, bytes, accepted, unproven).await
        }
        Opening::Client(Seen::Http1) => {
            http(worker, tcp, bytes, accepted, HttpVersion::Http1).await
        }
        Opening::Client(Seen::Http2) => {
            http(worker, tcp, bytes, accepted, HttpVersion::Http2).await
        }
        Opening::Client(seen) => {
            let why = if matches!(seen, Seen::Tls(_)) {
                NoTls::Foreign
            } else {
                NoTls::NotTls
            };
            tracing::debug!(target = %accepted.target, server = ?seen.server_name(), "bytes");
            let conn = worker.connection(&accepted, Peer::Plain(why));
            opaque(worker, with_prefix(tcp, bytes), conn, label).await
        }
        Opening::Server(upstream, words) => {
            let conn = worker.connection(&accepted, Peer::Plain(NoTls::NotTls));
            admit_bytes(worker, &conn).await?;
            let mut client = with_prefix(tcp, bytes);
            client.write_all(&words).await?;
            Ok(Some(Relay::new(client, *upstream, conn, label).into()))
        }
    }
}

/// The policy in force; waits a moment for the first one.
async fn policy(worker: &Worker) -> Option<Arc<InboundPlan>> {
    let mut policy = worker.discover.inbound();
    let first = async {
        loop {
            if let Some(plan) = policy.load() {
                return plan;
            }
            policy.changed().await;
        }
    };
    timeout(POLICY_TIMEOUT, first).await.ok()
}

/// Waits for the client. A silent one that may send bytes without proof of identity may be waiting for the application
/// to speak first.
async fn first_words(
    worker: &Worker,
    plan: &InboundPlan,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
    accepted: &Accepted,
) -> Result<Opening, End> {
    if let Some(opening) = client_within(SILENCE, tcp, bytes).await? {
        return Ok(opening);
    }
    if may_be_server_first(worker, plan, accepted) {
        let io = worker.shared.connector.connect_plain(accepted.dial).await?;
        let upstream = Upstream::local(&worker.shared, io, worker.metrics.inbound_edge(None));
        return whoever_speaks(worker, Direction::Inbound, tcp, bytes, upstream).await;
    }
    match timeout(
        SILENT_CLIENT,
        quiet(worker, Direction::Inbound, detect::read(tcp, bytes)),
    )
    .await
    {
        Ok(seen) => match seen? {
            Some(seen) if !bytes.is_empty() => Ok(Opening::Client(seen)),
            _ => Ok(Opening::Nobody),
        },
        Err(_) => Err(End::Refused("silent")),
    }
}

fn may_be_server_first(worker: &Worker, plan: &InboundPlan, accepted: &Accepted) -> bool {
    let port = accepted.target.port();
    let caller = Caller {
        identity: None,
        address: accepted.client.ip(),
    };
    let declared = plan.protocol(port);
    let bytes =
        matches!(declared, Protocol::Detect | Protocol::Opaque) || worker.config.is_opaque(port);
    let verdict = plan.inbound.judge_connection(caller, port);
    bytes
        && matches!(
            verdict,
            ConnectionVerdict::Allow { .. } | ConnectionVerdict::Audit { .. }
        )
}

/// A proxy of ours is calling: who is it, and what does it speak?
async fn mutual(
    worker: &Arc<Worker>,
    tcp: TcpStream,
    bytes: BytesMut,
    accepted: Accepted,
    unproven: Unproven,
) -> Result<Option<Next>, End> {
    let epoch = worker.tls.epoch();
    let config = worker.tls.server().ok_or(ErrorKind::NoIdentity)?;
    let handshake = TlsAcceptor::from(config).accept(ReadAhead::with_prefix(bytes, tcp));
    let mut tls = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return Err(refused_handshake(worker, &accepted, &error)),
        Err(_) => return Err(End::Refused("tls_timeout")),
    };
    let session = tls.get_ref().1;
    let id = verify::peer(
        session.peer_certificates(),
        worker.tls.trust_domain(),
        UnixTime::now(),
    )
    .map_err(|error| End::Refused(error.counted()))?;
    drop(unproven);
    let alpn = session
        .alpn_protocol()
        .and_then(Alpn::from_bytes)
        .ok_or(End::Refused("tls_handshake"))?;
    let until = session.peer_certificates().and_then(<[_]>::first);
    let until = until.and_then(|leaf| verify::validity(leaf).ok());
    if matches!(alpn, Alpn::Opaque | Alpn::Tunnel) {
        tls.get_mut().1.set_buffer_limit(Some(BULK));
    }
    let io = Io::TlsServer(Box::new(tls));
    if alpn == Alpn::Tunnel {
        let until = tunnel::end_of(until.map_or(0, |(_, until)| until));
        let caller = tunnel::Caller { id, until };
        tunnel::serve(worker, io, accepted, caller, epoch).await?;
        return Ok(None);
    }
    let conn = worker.connection(&accepted, Peer::Mutual(id));
    match alpn {
        Alpn::Http1 => serve_http(worker, io, conn, HttpVersion::Http1).await,
        Alpn::Http2 => serve_http(worker, io, conn, HttpVersion::Http2).await,
        Alpn::Opaque | Alpn::Tunnel => opaque(worker, io, conn, "opaque").await,
    }
}

fn refused_handshake(worker: &Worker, accepted: &Accepted, error: &std::io::Error) -> End {
    let reason = PeerError::of(error);
    if worker.may_say() {
        tracing::info!(client = %accepted.client, reason = reason.label(), %error, "handshake refused");
    }
    End::Refused(reason.counted())
}

async fn http(
    worker: &Arc<Worker>,
    tcp: TcpStream,
    bytes: BytesMut,
    accepted: Accepted,
    version: HttpVersion,
) -> Result<Option<Next>, End> {
    let conn = worker.connection(&accepted, Peer::Plain(NoTls::NotTls));
    let port = accepted.target.port();
    // A port declared to carry bytes is not HTTP because it looks like it: its bytes are judged once and passed on.
    let plan = worker
        .discover
        .inbound()
        .load()
        .ok_or(ErrorKind::PolicyUnknown)?;
    if worker.config.is_opaque(port) || plan.protocol(port) == Protocol::Opaque {
        return opaque(worker, with_prefix(tcp, bytes), conn, "opaque").await;
    }
    serve_http(worker, with_prefix(tcp, bytes), conn, version).await
}

/// Every request is judged by itself, so a caller without any permission is answered 403 instead of being cut off.
async fn serve_http(
    worker: &Arc<Worker>,
    io: Io,
    conn: Arc<Connection>,
    version: HttpVersion,
) -> Result<Option<Next>, End> {
    let open = worker.open(&conn, Carries::Http, version.label());
    let io = io.counted(open.metrics().clone());
    let service = stack::inbound(&worker.shared, &conn);
    Ok(Some(Requests::new(io, version, service, conn, open).into()))
}

/// Bytes to the application, if this caller may send any.
pub(crate) async fn opaque(
    worker: &Arc<Worker>,
    io: Io,
    conn: Arc<Connection>,
    protocol: &'static str,
) -> Result<Option<Next>, End> {
    admit_bytes(worker, &conn).await?;
    let app = worker.shared.connector.connect_plain(conn.dial).await?;
    let upstream = Upstream::local(
        &worker.shared,
        app,
        worker.metrics.inbound_edge(conn.peer.identity()),
    );
    Ok(Some(Relay::new(io, upstream, conn, protocol).into()))
}

/// Judges a connection that carries bytes.
async fn admit_bytes(worker: &Worker, conn: &Connection) -> Result<(), End> {
    let plan = policy(worker).await.ok_or(ErrorKind::PolicyUnknown)?;
    let port = conn.target.port();
    let declared_http = matches!(
        plan.protocol(port),
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc
    );
    match plan.connection(conn.caller(), port) {
        ConnectionVerdict::Allow { .. } | ConnectionVerdict::Audit { .. } if !declared_http => {
            Ok(())
        }
        ConnectionVerdict::Deny(reason) => {
            if worker.may_say() {
                let denial = plan.inbound.denial(conn.caller(), port, reason);
                tracing::info!(client = %conn.client, %denial, "connection denied");
            }
            let edge = worker.metrics.inbound_edge(conn.peer.identity());
            edge.denied(reason);
            Err(ErrorKind::Denied.into())
        }
        _ => Err(ErrorKind::NotHttp.into()),
    }
}
