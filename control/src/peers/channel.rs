//! A connection to another controller: TLS 1.3 with the controller's own certificate on both sides, and on it one HTTP/2
//! connection for the generated client.
//!
//! Controllers are known by their SPIFFE id alone, so the chain is checked against the roots of the mesh and the name
//! literally, as proxies do with each other.

use crate::ca::Ca;
use crate::serve::tls::{OwnIdentity, Peer, peer, roots};
use anyhow::{Context as _, Result};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::wire::generated::peers_client::PeersClient;

/// Largest message taken: what is known of one pod.
const MAX_MESSAGE: usize = 8 << 20;
/// How often one asks whether the other is still there, and how long it may think: a tap says nothing where nothing passes.
const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

/// An open connection; it ends when this is dropped.
pub struct Link {
    /// Asks over it.
    pub client: PeersClient<Channel>,
    _driver: JoinSet<()>,
}

impl Link {
    /// Opens one to a controller of this mesh; anybody else at the address is refused.
    pub async fn open(at: SocketAddr, own: &Arc<OwnIdentity>, ca: &Ca) -> Result<Self> {
        let config = client_config(own, ca)?;
        let tcp = TcpStream::connect(at).await.context("cannot connect")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(at.ip().into());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let tls = tls.await.context("no TLS")?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE[0])
            .keep_alive_timeout(KEEP_ALIVE[1]);
        let handshake = http.handshake(TokioIo::new(tls));
        let (sender, connection) = handshake.await.context("no HTTP/2")?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let client = PeersClient::new(Channel(sender)).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self {
            client,
            _driver: driver,
        })
    }
}

fn client_config(own: &Arc<OwnIdentity>, ca: &Ca) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Controller {
        roots: roots(ca)?,
        id: own.id().clone(),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// True for the certificate of a controller: its identity, and made for no pod.
pub fn is_controller(peer: &Peer, id: &SpiffeId) -> bool {
    peer.id == *id && peer.common_name.is_empty()
}

/// Accepts exactly a controller of the mesh.
struct Controller {
    roots: RootCertStore,
    id: SpiffeId,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Controller").field(&self.id).finish()
    }
}

impl ServerCertVerifier for Controller {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match peer(leaf, self.id.trust_domain()) {
            Ok(peer) if is_controller(&peer, &self.id) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// As much of a gRPC channel as the generated client needs.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let uri = http::Uri::builder()
            .scheme("https")
            .authority(weft_proxy_api::names::CONTROL_ACCOUNT)
            .path_and_query(path);
        if let Ok(uri) = uri.build() {
            *request.uri_mut() = uri;
        }
        Box::pin(self.0.send_request(request))
    }
}
