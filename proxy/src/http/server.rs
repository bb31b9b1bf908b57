//! Reads the requests of one accepted connection and hands them to its stack.

use super::bridge::{Streams, Upgrade};
use super::client::{CONNECTION_WINDOW, PING, READ_BUFFER, SEND_BUFFER, STREAM_WINDOW};
use super::heads::{self, Timed};
use super::pool::Held;
use super::service::ServiceFuture;
use super::strict::{self, Signals, Strict};
use super::{Body, HttpService, HttpVersion, Request, Response, validate};
use crate::balance;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::footprint;
use crate::io::Io;
use crate::tasks::{DrainWatch, Ending};
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::unconstrained;
use tokio::time::Instant;

/// How long a client may take over the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a client may have open on one connection.
pub const MAX_STREAMS: u32 = 250;
/// Most decoded bytes of an HTTP/2 head that are read. Above what is taken ([`validate::MAX_HEADER_LIST`]), so that most
/// of what is too large gets an answer of ours: to what is larger still the codec gives a bare 431, and beyond four times
/// as much it ends the connection. No limit leaves nothing to the codec (it also counts fields), and a higher one is memory
/// that a client takes on each of its streams.
const MAX_READ: u32 = 2 * validate::MAX_HEADER_LIST as u32;
/// Streams a client may have reset before we looked at them; more is an attack.
pub const MAX_PENDING_RESETS: usize = 20;

/// How often an HTTP/1 connection is looked at: one that was quiet from one look to the next gives its codec back. Nothing
/// is done per request, and there is no timer while it rests.
pub const LOOK: Duration = Duration::from_secs(2);

/// Serves `io` until it ends, `drain` has let the last request finish, or `conn.closed` fires.
pub async fn serve(
    io: Io,
    version: HttpVersion,
    service: HttpService,
    conn: Arc<Connection>,
    drain: DrainWatch,
) -> Result<(), Error> {
    let entry = Entry {
        client: balance::key_of_ip(conn.client.ip()),
        service,
        end: Arc::default(),
        signals: Signals::default(),
    };
    match version {
        HttpVersion::Http1 => serve_http1(io, entry, &conn, &drain).await,
        // Boxed: the other codec's connections are not to be as large as this one's.
        HttpVersion::Http2 => Box::pin(serve_http2(io, entry, &conn, &drain)).await,
    }
}

async fn serve_http2(
    io: Io,
    entry: Entry,
    conn: &Connection,
    drain: &DrainWatch,
) -> Result<(), Error> {
    let by_end = entry.end.clone();
    let io = TokioIo::new(Timed::new(io, HEAD_TIMEOUT));
    let serving = pin!(http2().serve_connection(io, entry));
    // GOAWAY says up to where requests are served, so it may come at any time.
    let end = |serving: Pin<&mut _>, _| http2::Connection::graceful_shutdown(serving);
    drive(serving, conn, drain, &mut None, None, end).await?;
    // The streams are over; what they have said last is still on its way to the other end.
    tokio::select! {
        () = by_end.streams.ended() => {}
        _ = conn.closed.closed() => {}
    }
    Ok(())
}

/// Takes turns: the codec has the connection while requests come, and is dropped with its buffers when none did for a
/// while. Most connections are idle most of the time, and then cost little more than their socket.
async fn serve_http1(
    io: Io,
    mut entry: Entry,
    conn: &Connection,
    drain: &DrainWatch,
) -> Result<(), Error> {
    let mut told = None;
    let mut io = Strict::new(io, HEAD_TIMEOUT, entry.signals.clone());
    loop {
        // Boxed, so that nothing is left of it.
        (io, entry) = match Box::pin(speak(io, entry, conn, drain, &mut told)).await? {
            Spoke::Ended => return Ok(()),
            Spoke::Switched(upgrade, client) => {
                let copying = Box::pin(upgrade.run(client));
                tokio::select! {
                    ended = copying => return ended,
                    _ = conn.closed.closed() => return Ok(()),
                }
            }
            Spoke::Resting(io, entry) => (io, entry),
        };
        footprint::left_behind();
        #[cfg(test)]
        RESTS.with(|rests| rests.set(rests.get() + 1));
        if !rest(&mut io, &entry, conn, drain, &mut told).await {
            return Ok(());
        }
    }
}

#[cfg(test)]
thread_local! {
    static RESTS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// How often connections of this thread went to rest.
#[cfg(test)]
pub(super) fn rests() -> u32 {
    RESTS.with(std::cell::Cell::get)
}

/// What became of a connection after its codec had it.
enum Spoke {
    Ended,
    /// It speaks another protocol from here on.
    Switched(Upgrade, Strict),
    /// It is idle.
    Resting(Strict, Entry),
}

/// Lets the codec have the connection.
async fn speak(
    io: Strict,
    entry: Entry,
    conn: &Connection,
    drain: &DrainWatch,
    told: &mut Option<Ending>,
) -> Result<Spoke, Error> {
    let (signals, by_end) = (entry.signals.clone(), entry.end.clone());
    let mut serving = http1().serve_connection(TokioIo::new(io), entry);
    let how = drive(
        Pin::new(&mut serving),
        conn,
        drain,
        told,
        Some(&signals),
        |serving, how| match how {
            // An idle one is not closed: the client may be asking at this moment.
            Ending::Next => by_end.last.store(true, Relaxed),
            Ending::Idle => serving.graceful_shutdown(),
        },
    )
    .await?;
    let granted = by_end.upgrade.lock().take();
    if let (Turn::Over, None) = (how, &granted) {
        return Ok(Spoke::Ended);
    }
    let parts = serving.into_parts();
    let mut io = parts.io.into_inner();
    io.put_back(&parts.read_buf);
    Ok(match granted {
        Some(upgrade) => Spoke::Switched(upgrade, io),
        None => Spoke::Resting(io, parts.service),
    })
}

/// Waits for the next request; false: there will be none.
async fn rest(
    io: &mut Strict,
    entry: &Entry,
    conn: &Connection,
    drain: &DrainWatch,
    told: &mut Option<Ending>,
) -> bool {
    loop {
        tokio::select! {
            biased;
            () = io.readable() => return true,
            how = drain.ending(conn.direction, *told), if *told != Some(Ending::Idle) => {
                *told = Some(how);
                match how {
                    Ending::Next => entry.end.last.store(true, Relaxed),
                    Ending::Idle => {
                        // Who asks at this moment sees the connection end, as with the codec in place.
                        let _ = io.shutdown().await;
                        return false;
                    }
                }
            }
            _ = conn.closed.closed() => return false,
        }
    }
}

fn http1() -> http1::Builder {
    let mut codec = http1::Builder::new();
    codec
        // Heads are timed by `Strict`: the codec's own timer runs while the connection is idle, and costs a box a request.
        .header_read_timeout(None)
        // A client that has said everything still wants its answer.
        .half_close(true)
        // Above the limits of `Strict`, which says why; with one more field the parser would need the heap.
        .max_headers(strict::MAX_FIELDS + 1)
        .max_buf_size(READ_BUFFER);
    // Not `pipeline_flush`: it loses the last answer when the connection is closed with requests still unread.
    codec
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut codec = http2::Builder::new(TokioExecutor::new());
    codec
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_READ)
        // Whether the other end can is known only when it is asked; a client that hears 501 has lost nothing.
        .enable_connect_protocol()
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    codec
}

/// Why a codec no longer has its connection.
enum Turn {
    /// The connection has ended.
    Over,
    /// It rests.
    Rest,
}

/// What happened to a connection.
enum Event {
    Ended(hyper::Result<()>),
    Told(Ending),
    Closed,
    Rest,
}

/// Drives a codec until its connection ends or, where `rest` says how that is seen, is idle.
async fn drive<C>(
    mut serving: Pin<&mut C>,
    conn: &Connection,
    drain: &DrainWatch,
    told: &mut Option<Ending>,
    rest: Option<&Signals>,
    end: impl Fn(Pin<&mut C>, Ending),
) -> Result<Turn, Error>
where
    C: Future<Output = hyper::Result<()>>,
{
    // Beyond the fair share of a task as well: whoever is not polled is not registered, and would never be heard.
    let mut ending = pin!(unconstrained(drain.ending(conn.direction, *told)));
    let mut closed = pin!(unconstrained(conn.closed.closed()));
    let mut look = pin!(rest.map(|_| tokio::time::sleep(LOOK)));
    let mut drain_said = drain.clone();
    loop {
        let mut first = true;
        let event = poll_fn(|cx| {
            if let Poll::Ready(ended) = serving.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            // Woken nearly always by the socket: the rest is polled when it has something to say, which costs a load to see.
            if first | drain_said.stirred() | conn.closed.reason().is_some() {
                if *told != Some(Ending::Idle)
                    && let Poll::Ready(how) = ending.as_mut().poll(cx)
                {
                    return Poll::Ready(Event::Told(how));
                }
                if closed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Closed);
                }
            }
            // After the codec, which has had its look at the socket.
            if let (Some(signals), Some(mut look)) = (rest, look.as_mut().as_pin_mut())
                && (first || look.is_elapsed())
            {
                while unconstrained(look.as_mut()).poll_unpin(cx).is_ready() {
                    if signals.at_rest() {
                        return Poll::Ready(Event::Rest);
                    }
                    look.as_mut().reset(Instant::now() + LOOK);
                }
            }
            first = false;
            Poll::Pending
        })
        .await;
        match event {
            Event::Ended(ended) => return ended.map(|()| Turn::Over).map_err(ended_badly),
            Event::Told(how) => {
                *told = Some(how);
                end(serving.as_mut(), how);
                ending.set(unconstrained(drain.ending(conn.direction, *told)));
            }
            // Dropping the codec drops what is under way; that is what the signal asks for.
            Event::Closed => return Ok(Turn::Over),
            Event::Rest => return Ok(Turn::Rest),
        }
    }
}

fn ended_badly(error: hyper::Error) -> Error {
    let kind = if heads::is_late(&error) {
        ErrorKind::HeaderTimeout
    } else if error.is_parse_too_large() {
        ErrorKind::HeaderTooLarge
    } else if error.is_parse() {
        ErrorKind::BadRequest
    } else {
        ErrorKind::ClientGone
    };
    Error::new(kind).with_source(error)
}

/// Where requests leave the codec.
struct Entry {
    client: u64,
    service: HttpService,
    end: Arc<ByEnd>,
    signals: Signals,
}

/// What requests and their connection tell each other about its end.
#[derive(Default)]
struct ByEnd {
    /// Run by the connection's own task when the codec has let go of the socket (HTTP/1).
    upgrade: Mutex<Option<Upgrade>>,
    /// Run beside the other streams (HTTP/2).
    streams: Streams,
    /// The next answer is the last one (HTTP/1).
    last: AtomicBool,
}

impl hyper::service::Service<http::Request<Incoming>> for Entry {
    type Response = Response;
    type Error = Error;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let mut request: Request = request.map(Body::request);
        request.body_mut().set_client(self.client);
        let client = request.extensions_mut().remove::<OnUpgrade>();
        let wanted = client.map(|client| Wanted {
            client,
            granted: self.end.clone(),
            signals: self.signals.clone(),
        });
        Answer {
            inner: self.service.send(request),
            wanted,
            last: self.end.last.load(Relaxed),
        }
    }
}

/// The answer of the stack; a granted upgrade is put aside on its way out.
struct Answer {
    inner: ServiceFuture,
    wanted: Option<Wanted>,
    last: bool,
}

/// An upgrade the client asked for.
struct Wanted {
    /// Of a stream (HTTP/2). Of a connection it is only a sign: the codec gives that back whole.
    client: OnUpgrade,
    granted: Arc<ByEnd>,
    signals: Signals,
}

impl Wanted {
    fn grant(self, response: &mut Response, endpoint: OnUpgrade) {
        let upgrade = Upgrade {
            endpoint,
            stream: response.extensions_mut().remove::<Held>(),
        };
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                self.signals.tunnel();
                *self.granted.upgrade.lock() = Some(upgrade);
            }
            _ => self.granted.streams.run(upgrade, self.client),
        }
    }
}

impl Future for Answer {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.inner.as_mut().poll(cx))?;
        if let Some(wanted) = self.wanted.take()
            && let Some(endpoint) = response.extensions_mut().remove::<OnUpgrade>()
        {
            wanted.grant(&mut response, endpoint);
        } else if self.last {
            let fields = response.headers_mut();
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}
