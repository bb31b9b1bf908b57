//! Starts the aggregated API server of a controller.

use super::server::Server;
use super::{Reports, front};
use crate::serve::Shared;
use anyhow::{Context, Result};
use kube::Client;
use rustls::server::ResolvesServerCert;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Starts what answers on `address`, and what keeps in mind whom to believe.
pub async fn start(
    address: SocketAddr,
    client: Client,
    reports: impl Reports,
    certificate: Arc<dyn ResolvesServerCert>,
    shared: Arc<Shared>,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!("the metrics API listens on {}", listener.local_addr()?);
    let (tell, trust) = watch::channel(None);
    let server = Server {
        reports,
        certificate,
        trust,
        shared,
    };
    tasks.spawn(front::keep(client, tell));
    tasks.spawn(async move {
        if let Err(error) = server.run(listener).await {
            tracing::error!("the metrics API: {error:#}");
        }
    });
    Ok(())
}
