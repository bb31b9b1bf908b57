//! Whether what the controller knows is what is written by now: who applies an object and asks at once must not be told of
//! the state before.

use crate::index::Index;
use crate::kube::Client;
use crate::source::Event;
use crate::source::kube::ledger::Ledger;
use crate::source::kube::once;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// How long a source may take, less than a caller waits for an answer. Whoever wants more asks again.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether a watch has caught up.
const PAUSE: Duration = Duration::from_millis(50);
/// After which all is listed anew: an object that was made or changed since the list would never fit to it.
const LIST_AGAIN: Duration = Duration::from_millis(750);
/// Turns of the runtime until every stream to a proxy has seen what was just published: one to take in what the source sent, one
/// for the streams that this wakes, and as many again for what these wake.
const TURNS: usize = 4;

/// A way to know.
pub enum Fresh {
    /// Folders are read when asked.
    Folders(Folders),
    /// The versions of the objects in an API server are compared with those that were seen.
    Kubernetes(Box<Cluster>),
}

/// Asks an API server.
pub struct Cluster {
    client: Client,
    /// What was seen.
    ledger: Arc<Ledger>,
    /// The way of what was seen into the index.
    events: mpsc::WeakSender<Vec<Event>>,
    next: AtomicU64,
    reached: watch::Receiver<u64>,
}

/// Asks a source of folders.
pub struct Folders {
    asks: mpsc::Sender<u64>,
    next: AtomicU64,
    reached: watch::Receiver<u64>,
}

impl Folders {
    /// `asks`: as [`crate::source::dir::watch_and_answer`] takes them.
    pub fn new(asks: mpsc::Sender<u64>, index: &Index) -> Self {
        Self {
            asks,
            next: AtomicU64::new(1),
            reached: index.reached(),
        }
    }

    async fn read(&self) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut reached = self.reached.clone();
        let done = async {
            self.asks.send(number).await.is_ok()
                && reached.wait_for(|at| *at >= number).await.is_ok()
        };
        timeout(PATIENCE, done).await.unwrap_or(false)
    }
}

impl Cluster {
    /// `ledger` and `events` are those of the source that fills this index.
    pub fn new(
        client: Client,
        ledger: Arc<Ledger>,
        events: &mpsc::Sender<Vec<Event>>,
        index: &Index,
    ) -> Self {
        Self {
            client,
            ledger,
            // The source alone keeps it open: whoever takes the events in must notice its end.
            events: events.downgrade(),
            next: AtomicU64::new(1),
            reached: index.reached(),
        }
    }

    async fn read(&self) -> bool {
        timeout(PATIENCE, self.caught_up())
            .await
            .is_ok_and(|done| done.is_some())
    }

    /// Has all been seen that a list shows now? False: not for a while.
    async fn has_seen_all(&self) -> Option<bool> {
        let written = once::generations(&self.client).await.ok()?;
        let seen = async {
            while !once::has_seen(&self.ledger, &written) {
                sleep(PAUSE).await;
            }
        };
        Some(timeout(LIST_AGAIN, seen).await.is_ok())
    }

    /// Objects that had another version when they were compared will have it soon.
    async fn caught_up(&self) -> Option<()> {
        while !self.has_seen_all().await? {}
        // What was seen may still be on its way: this comes after it.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let events = self.events.upgrade()?;
        events.send(vec![Event::Reached(number)]).await.ok()?;
        drop(events);
        let mut reached = self.reached.clone();
        reached.wait_for(|at| *at >= number).await.ok().map(drop)
    }
}

impl Fresh {
    /// Waits until all that is written now has been taken in; false: that is not known.
    pub async fn read(&self) -> bool {
        let read = match self {
            Self::Folders(folders) => folders.read().await,
            Self::Kubernetes(cluster) => cluster.read().await,
        };
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        read
    }

    /// Whether every proxy of the mesh is connected to this controller, where no other is named.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Folders(_))
    }
}
