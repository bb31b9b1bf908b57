//! Two connections, or streams, that stopped speaking HTTP: bytes are copied between them until both sides are done.

use super::pool::Held;
use crate::error::{Error, ErrorKind};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::task::JoinSet;

/// How long both ends may take to be handed over after they were granted.
const HANDOVER: Duration = Duration::from_secs(10);

/// The two ends of an upgrade that was asked for and granted.
pub(super) struct Upgrade {
    pub(super) client: OnUpgrade,
    pub(super) endpoint: OnUpgrade,
    /// The stream to the endpoint, if it is one: taken until the end.
    pub(super) stream: Option<Held>,
}

/// The upgraded streams of one HTTP/2 connection; they end with this.
#[derive(Default)]
pub(super) struct Streams(Mutex<Option<JoinSet<()>>>);

impl Upgrade {
    /// Copies until both directions have ended. A half-closed direction is passed on as such.
    pub(super) async fn run(self) -> Result<(), Error> {
        let both = futures_util::future::try_join(self.client, self.endpoint);
        let (client, endpoint) = tokio::time::timeout(HANDOVER, both)
            .await
            .map_err(|late| Error::new(ErrorKind::UpstreamProtocol).with_source(late))?
            .map_err(|error| Error::new(ErrorKind::UpstreamReset).with_source(error))?;
        let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
        // Resets end a tunnel as normally as closes do.
        let _ = copy_bidirectional(&mut client, &mut endpoint).await;
        drop(self.stream);
        Ok(())
    }
}

impl Streams {
    /// Runs one beside the others.
    pub(super) fn run(&self, upgrade: Upgrade) {
        let mut streams = self.0.lock();
        let streams = streams.get_or_insert_default();
        while streams.try_join_next().is_some() {}
        streams.spawn(async move {
            if let Err(error) = upgrade.run().await {
                tracing::debug!(%error, "an upgraded stream ended");
            }
        });
    }

    /// Waits for all of them.
    pub(super) async fn ended(&self) {
        let streams = self.0.lock().take();
        if let Some(mut streams) = streams {
            while streams.join_next().await.is_some() {}
        }
    }
}
