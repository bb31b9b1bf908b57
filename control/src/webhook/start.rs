//! Starts the webhook of a controller.

use super::keeper::Keeper;
use super::serving::Serving;
use super::{Webhook, server};
use crate::args::{Config, Source};
use crate::index::Index;
use crate::serve::Shared;
use crate::state::StateDir;
use anyhow::{Context, Result, anyhow};
use kube::Client;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Starts what answers and what keeps its certificates right, and gives what it shows; nothing where no webhook is asked
/// for.
pub async fn start(
    config: &Config,
    client: Client,
    state: &StateDir,
    (index, shared): (&Arc<Index>, &Arc<Shared>),
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<Serving>>> {
    let (Some(settings), Source::Kubernetes(source)) = (&config.webhook, &config.source) else {
        return Ok(None);
    };
    let injection = settings
        .injection(&config.trust_domain)
        .map_err(|mistake| anyhow!(mistake))?;
    let listener = TcpListener::bind(settings.address)
        .await
        .with_context(|| format!("cannot listen on {}", settings.address))?;
    tracing::info!("the webhook listens on {}", listener.local_addr()?);
    let serving = Arc::new(Serving::new(&source.namespace));
    let keeper = Keeper {
        client: client.clone(),
        namespace: source.namespace.clone(),
        life: settings.ca_ttl,
        serving: serving.clone(),
        trusted: Mutex::default(),
    };
    let webhook = Arc::new(Webhook::new(
        index.clone(),
        shared.clone(),
        client,
        state.clone(),
        injection,
        source.namespace.clone(),
    ));
    let (shown, shared) = (serving.clone(), shared.clone());
    tasks.spawn(keeper.run());
    tasks.spawn(async move {
        let refused = &shared.counters.connections_refused;
        if let Err(error) = server::run(webhook, serving, listener, refused).await {
            tracing::error!("the webhook: {error:#}");
        }
    });
    Ok(Some(shown))
}
