//! The side that serves: each stream of a tunnel becomes a connection to the application.

use super::{
    FRAME, Heartbeat, Open, SEND_BUFFER, STREAM_WINDOW, Stream, TAKEN, TICK, TUNNEL_WINDOW,
};
use crate::accept::Accepted;
use crate::connect::HANDSHAKE_TIMEOUT;
use crate::connection::{Direction, Peer};
use crate::inbound;
use crate::io::Io;
use crate::metrics::Count;
use crate::room::ALL_TAKEN;
use crate::worker::{End, Worker};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use weft_proxy_api::identity::SpiffeId;

/// Ticks without streams after which a tunnel is closed; long after the side that opened it should have.
const IDLE_TICKS: u32 = 30;

/// What is known about the other end of a tunnel.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it proved to be.
    pub id: SpiffeId,
    /// How long that holds.
    pub until: SystemTime,
}

/// Serves a tunnel until it ends. `epoch` is that of our certificate and roots in its handshake.
pub async fn serve(
    worker: &Arc<Worker>,
    io: Io,
    accepted: Accepted,
    caller: Caller,
    epoch: u64,
) -> Result<(), End> {
    let opened = timeout(HANDSHAKE_TIMEOUT, settings().handshake(io)).await;
    let Ok(Ok(mut connection)) = opened else {
        return Err(End::Refused("tunnel_handshake"));
    };
    let _open = Open::new(&worker.metrics, Direction::Inbound);
    let mut tunnel = Serving {
        worker,
        accepted,
        caller,
        streams: Arc::default(),
        counted: worker.metrics.tunnel_streams(Direction::Inbound),
        idle_ticks: 0,
        trusted: true,
    };
    let mut heart = Heartbeat::new(connection.ping_pong());
    let mut tick = interval_at(tokio::time::Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut leaving, mut changed) = (false, false);
    loop {
        tokio::select! {
            biased;
            stream = connection.accept() => match stream {
                Some(Ok((request, respond))) => tunnel.stream(request, respond),
                Some(Err(error)) => {
                    tracing::debug!(client = %tunnel.accepted.client, %error, "a tunnel broke");
                    return Ok(());
                }
                None => return Ok(()),
            },
            () = worker.drain.no_more(Direction::Inbound), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = worker.tls.newer_than(epoch), if !changed => {
                (changed, tunnel.trusted) = (true, false);
                connection.graceful_shutdown();
            }
            _ = tick.tick() => {
                if tunnel.is_to_end() {
                    connection.graceful_shutdown();
                }
                if tunnel.busy() && !heart.lives().await {
                    return Ok(());
                }
            }
        }
    }
}

pub(super) fn settings() -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_concurrent_streams(TAKEN as u32)
        .max_frame_size(FRAME)
        .max_header_list_size(1024)
        .max_send_buffer_size(SEND_BUFFER)
        // What is reset at once, because a peer or an application stood still or fell, ends no other stream.
        .max_concurrent_reset_streams(TAKEN)
        .max_pending_accept_reset_streams(TAKEN)
        .data_frame_budget(TUNNEL_WINDOW as usize);
    settings
}

/// One tunnel.
struct Serving<'a> {
    worker: &'a Arc<Worker>,
    accepted: Accepted,
    caller: Caller,
    /// Tasks of its streams. A stream that was reset is not counted by HTTP/2 any more, but still has one.
    streams: Arc<AtomicUsize>,
    counted: Count,
    idle_ticks: u32,
    /// Neither our certificate nor our roots have changed since the handshake.
    trusted: bool,
}

/// Counts the task of a stream as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Serving<'_> {
    fn stream(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if request.method() != Method::CONNECT {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        // Refused streams come again on connections of their own, with a handshake of today.
        if !self.trusted || self.expired() || self.streams.load(Relaxed) >= TAKEN {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        // A stream is a connection to the application, and takes as much room as one that was accepted.
        let Some(place) = self.worker.room.take() else {
            let client = self.accepted.client;
            self.worker.full(Direction::Inbound, client, ALL_TAKEN);
            return respond.send_reset(Reason::REFUSED_STREAM);
        };
        let Ok(send) = respond.send_response(Response::new(()), false) else {
            return;
        };
        self.counted.inc();
        let counted = Counted::new(&self.streams);
        let io = Io::Stream(Box::new(Stream::new(send, request.into_body(), None)));
        let (worker, accepted) = (self.worker.clone(), self.accepted);
        let conn = worker.connection(&accepted, Peer::Mutual(self.caller.id.clone()));
        self.worker.serve(accepted, (counted, place), async move {
            inbound::opaque(&worker, io, conn, "opaque").await
        });
    }

    fn expired(&self) -> bool {
        SystemTime::now() >= self.caller.until
    }

    fn busy(&self) -> bool {
        self.streams.load(Relaxed) > 0
    }

    fn is_to_end(&mut self) -> bool {
        self.idle_ticks = if self.busy() { 0 } else { self.idle_ticks + 1 };
        self.idle_ticks >= IDLE_TICKS || self.expired()
    }
}

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// When the certificate with these seconds since 1970 ends.
pub fn end_of(seconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
