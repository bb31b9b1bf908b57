//! A connection of the application to somewhere else, top to bottom.

use crate::accept::Accepted;
use crate::addresses;
use crate::balance;
use crate::connection::{Connection, Direction, NoTls, Peer};
use crate::detect::{self, Protocol as Seen};
use crate::error::{Error, ErrorKind};
use crate::http::HttpVersion;
use crate::io::{Io, ReadAhead};
use crate::known::{First, Known};
use crate::policy::OutboundPlan;
use crate::tcp::{self, Relay, Upstream};
use crate::worker::{Carries, End, Next, Requests, Worker};
use bytes::BytesMut;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy_api::policy::Protocol;

/// Silence of the client after which the server may speak first.
pub(crate) const SILENCE: Duration = Duration::from_millis(50);
/// The same where the client always spoke first before.
const LONG_SILENCE: Duration = Duration::from_secs(1);
/// How long a silent client is kept whose server cannot be reached, or has gone without a word.
const GIVE_UP: Duration = Duration::from_secs(10);
/// What the server may say while we still wait for the client.
const FIRST_WORDS: usize = 4096;

/// Serves one connection of the application; one that carries bytes is given back to be relayed.
pub async fn serve(
    worker: &Arc<Worker>,
    mut tcp: TcpStream,
    accepted: Accepted,
) -> Result<Option<Next>, End> {
    refuse_loop(worker, &accepted)?;
    let found = worker
        .destinations
        .get(&worker.discover, accepted.target)
        .await;
    let known = match found {
        Ok(known) => known,
        Err(error) => return unknown(worker, tcp, accepted, error).await,
    };
    let conn = worker.connection(&accepted, Peer::Plain(NoTls::Local));
    let mut bytes = BytesMut::new();
    let client = balance::key_of_ip(accepted.client.ip());
    let declared = declared(worker, &known, accepted.target.port());
    let seen = match declared {
        Protocol::Opaque => Opening::Client(Seen::Opaque),
        // The name in the ClientHello may choose the route; whatever else comes is bytes.
        Protocol::Tls => match first_words(worker, &known, client, &mut tcp, &mut bytes).await? {
            Opening::Client(Seen::Http1 | Seen::Http2) => Opening::Client(Seen::Opaque),
            opening => opening,
        },
        Protocol::Detect => first_words(worker, &known, client, &mut tcp, &mut bytes).await?,
        _ => match quiet(
            worker,
            Direction::Outbound,
            detect::read(&mut tcp, &mut bytes),
        )
        .await?
        {
            // What is declared as HTTP is answered as HTTP, be it well-formed or not.
            Some(Seen::Http2) => Opening::Client(Seen::Http2),
            Some(_) if !bytes.is_empty() => Opening::Client(Seen::Http1),
            _ => return Ok(None),
        },
    };
    let label = seen.label();
    worker
        .metrics
        .detected(
            Direction::Outbound,
            if declared == Protocol::Detect {
                label
            } else {
                "declared"
            },
        )
        .inc();
    let io = with_prefix(tcp, bytes);
    match seen {
        Opening::Client(Seen::Http1) => http(worker, io, HttpVersion::Http1, known, conn).await,
        Opening::Client(Seen::Http2) => http(worker, io, HttpVersion::Http2, known, conn).await,
        Opening::Client(seen) => {
            let server = seen.server_name();
            tracing::debug!(target = %accepted.target, ?server, "bytes");
            let destination = &known.destination;
            let upstream = tcp::open(&worker.shared, destination, client, server).await?;
            Ok(Some(Relay::new(io, upstream, conn, label).into()))
        }
        Opening::Server(upstream, words) => {
            let mut io = io;
            io.write_all(&words).await?;
            Ok(Some(Relay::new(io, *upstream, conn, label).into()))
        }
        Opening::Nobody => Ok(None),
    }
}

/// Nobody says where the address leads, so nothing is dialled. An HTTP client is told so in its own language, and is
/// served on the same connection as soon as somebody does.
async fn unknown(
    worker: &Arc<Worker>,
    mut tcp: TcpStream,
    accepted: Accepted,
    error: Error,
) -> Result<Option<Next>, End> {
    let mut bytes = BytesMut::new();
    let asked = worker.discover.asked(accepted.target);
    let (Some(destination), false) = (asked, worker.config.is_opaque(accepted.target.port()))
    else {
        return Err(error.into());
    };
    let version = match client_within(SILENCE, &mut tcp, &mut bytes).await? {
        Some(Opening::Client(Seen::Http1)) => HttpVersion::Http1,
        Some(Opening::Client(Seen::Http2)) => HttpVersion::Http2,
        _ => return Err(error.into()),
    };
    let conn = worker.connection(&accepted, Peer::Plain(NoTls::Local));
    let known = Arc::new(Known::new(destination));
    http(worker, with_prefix(tcp, bytes), version, known, conn).await
}

/// The application (or somebody with its address) must not reach our own ports through us.
fn refuse_loop(worker: &Worker, accepted: &Accepted) -> Result<(), End> {
    let target = accepted.target;
    let ours = worker.own_ports().contains(&target.port());
    if ours && (target.ip().is_loopback() || addresses::is_own(target.ip())) {
        Err(ErrorKind::Loop.into())
    } else {
        Ok(())
    }
}

/// What the destination is said to speak.
fn declared(worker: &Worker, known: &Known, port: u16) -> Protocol {
    if worker.config.is_opaque(port) {
        return Protocol::Opaque;
    }
    match &**known.destination.plan() {
        OutboundPlan::Service(plan) => plan.service.protocol,
        OutboundPlan::Endpoint(plan) => plan.endpoint.spec.protocol,
        OutboundPlan::PassThrough(_) | OutboundPlan::Refused(_) | OutboundPlan::Unknown => {
            Protocol::Detect
        }
    }
}

/// How a connection began.
pub(crate) enum Opening {
    /// The client spoke, and this is what.
    Client(Seen),
    /// The server spoke first, and this is what it said.
    Server(Box<Upstream>, BytesMut),
    /// It ended before anybody spoke.
    Nobody,
}

impl Opening {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Opening::Client(Seen::Tls(_)) => "tls",
            Opening::Client(Seen::Http1) => "http1",
            Opening::Client(Seen::Http2) => "http2",
            Opening::Client(Seen::Opaque) => "opaque",
            Opening::Server(..) => "server_first",
            Opening::Nobody => "silent",
        }
    }
}

/// Waits for the client's first words; while it is silent the way to the server is opened, as it may speak first.
async fn first_words(
    worker: &Worker,
    known: &Known,
    client: u64,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
) -> Result<Opening, End> {
    let silence = match known.first() {
        First::Server => Duration::ZERO,
        First::Unknown => SILENCE,
        First::Client => LONG_SILENCE,
    };
    if let Some(opening) = client_within(silence, tcp, bytes).await? {
        // One that came and went without a word says nothing about the next.
        if matches!(opening, Opening::Client(_)) && known.first() != First::Server {
            known.saw(First::Client);
        }
        return Ok(opening);
    }
    let Ok(upstream) = tcp::open(&worker.shared, &known.destination, client, None).await else {
        return client_alone(worker, Direction::Outbound, tcp, bytes).await;
    };
    match whoever_speaks(worker, Direction::Outbound, tcp, bytes, upstream).await? {
        Opening::Server(upstream, words) => {
            known.saw(First::Server);
            Ok(Opening::Server(upstream, words))
        }
        other => Ok(other),
    }
}

/// The client's first words if it says any in time; `None`: it is silent.
pub(crate) async fn client_within(
    silence: Duration,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
) -> std::io::Result<Option<Opening>> {
    tokio::select! {
        biased;
        seen = detect::read(tcp, bytes) => seen.map(|seen| Some(spoke(seen, bytes))),
        () = tokio::time::sleep(silence) => {
            // Words that began in time are heard to their end.
            if bytes.is_empty() { Ok(None) } else { detect::read(tcp, bytes).await.map(|seen| Some(spoke(seen, bytes))) }
        }
    }
}

fn spoke(seen: Seen, bytes: &BytesMut) -> Opening {
    if bytes.is_empty() {
        Opening::Nobody
    } else {
        Opening::Client(seen)
    }
}

/// Waits for a client that has no server, until it speaks or a drain begins: one that speaks HTTP gets its answer when it
/// asks, and anyone else, who may wait for the server's words, has waited long enough.
async fn client_alone(
    worker: &Worker,
    direction: Direction,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
) -> Result<Opening, End> {
    let spoken = quiet(worker, direction, client_within(GIVE_UP, tcp, bytes)).await?;
    Ok(spoken.flatten().unwrap_or(Opening::Nobody))
}

/// Waits for both. The upstream connection is of no more use if the client speaks HTTP, which has its own.
pub(crate) async fn whoever_speaks(
    worker: &Worker,
    direction: Direction,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
    mut upstream: Upstream,
) -> Result<Opening, End> {
    let mut words = BytesMut::with_capacity(FIRST_WORDS);
    let heard = tokio::select! {
        biased;
        seen = quiet(worker, direction, detect::read(tcp, bytes)) => return Ok(seen?.map_or(Opening::Nobody, |seen| spoke(seen, bytes))),
        heard = upstream.io.read_buf(&mut words) => heard,
    };
    match heard {
        Ok(n) if n > 0 => Ok(Opening::Server(Box::new(upstream), words)),
        // Refused by policy there, perhaps as it takes HTTP only: the client may still speak that.
        Ok(_) => client_alone(worker, direction, tcp, bytes).await,
        Err(_) => {
            upstream.broke();
            client_alone(worker, direction, tcp, bytes).await
        }
    }
}

/// Waits for `work`, unless a drain begins first: nothing has been asked yet, so nobody waits for an answer.
pub(crate) async fn quiet<T>(
    worker: &Worker,
    direction: Direction,
    work: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<Option<T>> {
    tokio::select! {
        biased;
        done = work => done.map(Some),
        () = worker.drain.draining(direction) => Ok(None),
    }
}

pub(crate) fn with_prefix(tcp: TcpStream, bytes: BytesMut) -> Io {
    if bytes.is_empty() {
        Io::Tcp(tcp)
    } else {
        Io::Prefixed(ReadAhead::with_prefix(bytes, tcp))
    }
}

/// Requests, whose codec comes when everything that opened the connection is forgotten.
async fn http(
    worker: &Arc<Worker>,
    client: Io,
    version: HttpVersion,
    known: Arc<Known>,
    conn: Arc<Connection>,
) -> Result<Option<Next>, End> {
    let open = worker.open(&conn, Carries::Http, version.label());
    let client = client.counted(open.metrics().clone());
    let service = known.http(&worker.shared);
    let requests = Requests::new(client, version, service, conn, open);
    Ok(Some(requests.to(known).into()))
}

#[cfg(test)]
mod tests;
