//! Reads the requests of one accepted connection and hands them to its stack.

use super::bridge::{Far, Streams, Upgrade};
use super::client::{CONNECTION_WINDOW, PING, SEND_BUFFER, STREAM_WINDOW};
use super::h1::server::{Served, Server};
use super::heads::{self, Timed};
use super::pool::Held;
use super::service::ServiceFuture;
use super::{Body, HttpService, HttpVersion, Request, Response, validate};
use crate::balance;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::tasks::{DrainWatch, Ending};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::unconstrained;

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
    let upgraded: Arc<Streams> = Arc::default();
    let io = TokioIo::new(Timed::new(io, HEAD_TIMEOUT));
    let entry = Entry2 {
        entry,
        upgraded: upgraded.clone(),
    };
    let serving = pin!(http2().serve_connection(io, entry));
    // GOAWAY says up to where requests are served, so it may come at any time.
    let end = |serving: Pin<&mut _>, _| http2::Connection::graceful_shutdown(serving);
    let ended = drive(serving, conn, drain, end).await;
    ended.transpose().map_err(ended_badly)?;
    // The streams are over; what they have said last is still on its way to the other end.
    tokio::select! {
        () = upgraded.ended() => {}
        _ = conn.closed.closed() => {}
    }
    Ok(())
}

async fn serve_http1(
    io: Io,
    entry: Entry,
    conn: &Connection,
    drain: &DrainWatch,
) -> Result<(), Error> {
    let mut server = Server::new(io, HEAD_TIMEOUT, entry.client, entry.service);
    let end = |server: Pin<&mut Server>, how| server.get_mut().end(how);
    let served = drive(Pin::new(&mut server), conn, drain, end).await;
    let (upgrade, client) = match served.transpose()? {
        None | Some(Served::Ended) => return Ok(()),
        Some(Served::Switched(upgrade, client)) => (upgrade, client),
    };
    drop(server);
    let copying = Box::pin(upgrade.run(client));
    tokio::select! {
        ended = copying => ended,
        _ = conn.closed.closed() => Ok(()),
    }
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

/// What happened to a connection.
enum Event<T> {
    Ended(T),
    Told(Ending),
    Closed,
}

/// Drives a codec until its connection ends; `None`: it was told to let go of it at once.
async fn drive<C: Future>(
    mut serving: Pin<&mut C>,
    conn: &Connection,
    drain: &DrainWatch,
    end: impl Fn(Pin<&mut C>, Ending),
) -> Option<C::Output> {
    let mut told = None;
    // Beyond the fair share of a task as well: whoever is not polled is not registered, and would never be heard.
    let mut ending = pin!(unconstrained(drain.ending(conn.direction, told)));
    let mut closed = pin!(unconstrained(conn.closed.closed()));
    let mut drain_said = drain.clone();
    loop {
        let mut first = true;
        let event = poll_fn(|cx| {
            if let Poll::Ready(ended) = serving.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            // Woken nearly always by the socket: the rest is polled when it has something to say, which costs a load to see.
            if first | drain_said.stirred() | conn.closed.reason().is_some() {
                if told != Some(Ending::Idle)
                    && let Poll::Ready(how) = ending.as_mut().poll(cx)
                {
                    return Poll::Ready(Event::Told(how));
                }
                if closed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Closed);
                }
            }
            first = false;
            Poll::Pending
        })
        .await;
        match event {
            Event::Ended(ended) => return Some(ended),
            Event::Told(how) => {
                told = Some(how);
                end(serving.as_mut(), how);
                ending.set(unconstrained(drain.ending(conn.direction, told)));
            }
            // Dropping the codec drops what is under way; that is what the signal asks for.
            Event::Closed => return None,
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
    /// Key of the client's address.
    client: u64,
    service: HttpService,
}

/// Where the requests of an HTTP/2 connection do.
struct Entry2 {
    entry: Entry,
    upgraded: Arc<Streams>,
}

impl hyper::service::Service<http::Request<Incoming>> for Entry2 {
    type Response = Response;
    type Error = Error;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let mut request: Request = request.map(Body::request);
        request.body_mut().set_client(self.entry.client);
        let client = request.extensions_mut().remove::<OnUpgrade>();
        Answer {
            inner: self.entry.service.send(request),
            wanted: client.map(|client| (client, self.upgraded.clone())),
        }
    }
}

/// The answer of the stack; a granted upgrade is put aside on its way out.
struct Answer {
    inner: ServiceFuture,
    /// The client's stream, if it asked for that, and where it is then run.
    wanted: Option<(OnUpgrade, Arc<Streams>)>,
}

impl Future for Answer {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.inner.as_mut().poll(cx))?;
        if let Some((client, upgraded)) = self.wanted.take()
            && let Some(endpoint) = response.extensions_mut().remove::<Far>()
        {
            let stream = response.extensions_mut().remove::<Held>();
            upgraded.run(Upgrade { endpoint, stream }, client);
        }
        Poll::Ready(Ok(response))
    }
}
