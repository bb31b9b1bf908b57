//! Two connections that stopped speaking HTTP: bytes are copied between them until both sides are done.

use crate::error::{Error, ErrorKind};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::copy_bidirectional;

/// How long both connections may take to be handed over after a 101.
const HANDOVER: Duration = Duration::from_secs(10);

/// The two ends of an upgrade that was asked for and granted.
pub(super) struct Upgrade {
    pub(super) client: OnUpgrade,
    pub(super) endpoint: OnUpgrade,
}

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
        Ok(())
    }
}
