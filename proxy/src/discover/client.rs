//! A small gRPC channel to the controller: hyper's HTTP/2 client over rustls. One connection at a time, made anew by whoever
//! finds it broken, so that the name is resolved again and the certificate of the moment is used.

use crate::connect;
use http::uri::{Authority, Scheme, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Name, TCP, TLS and HTTP/2 together.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// A controller that freezes is noticed after both.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// Sent as server name; what is verified is the SPIFFE id.
const SERVER_NAME: &str = "weft-control.weft-system";

/// As whom to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Without certificate: the token speaks.
    Token,
    /// With the workload's own certificate.
    Workload,
}

/// Gives the TLS configuration of the moment: server verified to be the controller, our certificate where asked for.
/// `None`: no certificate yet.
pub type TlsSource = Arc<dyn Fn(Credentials) -> Option<Arc<rustls::ClientConfig>> + Send + Sync>;

/// Where and how to reach the controller. Cheap to clone.
#[derive(Clone)]
pub struct ControlClient {
    address: Arc<str>,
    mark: Option<u32>,
    tls: TlsSource,
}

/// Why there is no connection to the controller.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no certificate of our own yet.
    #[error("there is no identity yet")]
    NoIdentity,
    /// The name does not resolve.
    #[error("cannot resolve {0}: {1}")]
    Resolve(Arc<str>, String),
    /// No address answers.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, String),
    /// TLS failed: wrong roots, wrong name, or not the controller.
    #[error("TLS with {0} failed: {1}")]
    Tls(Arc<str>, String),
    /// It does not speak HTTP/2.
    #[error("HTTP/2 with {0} failed: {1}")]
    Http2(Arc<str>, String),
    /// Nothing failed, but nothing came of it either.
    #[error("{0} does not answer in {1:?}")]
    Timeout(Arc<str>, Duration),
}

impl ControlClient {
    /// `address` is `host:port`, resolved at every connect; `mark` is set on the socket.
    pub fn new(address: String, mark: Option<u32>, tls: TlsSource) -> Self {
        Self {
            address: address.into(),
            mark,
            tls,
        }
    }

    /// A new connection.
    pub(crate) async fn connect(&self, credentials: Credentials) -> Result<Channel, ConnectError> {
        let ready = timeout(READY_TIMEOUT, self.open(credentials)).await;
        ready.unwrap_or_else(|_| Err(ConnectError::Timeout(self.address.clone(), READY_TIMEOUT)))
    }

    /// The base of request URIs, for generated clients.
    pub(crate) fn origin(&self) -> Uri {
        let authority =
            Authority::try_from(&*self.address).unwrap_or(Authority::from_static(SERVER_NAME));
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(authority));
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        Uri::from_parts(parts).unwrap_or_default()
    }

    async fn open(&self, credentials: Credentials) -> Result<Channel, ConnectError> {
        let config = (self.tls)(credentials).ok_or(ConnectError::NoIdentity)?;
        let tcp = self.tcp().await?;
        let name =
            rustls_pki_types::ServerName::try_from(SERVER_NAME).map_err(|e| self.tls_error(e))?;
        let tls = TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|e| self.tls_error(e))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(tls));
        let (send, connection) = handshake
            .await
            .map_err(|e| ConnectError::Http2(self.address.clone(), e.to_string()))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the controller ended");
            }
        });
        Ok(Channel {
            send,
            _driver: Arc::new(Driver(driver)),
        })
    }

    /// The first address that answers.
    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let resolve = |reason: String| ConnectError::Resolve(self.address.clone(), reason);
        let addresses = lookup_host(&*self.address)
            .await
            .map_err(|e| resolve(e.to_string()))?;
        let mut failure = resolve("no address".to_owned());
        for address in addresses {
            match self.dial(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(reason) => failure = ConnectError::Connect(address, reason),
            }
        }
        Err(failure)
    }

    async fn dial(&self, to: SocketAddr) -> Result<TcpStream, String> {
        let socket = connect::socket(to, self.mark).map_err(|e| e.to_string())?;
        match timeout(CONNECT_TIMEOUT, socket.connect(to)).await {
            Ok(connected) => connected.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer in {CONNECT_TIMEOUT:?}")),
        }
    }

    fn tls_error(&self, error: impl std::fmt::Display) -> ConnectError {
        ConnectError::Tls(self.address.clone(), error.to_string())
    }
}

/// One HTTP/2 connection as generated clients want it. It ends with its last clone.
#[derive(Clone)]
pub(crate) struct Channel {
    send: SendRequest<tonic::body::Body>,
    _driver: Arc<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}
