//! Server and client handshakes; the only room that knows how TLS is set up.
//!
//! * [`verify`]: a peer certificate becomes a workload identity, or a reason why not.
//! * [`identity`]: our own certificate: obtained, kept, renewed.
//!
//! TLS 1.3 only. Configuration is one immutable value, made anew when our certificate or the roots change; open
//! connections keep theirs. Session tickets belong to it, so a change of identity or trust drops them all.

pub mod identity;
pub mod verify;

use crate::discover::Credentials;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::watch;
use verify::{ClientVerifier, PeerError, ServerVerifier, Trust};
use webpki::KeyUsage;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names;

/// Client configurations kept, one for each identity and protocol we call.
const MAX_CLIENTS: usize = 1024;
/// Endpoints of one identity whose session tickets are kept.
const MAX_TICKET_PEERS: usize = 64;

/// What TLS takes at once where bytes are carried: as much as is copied at once, so that full records leave in one write.
pub const BULK: usize = 256 * 1024;

/// Bytes in a full record. A little less than may be: text is copied behind a head of five bytes into a buffer that begins a
/// page, and a processor of AMD (Zen 4) copies fifteen times slower where the target lies a few bytes behind the source,
/// counted in their pages. With whole 16 KiB that would be so for each record of a long text that begins a page, now it is
/// for the first one.
pub const RECORD: usize = 16 * 1024 - 64;
/// As rustls wants it: with the head.
const MAX_FRAGMENT: usize = RECORD + 5;

/// What two proxies speak inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/1.1, as it is.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Opaque,
    /// Bytes of several connections.
    Tunnel,
}

/// The live server and client configuration; cheap to clone, swapped as a whole when identity or roots change.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    trust_domain: String,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
    /// Told whenever the roots are replaced.
    roots_changed: watch::Sender<()>,
    /// Rises with every change of our certificate or the roots.
    epoch: watch::Sender<u64>,
    /// May connections of bytes share one?
    tunnels: AtomicBool,
    /// Serialises changes, and tells who we are now.
    identity: watch::Sender<Option<SpiffeId>>,
}

/// Everything that follows from one set of roots and one certificate.
#[derive(Debug)]
struct Current {
    roots: Vec<Vec<u8>>,
    trust: Arc<Trust>,
    own: Option<Own>,
    clients: Mutex<HashMap<(SpiffeId, Alpn), Arc<ClientConfig>>>,
}

/// What needs our certificate.
#[derive(Debug)]
struct Own {
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Alpn {
    /// All of them, in the order we prefer.
    pub const ALL: [Alpn; 4] = [Alpn::Http2, Alpn::Http1, Alpn::Tunnel, Alpn::Opaque];

    /// The protocol name on the wire.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Alpn::Http1 => names::alpn::HTTP1,
            Alpn::Http2 => names::alpn::HTTP2,
            Alpn::Opaque => names::alpn::OPAQUE,
            Alpn::Tunnel => names::alpn::TUNNEL,
        }
    }

    /// The protocol with this name, if it is ours.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Alpn::ALL.into_iter().find(|alpn| alpn.as_bytes() == name)
    }

    /// What is offered where this is wanted: a peer that speaks no tunnel carries bytes all the same.
    fn offered(self) -> Vec<Vec<u8>> {
        let otherwise = (self == Alpn::Tunnel).then_some(Alpn::Opaque);
        let offered = [Some(self), otherwise].into_iter().flatten();
        offered.map(|alpn| alpn.as_bytes().to_vec()).collect()
    }
}

/// aws-lc-rs with the order we want: hybrid key exchange first, AES-128-GCM first.
pub fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite as suite, kx_group as group};
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            group::X25519MLKEM768,
            group::X25519,
            group::SECP256R1,
            group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

impl Tls {
    /// Trusts `roots` (DER); has no identity yet.
    pub fn new(trust_domain: &str, roots: Vec<Vec<u8>>) -> Self {
        let provider = Arc::new(provider());
        let trust = Arc::new(Trust::new(trust_domain, &roots, provider.clone()));
        let current = Current {
            roots,
            trust,
            own: None,
            clients: Mutex::default(),
        };
        Self(Arc::new(Inner {
            trust_domain: trust_domain.to_owned(),
            provider,
            current: ArcSwap::from_pointee(current),
            roots_changed: watch::Sender::new(()),
            epoch: watch::Sender::new(0),
            tunnels: AtomicBool::new(true),
            identity: watch::Sender::new(None),
        }))
    }

    /// Neither offers nor takes tunnels. To be said before there is a certificate.
    pub fn refuse_tunnels(&self) {
        self.0.tunnels.store(false, Relaxed);
    }

    /// May connections of bytes share one?
    pub fn may_tunnel(&self) -> bool {
        self.0.tunnels.load(Relaxed)
    }

    /// Rises with every change of our certificate or the roots.
    pub fn epoch(&self) -> u64 {
        *self.0.epoch.borrow()
    }

    /// Waits until our certificate or the roots are others than in this epoch.
    pub async fn newer_than(&self, epoch: u64) {
        let mut now = self.0.epoch.subscribe();
        // The sender lives as long as `self`.
        let _ = now.wait_for(|now| *now != epoch).await;
    }

    /// Trusts exactly these roots (DER) from now on; open connections stay. A list without any that can be used changes
    /// nothing: a mesh without roots is a mistake of the sender.
    pub fn set_roots(&self, roots: Vec<Vec<u8>>) {
        if !verify::has_root(&roots) {
            return tracing::warn!("a trust bundle without a usable root was ignored");
        }
        self.0.identity.send_if_modified(|_| {
            let current = self.0.current.load();
            if current.roots != roots {
                let key = current.own.as_ref().map(|own| own.key.clone());
                self.0.install(roots, key);
                self.0.roots_changed.send_replace(());
            }
            false
        });
    }

    /// Uses this certificate from now on. `chain` is DER, leaf first; `key` is PKCS#8 in DER.
    pub fn set_certificate(
        &self,
        id: SpiffeId,
        chain: Vec<Vec<u8>>,
        key: rustls_pki_types::PrivateKeyDer<'_>,
    ) -> Result<(), rustls::Error> {
        let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
        let chain = chain.into_iter().map(Into::into).collect();
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match()?;
        let certified = Arc::new(certified);
        self.0.identity.send_modify(|identity| {
            let roots = self.0.current.load().roots.clone();
            self.0.install(roots, Some(certified));
            *identity = Some(id);
        });
        Ok(())
    }

    /// Our certificate is no longer valid: connections that need it fail from now on.
    pub fn drop_certificate(&self) {
        self.0.identity.send_modify(|identity| {
            let roots = self.0.current.load().roots.clone();
            self.0.install(roots, None);
            *identity = None;
        });
    }

    /// Waits until the first root of the mesh, the one that signs, is another than that of our certificate, and than `known`.
    /// Returns that root: it is time to ask for a certificate below it.
    pub async fn superseded(&self, known: Option<&[u8]>) -> Vec<u8> {
        let mut changed = self.0.roots_changed.subscribe();
        loop {
            if let Some(root) = self
                .foreign_root()
                .filter(|root| Some(root.as_slice()) != known)
            {
                return root;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The first root, if our certificate does not lead to it.
    fn foreign_root(&self) -> Option<Vec<u8>> {
        let current = self.0.current.load();
        let (root, own) = (current.roots.first()?, current.own.as_ref()?);
        let (leaf, between) = own.key.cert.split_first()?;
        let only = [root.clone()];
        let trust = Trust::new(&self.0.trust_domain, &only, self.0.provider.clone());
        let verdict = trust.verify(leaf, between, UnixTime::now(), KeyUsage::server_auth());
        (verdict == Err(PeerError::UnknownCa)).then(|| root.clone())
    }

    /// Our own identity, as long as there is a valid certificate.
    pub fn identity(&self) -> Option<SpiffeId> {
        self.0.identity.borrow().clone()
    }

    /// Waits until there is an identity.
    pub async fn ready(&self) {
        let _ = self.0.identity.subscribe().wait_for(Option::is_some).await;
    }

    /// Trust domain of the mesh.
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// For connections of other proxies to us; `None`: no identity yet.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.0
            .current
            .load()
            .own
            .as_ref()
            .map(|own| own.server.clone())
    }

    /// For a connection to the proxy of `expected`; `None`: no identity yet.
    pub fn client(&self, expected: &SpiffeId, alpn: Alpn) -> Option<Arc<ClientConfig>> {
        let current = self.0.current.load();
        let own = current.own.as_ref()?;
        let mut clients = current.clients.lock();
        let key = (expected.clone(), alpn);
        if let Some(config) = clients.get(&key) {
            return Some(config.clone());
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let config = self
            .0
            .client(&current.trust, expected, Some(&own.key), alpn.offered());
        let config = Arc::new(config?);
        clients.insert(key, config.clone());
        Some(config)
    }

    /// For a connection to the controller; `None`: `Workload` was asked for, and there is no identity yet.
    pub fn controller(&self, credentials: Credentials) -> Option<Arc<ClientConfig>> {
        let current = self.0.current.load();
        let key = match credentials {
            Credentials::Token => None,
            Credentials::Workload => Some(&current.own.as_ref()?.key),
        };
        let account = (names::SYSTEM_NAMESPACE, names::CONTROL_ACCOUNT);
        let expected = SpiffeId::new(&self.0.trust_domain, account.0, account.1).ok()?;
        let protocols = vec![b"h2".to_vec()];
        let mut config = self.0.client(&current.trust, &expected, key, protocols)?;
        config.resumption = Resumption::disabled();
        Some(Arc::new(config))
    }
}

impl Inner {
    fn install(&self, roots: Vec<Vec<u8>>, key: Option<Arc<CertifiedKey>>) {
        let trust = Arc::new(Trust::new(
            &self.trust_domain,
            &roots,
            self.provider.clone(),
        ));
        let own = key.and_then(|key| {
            let server = self
                .server(&trust, &key)
                .inspect_err(|error| tracing::error!(%error, "no server TLS"))
                .ok()?;
            Some(Own {
                key,
                server: Arc::new(server),
            })
        });
        self.current.store(Arc::new(Current {
            roots,
            trust,
            own,
            clients: Mutex::default(),
        }));
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    fn server(
        &self,
        trust: &Arc<Trust>,
        key: &Arc<CertifiedKey>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(ClientVerifier(trust.clone())))
            .with_cert_resolver(Arc::new(Always(key.clone())));
        config.alpn_protocols = Alpn::ALL
            .iter()
            .filter(|alpn| **alpn != Alpn::Tunnel || self.tunnels.load(Relaxed))
            .map(|alpn| alpn.as_bytes().to_vec())
            .collect();
        config.max_fragment_size = Some(MAX_FRAGMENT);
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // 0-RTT could be replayed; it stays off.
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn client(
        &self,
        trust: &Arc<Trust>,
        expected: &SpiffeId,
        key: Option<&Arc<CertifiedKey>>,
        protocols: Vec<Vec<u8>>,
    ) -> Option<ClientConfig> {
        let verifier = ServerVerifier {
            trust: trust.clone(),
            expected: expected.clone(),
        };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .inspect_err(|error| tracing::error!(%error, "no client TLS"))
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(Always(key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols;
        config.max_fragment_size = Some(MAX_FRAGMENT);
        config.resumption = Resumption::in_memory_sessions(MAX_TICKET_PEERS);
        // Proxies are known by identity, not by name; without SNI the ClientHello is smaller.
        config.enable_sni = false;
        Some(config)
    }
}

/// Shows our certificate to whoever asks.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(crate) mod tests;
