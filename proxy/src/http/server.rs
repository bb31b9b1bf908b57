//! Reads the requests of one accepted connection and hands them to its stack.

use super::bridge::{Streams, Upgrade};
use super::client::{CONNECTION_WINDOW, PING, SEND_BUFFER, STREAM_WINDOW};
use super::heads::{self, Timed};
use super::pool::Held;
use super::service::ServiceFuture;
use super::strict::{self, Strict, Tunnel};
use super::{Body, HttpService, HttpVersion, Request, Response, validate};
use crate::balance;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::tasks::{DrainWatch, Ending};
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a client may take over the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a client may have open on one connection.
pub const MAX_STREAMS: u32 = 250;
/// Most decoded bytes of an HTTP/2 head that are read. Above what is taken ([`validate::MAX_HEADER_LIST`]), so that most
/// of what is too large gets an answer of ours: to what is larger still the codec gives a bare 431.
const MAX_READ: u32 = 2 * validate::MAX_HEADER_LIST as u32;
/// Streams a client may have reset before we looked at them; more is an attack.
pub const MAX_PENDING_RESETS: usize = 20;

/// Serves `io` until it ends, `drain` has let the last request finish, or `conn.closed` fires.
pub async fn serve(
    io: Io,
    version: HttpVersion,
    service: HttpService,
    conn: Arc<Connection>,
    drain: DrainWatch,
) -> Result<(), Error> {
    let end = Arc::new(ByEnd::default());
    let tunnel = Tunnel::default();
    let entry = Entry {
        client: balance::key_of_ip(conn.client.ip()),
        service,
        end: end.clone(),
        tunnel: tunnel.clone(),
    };
    match version {
        HttpVersion::Http1 => {
            let io = TokioIo::new(Strict::new(io, HEAD_TIMEOUT, tunnel));
            let serving = http1().serve_connection(io, entry).with_upgrades();
            drive(pin!(serving), &conn, &drain, |serving, how| match how {
                // An idle one is not closed: the client may be asking at this moment.
                Ending::Next => end.last.store(true, Relaxed),
                Ending::Idle => serving.graceful_shutdown(),
            })
            .await?;
        }
        HttpVersion::Http2 => {
            let io = TokioIo::new(Timed::new(io, HEAD_TIMEOUT));
            let serving = http2().serve_connection(io, entry);
            // GOAWAY says up to where requests are served, so it may come at any time.
            drive(pin!(serving), &conn, &drain, |serving, _| {
                serving.graceful_shutdown()
            })
            .await?;
        }
    }
    let granted = end.upgrade.lock().take();
    if let Some(upgrade) = granted {
        tokio::select! {
            ended = upgrade.run() => return ended,
            _ = conn.closed.closed() => {}
        }
    }
    // The streams are over; what they have said last is still on its way to the other end.
    tokio::select! {
        () = end.streams.ended() => {}
        _ = conn.closed.closed() => {}
    }
    Ok(())
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
        .max_buf_size(strict::MAX_HEAD + 4096);
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

async fn drive<C>(
    mut serving: Pin<&mut C>,
    conn: &Connection,
    drain: &DrainWatch,
    end: impl Fn(Pin<&mut C>, Ending),
) -> Result<(), Error>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut told = None;
    let mut ending = pin!(drain.ending(conn.direction, told));
    let mut closed = pin!(conn.closed.closed());
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return ended.map_err(ended_badly),
            how = &mut ending, if told != Some(Ending::Idle) => {
                told = Some(how);
                end(serving.as_mut(), how);
                ending.set(drain.ending(conn.direction, told));
            }
            // Dropping the codec drops what is under way; that is what the signal asks for.
            _ = &mut closed => return Ok(()),
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
    tunnel: Tunnel,
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
            tunnel: self.tunnel.clone(),
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
    client: OnUpgrade,
    granted: Arc<ByEnd>,
    tunnel: Tunnel,
}

impl Wanted {
    fn grant(self, response: &mut Response, endpoint: OnUpgrade) {
        let upgrade = Upgrade {
            client: self.client,
            endpoint,
            stream: response.extensions_mut().remove::<Held>(),
        };
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                self.tunnel.open();
                *self.granted.upgrade.lock() = Some(upgrade);
            }
            _ => self.granted.streams.run(upgrade),
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
