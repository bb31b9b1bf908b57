//! Opens the Sync stream over gRPC, with Observe beside it on the same connection.

use super::Whoami;
use super::client::{Channel, ControlClient, Credentials};
use super::link::{Incoming, Open};
use super::observe::observe;
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use weft_proxy_api::wire::generated::SyncRequest;
use weft_proxy_api::wire::generated::policy_client::PolicyClient;

/// Largest message accepted.
const MOST_BYTES: usize = 4 << 20;

/// How long the controller may take to begin its answer; then another connection is tried.
const BEGIN: Duration = Duration::from_secs(10);

pub(super) struct Grpc {
    client: ControlClient,
    whoami: Whoami,
    metrics: Arc<Metrics>,
}

impl Grpc {
    pub(super) fn new(client: ControlClient, whoami: Whoami, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            whoami,
            metrics,
        }
    }
}

impl Open for Grpc {
    fn open(
        &mut self,
        outbox: Receiver<SyncRequest>,
    ) -> BoxFuture<'static, Result<Incoming, String>> {
        let (client, whoami, metrics) = (
            self.client.clone(),
            self.whoami.clone(),
            self.metrics.clone(),
        );
        let opening = async move {
            let channel = client
                .connect(Credentials::Workload)
                .await
                .map_err(|error| error.to_string())?;
            let incoming = sync(&client, channel.clone(), outbox).await?;
            let beside = Beside(tokio::spawn(observe(
                channel,
                client.origin(),
                whoami,
                metrics,
            )));
            // Observing ends with the stream.
            let incoming = incoming.map(move |message| {
                let _beside = &beside;
                message
            });
            Ok(incoming.boxed())
        };
        opening.boxed()
    }
}

async fn sync(
    client: &ControlClient,
    channel: Channel,
    outbox: Receiver<SyncRequest>,
) -> Result<Incoming, String> {
    let mut policy =
        PolicyClient::with_origin(channel, client.origin()).max_decoding_message_size(MOST_BYTES);
    let answer = tokio::time::timeout(BEGIN, policy.sync(ReceiverStream::new(outbox)))
        .await
        .map_err(|_| "the controller did not begin to answer".to_owned())?
        .map_err(|status| text(&status))?;
    Ok(answer
        .into_inner()
        .map(|message| message.map_err(|status| text(&status)))
        .boxed())
}

fn text(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

struct Beside(JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
