//! Connections of proxies: TLS 1.3, a client certificate of the mesh or none, bounded in number and time.

use super::places::{Place, Places};
use super::{Shared, counters::Counters};
use crate::ca::Ca;
use anyhow::{Context, Result};
use futures_util::stream::Stream;
use parking_lot::{Mutex, RwLock};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use weft_proxy_api::identity::SpiffeId;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// Connections open at once, handshakes included.
const MAX_CONNECTIONS: usize = 10_000;
/// Of these, from one address: a node of proxies behind one address has enough, and nobody can take them all.
const MAX_OF_ADDRESS: usize = 1_000;
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection without a client certificate may live: long enough for `Certify`.
const ANONYMOUS_LIMIT: Duration = Duration::from_secs(30);
/// How long after its end a certificate is still good for the streams it opened.
const SKEW: Duration = Duration::from_secs(60);
/// How long after that the connection may live, for the streams to say why they end.
const FAREWELL: Duration = Duration::from_secs(10);
/// Pause after accepting failed for want of descriptors or memory; doubled up to the second.
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// Who is on the other end of the connection an RPC came on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it proved; `None`: it showed no certificate.
    pub peer: Option<Peer>,
    /// Where it is.
    pub address: IpAddr,
}

/// What a client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The service account.
    pub id: SpiffeId,
    /// Which pod of it (see [`crate::ca::common_name`]); empty: none in particular.
    pub common_name: String,
    /// Until when the certificate counts, seconds since 1970.
    pub not_after: u64,
}

impl Peer {
    /// How long the certificate still counts at `now`, with some patience for clocks that differ.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        let end = UNIX_EPOCH + Duration::from_secs(self.not_after) + SKEW;
        end.duration_since(now).unwrap_or(Duration::ZERO)
    }

    /// A timer that fires when the certificate is over: a handshake proves something only until then.
    pub fn expiry(&self) -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep(self.remaining(SystemTime::now())))
    }
}

/// The controller's own certificate; replaced before it expires.
pub struct OwnIdentity {
    ca: Arc<Ca>,
    id: SpiffeId,
    ttl: Duration,
    current: RwLock<Option<(Arc<CertifiedKey>, u64)>>,
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnIdentity").field(&self.id).finish() // never the key
    }
}

impl OwnIdentity {
    /// A first certificate.
    pub fn new(ca: Arc<Ca>, ttl: Duration) -> Result<Arc<Self>> {
        let id = super::own_identity(ca.trust_domain())?;
        let own = Arc::new(Self {
            ca,
            id,
            ttl,
            current: RwLock::new(None),
        });
        own.renew(SystemTime::now())?;
        Ok(own)
    }

    /// A new key and certificate.
    pub fn renew(&self, now: SystemTime) -> Result<()> {
        let (leaf, key) = self.ca.issue_own(&self.id, self.ttl, now)?;
        let certified = CertifiedKey::from_der(leaf.chain, key, &aws_lc_rs::default_provider())?;
        *self.current.write() = Some((Arc::new(certified), leaf.not_after));
        Ok(())
    }

    /// Who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read();
        current.as_ref().map(|(certified, _)| certified.clone())
    }

    /// Until when the current certificate counts, seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.current
            .read()
            .as_ref()
            .map_or(0, |(_, not_after)| *not_after)
    }

    /// Whether 70 % of the current certificate's life is over, or the clock went back to before it was made: then nobody takes it.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let (ttl, not_after) = (self.ttl.as_secs(), self.not_after());
        now + ttl * 3 / 10 >= not_after || not_after > now + ttl + SKEW.as_secs()
    }

    /// Renews for ever. Looks often at the wall clock, which may jump, rather than sleeping until a time.
    pub async fn keep_current(&self) {
        let pause = (self.ttl / 20).clamp(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            tokio::time::sleep(pause).await;
            if self.is_due(SystemTime::now())
                && let Err(error) = self.renew(SystemTime::now())
            {
                tracing::warn!("cannot renew the controller's own certificate: {error:#}");
            }
        }
    }
}

impl ResolvesServerCert for OwnIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

/// Towards other controllers it is the client's as well.
impl ResolvesClientCert for OwnIdentity {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What certificates of the mesh must lead to.
pub(crate) fn roots(ca: &Ca) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in ca.roots() {
        roots.add(root).context("a trust anchor cannot be used")?;
    }
    Ok(roots)
}

/// TLS 1.3 only, HTTP/2 only, no resumption: every connection proves its identity anew.
fn server_config(ca: &Ca, own: Arc<OwnIdentity>) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("cannot check client certificates")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn acceptor(shared: &Shared, own: &Arc<OwnIdentity>) -> Result<TlsAcceptor> {
    let config = server_config(&shared.ca, own.clone())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connections as they become ready. The task that accepts them ends with the stream.
pub fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    own: Arc<OwnIdentity>,
) -> Result<impl Stream<Item = io::Result<Connection>> + use<>> {
    let acceptor = Mutex::new((shared.trust.borrow().version, acceptor(&shared, &own)?));
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(
        Accepting {
            shared,
            own,
            acceptor,
            ready,
        }
        .run(listener),
    );
    Ok(ReceiverStream::new(connections))
}

/// What a connection takes up while it lives.
type Slot = (OwnedSemaphorePermit, Place);

struct Accepting {
    shared: Arc<Shared>,
    own: Arc<OwnIdentity>,
    /// For the version of the trust bundle.
    acceptor: Mutex<(u64, TlsAcceptor)>,
    ready: mpsc::Sender<io::Result<Connection>>,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        let this = Arc::new(self);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let places = Places::new(MAX_OF_ADDRESS);
        let mut handshakes = JoinSet::new();
        let mut pause = BACKOFF[0];
        loop {
            let accepted = tokio::select! {
                () = this.ready.closed() => return,
                Some(_) = handshakes.join_next() => continue,
                accepted = next(&listener, &slots) => accepted,
            };
            match accepted {
                Ok((tcp, from, slot)) => {
                    pause = BACKOFF[0];
                    match places.take(from.ip().to_canonical()) {
                        Some(place) => {
                            drop(handshakes.spawn(this.clone().handshake(tcp, (slot, place))))
                        }
                        None => this.counters().connections_refused.add(1),
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    this.counters().accept_errors.add(1);
                    tracing::warn!(%error, ?pause, "cannot accept connections");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF[1]);
                }
            }
        }
    }

    /// What accepts connections under the roots that are trusted now. Roots that cannot be used leave the last good one.
    fn acceptor(&self) -> TlsAcceptor {
        let mut known = self.acceptor.lock();
        let version = self.shared.trust.borrow().version;
        if known.0 != version {
            match acceptor(&self.shared, &self.own) {
                Ok(new) => *known = (version, new),
                Err(error) => tracing::error!("the new roots cannot be used: {error:#}"),
            }
        }
        known.1.clone()
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    async fn handshake(self: Arc<Self>, tcp: TcpStream, slot: Slot) {
        self.counters().connections.add(1);
        let _ = tcp.set_nodelay(true);
        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, self.acceptor().accept(tcp));
        let failure = match handshake.await {
            Ok(Ok(stream)) => match peer_of(&stream, self.shared.ca.trust_domain()) {
                Ok(peer) => {
                    let address = slot.1.address();
                    let peer = PeerIdentity { peer, address };
                    let _ = self
                        .ready
                        .send(Ok(Connection::new(stream, peer, slot)))
                        .await;
                    return;
                }
                Err(reason) => reason,
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not complete after {HANDSHAKE_LIMIT:?}"),
        };
        self.counters().handshakes_failed.add(1);
        tracing::debug!(reason = failure, "TLS handshake failed");
    }
}

async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (tcp, from) = listener.accept().await?;
    Ok((tcp, from, slot))
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// The identity in the (verified) client certificate.
fn peer_of(stream: &TlsStream<TcpStream>, trust_domain: &str) -> Result<Option<Peer>, String> {
    match stream.get_ref().1.peer_certificates() {
        None | Some([]) => Ok(None),
        Some([leaf, ..]) => peer(leaf, trust_domain).map(Some),
    }
}

/// What a certificate says that has been verified; or why it is none of a workload here.
pub(crate) fn peer(certificate: &CertificateDer<'_>, trust_domain: &str) -> Result<Peer, String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "not a certificate")?;
    let common_name = certificate.subject().iter_common_name().next();
    let common_name = common_name.and_then(|name| name.as_str().ok());
    let not_after = certificate.validity().not_after.timestamp();
    Ok(Peer {
        id: spiffe_id(&certificate, trust_domain)?,
        common_name: common_name.unwrap_or_default().to_owned(),
        not_after: u64::try_from(not_after).unwrap_or(0),
    })
}

/// The one name of a certificate, which must be a workload of our trust domain.
fn spiffe_id(certificate: &X509Certificate<'_>, trust_domain: &str) -> Result<SpiffeId, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| "its names cannot be read")?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    let [GeneralName::URI(uri)] = names else {
        return Err(format!(
            "it must have one name, a SPIFFE id; it has {}",
            names.len()
        ));
    };
    let id: SpiffeId = uri.parse().map_err(|error| format!("{error}"))?;
    match id.trust_domain() == trust_domain {
        true => Ok(id),
        false => Err(format!("{id} is not of the trust domain {trust_domain}")),
    }
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerIdentity,
    /// The end of its life: soon without a client certificate, a little after that has expired with one.
    end: Pin<Box<Sleep>>,
    _slot: Slot,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, peer: PeerIdentity, slot: Slot) -> Self {
        let life = match &peer.peer {
            Some(peer) => peer.remaining(SystemTime::now()) + FAREWELL,
            None => ANONYMOUS_LIMIT,
        };
        Self {
            stream,
            peer,
            end: Box::pin(tokio::time::sleep(life)),
            _slot: slot,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
