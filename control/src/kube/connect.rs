//! The client of the Kubernetes API: from a kubeconfig, or from what a pod is given.

use crate::source::kube::WATCH_SECONDS;
use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// A server that does not take a connection within this time is tried again.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How much longer than a watch lasts a connection may be silent.
const MARGIN: Duration = Duration::from_secs(15);

/// Which API server, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Kubeconfig; `None`: what `KUBECONFIG` names, the one in the home folder, or the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// Where the controller keeps what it keeps: Secret and Lease.
    pub namespace: String,
}

/// A client. Nothing is asked yet: an API server that is not there is no error here.
pub async fn client(settings: &Settings) -> Result<Client> {
    Client::try_from(config(settings).await?).context("no client of the Kubernetes API")
}

/// A client for who runs for long and never waits longer for a word than a watch lasts. A connection whose other end is
/// gone without a word is given up then, where the kernel would send again for a quarter of an hour.
pub async fn lasting_client(settings: &Settings) -> Result<Client> {
    let mut config = config(settings).await?;
    config.read_timeout = Some(Duration::from_secs(WATCH_SECONDS.into()) + MARGIN);
    // Else the time that a connection was idle would count.
    config.reset_reader_on_write = true;
    Client::try_from(config).context("no client of the Kubernetes API")
}

async fn config(settings: &Settings) -> Result<Config> {
    let options = KubeConfigOptions {
        context: settings.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None if settings.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer()
            .await
            .context("no Kubernetes API is known")?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    Ok(config)
}
