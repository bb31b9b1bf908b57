//! The services over loopback TLS, with the generated client stubs: what a proxy sees.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::serve::identity::Enrolled;
use crate::serve::tls::OwnIdentity;
use crate::state::StateDir;
use crate::token::TokenClaims;
use crate::token::TokenKey;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use pb::identity_client::IdentityClient;
use pb::observe_client::ObserveClient;
use pb::policy_client::PolicyClient;
use pb::sync_request::Message;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::{Endpoint, Outbound};
use weft_proxy_api::wire::{Item, decode};

mod certify;
mod peers;
mod sync;

/// An index made of two tables.
#[derive(Default)]
struct Table {
    pods: Mutex<HashMap<PodRef, PodInfo>>,
    views: Mutex<HashMap<Resource, watch::Sender<Arc<View>>>>,
    enrolled: Mutex<BTreeSet<PodRef>>,
}

impl Table {
    fn add_pod(&self, name: &str, account: &str) {
        let info = PodInfo {
            service_account: account.into(),
            ips: vec![],
            meshed: true,
            uid: None,
        };
        self.pods.lock().insert(PodRef::new("default", name), info);
    }

    /// Publishes a body; gives its version.
    fn set(&self, resource: Resource, body: Body) -> u64 {
        let view = Arc::new(View {
            version: encode::version(&body),
            body,
        });
        let version = view.version;
        self.sender(&resource, |sender| drop(sender.send_replace(view)));
        version
    }

    fn sender<T>(
        &self,
        resource: &Resource,
        with: impl FnOnce(&watch::Sender<Arc<View>>) -> T,
    ) -> T {
        let unknown = || {
            watch::Sender::new(Arc::new(View {
                version: 1,
                body: Body::Outbound(Outbound::PassThrough),
            }))
        };
        with(
            self.views
                .lock()
                .entry(resource.clone())
                .or_insert_with(unknown),
        )
    }

    fn watchers(&self, resource: &Resource) -> usize {
        self.sender(resource, |sender| sender.receiver_count())
    }
}

impl Views for Table {
    fn subscribe(&self, _proxy: &PodRef, resource: &Resource) -> watch::Receiver<Arc<View>> {
        self.sender(resource, |sender| sender.subscribe())
    }

    fn pod(&self, pod: &PodRef) -> Option<PodInfo> {
        self.pods.lock().get(pod).cloned()
    }

    fn enroll(&self, pod: &PodRef) {
        self.enrolled.lock().insert(pod.clone());
    }
}

/// A running controller, without source and index.
struct Controller {
    address: SocketAddr,
    table: Arc<Table>,
    shared: Arc<Shared>,
    state: StateDir,
    own: Arc<OwnIdentity>,
    dir: Arc<tempfile::TempDir>,
    _serving: tokio::task::JoinSet<anyhow::Result<()>>,
}

impl Controller {
    async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Another one of the same mesh.
    async fn replica(&self) -> Self {
        Self::start_in(self.dir.clone()).await
    }

    async fn start_in(dir: Arc<tempfile::TempDir>) -> Self {
        let state = StateDir::open(dir.path()).unwrap();
        let ca = Arc::new(Ca::open_or_create(&state, "cluster.local").unwrap());
        let table = Arc::new(Table::default());
        let tokens = TokenKey::open_or_create(&state).unwrap();
        let enrolled = Enrolled::open(state.clone()).unwrap();
        let ttl = Duration::from_secs(3600);
        let shared = Shared::new(table.clone(), ca.clone(), tokens, enrolled, ttl);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = tokio::task::JoinSet::new();
        let own = OwnIdentity::new(ca, ttl).unwrap();
        serving.spawn(run(shared.clone(), listener, own.clone()));
        table.add_pod("web-1", "web");
        Self {
            address,
            table,
            shared,
            state,
            own,
            dir,
            _serving: serving,
        }
    }

    /// A certificate for a pod of a service account, made without asking.
    fn certificate(&self, account: &str, pod: &str) -> Certificate {
        self.short_lived(account, pod, Duration::from_secs(3600))
    }

    fn short_lived(&self, account: &str, pod: &str, ttl: Duration) -> Certificate {
        let id = SpiffeId::new("cluster.local", "default", account).unwrap();
        let (key, pod) = (KeyPair::generate().unwrap(), PodRef::new("default", pod));
        let csr = CertificateParams::default().serialize_request(&key);
        let (csr, now) = (csr.unwrap().der().to_vec(), SystemTime::now());
        let leaf = self.shared.ca.issue_leaf(&csr, &id, &pod, ttl, now);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (leaf.unwrap().chain, key)
    }

    async fn channel(&self, certificate: Option<Certificate>) -> Channel {
        connect(self.address, certificate).await.unwrap()
    }
}

/// A chain and its key.
pub(crate) type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// As much of a gRPC channel as the generated clients need: one HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("https://weft-control{path}").parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

/// A connection to a controller, with a client certificate or without.
pub(crate) async fn connect(
    address: SocketAddr,
    certificate: Option<Certificate>,
) -> anyhow::Result<Channel> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("weft-control")?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(Channel(sender))
}

/// The controller's certificate has a SPIFFE id and no DNS name; who it is, is looked at by its own test.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was negotiated".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
