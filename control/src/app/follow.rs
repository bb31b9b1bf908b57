//! From the source into the index: starts what reads objects, takes in what it says, and logs what is wrong with it.

use crate::args::Source;
use crate::index::Index;
use crate::kube::writer::{self, Writer};
use crate::live::fresh::{Cluster, Folders, Fresh};
use crate::manifest::{Problem, Severity};
use crate::peers::Peers;
use crate::smi::Groups;
use crate::source::kube::kinds;
use crate::source::kube::ledger::Ledger;
use crate::source::{Event, dir};
use ::kube::Client;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Batches of events that may wait for the index.
const EVENT_BATCHES: usize = 16;

/// A running source.
pub(super) struct Watched {
    source: JoinHandle<()>,
    events: mpsc::Receiver<Vec<Event>>,
    /// Whose status may have to change; nobody's where there is no API server.
    ledger: Arc<Ledger>,
}

impl Watched {
    /// What is known of objects at the API server.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }
}

/// Starts the source; and, where the API server is it, what writes there how its objects fare, and ends by itself.
pub(super) fn watched(
    (source, groups): (Source, Groups),
    client: Option<Client>,
    index: &Arc<Index>,
    peers: &Peers,
    ending: &mut JoinSet<()>,
) -> Watched {
    let shared = peers.shared();
    let (tx, events) = mpsc::channel(EVENT_BATCHES);
    let ledger = Arc::<Ledger>::default();
    let (source, fresh) = match (source, client) {
        (Source::Kubernetes(settings), Some(client)) => {
            let writer = Writer {
                client: client.clone(),
                candidate: writer::candidate(&settings.namespace),
                index: index.clone(),
                ledger: Arc::clone(&ledger),
                peers: peers.clone(),
            };
            ending.spawn(writer.run(shared.stopping.subscribe()));
            let fresh = Cluster::new(client.clone(), ledger.clone(), &tx, index);
            let source = crate::source::kube::watch(client, groups, tx, Arc::clone(&ledger));
            (source, Some(Fresh::Kubernetes(Box::new(fresh))))
        }
        (Source::Folders(dirs), _) => {
            let (asks, asked) = mpsc::channel(1);
            let fresh = Fresh::Folders(Folders::new(asks, index));
            (dir::watch_and_answer(dirs, groups, tx, asked), Some(fresh))
        }
        // Not made without a client; a source that ends at once is told as such.
        (Source::Kubernetes(_), None) => (tokio::spawn(async move { drop(tx) }), None),
    };
    fresh.map(|fresh| shared.fresh.set(fresh));
    Watched {
        source,
        events,
        ledger,
    }
}

/// Takes the events of the source into the index; ends with the source.
pub(super) async fn follow(watched: Watched, index: Arc<Index>) {
    let Watched {
        source,
        mut events,
        ledger,
    } = watched;
    let synced = index.synced();
    while let Some(batch) = events.recv().await {
        let before = *synced.borrow();
        let news = index.apply(batch);
        let troubled = news.files.iter().filter_map(|it| kinds::from_origin(it));
        troubled.for_each(|key| ledger.touch(&key));
        news.objects.iter().for_each(|key| ledger.touch(key));
        match (before, *synced.borrow()) {
            // While not everything is read, what comes later looks like missing.
            (_, false) => {}
            (false, true) => tell_problems(&index.problems(), &[]),
            (true, true) => tell_problems(&news.new, &news.gone),
        }
    }
    source.abort();
    tracing::error!("the source is not watched any more");
}

/// Logs what is newly wrong, and what is right again.
fn tell_problems(new: &[Problem], gone: &[Problem]) {
    for problem in new {
        match problem.severity {
            Severity::Info => tracing::info!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Error => tracing::error!("{problem}"),
        }
    }
    for problem in gone {
        tracing::info!("no longer: {problem}");
    }
}
