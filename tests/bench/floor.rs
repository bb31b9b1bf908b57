//! The libraries' floor: hyper, h2 and rustls with nothing on top. Redirected like the mesh, the same mutual TLS 1.3 (cipher,
//! key exchange, depth of chain), a pool to a worker; no discovery, policy, metrics, balancing, detection or time limits.
//! Bytes are copied through tokio's 8 KiB buffers, and every connection of bytes is a full handshake.

use crate::certs::{CHAIN, KEY, NAME, ROOT};
use crate::pooled::{Pool, Pooled};
use crate::world::{PORTS, SERVER, privileged};
use anyhow::{Context, bail};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, server::WebPkiClientVerifier,
    version::TLS13,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use weft_proxy_api::names::{PROXY_MARK, ports};

/// What a connection carries; the port says so on one side, ALPN on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http1,
    Http2,
    Bytes,
}

const KINDS: [(Kind, &[u8]); 3] = [
    (Kind::Http1, b"http/1.1"),
    (Kind::Http2, b"h2"),
    (Kind::Bytes, b"bytes"),
];

/// A way to the next hop.
pub(crate) trait Dial: Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn dial(&self, kind: Kind) -> impl Future<Output = anyhow::Result<Self::Io>> + Send;
}

/// `plain`: the same without TLS.
pub(crate) fn run(side: &str, folder: &Path, workers: usize, plain: bool) -> anyhow::Result<()> {
    let threads: Vec<_> = (0..workers.max(1))
        .map(|_| {
            let (side, tls) = (side.to_owned(), Tls::load(folder));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    match side.as_str() {
                        "client" if plain => client_side(ToPeerInPlain).await,
                        "client" => {
                            let configs = tls?.clients;
                            client_side(ToPeer { configs }).await
                        }
                        "server" if plain => server_side(None).await,
                        "server" => server_side(Some(TlsAcceptor::from(tls?.server))).await,
                        other => bail!("there is no side {other}"),
                    }
                })
            })
        })
        .collect();
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a worker panicked")))
}

async fn client_side(way: impl Dial) -> anyhow::Result<()> {
    let pool = Arc::new(Pool::new(way));
    let listener = listen(ports::OUTBOUND)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let pool = Arc::clone(&pool);
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            serve_as_asked(stream, pool).await
        });
    }
}

/// What a connection carries is known by the port it was going to.
async fn serve_as_asked<D: Dial>(stream: TcpStream, pool: Arc<Pool<D>>) -> anyhow::Result<()> {
    let port = socket2::SockRef::from(&stream)
        .original_dst_v4()?
        .as_socket()
        .context("not redirected")?
        .port();
    let at = PORTS
        .iter()
        .position(|&known| known == port)
        .context("a port nobody serves")?;
    serve(stream, KINDS[at].0, pool).await
}

async fn server_side(acceptor: Option<TlsAcceptor>) -> anyhow::Result<()> {
    let pool = Arc::new(Pool::new(ToApplication));
    let listener = listen(ports::INBOUND)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (pool, acceptor) = (Arc::clone(&pool), acceptor.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let Some(acceptor) = acceptor else {
                return serve_as_asked(stream, pool).await;
            };
            let stream = acceptor.accept(stream).await?;
            let alpn = stream.get_ref().1.alpn_protocol().unwrap_or_default();
            let kind = KINDS
                .iter()
                .find(|(_, name)| *name == alpn)
                .context("no ALPN we know")?
                .0;
            serve(stream, kind, pool).await
        });
    }
}

/// Serves one connection.
pub(crate) async fn serve<I, D>(mut io: I, kind: Kind, pool: Arc<Pool<D>>) -> anyhow::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Dial,
{
    let of = Arc::clone(&pool);
    let service = service_fn(move |request| {
        let pool = Arc::clone(&of);
        async move { pool.forward(kind, request).await }
    });
    match kind {
        Kind::Http1 => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(io), service)
                .await?
        }
        Kind::Http2 => {
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server
                .max_concurrent_streams(1_000)
                .serve_connection(TokioIo::new(io), service)
                .await?;
        }
        Kind::Bytes => {
            let mut upstream = pool.way().dial(kind).await?;
            copy_bidirectional(&mut io, &mut upstream).await?;
        }
    }
    Ok(())
}

/// The body both directions' answers have.
pub(crate) type Answer = http::Response<Pooled>;

struct ToPeer {
    configs: [Arc<ClientConfig>; 3],
}

impl Dial for ToPeer {
    type Io = TlsStream<TcpStream>;

    async fn dial(&self, kind: Kind) -> anyhow::Result<Self::Io> {
        let config = Arc::clone(&self.configs[kind as usize]);
        Ok(TlsConnector::from(config)
            .connect(ServerName::try_from(NAME)?, connect(kind).await?)
            .await?)
    }
}

struct ToPeerInPlain;

impl Dial for ToPeerInPlain {
    type Io = TcpStream;

    async fn dial(&self, kind: Kind) -> anyhow::Result<TcpStream> {
        connect(kind).await
    }
}

struct ToApplication;

impl Dial for ToApplication {
    type Io = TcpStream;

    async fn dial(&self, kind: Kind) -> anyhow::Result<TcpStream> {
        connect(kind).await
    }
}

async fn connect(kind: Kind) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if !privileged() {
        socket2::SockRef::from(&socket).set_mark(PROXY_MARK)?;
    }
    let stream = socket
        .connect(SocketAddr::new(SERVER.parse()?, PORTS[kind as usize]))
        .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn listen(port: u16) -> anyhow::Result<tokio::net::TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket.listen(4_096)?)
}

struct Tls {
    clients: [Arc<ClientConfig>; 3],
    server: Arc<ServerConfig>,
}

impl Tls {
    fn load(folder: &Path) -> anyhow::Result<Self> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join(ROOT))?)?;
        let roots = Arc::new(roots);
        let chain =
            CertificateDer::pem_file_iter(folder.join(CHAIN))?.collect::<Result<Vec<_>, _>>()?;
        let key = || PrivateKeyDer::from_pem_file(folder.join(KEY));
        let client = |alpn: &[u8]| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?;
            let mut config = builder
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(chain.clone(), key()?)?;
            config.alpn_protocols = vec![alpn.to_vec()];
            config.resumption = Resumption::disabled();
            anyhow::Ok(Arc::new(config))
        };
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?;
        let mut server = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)?;
        server.alpn_protocols = KINDS.iter().map(|(_, name)| name.to_vec()).collect();
        server.send_tls13_tickets = 0;
        let [http1, http2, bytes] = KINDS.map(|(_, name)| client(name));
        Ok(Self {
            clients: [http1?, http2?, bytes?],
            server: Arc::new(server),
        })
    }
}

/// What the mesh prefers: AES-128-GCM, and the hybrid key exchange.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    }
}
