//! The whole way over real sockets: TLS, HTTP/2, gRPC, against a small controller.
#![allow(clippy::unwrap_used)]

use super::super::{Certifier, CertifyError, ConnectError, Discover};
use super::*;
use crate::tls::tests::TestCa;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;
use weft_proxy_api::wire::generated::identity_server::{Identity, IdentityServer};
use weft_proxy_api::wire::generated::observe_server::{Observe, ObserveServer};
use weft_proxy_api::wire::generated::policy_server::{Policy, PolicyServer};
use weft_proxy_api::wire::generated::{
    self as pb, observe_command, observe_event, sync_request::Message,
};
use weft_proxy_api::wire::{Body, Item, Trust, encode};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers every call with little.
#[derive(Clone)]
struct Controller(Arc<Mutex<Option<mpsc::UnboundedSender<pb::ObserveEvent>>>>);

#[tonic::async_trait]
impl Policy for Controller {
    type SyncStream = Answers<pb::SyncResponse>;
    async fn sync(
        &self,
        request: Request<Streaming<pb::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let trust = Trust {
            roots: vec![TestCa::new().root],
            domain: "cluster.local".into(),
        };
        let answers = request.into_inner().filter_map(move |message| {
            let body = Body::Trust(trust.clone());
            std::future::ready(match message.ok().and_then(|request| request.message) {
                Some(Message::Subscribe(at)) if at.id == 1 => Some(Ok(encode::response(&[Item {
                    id: at.id,
                    version: 4,
                    body,
                }]))),
                _ => None,
            })
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[tonic::async_trait]
impl Identity for Controller {
    async fn certify(
        &self,
        request: Request<pb::CertifyRequest>,
    ) -> Result<Response<pb::CertifyResponse>, Status> {
        let pb::CertifyRequest { csr, token } = request.into_inner();
        if token != "good" {
            return Err(Status::permission_denied("this token is not good"));
        }
        Ok(Response::new(pb::CertifyResponse {
            chain: vec![csr],
            not_after: 99,
            roots: vec![b"root".to_vec()],
        }))
    }
}

#[tonic::async_trait]
impl Observe for Controller {
    type AttachStream = Answers<pb::ObserveCommand>;
    async fn attach(
        &self,
        request: Request<Streaming<pb::ObserveEvent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let seen = self.0.lock().unwrap().clone();
        tokio::spawn(async move {
            let mut events = request.into_inner();
            while let (Some(seen), Ok(Some(event))) = (&seen, events.message().await) {
                let _ = seen.send(event);
            }
        });
        let command = |command| {
            Ok(pb::ObserveCommand {
                command: Some(command),
            })
        };
        let tap = command(observe_command::Command::Tap(pb::TapStart::default()));
        let summary = command(observe_command::Command::Summary(pb::SummaryEvery {
            interval_ms: 200,
        }));
        Ok(Response::new(
            tokio_stream::iter([tap, summary])
                .chain(futures_util::stream::pending())
                .boxed(),
        ))
    }
}

impl Controller {
    async fn call(
        self,
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            path if path.starts_with("/weft.v1.Policy/") => {
                PolicyServer::new(self).call(request).await
            }
            path if path.starts_with("/weft.v1.Identity/") => {
                IdentityServer::new(self).call(request).await
            }
            _ => ObserveServer::new(self).call(request).await,
        }
    }
}

/// A certificate authority and the controller's certificate under it.
fn certificates() -> (rustls::RootCertStore, rustls::ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["weft-control.weft-system".into()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut server = builder
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    (roots, server)
}

fn client_config(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn serve(listener: TcpListener, tls: rustls::ServerConfig, controller: Controller) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, controller) = (acceptor.clone(), controller.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let service = tower::service_fn(move |request| controller.clone().call(request));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server
                .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service))
                .await;
        });
    }
}

/// A controller that runs, and a client that trusts it.
async fn controller() -> (ControlClient, mpsc::UnboundedReceiver<pb::ObserveEvent>) {
    let (roots, server) = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, events) = mpsc::unbounded_channel();
    tokio::spawn(serve(
        listener,
        server,
        Controller(Arc::new(Mutex::new(Some(sender)))),
    ));
    let config = client_config(roots);
    (
        ControlClient::new(address, None, Arc::new(move |_| Some(config.clone()))),
        events,
    )
}

fn whoami() -> Whoami {
    Whoami {
        namespace: "shop".into(),
        pod: "web-1".into(),
        zone: String::new(),
    }
}

#[tokio::test]
async fn a_certificate_is_signed_or_refused_with_a_reason() {
    let (client, _) = controller().await;
    let certifier = Certifier::new(client);
    let certified = certifier
        .certify(b"csr".to_vec(), "good".into())
        .await
        .unwrap();
    assert_eq!(
        (certified.chain, certified.not_after),
        (vec![b"csr".to_vec()], 99)
    );
    let refused = certifier
        .certify(b"csr".to_vec(), "bad".into())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("this token is not good"),
        "{refused}"
    );
}

#[tokio::test]
async fn policy_and_observation_share_a_connection() {
    let (client, mut events) = controller().await;
    let metrics = Metrics::new("shop");
    let (discover, driver) = Discover::new(client, whoami(), metrics.clone());
    let driver = tokio::spawn(driver.run());
    let mut trust = discover.trust();
    let trust = trust
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert_eq!(trust.domain, "cluster.local");
    assert_eq!(metrics.control_staleness(), None);
    assert!(matches!(
        events.recv().await.unwrap().event,
        Some(observe_event::Event::Hello(_))
    ));
    let edge = metrics.inbound_edge(None);
    loop {
        edge.request();
        let event = events.recv().await.unwrap().event;
        if let Some(observe_event::Event::Summary(summary)) = event
            && let Ok(summary) = pb::Summary::decode(summary.as_slice())
            && summary.edges.iter().any(|edge| edge.requests > 0)
        {
            break;
        }
    }
    driver.abort();
}

#[tokio::test]
async fn another_authority_is_not_the_controller() {
    let (client, _) = controller().await;
    let config = client_config(certificates().0);
    let stranger = ControlClient::new(
        client.origin().authority().unwrap().to_string(),
        None,
        Arc::new(move |_| Some(config.clone())),
    );
    let error = Certifier::new(stranger)
        .certify(Vec::new(), "good".into())
        .await
        .unwrap_err();
    assert!(
        matches!(error, CertifyError::Unreachable(ConnectError::Tls(..))),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_there_is_said_clearly() {
    let config = client_config(certificates().0);
    let client = ControlClient::new(
        "127.0.0.1:1".into(),
        None,
        Arc::new(move |_| Some(config.clone())),
    );
    let error = Certifier::new(client)
        .certify(Vec::new(), "good".into())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot connect to 127.0.0.1:1"),
        "{error}"
    );
    let client = ControlClient::new("127.0.0.1:1".into(), None, Arc::new(|_| None));
    let error = Certifier::new(client)
        .certify(Vec::new(), "good".into())
        .await
        .unwrap_err();
    assert!(
        matches!(error, CertifyError::Unreachable(ConnectError::NoIdentity)),
        "{error}"
    );
}
