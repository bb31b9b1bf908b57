//! Connections to one endpoint, kept by one worker: a stack of idle HTTP/1 connections, the last used first, and a small
//! set of HTTP/2 connections, each filled up to what its peer allows before another one is opened. All pools together keep
//! no more than [`super::kept`] allows.

use super::client::{Http2Sender, Target};
use super::h1::client::{Conn, Rest};
use super::kept::{Asked, Kept};
use crate::balance::limits::Keeper;
use crate::error::{Error, ErrorKind, Told};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Idle HTTP/1 connections kept for an endpoint: as many as were busy at once just before, since whoever closes one in a
/// lull pays for a handshake when the lull is over. The sweep closes those that stay unused.
pub const MAX_IDLE: usize = 1024;
/// HTTP/2 connections opened to an endpoint; above it, streams wait in the least used one.
pub const MAX_HTTP2: usize = 64;
/// Streams put on one HTTP/2 connection, even if its peer allows more: one connection is one core at the other side.
pub const MAX_STREAMS: usize = 100;
/// HTTP/2 connections that end at once before a request gives up.
const MOST_GONE: usize = 3;
/// Time a new HTTP/2 connection has to say whether its peer takes extended CONNECT.
const SETTINGS_TIME: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Sweeps after which an idle connection is closed.
pub const IDLE_SWEEPS: u32 = 3;

/// The connections.
pub(super) struct Pool {
    pub(super) target: Target,
    /// The last used at the back.
    idle: Mutex<VecDeque<Idle>>,
    http2: Mutex<Http2>,
    kept: Arc<Kept>,
    /// It stands in the queue of those that may be asked for a connection.
    listed: AtomicBool,
    /// Since it was last asked.
    used_since: AtomicBool,
    /// Rises with every sweep; what was put back three sweeps ago is idle too long. Spares a clock read per request.
    sweep: AtomicU32,
    used: AtomicBool,
    unused_sweeps: AtomicU32,
    /// The endpoint is gone: what comes back is not kept.
    retired: AtomicBool,
}

struct Idle {
    conn: Conn,
    since: u32,
}

#[derive(Default)]
struct Http2 {
    open: Vec<Arc<Shared>>,
    /// Set while a connection is being opened; whoever needs one waits for the same attempt.
    dialing: Option<watch::Receiver<Option<Dialed>>>,
}

/// How an attempt to open a connection ended, for all who waited.
type Dialed = Result<(), Told>;

/// One HTTP/2 connection.
pub(super) struct Shared {
    sender: Http2Sender,
    streams: AtomicUsize,
    peer_allows: Arc<Allows>,
    idle_since: AtomicU32,
    /// Whoever opened it has found it.
    found: AtomicBool,
}

/// What the peer of an HTTP/2 connection allows.
pub(super) struct Allows {
    streams: AtomicUsize,
    /// Extended CONNECT (RFC 8441). It cannot be taken back.
    extended: AtomicBool,
    opened: Instant,
    asked: Notify,
}

/// One stream counted on a connection.
pub(super) struct Stream(Arc<Shared>);

/// A stream that is held on to beyond its response.
#[derive(Clone)]
pub(super) struct Held(#[expect(dead_code, reason = "held for its drop")] Arc<Stream>);

impl Held {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Arc::new(stream))
    }
}

impl Allows {
    pub(super) fn new(streams: usize) -> Self {
        Self {
            streams: AtomicUsize::new(streams),
            extended: AtomicBool::new(false),
            opened: Instant::now(),
            asked: Notify::new(),
        }
    }

    /// The peer's settings may have changed.
    pub(super) fn heard(&self, streams: usize, extended: bool) {
        self.streams.store(streams, Relaxed);
        self.extended.store(extended, Relaxed);
    }

    /// Somebody wants to know now. The codec wakes nobody for settings.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}

impl Pool {
    pub(super) fn new(target: Target, kept: Arc<Kept>) -> Arc<Self> {
        let pool = Arc::new(Self {
            target,
            idle: Mutex::default(),
            http2: Mutex::default(),
            kept,
            listed: AtomicBool::new(false),
            used_since: AtomicBool::new(true),
            sweep: AtomicU32::new(0),
            used: AtomicBool::new(true),
            unused_sweeps: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        });
        if let Some(limits) = pool.target.limits() {
            let keeper: Weak<Self> = Arc::downgrade(&pool);
            limits.kept_by(keeper);
        }
        pool
    }

    fn with_idle<T>(&self, work: impl FnOnce(&mut VecDeque<Idle>) -> T) -> T {
        let mut idle = self.idle.lock();
        let before = idle.len();
        let done = work(&mut idle);
        self.kept.changed(before, idle.len());
        done
    }

    fn with_http2<T>(&self, work: impl FnOnce(&mut Http2) -> T) -> T {
        let mut http2 = self.http2.lock();
        let before = http2.open.len();
        let done = work(&mut http2);
        self.kept.changed(before, http2.open.len());
        done
    }

    fn is_used(&self) {
        self.used.store(true, Relaxed);
        self.used_since.store(true, Relaxed);
    }

    /// The idle HTTP/1 connection that was used last and still lives.
    pub(super) fn take_idle(&self) -> Option<Conn> {
        self.is_used();
        self.with_idle(|idle| {
            while let Some(mut last) = idle.pop_back() {
                if last.conn.look() == Rest::Quiet {
                    return Some(last.conn);
                }
            }
            None
        })
    }

    /// Keeps an HTTP/1 connection whose exchange has ended.
    pub(super) fn put_idle(self: &Arc<Self>, conn: Conn) {
        self.with_idle(|idle| {
            if self.retired.load(Relaxed) {
                return;
            }
            if idle.len() >= MAX_IDLE {
                idle.pop_front();
            }
            idle.push_back(Idle {
                conn,
                since: self.sweep.load(Relaxed),
            });
        });
        self.keeps_some();
        self.kept.make_room();
    }

    /// Of all that is kept, something is here.
    fn keeps_some(self: &Arc<Self>) {
        if !self.listed.load(Relaxed) {
            self.listed.store(true, Relaxed);
            self.kept.list(self);
        }
    }

    /// Closes the connection that has been idle for longest, unless the pool was used lately.
    pub(super) fn close_oldest(&self) -> Asked {
        if self.used_since.swap(false, Relaxed) {
            return Asked::Used;
        }
        if self.close_unused() {
            return Asked::Closed;
        }
        self.with_http2(|http2| {
            if http2.open.is_empty() {
                self.listed.store(false, Relaxed);
                return Asked::Empty;
            }
            Asked::Busy
        })
    }

    /// A stream on an HTTP/2 connection, opening one if needed. True: the connection was there already.
    pub(super) async fn stream(self: &Arc<Self>) -> Result<(Stream, bool), Error> {
        self.is_used();
        let mut waits = None;
        let mut gone = 0;
        loop {
            if let Some(stream) = self.with_http2(|http2| http2.stream(self.sweep.load(Relaxed))) {
                return Ok((stream, waits.is_none()));
            }
            if waits.is_some() && self.with_http2(|http2| http2.open.is_empty()) {
                gone += 1;
            }
            if gone >= MOST_GONE {
                let detail = "the endpoint ends each connection as soon as it is open";
                let error = Error::new(ErrorKind::UpstreamReset).with_detail(detail);
                return Err(error.never_processed());
            }
            let mut attempt = {
                let mut http2 = self.http2.lock();
                if waits.is_none() {
                    waits = Some(self.target.wait()?);
                }
                // Whoever dialled has panicked: nobody will ever say how it ended.
                drop(
                    http2
                        .dialing
                        .take_if(|attempt| attempt.has_changed().is_err()),
                );
                http2.dialing.get_or_insert_with(|| self.dial()).clone()
            };
            match attempt.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Err(told))) if told.kind() == ErrorKind::BreakerOpen => {
                    // No more connections: the ones there are have to do.
                    let http2 = self.http2.lock();
                    let stream = http2.least_used(self.sweep.load(Relaxed));
                    let refused = || told.clone().into();
                    return stream.map(|stream| (stream, true)).ok_or_else(refused);
                }
                Ok(Some(Err(told))) => return Err(told.clone().into()),
                Ok(_) => {}
                Err(_) => return Err(Error::new(ErrorKind::ConnectFailed)),
            }
        }
    }

    /// Opens an HTTP/2 connection in a task of its own: many wait for it, and none of them may take it along by leaving.
    fn dial(self: &Arc<Self>) -> watch::Receiver<Option<Dialed>> {
        let (done, attempt) = watch::channel(None);
        let pool = self.clone();
        tokio::spawn(async move {
            let dialed = pool.target.http2().await;
            let outcome = pool.with_http2(|http2| {
                http2.dialing = None;
                dialed.map(|(sender, peer_allows)| {
                    let idle_since = AtomicU32::new(pool.sweep.load(Relaxed));
                    http2.open.push(Arc::new(Shared {
                        sender,
                        streams: AtomicUsize::new(0),
                        peer_allows,
                        idle_since,
                        found: AtomicBool::new(false),
                    }));
                })
            });
            pool.keeps_some();
            pool.kept.make_room();
            done.send_replace(Some(outcome.map_err(|error| Told::from(&error))));
        });
        attempt
    }

    /// Closes what was idle too long. Called every [`super::client::SWEEP`]. True: the pool itself was not used for long.
    pub(super) fn sweep(&self) -> bool {
        let now = self.sweep.fetch_add(1, Relaxed).wrapping_add(1);
        let stale = |since: u32| now.wrapping_sub(since) >= IDLE_SWEEPS;
        self.with_idle(|idle| {
            idle.retain_mut(|idle| !stale(idle.since) && idle.conn.look() == Rest::Quiet);
        });
        let open = self.with_http2(|http2| {
            http2.open.retain(|conn| {
                if conn.streams.load(Relaxed) > 0 {
                    conn.idle_since.store(now, Relaxed);
                }
                // One more sweep for HTTP/2, whose connections are few and dear.
                !conn.sender.is_closed() && !stale(conn.idle_since.load(Relaxed).wrapping_add(1))
            });
            !http2.open.is_empty()
        });
        if self.used.swap(false, Relaxed) || open {
            self.unused_sweeps.store(0, Relaxed);
            return false;
        }
        self.unused_sweeps.fetch_add(1, Relaxed) >= IDLE_SWEEPS
    }

    /// Closes everything that is idle now, and the rest as soon as it is: HTTP/1 connections when they are given back,
    /// HTTP/2 ones with their last stream.
    pub(super) fn retire(&self) {
        self.with_idle(|idle| {
            // Under the lock, as whoever gives a connection back looks there.
            self.retired.store(true, Relaxed);
            idle.clear();
        });
        self.with_http2(|http2| http2.open.clear());
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle.lock().len(), self.http2.lock().open.len())
    }
}

impl Keeper for Pool {
    fn close_unused(&self) -> bool {
        // Taken out first: what it gives back as it ends is nothing to hold a lock for.
        if self.with_idle(VecDeque::pop_front).is_some() {
            return true;
        }
        let oldest = self.with_http2(|http2| {
            let idle = |conn: &Arc<Shared>| conn.streams.load(Relaxed) == 0;
            let found = |conn: &Arc<Shared>| conn.found.load(Relaxed);
            let oldest = http2.open.iter().position(|conn| idle(conn) && found(conn));
            oldest.map(|at| http2.open.remove(at))
        });
        oldest.is_some()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().len();
        self.kept.changed(idle + self.http2.get_mut().open.len(), 0);
    }
}

impl Http2 {
    /// A stream on the first connection with room; on the least used one where no more may be opened.
    fn stream(&mut self, now: u32) -> Option<Stream> {
        self.open.retain(|conn| !conn.sender.is_closed());
        let with_room = self
            .open
            .iter()
            .find(|conn| conn.streams.load(Relaxed) < conn.room());
        match with_room {
            None if self.open.len() >= MAX_HTTP2 => self.least_used(now),
            found => found.map(|conn| conn.open(now)),
        }
    }

    fn least_used(&self, now: u32) -> Option<Stream> {
        let streams = |conn: &&Arc<Shared>| conn.streams.load(Relaxed);
        self.open
            .iter()
            .min_by_key(streams)
            .map(|conn| conn.open(now))
    }
}

impl Shared {
    fn open(self: &Arc<Self>, now: u32) -> Stream {
        self.streams.fetch_add(1, Relaxed);
        self.idle_since.store(now, Relaxed);
        self.found.store(true, Relaxed);
        Stream(self.clone())
    }

    /// At least one: a peer that allows none for a moment is waited for, not dialled again and again.
    fn room(&self) -> usize {
        self.peer_allows.streams.load(Relaxed).clamp(1, MAX_STREAMS)
    }
}

impl Stream {
    pub(super) fn sender(&self) -> Http2Sender {
        self.0.sender.clone()
    }

    /// Does the peer? A new connection is given the time to say so.
    pub(super) async fn takes_extended_connect(&self) -> bool {
        let allows = &self.0.peer_allows;
        loop {
            if allows.extended.load(Relaxed) {
                return true;
            }
            allows.asked.notify_one();
            tokio::time::sleep(ASK_AGAIN).await;
            if allows.opened.elapsed() >= SETTINGS_TIME {
                return allows.extended.load(Relaxed);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}
