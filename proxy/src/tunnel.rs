//! Several connections of bytes between two proxies, carried as streams of one mutual-TLS connection: a new one costs a
//! stream instead of a handshake, and an idle one holds no TLS session.
//!
//! ```text
//!   application ─► outbound ─► Tunnels::connect ─► Stream ┐                    ┌ Stream ─► judged ─► application
//!   application ─► outbound ─► Tunnels::connect ─► Stream ┴─ one TLS (HTTP/2) ─┴ Stream ─► judged ─► application
//! ```
//!
//! * **Who speaks it.** The caller offers `weft-tunnel` and `weft-opaque` in one handshake. A proxy that does not speak
//!   it, or must not, takes the second: then this very connection carries the bytes, as it always did, and the peer is
//!   called directly for a minute. The peer's identity is pinned as for any connection.
//! * **Where a stream leads.** Nowhere but where its tunnel led: the original destination of the tunnel's own socket,
//!   address and port, as the kernel tells it. A stream is an HTTP/2 CONNECT whose words are not looked at, so there is
//!   nothing in it that could point elsewhere, and a network policy that closes a port closes it for streams as well. There
//!   is a tunnel for each endpoint address, expected identity and worker.
//! * **Who may.** Each stream is judged, counted, listed and cut off by itself, with the identity of the tunnel's
//!   certificate, exactly as a connection would be.
//! * **Bulk** is better off on a connection of its own ([`sizes`]): endpoints whose connections carry much are called directly.
//! * **How long trust lasts.** When our certificate or the roots change, no new stream is put on older tunnels and the
//!   serving side says goodbye (GOAWAY); streams that are open live to their end, as connections do. The serving side takes
//!   no stream after the end of the certificate that its peer showed.
//! * **When it fails.** The serving side answers a stream at once, before it judges. A tunnel that does not answer within
//!   [`ANSWER`] is not used again, and all who had asked it wait for one new tunnel; where that does not answer
//!   either, the peer is called directly for a while. A tunnel that cannot be opened counts as a failed connect: what a balancer or breaker is told
//!   is what a connection of its own would have met.
//! * **Ends.** END_STREAM is the end of one direction; RST_STREAM is a reset, both ways. At a drain or hand-over the serving
//!   side says goodbye and streams live on until the grace ends. Idle tunnels are closed after half a minute by who opened
//!   them, after five by the other side. PING finds dead peers while there are streams.
//! * **Memory and fairness.** What a reader does not take is bounded by its window ([`STREAM_WINDOW`]). The window of the
//!   tunnel is as large as those of all its streams together, so slow streams take nothing from others. Frames
//!   of ready streams take turns. What comes for a reader that waits is put together in one piece ([`Stream::absorb`]),
//!   so that many tiny frames cost no more than their bytes, and nobody else's tunnel. What remains is TCP's own: a lost
//!   packet holds all streams of the tunnel up, and one tunnel is work of one thread at either side. [`MAX_STREAMS`] and
//!   [`MAX_TUNNELS`] bound what shares a fate; beyond both a connection is opened directly.

mod client;
mod server;
mod sizes;
mod stream;

pub use client::{Carrier, Tunnels};
pub use server::{Caller, end_of, serve};
pub use sizes::{Size, Sizes};
pub use stream::Stream;

use crate::connection::Direction;
use crate::metrics::{Level, Metrics};
use crate::tls::RECORD;
use h2::{Ping, PingPong};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// Streams of one tunnel.
pub const MAX_STREAMS: usize = 100;
/// Streams the serving side takes at once: the other side may believe one at its end that we still hold.
const TAKEN: usize = 2 * MAX_STREAMS;
/// Tunnels of one worker to one endpoint.
pub const MAX_TUNNELS: usize = 64;
/// Bytes that wait for a slow reader of one stream.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a tunnel.
const TUNNEL_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of one stream that were written and did not leave yet.
const SEND_BUFFER: usize = 256 * 1024;
/// Four full TLS records, less the head of the frame.
const FRAME: u32 = 4 * RECORD as u32 - 9;
/// How long the serving side may take to answer a stream before it is given up.
pub const ANSWER: Duration = Duration::from_secs(1);
/// How often idleness and life are looked at.
const TICK: Duration = Duration::from_secs(10);

/// Counts a tunnel as open until it is dropped.
struct Open(Level);

impl Open {
    fn new(metrics: &Metrics, direction: Direction) -> Self {
        let open = metrics.tunnels_open(direction);
        open.change(1.0);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(-1.0);
    }
}

/// Asks the other side whether it lives.
struct Heartbeat {
    pings: Option<PingPong>,
    unanswered: u32,
}

impl Heartbeat {
    /// Beats without an answer after which the peer counts as dead.
    const MISSED: u32 = 2;

    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            unanswered: 0,
        }
    }

    /// To be called every [`TICK`]; false: the peer is dead.
    async fn lives(&mut self) -> bool {
        let Some(pings) = &mut self.pings else {
            return true;
        };
        let answered = poll_fn(|cx| Poll::Ready(pings.poll_pong(cx).is_ready())).await;
        if answered || self.unanswered == 0 {
            self.unanswered = 0;
            // Refused only while an earlier one is under way.
            let _ = pings.send_ping(Ping::opaque());
        }
        self.unanswered += 1;
        self.unanswered <= Self::MISSED
    }
}

#[cfg(test)]
mod tests;
