//! What the controller says, kept up to date. The only room that speaks gRPC; runs on the control thread, asked from any.
//!
//! * [`client`]: a connection to the controller. [`certify`]: the signing call over one of its own.
//! * `link`: one Sync stream after another. `held`: what is subscribed to and held (pure). `sync`: both together.
//! * `cache`: plans made of what is held, found by everyone.
//! * `observe`: when the controller is told about traffic; `summary`: what; `tap`: about single requests.

mod cache;
pub mod certify;
pub mod client;
mod config;
mod grpc;
mod held;
mod link;
mod observe;
mod summary;
mod sync;
mod tap;

use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;
use crate::policy::{Destination, InboundPlan};
use cache::{Found, Shared};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use weft_proxy_api::wire::Trust;

pub use certify::{Certified, Certifier, CertifyError};
pub use client::{ConnectError, ControlClient, Credentials, TlsSource};

/// How long a connection waits for the first answer about its destination.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while the controller is away: it may come back at any moment, but applications should be told soon.
const PATIENCE_AWAY: Duration = Duration::from_millis(400);
/// Wishes that may wait for the control thread.
const WANTED: usize = 1024;

/// Who this proxy is, for the controller.
#[derive(Debug, Clone)]
pub struct Whoami {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Zone of its node; empty: unknown.
    pub zone: String,
}

/// The way to ask. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Discover {
    shared: Arc<Shared>,
    wanted: mpsc::Sender<SocketAddr>,
}

/// Keeps discovery going. One future for the control thread.
pub struct Driver {
    client: ControlClient,
    whoami: Whoami,
    shared: Arc<Shared>,
    wanted: mpsc::Receiver<SocketAddr>,
}

/// The inbound policy. Cheap to clone.
#[derive(Clone)]
pub struct InboundHandle {
    shared: Arc<Shared>,
    version: watch::Receiver<u64>,
}

impl Discover {
    /// Discovery, and what drives it: `driver.run()` belongs on the control thread, once there is an identity.
    pub fn new(client: ControlClient, whoami: Whoami, metrics: Arc<Metrics>) -> (Self, Driver) {
        let (sender, wanted) = mpsc::channel(WANTED);
        let shared = Arc::new(Shared::new(metrics));
        let driver = Driver {
            client,
            whoami,
            shared: shared.clone(),
            wanted,
        };
        (
            Self {
                shared,
                wanted: sender,
            },
            driver,
        )
    }

    /// The inbound policy.
    pub fn inbound(&self) -> InboundHandle {
        InboundHandle {
            version: self.shared.inbound_version.subscribe(),
            shared: self.shared.clone(),
        }
    }

    /// Where an address leads. Errors with `PolicyUnknown` or `ControlUnreachable` if nobody says in time: never a guess,
    /// never plaintext.
    pub async fn outbound(&self, target: SocketAddr) -> Result<Arc<Destination>, Error> {
        let (destination, new) = match self.shared.find(target) {
            Found::Known(destination) if destination.version() != 0 => return Ok(destination),
            Found::Known(destination) => (destination, false),
            Found::New(destination) => (destination, true),
            Found::Full => return Err(ErrorKind::Overloaded.into()),
        };
        // A wish that cannot even be handed over must leave no trace: nobody would ever ask for it again.
        if new && self.wanted.try_send(target).is_err() {
            self.shared.forget(target);
            return Err(ErrorKind::Overloaded.into());
        }
        let connected = *self.shared.connected.borrow();
        let patience = if connected { PATIENCE } else { PATIENCE_AWAY };
        match timeout(patience, destination.changed(0)).await {
            Ok(_) => Ok(destination),
            Err(_) => Err(self.shared.unanswered().into()),
        }
    }

    /// An address that was asked for, whether or not anybody has answered.
    pub fn asked(&self, target: SocketAddr) -> Option<Arc<Destination>> {
        self.shared.destinations.read().get(&target).cloned()
    }

    /// The trust bundle, when it changes (`None`: not told yet).
    pub fn trust(&self) -> watch::Receiver<Option<Arc<Trust>>> {
        self.shared.trust.subscribe()
    }

    /// Whether the stream from the controller is open, and when that changes.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// The effective plan as JSON, without secrets.
    pub fn config(&self) -> serde_json::Value {
        config::config(&self.shared)
    }
}

impl Driver {
    /// Keeps the stream open; returns when every `Discover` is gone.
    pub async fn run(self) {
        let Self {
            client,
            whoami,
            shared,
            wanted,
        } = self;
        let open = grpc::Grpc::new(client, whoami.clone(), shared.metrics.clone());
        sync::Sync::new(open, whoami, shared, wanted).run().await;
    }
}

impl InboundHandle {
    /// A policy that never changes, for measurements without a controller.
    pub fn fixed(plan: InboundPlan, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared::new(metrics));
        shared.inbound.store(Some(Arc::new(plan)));
        Self {
            version: shared.inbound_version.subscribe(),
            shared,
        }
    }

    /// The policy in force; `None`: none yet, so refuse.
    pub fn load(&self) -> Option<Arc<InboundPlan>> {
        self.shared.inbound.load_full()
    }

    /// Why nobody has said yet where an address leads.
    pub fn unanswered(&self) -> ErrorKind {
        self.shared.unanswered()
    }

    /// Waits for a policy that this handle has not seen yet.
    pub async fn changed(&mut self) {
        if self.version.changed().await.is_err() {
            // `shared` holds the sender.
            std::future::pending::<()>().await;
        }
    }
}
