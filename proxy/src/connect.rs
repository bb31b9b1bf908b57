//! Opens connections: to an endpoint of the mesh (mutual TLS), to the application, to what is outside of the mesh.

use crate::addresses;
use crate::error::{Error, ErrorKind};
use crate::io::{Io, ReadAhead};
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::room::exhausted;
use crate::tls::verify::PeerError;
use crate::tls::{Alpn, BULK, Tls};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::outbound::Endpoint;

/// How long a TCP connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How late a timer may fire before nobody else is blamed for it.
pub const OWN_DELAY: Duration = Duration::from_millis(250);
/// How long a handshake may take, from either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a peer is probed.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Unacknowledged bytes of this age end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens connections; cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    tls: Tls,
    mark: Option<u32>,
    /// The kernel brings what is sent to other pods to their proxies, and what we send to ourselves to the application.
    redirected: bool,
    metrics: Arc<Metrics>,
    /// Lines that may be written about endpoints that are not who they should be.
    lines: Lines,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.0.tls).finish()
    }
}

impl Connector {
    /// `mark` is set on every socket, so that the kernel leaves its packets alone.
    pub fn new(tls: Tls, mark: Option<u32>, metrics: Arc<Metrics>) -> Self {
        Self::made(tls, mark, metrics, true)
    }

    /// For a host without redirection: every address that has an identity is a proxy's, also our own addresses, which
    /// several workloads may share there.
    pub fn without_redirection(tls: Tls, mark: Option<u32>, metrics: Arc<Metrics>) -> Self {
        Self::made(tls, mark, metrics, false)
    }

    fn made(tls: Tls, mark: Option<u32>, metrics: Arc<Metrics>, redirected: bool) -> Self {
        let lines = Lines::default();
        Self(Arc::new(Inner {
            tls,
            mark,
            redirected,
            metrics,
            lines,
        }))
    }

    /// To an endpoint: mutual TLS when it has an identity, else plain.
    ///
    /// An endpoint that is this very pod is called in plain: our packets to our own addresses never leave the machine
    /// and are not redirected, so they reach the application itself, which knows no mutual TLS.
    pub async fn connect(&self, to: &Endpoint, alpn: Alpn) -> Result<Io, Error> {
        self.connect_offering(to, alpn).await.map(|(io, _)| io)
    }

    /// The same, and what was agreed on: a tunnel may be refused in favour of bytes.
    pub async fn connect_offering(&self, to: &Endpoint, alpn: Alpn) -> Result<(Io, Alpn), Error> {
        match self.expects(to) {
            Some(identity) => self.connect_mutual(to.address, identity, alpn).await,
            None => Ok((self.connect_plain(to.address).await?, alpn)),
        }
    }

    /// Who must prove to be there; `None`: it is called in plain.
    pub fn expects<'a>(&self, to: &'a Endpoint) -> Option<&'a SpiffeId> {
        let own = self.0.redirected && addresses::is_own(to.address.ip());
        to.identity.as_ref().filter(|_| !own)
    }

    /// May connections of bytes share one?
    pub fn may_tunnel(&self) -> bool {
        self.0.tls.may_tunnel()
    }

    /// Of our certificate and roots.
    pub fn epoch(&self) -> u64 {
        self.0.tls.epoch()
    }

    /// To the local application, or to something outside of the mesh.
    pub async fn connect_plain(&self, to: SocketAddr) -> Result<Io, Error> {
        self.tcp(to).await.map(Io::Tcp)
    }

    async fn connect_mutual(
        &self,
        to: SocketAddr,
        identity: &SpiffeId,
        alpn: Alpn,
    ) -> Result<(Io, Alpn), Error> {
        // Asked before the connection is opened: without an identity of our own it would be of no use.
        let config = self
            .0
            .tls
            .client(identity, alpn)
            .ok_or(ErrorKind::NoIdentity)?;
        let tcp = ReadAhead::new(self.tcp(to).await?);
        let handshake =
            TlsConnector::from(config).connect(ServerName::IpAddress(to.ip().into()), tcp);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(mut tls)) => {
                // rustls has seen to it that what was agreed on had been offered.
                let agreed = tls.get_ref().1.alpn_protocol().and_then(Alpn::from_bytes);
                let agreed = agreed.ok_or_else(|| {
                    Error::new(ErrorKind::TlsHandshake)
                        .with_detail("the endpoint speaks TLS, but is no proxy")
                })?;
                if matches!(agreed, Alpn::Opaque | Alpn::Tunnel) {
                    tls.get_mut().1.set_buffer_limit(Some(BULK));
                }
                Ok((Io::TlsClient(Box::new(tls)), agreed))
            }
            Ok(Err(error)) => Err(self.handshake_error(to, error)),
            Err(_) => {
                Err(Error::new(ErrorKind::TlsHandshake).with_detail("the handshake took too long"))
            }
        }
    }

    /// Whose fault a failed handshake is: a wrong peer is not the same as a broken one.
    fn handshake_error(&self, to: SocketAddr, error: io::Error) -> Error {
        let reason = PeerError::of(&error);
        let kind = match reason {
            PeerError::Handshake | PeerError::OursRefused => ErrorKind::TlsHandshake,
            _ => {
                self.0.metrics.denied(reason.counted(), false).inc();
                ErrorKind::PeerIdentity
            }
        };
        if self.0.lines.take() {
            tracing::info!(endpoint = %to, reason = reason.counted(), %error, "handshake with an endpoint failed");
        }
        Error::new(kind)
            .with_detail(reason.to_string())
            .with_source(error)
    }

    async fn tcp(&self, to: SocketAddr) -> Result<TcpStream, Error> {
        let socket = socket(to, self.0.mark).map_err(no_socket)?;
        let begun = Instant::now();
        match timeout(CONNECT_TIMEOUT, socket.connect(to)).await {
            Ok(Ok(tcp)) => Ok(tcp),
            Ok(Err(error)) => Err(Error::new(ErrorKind::ConnectFailed).with_source(error)),
            Err(_) => Err(timed_out(begun.elapsed())),
        }
    }
}

/// Nobody answered in time, as was seen after `took`.
fn timed_out(took: Duration) -> Error {
    let error = Error::new(ErrorKind::ConnectTimeout);
    match took > CONNECT_TIMEOUT + OWN_DELAY {
        true => error.of_own_delay(),
        false => error,
    }
}

/// Why nobody was asked: where it is we who have nothing left, no endpoint is to be blamed for it.
fn no_socket(error: io::Error) -> Error {
    match exhausted(&error) {
        true => Error::new(ErrorKind::Overloaded)
            .with_detail("the proxy has no descriptor or memory left for another connection")
            .with_source(error),
        false => Error::new(ErrorKind::ConnectFailed).with_source(error),
    }
}

/// A socket for one connection to `to`, with our options on it.
pub fn socket(to: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    tune(SockRef::from(&socket))?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    Ok(socket)
}

/// Options of every TCP socket. Accepted ones inherit them from their listener.
pub fn tune(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// May we set this mark? Asked once at start, so that the answer is a clear one.
pub fn may_mark(mark: u32) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_mark(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_not_blamed_for_descriptors_that_we_lack() {
        for (code, kind) in [
            (libc::EMFILE, ErrorKind::Overloaded),
            (libc::ENFILE, ErrorKind::Overloaded),
            (libc::EAFNOSUPPORT, ErrorKind::ConnectFailed),
        ] {
            let error = no_socket(io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), kind, "{code}");
            assert_eq!(
                is_blamed(&error),
                kind == ErrorKind::ConnectFailed,
                "{code}"
            );
        }
    }

    fn is_blamed(error: &Error) -> bool {
        crate::layers::route::outcome(error) == crate::balance::Outcome::ConnectFailure
    }

    #[test]
    fn an_endpoint_is_blamed_for_silence_unless_it_was_we_who_stood_still() {
        for (took, blamed) in [(0, true), (OWN_DELAY.as_millis() as u64 + 1, false)] {
            let took = CONNECT_TIMEOUT + Duration::from_millis(took);
            assert_eq!(is_blamed(&timed_out(took)), blamed, "{took:?}");
        }
    }
}
