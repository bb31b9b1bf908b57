//! Two connections, or streams, that stopped speaking HTTP: bytes are copied between them until both sides are done.

use super::h1::switched::Switched;
use super::pool::Held;
use crate::error::{Error, ErrorKind};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::task::JoinSet;

/// How long an end may take to be handed over after it was granted.
const HANDOVER: Duration = Duration::from_secs(10);

/// The far end of an upgrade that was asked for and granted.
pub(super) struct Upgrade {
    pub(super) endpoint: Far,
    /// The stream to the endpoint, if it is one: taken until the end.
    pub(super) stream: Option<Held>,
}

/// The endpoint's end, in the extensions of an answer that grants an upgrade.
#[derive(Clone)]
pub(super) enum Far {
    /// A connection (HTTP/1): whoever comes first has it.
    Connection(Arc<Mutex<Option<Switched>>>),
    /// A stream, as soon as its codec hands it over (HTTP/2).
    Stream(OnUpgrade),
}

/// The upgraded streams of one HTTP/2 connection; they end with this.
#[derive(Default)]
pub(super) struct Streams(Mutex<Option<JoinSet<()>>>);

impl Upgrade {
    /// Copies until both directions have ended. A half-closed direction is passed on as such.
    pub(super) async fn run<C>(self, mut client: C) -> Result<(), Error>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        // Resets end a tunnel as normally as closes do.
        match self.endpoint {
            Far::Connection(endpoint) => {
                let endpoint = endpoint.lock().take();
                let mut endpoint = endpoint.ok_or(ErrorKind::Internal)?;
                let _ = copy_bidirectional(&mut client, &mut endpoint).await;
            }
            Far::Stream(endpoint) => {
                let mut endpoint = handed_over(endpoint).await?;
                let _ = copy_bidirectional(&mut client, &mut endpoint).await;
            }
        }
        drop(self.stream);
        Ok(())
    }
}

impl Far {
    /// A connection.
    pub(super) fn connection(switched: Switched) -> Self {
        Self::Connection(Arc::new(Mutex::new(Some(switched))))
    }
}

/// What speaks HTTP no more, as soon as its codec has let go of it.
async fn handed_over(end: OnUpgrade) -> Result<TokioIo<Upgraded>, Error> {
    let end = tokio::time::timeout(HANDOVER, end)
        .await
        .map_err(|late| Error::new(ErrorKind::UpstreamProtocol).with_source(late))?
        .map_err(|error| Error::new(ErrorKind::UpstreamReset).with_source(error))?;
    Ok(TokioIo::new(end))
}

impl Streams {
    /// Runs one beside the others.
    pub(super) fn run(&self, upgrade: Upgrade, client: OnUpgrade) {
        let mut streams = self.0.lock();
        let streams = streams.get_or_insert_default();
        while streams.try_join_next().is_some() {}
        streams.spawn(async move {
            let ended = match handed_over(client).await {
                Ok(client) => upgrade.run(client).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
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
