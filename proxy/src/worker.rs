//! One worker thread: its listeners, its connections, its stacks. Workers share nothing that is written per request
//! except counters.

use crate::accept::{Accepted, Listener};
use crate::config::Config;
use crate::connection::{CloseReason, CloseSignal, Connection, Direction, Peer};
use crate::discover::Discover;
use crate::error::{Error, ErrorKind};
use crate::http::{HttpService, HttpVersion, server};
use crate::io::Io;
use crate::known::{Destinations, Known};
use crate::metrics::labels::Side;
use crate::metrics::{ConnectionLabels, ConnectionMetrics, Group, Metrics, OpenConnection};
use crate::policy::InboundPlan;
use crate::room::{Place, Room};
use crate::stack::Shared;
use crate::tasks::{DrainWatch, Tasks};
use crate::tcp::Relay;
use crate::tls::Tls;
use crate::{footprint, inbound, outbound};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use weft_proxy_api::policy::inbound::ConnectionVerdict;

/// How often idle destinations are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long cut-off connections have to say goodbye.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What the connections of one thread share.
pub struct Worker {
    /// What stacks use.
    pub shared: Arc<Shared>,
    /// Where addresses lead.
    pub discover: Discover,
    /// Our identity.
    pub tls: Tls,
    /// The settings.
    pub config: Arc<Config>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub drain: DrainWatch,
    /// For connections of the whole process.
    pub room: Arc<Room>,
    /// Destinations in use here, with their stacks.
    pub destinations: Destinations,
    tasks: Tasks,
    open: Open,
}

/// Why a connection ended early.
#[derive(Debug)]
pub enum End {
    /// It was not let in, or not let out; the label says why.
    Refused(&'static str),
    /// Something on its way failed.
    Failed(Error),
}

/// What is left to do for a connection that was let in.
pub enum Next {
    /// It carries bytes.
    Relay(Relay),
    /// It carries requests.
    Requests(Requests),
}

impl Next {
    /// Does it.
    pub async fn run(self, worker: &Arc<Worker>) -> Result<(), End> {
        match self {
            Next::Relay(relay) => relay.run(worker).await,
            // Boxed: connections of bytes are not to hold room for it.
            Next::Requests(requests) => Box::pin(requests.run(worker)).await,
        }
    }
}

/// A connection whose requests are to be served.
pub struct Requests {
    io: Io,
    version: HttpVersion,
    service: HttpService,
    conn: Arc<Connection>,
    open: OpenGuard,
    /// Kept in use as long as somebody may ask.
    to: Option<Arc<Known>>,
}

impl Requests {
    /// `open`: its place in the list and in the metrics.
    pub fn new(
        io: Io,
        version: HttpVersion,
        service: HttpService,
        conn: Arc<Connection>,
        open: OpenGuard,
    ) -> Self {
        Self {
            io,
            version,
            service,
            conn,
            open,
            to: None,
        }
    }

    /// Where they go.
    pub fn to(mut self, known: Arc<Known>) -> Self {
        self.to = Some(known);
        self
    }

    async fn run(self, worker: &Worker) -> Result<(), End> {
        let _held = (self.open, self.to);
        let (service, drain) = (self.service, worker.drain.clone());
        Ok(server::serve(self.io, self.version, service, self.conn, drain).await?)
    }
}

impl From<Relay> for Next {
    fn from(relay: Relay) -> Self {
        Next::Relay(relay)
    }
}

impl From<Requests> for Next {
    fn from(requests: Requests) -> Self {
        Next::Requests(requests)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Failed(error)
    }
}

impl From<ErrorKind> for End {
    fn from(kind: ErrorKind) -> Self {
        End::Failed(kind.into())
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        End::Failed(Error::new(ErrorKind::ClientGone).with_source(error))
    }
}

/// Inbound connections that policy admitted, to be judged again when it changes.
#[derive(Default)]
struct Open {
    next: AtomicU64,
    connections: Mutex<HashMap<u64, (Arc<Connection>, Carries)>>,
}

/// What a connection was admitted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Requests, each judged by itself.
    Http,
    /// Bytes, judged once.
    Bytes,
}

/// A connection in the list of open ones, and in the metrics, as long as it lives.
pub struct OpenGuard {
    worker: Arc<Worker>,
    id: u64,
    open: OpenConnection,
}

impl Worker {
    /// One per thread.
    pub fn new(
        shared: Arc<Shared>,
        discover: Discover,
        tls: Tls,
        config: Arc<Config>,
        drain: DrainWatch,
        room: Arc<Room>,
    ) -> Arc<Self> {
        let metrics = shared.metrics.clone();
        let (tasks, open, destinations) = Default::default();
        Arc::new(Self {
            shared,
            discover,
            tls,
            config,
            metrics,
            drain,
            room,
            destinations,
            tasks,
            open,
        })
    }

    /// Accepts and serves until the drain is over. The body of a worker thread.
    pub async fn run(self: Arc<Self>, listeners: Vec<Listener>) {
        let accepting = Tasks::default();
        for listener in listeners {
            let worker = self.clone();
            let run = async move {
                if let Err(error) = listener.run(worker).await {
                    tracing::error!(%error, "a listener failed");
                }
            };
            accepting.spawn(run, || tracing::error!("a listener panicked"));
        }
        let serving = async {
            accepting.idle().await;
            tokio::select! {
                () = self.tasks.idle() => {}
                () = self.drain.now() => {}
            }
            self.open.close_all(CloseReason::Shutdown);
            let _ = tokio::time::timeout(LAST_WORDS, self.tasks.idle()).await;
        };
        tokio::select! {
            () = serving => {}
            () = self.clone().judge_again() => {}
            () = self.clone().sweep() => {}
            () = footprint::give_back() => {}
        }
    }

    /// Serves a connection in a task of its own.
    pub fn spawn(self: &Arc<Self>, tcp: TcpStream, accepted: Accepted, place: Place) {
        let worker = self.clone();
        match accepted.direction {
            Direction::Inbound => match self.room.greet(accepted.client.ip()) {
                Some(unproven) => self.serve(accepted, place, async move {
                    inbound::serve(&worker, tcp, accepted, unproven).await
                }),
                None => self.full(
                    Direction::Inbound,
                    accepted.client,
                    "half of the room waits for clients of this address to say who they are",
                ),
            },
            Direction::Outbound => self.serve(accepted, place, async move {
                outbound::serve(&worker, tcp, accepted).await
            }),
        }
    }

    /// Lets a connection in, in a task of its own, and relays its bytes if it carries any; `held` is dropped at its end.
    pub fn serve(
        self: &Arc<Self>,
        accepted: Accepted,
        held: impl Send + 'static,
        serving: impl Future<Output = Result<Option<Next>, End>> + Send + 'static,
    ) {
        // Boxed: letting a connection in takes a large future. It is given back before bytes are relayed or requests are
        // served, so that an idle connection holds a small one only.
        let serving = Box::pin(serving);
        let (worker, metrics) = (self.clone(), self.metrics.clone());
        let Accepted {
            direction,
            client,
            target,
            ..
        } = accepted;
        let task = async move {
            let _held = held;
            let ended = match serving.await {
                Ok(Some(next)) => next.run(&worker).await,
                Ok(None) => Ok(()),
                Err(end) => Err(end),
            };
            match ended {
                Ok(()) => {}
                Err(End::Refused(reason)) => {
                    worker.count_refusal(direction, client, target, reason)
                }
                Err(End::Failed(error)) => worker.count_failure(direction, client, target, &error),
            }
        };
        self.tasks.spawn(task, move || {
            tracing::error!(direction = direction.label(), %target, "a connection's task panicked");
            metrics.panics(direction).inc();
        });
    }

    /// Closes a connection that never was one of ours.
    pub fn refuse(&self, tcp: TcpStream, client: SocketAddr, reason: &'static str) {
        tracing::debug!(%client, reason, "connection refused");
        self.metrics.denied(reason, false).inc();
        drop(tcp);
    }

    /// Says that there is no room for another connection.
    pub fn full(&self, direction: Direction, client: SocketAddr, why: &'static str) {
        let error = Error::new(ErrorKind::TooManyConnections).with_detail(why);
        if self.may_say() {
            let most = self.room.most();
            tracing::warn!(direction = direction.label(), %client, most, %error, "connection closed");
        }
        self.metrics
            .error(direction, error.code(), error.name())
            .inc();
    }

    /// Says that there are no descriptors (or memory) for another connection.
    pub fn exhausted(&self, direction: Direction, error: &std::io::Error) {
        if self.may_say() {
            tracing::warn!(direction = direction.label(), %error, "cannot accept; turning clients away for a moment");
        }
        self.metrics.accept_exhausted(direction).inc();
    }

    /// May another line be written about somebody refused? What is not said is still counted.
    pub fn may_say(&self) -> bool {
        self.shared.lines.take()
    }

    fn count_refusal(
        &self,
        direction: Direction,
        client: SocketAddr,
        target: SocketAddr,
        reason: &'static str,
    ) {
        if self.may_say() {
            tracing::info!(direction = direction.label(), %client, %target, reason, "connection refused");
        }
        self.metrics.denied(reason, false).inc();
    }

    fn count_failure(
        &self,
        direction: Direction,
        client: SocketAddr,
        target: SocketAddr,
        error: &Error,
    ) {
        // Clients come and go; that is no failure of anybody.
        if matches!(error.kind(), ErrorKind::ClientGone) {
            return tracing::debug!(direction = direction.label(), %client, %target, %error, "client gone");
        }
        if self.may_say() {
            tracing::info!(direction = direction.label(), %client, %target, %error, "connection failed");
        }
        self.metrics
            .error(direction, error.code(), error.name())
            .inc();
    }

    /// The value that travels down with an accepted connection.
    pub fn connection(&self, accepted: &Accepted, peer: Peer) -> Arc<Connection> {
        let Accepted {
            direction,
            client,
            target,
            dial,
            ..
        } = *accepted;
        Arc::new(Connection {
            direction,
            client,
            target,
            dial,
            peer,
            closed: CloseSignal::new(),
        })
    }

    /// Lists the connection among the open ones until the guard is dropped.
    pub fn open(
        self: &Arc<Self>,
        conn: &Arc<Connection>,
        carries: Carries,
        protocol: &'static str,
    ) -> OpenGuard {
        let metrics = self.metrics.connection(ConnectionLabels {
            direction: conn.direction,
            side: Side::Src,
            peer: match conn.direction {
                Direction::Inbound => Metrics::client(conn.peer.identity()),
                Direction::Outbound => Group::unknown(),
            },
            no_tls: match conn.peer {
                Peer::Mutual(_) => "",
                Peer::Plain(why) => why.label(),
            },
            protocol,
        });
        let open = OpenConnection::new(metrics);
        let id = self.open.next.fetch_add(1, Ordering::Relaxed);
        self.open
            .connections
            .lock()
            .insert(id, (conn.clone(), carries));
        // The policy may have changed between the verdict and this list.
        if carries == Carries::Bytes
            && conn.direction == Direction::Inbound
            && let Some(plan) = self.discover.inbound().load()
        {
            judge(&plan, conn, carries);
        }
        OpenGuard {
            worker: self.clone(),
            id,
            open,
        }
    }

    /// Closes the connections that a new policy no longer admits.
    async fn judge_again(self: Arc<Self>) {
        let mut policy = self.discover.inbound();
        loop {
            policy.changed().await;
            if let Some(plan) = policy.load() {
                self.open.judge_all(&plan);
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            self.destinations.sweep(now);
            self.shared.tunnels.sweep(now);
        }
    }

    /// Ports that are ours, whatever address they are on.
    pub fn own_ports(&self) -> Vec<u16> {
        let config = &self.config;
        [&config.outbound, &config.inbound, &config.admin]
            .into_iter()
            .flatten()
            .map(SocketAddr::port)
            .collect()
    }
}

impl Open {
    fn judge_all(&self, plan: &InboundPlan) {
        let open = self.connections.lock();
        let inbound = open
            .values()
            .filter(|(conn, _)| conn.direction == Direction::Inbound);
        let closed = inbound
            .filter(|(conn, carries)| judge(plan, conn, *carries))
            .count();
        if closed > 0 {
            tracing::info!(closed, "connections closed: permission withdrawn");
        }
    }

    fn close_all(&self, why: CloseReason) {
        self.connections
            .lock()
            .values()
            .for_each(|(conn, _)| conn.closed.close(why));
    }
}

/// Closes a connection that is no longer allowed; true: it was not.
fn judge(plan: &InboundPlan, conn: &Connection, carries: Carries) -> bool {
    let withdrawn = !still_allowed(plan, conn, carries);
    if withdrawn {
        tracing::debug!(client = %conn.client, target = %conn.target, "permission withdrawn; closing");
        conn.closed.close(CloseReason::Withdrawn);
    }
    withdrawn
}

fn still_allowed(plan: &InboundPlan, conn: &Connection, carries: Carries) -> bool {
    match plan
        .inbound
        .judge_connection(conn.caller(), conn.target.port())
    {
        ConnectionVerdict::Allow { .. } | ConnectionVerdict::Audit { .. } => true,
        ConnectionVerdict::HttpOnly => carries == Carries::Http,
        ConnectionVerdict::Deny { .. } => false,
    }
}

impl OpenGuard {
    /// Its series.
    pub fn metrics(&self) -> &Arc<ConnectionMetrics> {
        self.open.metrics()
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        footprint::left_behind();
        self.worker.open.connections.lock().remove(&self.id);
    }
}
