//! The side that calls: finds a tunnel to an endpoint, or opens one, or does without.

use super::{
    ANSWER, FRAME, Heartbeat, MAX_STREAMS, MAX_TUNNELS, Open, SEND_BUFFER, STREAM_WINDOW, Size,
    Sizes, Stream, TAKEN, TICK, TUNNEL_WINDOW,
};
use crate::connect::Connector;
use crate::connection::Direction;
use crate::error::{Error, ErrorKind, Told};
use crate::footprint;
use crate::io::Io;
use crate::metrics::{Count, Metrics};
use crate::tls::Alpn;
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::outbound::Endpoint;

/// Endpoints whose tunnels are kept; beyond that connections are opened directly.
const MAX_PEERS: usize = 4096;
/// How long a peer that took the plain form is not offered the other.
const DIRECT: Duration = Duration::from_secs(60);
/// The same of one that opened a tunnel and did not answer on it.
const UNANSWERED: Duration = Duration::from_secs(10);
/// How long a peer without tunnels is remembered after it was last called.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Ticks without streams after which a tunnel is closed: it keeps a TLS session and a table of its streams.
const IDLE_TICKS: u32 = 3;

/// What carries a connection of bytes, and sees how much that is.
pub struct Carrier {
    /// The bytes.
    pub io: Io,
    /// Told of them; `None`: it matters to nobody.
    pub size: Option<Size>,
}

/// The tunnels of one worker.
pub struct Tunnels {
    connector: Connector,
    metrics: Arc<Metrics>,
    streams: Count,
    peers: Arc<Mutex<Peers>>,
}

type Peers = HashMap<Key, Peer>;

/// Where a tunnel leads, and who must be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    identity: SpiffeId,
}

struct Peer {
    open: Vec<Arc<Tunnel>>,
    /// Set while a tunnel is being opened, until it has answered; whoever needs one waits for the same attempt.
    dialing: Option<watch::Receiver<Option<Told>>>,
    /// It was found not to speak it, or not to answer on it.
    direct_until: Option<Instant>,
    /// When it was last called.
    used: Instant,
    sizes: Arc<Sizes>,
}

/// One tunnel.
#[derive(Debug)]
struct Tunnel {
    sender: SendRequest<Bytes>,
    streams: AtomicUsize,
    idle_ticks: AtomicU32,
    /// No new streams.
    closed: AtomicBool,
    /// Of our certificate and roots when it was opened.
    epoch: u64,
}

/// A place on a tunnel, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Tunnel>);

/// How an endpoint is to be reached.
enum Way {
    On(Place),
    Wait(watch::Receiver<Option<Told>>),
    Dial(Dialing),
    Directly,
}

/// The attempt others wait for; however it ends, they look again.
struct Dialing {
    peers: Arc<Mutex<Peers>>,
    key: Key,
    result: watch::Sender<Option<Told>>,
}

impl Tunnels {
    /// None are open yet.
    pub fn new(connector: Connector, metrics: Arc<Metrics>) -> Self {
        let streams = metrics.tunnel_streams(Direction::Outbound);
        let peers = Arc::default();
        Self {
            connector,
            metrics,
            streams,
            peers,
        }
    }

    /// A connection for bytes to an endpoint.
    pub async fn connect(&self, to: &Endpoint) -> Result<Carrier, Error> {
        let identity = self.connector.expects(to);
        if let (Some(identity), true) = (identity, self.connector.may_tunnel()) {
            let key = Key {
                address: to.address,
                identity: identity.clone(),
            };
            let sizes = self.sizes(&key);
            let bulk = sizes.as_ref().is_some_and(|sizes| sizes.expects_bulk());
            let shared = match bulk {
                true => None,
                false => self.through(to, &key).await?,
            };
            let io = match shared {
                Some(io) => io,
                None => self.connector.connect(to, Alpn::Opaque).await?,
            };
            let size = sizes.map(Size::new);
            return Ok(Carrier { io, size });
        }
        let io = self.connector.connect(to, Alpn::Opaque).await?;
        Ok(Carrier { io, size: None })
    }

    /// What is known of an endpoint; `None`: there are too many of them.
    fn sizes(&self, key: &Key) -> Option<Arc<Sizes>> {
        let now = Instant::now();
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get_mut(key) {
            peer.used = now;
            return Some(peer.sizes.clone());
        }
        if peers.len() >= MAX_PEERS {
            return None;
        }
        let peer = peers.entry(key.clone()).or_insert(Peer::new(now));
        Some(peer.sizes.clone())
    }

    /// Forgets peers without tunnels that nobody has called for a while.
    pub fn sweep(&self, now: Instant) {
        self.peers.lock().retain(|_, peer| peer.is_to_be_kept(now));
    }

    #[cfg(test)]
    pub(super) fn peers(&self) -> usize {
        self.peers.lock().len()
    }

    /// Through a tunnel; `None`: there is none to be had.
    async fn through(&self, to: &Endpoint, key: &Key) -> Result<Option<Io>, Error> {
        // An attempt that others made may end without a place for us. When a tunnel fails all who were on it come here:
        // they wait for one new tunnel, not for a handshake each.
        for _ in 0..3 {
            match self.way(key) {
                Way::On(place) => match self.stream(place).await {
                    Some(io) => return Ok(Some(io)),
                    None => continue,
                },
                Way::Directly => return Ok(None),
                Way::Dial(dialing) => return self.dial(to, dialing).await,
                Way::Wait(mut result) => {
                    let _ = result.changed().await;
                    if let Some(failed) = result.borrow().clone() {
                        return Err(failed.into());
                    }
                }
            }
        }
        Ok(None)
    }

    fn way(&self, key: &Key) -> Way {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.get_mut(key) else {
            return Way::Directly;
        };
        let epoch = self.connector.epoch();
        peer.open.retain(|tunnel| tunnel.takes_more(epoch));
        // The fullest that has room: what is written at one moment leaves together, and others can become idle.
        let free = peer.open.iter().filter(|tunnel| tunnel.has_room());
        if let Some(tunnel) = free.max_by_key(|tunnel| tunnel.streams.load(Relaxed)) {
            return Way::On(Place::new(tunnel));
        }
        if let Some(dialing) = &peer.dialing {
            return Way::Wait(dialing.clone());
        }
        let now = Instant::now();
        if peer.open.len() >= MAX_TUNNELS || peer.direct_until.is_some_and(|until| now < until) {
            return Way::Directly;
        }
        let (result, waiting) = watch::channel(None);
        peer.dialing = Some(waiting);
        Way::Dial(Dialing {
            peers: self.peers.clone(),
            key: key.clone(),
            result,
        })
    }

    /// Opens a tunnel, and a stream on it; `None`: it is of no use.
    async fn dial(&self, to: &Endpoint, dialing: Dialing) -> Result<Option<Io>, Error> {
        let epoch = self.connector.epoch();
        match Box::pin(self.open(to)).await {
            Ok(Opened::Plain(io)) => {
                dialing.directly(DIRECT);
                Ok(Some(io))
            }
            Ok(Opened::Tunnel(sender, connection)) => {
                let tunnel = Arc::new(Tunnel::new(sender, epoch));
                let open = Open::new(&self.metrics, Direction::Outbound);
                let drive = drive(*connection, Arc::downgrade(&tunnel), dialing.home(), open);
                tokio::spawn(drive);
                // Nobody else relies on it before it has answered: each would find out for itself that it does not.
                let stream = self.stream(Place::new(&tunnel)).await;
                match &stream {
                    Some(_) => dialing.done(tunnel),
                    None => dialing.directly(UNANSWERED),
                }
                Ok(stream)
            }
            Err(error) => {
                dialing.failed(&error);
                Err(error)
            }
        }
    }

    async fn open(&self, to: &Endpoint) -> Result<Opened, Error> {
        let (io, alpn) = self.connector.connect_offering(to, Alpn::Tunnel).await?;
        if alpn != Alpn::Tunnel {
            return Ok(Opened::Plain(io));
        }
        let opened = settings().handshake(io).await;
        let (sender, connection) =
            opened.map_err(|error| Error::new(ErrorKind::ConnectFailed).with_source(error))?;
        Ok(Opened::Tunnel(sender, Box::new(connection)))
    }

    /// A stream on a tunnel; `None`: the tunnel does not answer, and is not used again.
    async fn stream(&self, place: Place) -> Option<Io> {
        let tunnel = place.0.clone();
        match timeout(ANSWER, stream(place)).await {
            Ok(Ok(stream)) => {
                self.streams.inc();
                Some(Io::Stream(Box::new(stream)))
            }
            Ok(Err(error)) => tunnel.give_up(&error),
            Err(late) => tunnel.give_up(&late),
        }
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            open: Vec::new(),
            dialing: None,
            direct_until: None,
            used: now,
            sizes: Arc::default(),
        }
    }

    /// A connection that is open holds on to what is known of its size.
    fn is_to_be_kept(&self, now: Instant) -> bool {
        let busy = !self.open.is_empty() || self.dialing.is_some();
        let carries = Arc::strong_count(&self.sizes) > 1;
        busy || carries || now.saturating_duration_since(self.used) < REMEMBERED
    }
}

/// What a handshake led to.
enum Opened {
    Tunnel(SendRequest<Bytes>, Box<Connection<Io, Bytes>>),
    Plain(Io),
}

pub(super) fn settings() -> h2::client::Builder {
    let mut settings = h2::client::Builder::new();
    settings
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        // As at the serving side: an application that falls resets all of its streams at once.
        .max_concurrent_reset_streams(TAKEN)
        .data_frame_budget(TUNNEL_WINDOW as usize);
    settings
}

async fn stream(place: Place) -> Result<Stream, h2::Error> {
    let mut sender = place.0.sender.clone().ready().await?;
    // Where it leads is known to both sides; the words are there because the grammar asks for some.
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static("weft");
    let (answer, send) = sender.send_request(request, false)?;
    let answer = answer.await?;
    if answer.status() != StatusCode::OK {
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    Ok(Stream::new(send, answer.into_body(), Some(place)))
}

/// Where a tunnel is kept.
struct Home {
    peers: Weak<Mutex<Peers>>,
    key: Key,
}

impl Home {
    /// Forgets a tunnel.
    fn forget(&self, tunnel: &Weak<Tunnel>) {
        let Some(peers) = self.peers.upgrade() else {
            return;
        };
        if let Some(peer) = peers.lock().get_mut(&self.key) {
            peer.open
                .retain(|open| !std::ptr::eq(Arc::as_ptr(open), tunnel.as_ptr()));
        }
    }
}

/// Moves what the streams of a tunnel have to say, until it ends.
async fn drive(
    mut connection: Connection<Io, Bytes>,
    tunnel: Weak<Tunnel>,
    home: Home,
    _open: Open,
) {
    let mut heart = Heartbeat::new(connection.ping_pong());
    let mut connection = pin!(connection);
    let mut tick = interval_at(tokio::time::Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a tunnel ended");
                }
                break;
            }
            _ = tick.tick() => {
                let (idle, busy) = tunnel.upgrade().map_or((false, true), |tunnel| tunnel.tick());
                if idle {
                    home.forget(&tunnel);
                }
                if busy && !heart.lives().await {
                    tracing::info!(endpoint = %home.key.address, "a tunnel's peer does not answer");
                    break;
                }
            }
        }
    }
    if let Some(tunnel) = tunnel.upgrade() {
        tunnel.closed.store(true, Relaxed);
    }
    home.forget(&tunnel);
    footprint::left_behind();
}

impl Tunnel {
    fn new(sender: SendRequest<Bytes>, epoch: u64) -> Self {
        let (streams, idle_ticks, closed) = Default::default();
        Self {
            sender,
            streams,
            idle_ticks,
            closed,
            epoch,
        }
    }

    fn takes_more(&self, epoch: u64) -> bool {
        self.epoch == epoch && !self.closed.load(Relaxed)
    }

    fn has_room(&self) -> bool {
        self.streams.load(Relaxed) < MAX_STREAMS
    }

    /// Is it idle for too long, and has it streams?
    fn tick(&self) -> (bool, bool) {
        if self.streams.load(Relaxed) > 0 {
            self.idle_ticks.store(0, Relaxed);
            return (false, true);
        }
        (
            self.idle_ticks.fetch_add(1, Relaxed) + 1 >= IDLE_TICKS,
            false,
        )
    }

    fn give_up<T>(&self, why: &dyn std::fmt::Display) -> Option<T> {
        tracing::debug!(%why, "a tunnel takes no stream; connecting directly");
        self.closed.store(true, Relaxed);
        None
    }
}

impl Place {
    fn new(tunnel: &Arc<Tunnel>) -> Self {
        tunnel.streams.fetch_add(1, Relaxed);
        Self(tunnel.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
        self.0.idle_ticks.store(0, Relaxed);
    }
}

impl Dialing {
    fn home(&self) -> Home {
        Home {
            peers: Arc::downgrade(&self.peers),
            key: self.key.clone(),
        }
    }

    fn done(self, tunnel: Arc<Tunnel>) {
        self.with_peer(|peer| {
            // One that has ended meanwhile was looked for here already.
            if !tunnel.closed.load(Relaxed) {
                peer.open.push(tunnel);
            }
        });
    }

    fn directly(self, time: Duration) {
        self.with_peer(|peer| peer.direct_until = Some(Instant::now() + time));
    }

    fn failed(self, error: &Error) {
        self.result.send_replace(Some(error.into()));
    }

    fn with_peer(&self, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.lock().get_mut(&self.key) {
            change(peer);
        }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.with_peer(|peer| peer.dialing = None);
    }
}
