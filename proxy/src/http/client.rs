//! Sends requests to one endpoint: over an idle connection if there is one, else over a new one. Keeps the pools of a
//! worker, one for each endpoint in use.

use super::body::Body;
use super::bridge::Far;
use super::h1::client::{self as h1, Conn, Rest};
use super::kept::{Kept, MostKept};
use super::pool::{Allows, Held, Pool};
use super::service::ServiceFuture;
use super::{HttpService, HttpVersion, Request, Response, validate};
use crate::balance;
use crate::balance::limits::{Limit, Permit};
use crate::connect::Connector;
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::metrics::Metrics;
use crate::tls::Alpn;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// How often idle connections are looked through.
pub const SWEEP: Duration = Duration::from_secs(10);
/// Most fields of a head.
pub const MAX_FIELDS: usize = 100;
/// Most bytes of the head of an HTTP/1 answer.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most bytes that are read at once from a busy HTTP/1 connection. Above the common 64 KiB, so that a body of that size and
/// its head come in one piece.
pub const READ_BUFFER: usize = 128 * 1024;
/// Flow control window of a stream.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow control window of a connection: several streams' worth, so that one that is not read cannot stop the others.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes waiting to be written for one stream.
pub const SEND_BUFFER: usize = 64 * 1024;
/// How often a busy HTTP/2 connection is asked whether its peer still lives, and how long it may take to say so.
pub const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

pub(super) type Http2Sender = http2::SendRequest<Body>;

/// Where a pool's connections lead.
pub(super) enum Target {
    /// An endpoint of the mesh, or a pod without a proxy.
    Endpoint(Dialer, Arc<balance::Endpoint>),
    /// The application itself (inbound), or something outside of the mesh (outbound).
    Plain(Dialer, Direction, SocketAddr),
    #[cfg(test)]
    Memory(Box<dyn Fn(Alpn) -> Result<Io, Error> + Send + Sync>),
}

/// Opens connections, and counts them.
#[derive(Clone)]
pub(super) struct Dialer {
    connector: Connector,
    metrics: Arc<Metrics>,
}

/// The pools of one worker.
pub struct Pools {
    dialer: Dialer,
    endpoints: Mutex<HashMap<u64, Cached, foldhash::fast::FixedState>>,
    plain: Mutex<HashMap<(Direction, SocketAddr), Client, foldhash::fast::RandomState>>,
    kept: Arc<Kept>,
    sweeping: std::sync::Once,
}

struct Cached {
    service: HttpService,
    client: Client,
    /// Closes the connections when the endpoint is gone; ends with this.
    _watch: Watch,
}

/// A task that ends with this.
struct Watch(tokio::task::AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends requests to one place. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Pool>);

impl Pools {
    /// No pool yet.
    pub fn new(connector: Connector, metrics: Arc<Metrics>, most: MostKept) -> Arc<Self> {
        Arc::new(Self {
            kept: Kept::new(&metrics, most),
            dialer: Dialer { connector, metrics },
            endpoints: Mutex::default(),
            plain: Mutex::default(),
            sweeping: std::sync::Once::new(),
        })
    }

    /// The service of an endpoint; `make` puts it on top of its client the first time.
    pub fn endpoint(
        self: &Arc<Self>,
        at: &Arc<balance::Endpoint>,
        make: impl FnOnce(Client) -> HttpService,
    ) -> HttpService {
        self.start_sweeping();
        let mut endpoints = self.endpoints.lock();
        let cached = endpoints.entry(at.id).or_insert_with(|| {
            let client = self.client(Target::Endpoint(self.dialer.clone(), at.clone()));
            Cached {
                service: make(client.clone()),
                client,
                _watch: self.watch(at.clone()),
            }
        });
        cached.service.clone()
    }

    /// Lets go of an endpoint's connections the moment it is withdrawn: a pod that is told to end must not be sent
    /// requests on connections from better days.
    fn watch(self: &Arc<Self>, at: Arc<balance::Endpoint>) -> Watch {
        let pools = Arc::downgrade(self);
        let watch = tokio::spawn(async move {
            at.gone().await;
            let Some(pools) = pools.upgrade() else { return };
            let cached = pools.endpoints.lock().remove(&at.id);
            if let Some(cached) = cached {
                cached.client.0.retire();
            }
        });
        Watch(watch.abort_handle())
    }

    /// The client of the application, or of an address outside of the mesh's knowledge.
    pub fn plain(self: &Arc<Self>, direction: Direction, to: SocketAddr) -> Client {
        self.start_sweeping();
        let mut plain = self.plain.lock();
        let new = || self.client(Target::Plain(self.dialer.clone(), direction, to));
        plain.entry((direction, to)).or_insert_with(new).clone()
    }

    fn client(&self, target: Target) -> Client {
        Client(Pool::new(target, self.kept.clone()))
    }

    /// Starts the sweep with the first pool, so that it runs on the worker's own runtime; it ends with the pools.
    fn start_sweeping(self: &Arc<Self>) {
        self.sweeping.call_once(|| {
            tokio::spawn(sweep(Arc::downgrade(self)));
        });
    }

    fn sweep(&self) {
        self.endpoints
            .lock()
            .retain(|_, cached| !cached.client.0.sweep());
        self.plain.lock().retain(|_, client| !client.0.sweep());
        self.kept.sweep();
    }
}

async fn sweep(pools: Weak<Pools>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(pools) = pools.upgrade() else { return };
        pools.sweep();
    }
}

impl Target {
    async fn dial(&self, version: HttpVersion) -> Result<Io, Error> {
        let alpn = match version {
            Http1 => Alpn::Http1,
            Http2 => Alpn::Http2,
        };
        match self {
            Target::Endpoint(Dialer { connector, metrics }, at) => {
                let permit = at.limits().connection().await;
                let permit = permit.map_err(Error::breaker_open)?;
                let io = connector.connect(&at.spec, alpn).await?;
                let open = metrics.opened_to(&at.group, io.is_mutual(), version.label());
                Ok(io.counted_as(open.within(permit)))
            }
            Target::Plain(Dialer { connector, metrics }, direction, to) => {
                let io = connector.connect_plain(*to).await?;
                Ok(io.counted_as(metrics.opened_plain(*direction, version.label())))
            }
            #[cfg(test)]
            Target::Memory(dial) => dial(alpn),
        }
    }

    /// Limits that connections count against.
    pub(super) fn limits(&self) -> Option<&Arc<balance::Limits>> {
        match self {
            Target::Endpoint(_, at) => Some(at.limits()),
            _ => None,
        }
    }

    /// One more that waits for a connection, as long as the breaker of the Service has room for it.
    pub(super) fn wait(&self) -> Result<Option<Permit>, Error> {
        match self {
            Target::Endpoint(_, at) => {
                let permit = at.limits().acquire(Limit::Pending);
                permit.map(Some).map_err(Error::breaker_open)
            }
            _ => Ok(None),
        }
    }

    /// Opens an HTTP/1 connection.
    async fn http1(&self) -> Result<Conn, Error> {
        let _waits = self.wait()?;
        Ok(Conn::new(self.dial(Http1).await?))
    }

    /// Opens an HTTP/2 connection. What its peer allows follows its settings.
    pub(super) async fn http2(&self) -> Result<(Http2Sender, Arc<Allows>), Error> {
        let io = TokioIo::new(self.dial(Http2).await?);
        let mut codec = http2::Builder::new(TokioExecutor::new());
        codec
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(validate::MAX_HEADER_LIST as u32)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        let (sender, connection) = codec.handshake(io).await.map_err(failed)?;
        let allows = Arc::new(Allows::new(connection.current_max_send_streams()));
        let told = allows.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = loop {
                let polled = poll_fn(|cx| {
                    let polled = connection.as_mut().poll(cx);
                    let extended = connection.is_extended_connect_protocol_enabled();
                    told.heard(connection.current_max_send_streams(), extended);
                    polled
                });
                tokio::select! {
                    biased;
                    ended = polled => break ended,
                    () = told.asked() => {}
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
            }
        });
        Ok((sender, allows))
    }
}

use HttpVersion::{Http1, Http2};

impl Client {
    #[cfg(test)]
    pub(crate) fn memory(dial: impl Fn(Alpn) -> Result<Io, Error> + Send + Sync + 'static) -> Self {
        Self::keeping(&Kept::new(&Metrics::new("test"), MostKept::default()), dial)
    }

    /// One of several that share a limit.
    #[cfg(test)]
    pub(super) fn keeping(
        kept: &Arc<Kept>,
        dial: impl Fn(Alpn) -> Result<Io, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Pool::new(Target::Memory(Box::new(dial)), kept.clone()))
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.0.counts()
    }

    /// The codec a request travels in: the one it came in. The one place to change that.
    fn codec(request: &Request) -> HttpVersion {
        HttpVersion::of(request.version())
    }

    /// Boxed here, one codec's future at a time: one that could be either would be as large as both.
    fn send(self, request: Request) -> ServiceFuture {
        match Self::codec(&request) {
            Http1 => Box::pin(self.send_http1(request)),
            Http2 => Box::pin(self.send_http2(request)),
        }
    }

    async fn send_http1(self, request: Request) -> Result<Response, Error> {
        let conn = match self.0.take_idle() {
            Some(conn) => conn,
            None => match self.open().await {
                Ok(conn) => conn,
                Err(error) => return Err(error.with_request(request)),
            },
        };
        h1::send(conn, request, &self.0).await
    }

    /// A new connection that is still there: nothing was written to one that is not.
    async fn open(&self) -> Result<Conn, Error> {
        let mut conn = self.0.target.http1().await?;
        let kind = match conn.look() {
            Rest::Quiet => return Ok(conn),
            Rest::Ended => ErrorKind::UpstreamReset,
            Rest::Spoke => ErrorKind::UpstreamProtocol,
        };
        Err(Error::new(kind).never_processed())
    }

    async fn send_http2(self, mut request: Request) -> Result<Response, Error> {
        let extended = request.extensions().get::<Protocol>().is_some();
        // Twice: a connection may be told to go away between the moment it is chosen and the moment it is used.
        for last in [false, true] {
            let (stream, reused) = match self.0.stream().await {
                Ok(found) => found,
                Err(error) => return Err(error.with_request(request)),
            };
            if extended && !stream.takes_extended_connect().await {
                let detail = "the endpoint takes no extended CONNECT (RFC 8441)";
                return Err(Error::new(ErrorKind::UnsupportedUpgrade).with_detail(detail));
            }
            match stream.sender().try_send_request(request).await {
                Ok(response) => {
                    let mut response = response.map(Body::response);
                    let extensions = response.extensions_mut();
                    if let Some(granted) = extensions.remove::<OnUpgrade>() {
                        extensions.insert(Far::Stream(granted));
                        extensions.insert(Held::new(stream));
                    } else {
                        response.body_mut().lease(stream);
                    }
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(untouched) if reused && !last => request = untouched,
                    Some(untouched) => {
                        return Err(failed(error.into_error()).with_request(untouched));
                    }
                    None => return Err(failed(error.into_error())),
                },
            }
        }
        Err(Error::new(ErrorKind::Internal))
    }
}

impl Service<Request> for Client {
    type Response = Response;
    type Error = Error;
    type Future = ServiceFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ServiceFuture {
        self.clone().send(request)
    }
}

/// What an error of the codec means.
fn failed(error: hyper::Error) -> Error {
    let h2 = find_h2(&error);
    let refused = h2.is_some_and(|e| e.is_remote() && is_unprocessed(e));
    let kind = if error.is_user() || h2.is_some_and(is_ours) {
        // The body we were sending broke: that was the client's.
        body_error(&error).map_or(ErrorKind::ClientGone, Error::kind)
    } else if error.is_parse() || h2.is_some_and(h2::Error::is_library) {
        ErrorKind::UpstreamProtocol
    } else {
        ErrorKind::UpstreamReset
    };
    let error = Error::new(kind).with_source(error);
    if refused {
        error.never_processed()
    } else {
        error
    }
}

/// RFC 9113 section 8.7: a refused stream, or one above the last of a graceful GOAWAY, was not processed.
fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
        || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// Was the stream reset by us? The codec does that where the body of the request breaks, and keeps to itself why.
pub(super) fn is_ours(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

fn body_error(error: &hyper::Error) -> Option<&Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// The error of the stream or connection, where it is one.
pub(super) fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
