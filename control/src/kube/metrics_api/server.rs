//! HTTPS for the aggregator: connections bounded in number and time; bodies are not read.

use super::front::{Door, Trust};
use super::{Answer, Reports, handle};
use crate::serve::Shared;
use crate::serve::places::Places;
use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::ResolvesServerCert;
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 512;
/// Of these, from one address: more than an aggregator asks at once, and nobody can take them all.
const MAX_OF_ADDRESS: usize = 128;
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request's head may take, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// Pause after accepting failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The server.
pub struct Server<R> {
    /// Where figures come from.
    pub reports: R,
    /// What it shows; the API server trusts who signed it by the `caBundle` of the APIService.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// Whom it believes; see [`super::front::keep`].
    pub trust: watch::Receiver<Option<Arc<Trust>>>,
    /// Where connections are counted that are closed at once.
    pub shared: Arc<Shared>,
}

impl<R: Reports> Server<R> {
    /// Serves until dropped.
    pub async fn run(self, listener: TcpListener) -> Result<()> {
        let mut trust = self.trust.clone();
        let this = Arc::new(self);
        let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
        let mut door = this.door(&mut trust)?;
        let places = Places::new(MAX_OF_ADDRESS);
        loop {
            let slot = slots.clone().acquire_owned().await?;
            while connections.try_join_next().is_some() {}
            let Ok((tcp, from)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some(place) = places.take(from.ip().to_canonical()) else {
                this.shared.counters.connections_refused.add(1);
                continue;
            };
            if trust.has_changed().unwrap_or(false) {
                door = this.door(&mut trust)?;
            }
            let (this, door, trust) = (this.clone(), door.clone(), trust.clone());
            connections.spawn(async move {
                this.connection(tcp, door, trust).await;
                drop((slot, place));
            });
        }
    }

    /// A trust that cannot be used is as none.
    fn door(&self, trust: &mut watch::Receiver<Option<Arc<Trust>>>) -> Result<Arc<Door>> {
        let current = trust.borrow_and_update().clone();
        let door = Door::new(current, self.certificate.clone()).or_else(|error| {
            tracing::warn!("metrics API: {error:#}");
            Door::new(None, self.certificate.clone())
        });
        Ok(Arc::new(door?))
    }

    /// One connection; it ends when others are believed from now on.
    async fn connection(
        &self,
        tcp: TcpStream,
        door: Arc<Door>,
        mut trust: watch::Receiver<Option<Arc<Trust>>>,
    ) {
        let acceptor = TlsAcceptor::from(door.tls.clone());
        let stream = match timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!("metrics API: TLS: {error}"),
            Err(_) => return tracing::debug!("metrics API: TLS: no handshake"),
        };
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown
            .and_then(|chain| chain.first())
            .map(|it| it.clone().into_owned());
        let (door, shown) = (door.as_ref(), shown.as_ref());
        let service = service_fn(move |request| async move {
            Ok::<_, Infallible>(response(self.respond(door, shown, &request).await))
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(64 << 10);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let changed = tokio::select! {
            _ = connection.as_mut() => return, // a broken client is its own problem
            changed = trust.changed() => changed,
        };
        if changed.is_ok() {
            connection.as_mut().graceful_shutdown();
        }
        let _ = connection.await;
    }

    async fn respond(
        &self,
        door: &Door,
        shown: Option<&CertificateDer<'_>>,
        request: &Request<Incoming>,
    ) -> Answer {
        match door.user(shown, request.headers()) {
            Ok(user) => {
                let answer = handle(&self.reports, request.method(), request.uri()).await;
                let (path, code) = (request.uri().path(), answer.0.as_u16());
                tracing::debug!(user, path, code, "metrics API");
                answer
            }
            Err(refusal) => refusal.answer(),
        }
    }
}

fn response((code, document): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let never = header::HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, never);
    response
}
