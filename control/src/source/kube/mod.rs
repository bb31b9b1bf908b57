//! The Kubernetes API server as a source.
//!
//! ```text
//! for each kind: version that is served ──▶ watcher (list in pages, watch, resume, list again) ──▶ feed (pure) ──▶ events
//! ```
//!
//! * [`kinds`]: what is watched; a kind whose CustomResourceDefinition is missing has no objects, and is looked for again.
//! * [`feed`]: what follows from a list or a change; [`trim`]: what of an object is kept.
//!
//! A watch that breaks goes on where it was; when the server has forgotten that place (410) everything is listed again.
//! Nothing known is given up because the server cannot be reached.

pub mod feed;
pub mod kinds;
pub mod ledger;
pub mod once;
pub(crate) mod pause;
#[cfg(test)]
mod tests;
pub mod trim;

use super::Event;
use crate::smi::Groups;
use feed::Feed;
use futures_util::{FutureExt, Stream, StreamExt};
use kinds::{Watched, watched};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, watcher};
use ledger::Ledger;
use pause::Pause;
use serde_json::Value;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// A watch is asked for anew after this time; a connection that is dead but says nothing is found out a little later
/// ([`lasting_client`](crate::kube::connect::lasting_client)).
pub const WATCH_SECONDS: u32 = 60;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Between two looks for a kind that the server does not serve: doubled each time, up to the second.
const MISSING: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];
/// Events sent at once; what comes in a burst is computed once.
const BATCH: usize = 512;

/// Watches every kind until the receiver is dropped. The ledger is kept for whoever writes status. [`Event::Synced`] follows when each kind was listed once.
pub fn watch(
    client: Client,
    groups: Groups,
    tx: mpsc::Sender<Vec<Event>>,
    ledger: Arc<Ledger>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let untold = Arc::new(AtomicUsize::new(watched(groups).count()));
        let mut kinds = JoinSet::new();
        for watched in watched(groups) {
            let follower = Follower {
                client: client.clone(),
                feed: Feed::new(watched, ledger.clone()),
                out: Out {
                    tx: tx.clone(),
                    untold: Some(untold.clone()),
                },
                pause: Pause::default(),
                absent: MISSING[0],
                watched,
            };
            kinds.spawn(follower.run());
        }
        tokio::select! {
            () = tx.closed() => {}
            // A follower ends only when nobody listens, or because it panicked: then the source is not whole any more.
            _ = kinds.join_next() => {}
        }
    })
}

/// Nobody listens any more.
struct Closed;

/// Why a watcher is given up for a new one.
enum Again {
    /// Everything is to be listed again.
    List,
    /// Perhaps another version is served now, or none.
    Version,
}

/// Where the events of one kind go.
struct Out {
    tx: mpsc::Sender<Vec<Event>>,
    /// How many kinds were not listed yet; `None`: this one was.
    untold: Option<Arc<AtomicUsize>>,
}

impl Out {
    async fn send(&self, events: Vec<Event>) -> Result<(), Closed> {
        if events.is_empty() {
            return Ok(());
        }
        self.tx.send(events).await.map_err(|_| Closed)
    }

    /// The first list has been sent; the last kind to say so ends the start.
    async fn listed(&mut self) -> Result<(), Closed> {
        match self.untold.take() {
            Some(untold) if untold.fetch_sub(1, Ordering::AcqRel) == 1 => {
                self.send(vec![Event::Synced]).await
            }
            _ => Ok(()),
        }
    }
}

/// Follows one kind.
struct Follower {
    client: Client,
    watched: &'static Watched,
    feed: Feed,
    out: Out,
    pause: Pause,
    /// Until the next look for a kind that is not there.
    absent: Duration,
}

impl Follower {
    async fn run(mut self) {
        // Every error is a closed channel: whoever dropped it ends us anyway.
        while self.follow().await.is_ok() {}
    }

    async fn follow(&mut self) -> Result<(), Closed> {
        let resource = match served(&self.client, self.watched).await {
            Ok(Some(resource)) => resource,
            Ok(None) => return self.missing().await,
            Err(error) => {
                self.trouble(&error).await;
                return Ok(());
            }
        };
        self.absent = MISSING[0];
        while let Again::List = self.watch(&resource).await? {}
        Ok(())
    }

    /// The kind is not there: it has no objects. That it had some a moment ago is doubted as an empty list is.
    async fn missing(&mut self) -> Result<(), Closed> {
        self.pause.reset();
        let mut events = Vec::new();
        self.feed.begin();
        self.feed.end(Instant::now(), &mut events);
        self.out.send(events).await?;
        self.out.listed().await?;
        sleep(pause::jitter(self.absent)).await;
        self.absent = (self.absent * 2).min(MISSING[1]);
        Ok(())
    }

    /// Follows one version of the kind until it has to be looked at anew.
    async fn watch(&mut self, resource: &ApiResource) -> Result<Again, Closed> {
        let config = watcher::Config::default()
            .timeout(WATCH_SECONDS)
            .page_size(PAGE);
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let mut stream = pin!(watcher(api, config));
        let mut doubted = None;
        loop {
            let burst = tokio::select! {
                burst = Burst::next(&mut stream) => burst,
                () = until(doubted) => return Ok(Again::List),
            };
            self.take(burst.events, resource, &mut doubted).await?;
            let Some(error) = burst.error else {
                continue;
            };
            if lacks_converter(&error) {
                self.feed.ledger().converter_missed();
            }
            // Whatever follows from it: a server that only ever says so is asked less and less.
            self.trouble(&error).await;
            if let Some(again) = again(&error) {
                return Ok(again);
            }
        }
    }

    /// Tells what follows from a burst. `doubted`: when a list that was suddenly empty is to be asked for again.
    async fn take(
        &mut self,
        burst: Vec<watcher::Event<DynamicObject>>,
        resource: &ApiResource,
        doubted: &mut Option<Instant>,
    ) -> Result<(), Closed> {
        use watcher::Event as Said;
        // That a list begins is said before the server was asked.
        let answered = burst.iter().any(|said| !matches!(said, Said::Init));
        if answered && self.pause.reset() {
            tracing::info!("{} are watched again", self.watched.resource());
        }
        let (mut events, mut listed) = (Vec::new(), false);
        for said in burst {
            match said {
                Said::Init => self.feed.begin(),
                Said::Apply(object) | Said::InitApply(object) => {
                    self.feed.apply(json(resource, object), &mut events);
                }
                Said::Delete(object) => self.feed.delete(&json(resource, object), &mut events),
                Said::InitDone => {
                    listed = true;
                    *doubted = self.feed.end(Instant::now(), &mut events);
                }
            }
        }
        self.out.send(events).await?;
        match listed {
            true => self.out.listed().await,
            false => Ok(()),
        }
    }

    /// Says once that it does not work, and waits longer each time.
    async fn trouble(&mut self, error: &(dyn std::error::Error + Sync)) {
        let resource = self.watched.resource();
        let (first, wait) = self.pause.next();
        match first {
            true => tracing::warn!("cannot watch {resource}: {error}; what is known of them stays"),
            false => tracing::debug!("cannot watch {resource}: {error}"),
        }
        sleep(wait).await;
    }
}

/// What a stream had to say without waiting for more.
struct Burst {
    events: Vec<watcher::Event<DynamicObject>>,
    error: Option<watcher::Error>,
}

impl Burst {
    /// Waits for the first; a stream of a watcher has no end.
    async fn next(
        stream: &mut (impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + Unpin),
    ) -> Self {
        let (mut events, mut next) = (Vec::new(), stream.next().await);
        loop {
            match next {
                Some(Ok(event)) => events.push(event),
                Some(Err(error)) => {
                    return Self {
                        events,
                        error: Some(error),
                    };
                }
                None => break,
            }
            // Before the stream is asked: what it gives is nobody's but ours.
            if events.len() >= BATCH {
                break;
            }
            next = match stream.next().now_or_never() {
                Some(further) => further,
                None => break,
            };
        }
        Self {
            events,
            error: None,
        }
    }
}

/// The version of a kind to ask for: the best one that is both understood and served.
async fn served(
    client: &Client,
    watched: &'static Watched,
) -> Result<Option<ApiResource>, kube::Error> {
    for version in watched.readable() {
        let api_version = watched.api_version(version);
        if !watched.custom || serves(client, &api_version, watched.plural).await? {
            return Ok(Some(ApiResource {
                group: watched.group.into(),
                version: version.into(),
                api_version,
                kind: watched.kind.into(),
                plural: watched.plural.into(),
            }));
        }
    }
    Ok(None)
}

async fn serves(client: &Client, api_version: &str, plural: &str) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(api_version).await {
        Ok(list) => Ok(list.resources.iter().any(|it| it.name == plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The watcher lists again by itself when a running watch is told 410, but not when a watch cannot begin.
fn again(error: &watcher::Error) -> Option<Again> {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error)) = error else {
        return None;
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => Some(Again::Version),
        kube::Error::Api(status) if status.code == 410 => Some(Again::List),
        _ => None,
    }
}

/// Was a list refused because no webhook converted what is stored? Said in words alone, with the code of any other failure.
fn lacks_converter(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.message.contains("conversion webhook for"))
}

/// The object as one tree, with the type that items of a list do not carry.
fn json(resource: &ApiResource, object: DynamicObject) -> Value {
    let mut metadata = object.metadata;
    metadata.managed_fields = None;
    let mut fields = match object.data {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    fields.insert("apiVersion".into(), resource.api_version.clone().into());
    fields.insert("kind".into(), resource.kind.clone().into());
    // Metadata is made of texts, numbers and times: there is nothing that cannot be written.
    let metadata = serde_json::to_value(metadata).unwrap_or_default();
    fields.insert("metadata".into(), metadata);
    Value::Object(fields)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
