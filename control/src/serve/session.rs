//! What one proxy subscribed to, what it holds, and what it must be told next. Only the newest version of each
//! subscription is kept, so a slow proxy costs nothing but its own staleness.

use super::{View, delta, parts};
use futures_util::future::{AbortHandle, BoxFuture, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use weft_proxy_api::wire::{Body, Item};

/// Subscriptions one proxy may have.
pub const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Items in one message.
const MAX_ITEMS: usize = 256;

/// The subscriptions of one stream.
#[derive(Default)]
pub struct Subscriptions {
    by_id: HashMap<u32, Subscription>,
    /// One future for each subscription; it ends when the view has changed.
    changes: FuturesUnordered<BoxFuture<'static, Change>>,
    /// Subscriptions to look at for the next message, each once.
    dirty: VecDeque<u32>,
    /// Subscriptions whose current version the proxy has not acknowledged, oldest first.
    pending: BTreeSet<(Instant, u32)>,
    /// Size of an answer that was too large to be sent, since it was last asked for.
    too_large: Option<usize>,
}

/// The subscription whose view changed, and the receiver to go on watching; `None`: it ended.
type Change = Option<(u32, watch::Receiver<Arc<View>>)>;

struct Subscription {
    view: watch::Receiver<Arc<View>>,
    held: Held,
    /// Versions of the first part of a whole set that was too large for one message, and of that set.
    begun: Option<(u64, u64)>,
    /// What the proxy last said it took over; 0: nothing yet.
    acknowledged: u64,
    dirty: bool,
    pending: Option<Instant>,
    probe: Option<Probe>,
    watching: AbortHandle,
}

/// A version under way: whoever takes it over lacks only what came after it. One at a time, however many are sent meanwhile.
struct Probe {
    version: u64,
    /// The first change after it was sent.
    later: Option<Instant>,
}

/// What the proxy has, as far as we know.
enum Held {
    /// It said that it holds this version (0: nothing).
    Claimed(u64),
    /// It was sent this, as a delta or whole.
    Sent { view: Arc<View>, as_delta: bool },
    /// It refused this version, whole, or could never take it; only another one is worth sending.
    Refused(u64),
    /// It needs the whole set.
    Nothing,
}

/// Why a subscription is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The id is in use.
    #[error("subscription {0} exists already")]
    Duplicate(u32),
    /// There are [`MAX_SUBSCRIPTIONS`].
    #[error("a proxy may have {MAX_SUBSCRIPTIONS} subscriptions")]
    TooMany,
}

impl Subscriptions {
    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Since when the proxy lacks something.
    pub fn stale_since(&self) -> Option<Instant> {
        self.pending.first().map(|(since, _)| *since)
    }

    /// Adds a subscription of a proxy that holds version `held` (0: nothing).
    pub fn subscribe(
        &mut self,
        id: u32,
        mut view: watch::Receiver<Arc<View>>,
        held: u64,
        now: Instant,
    ) -> Result<(), SubscribeError> {
        if self.by_id.contains_key(&id) {
            return Err(SubscribeError::Duplicate(id));
        }
        if self.by_id.len() >= MAX_SUBSCRIPTIONS {
            return Err(SubscribeError::TooMany);
        }
        view.mark_unchanged();
        let watching = self.watch(id, view.clone());
        let held = Held::Claimed(held);
        self.by_id.insert(
            id,
            Subscription {
                view,
                held,
                begun: None,
                acknowledged: 0,
                dirty: false,
                pending: None,
                probe: None,
                watching,
            },
        );
        self.mark(id, now);
        Ok(())
    }

    /// Ends a subscription; one that is not there is fine.
    pub fn unsubscribe(&mut self, id: u32) {
        self.settle(id);
        if let Some(subscription) = self.by_id.remove(&id) {
            subscription.watching.abort();
        }
    }

    /// The proxy took over a version.
    pub fn ack(&mut self, id: u32, version: u64) {
        if let Some(subscription) = self.by_id.get_mut(&id) {
            subscription.acknowledged = version;
            let probe = subscription.probe.take_if(|it| it.version == version);
            if !self.settle_if_current(id)
                && let Some(later) = probe.and_then(|it| it.later)
            {
                self.settle(id);
                self.wait_since(id, later);
            }
        }
    }

    /// The proxy refused a version. A refused delta is repeated as a whole set; a refused whole is not repeated.
    pub fn nack(&mut self, id: u32, version: u64, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&id) else {
            return;
        };
        subscription.probe.take_if(|it| it.version == version);
        match &subscription.held {
            _ if subscription.begun.is_some_and(|(part, _)| part == version) => {
                let whole = subscription.begun.take().map_or(0, |(_, whole)| whole);
                subscription.held = Held::Refused(whole);
            }
            Held::Sent {
                view,
                as_delta: true,
            } if view.version == version => {
                subscription.held = Held::Nothing;
                self.mark(id, now);
            }
            Held::Sent {
                view,
                as_delta: false,
            } if view.version == version => {
                subscription.held = Held::Refused(version);
            }
            _ => {} // about something older than what it was sent since
        }
    }

    /// Waits until a view has changed. For ever where nothing is subscribed.
    pub async fn changed(&mut self, now: impl Fn() -> Instant) {
        loop {
            match self.changes.next().await {
                Some(Some((id, view))) => return self.note_change(id, view, now()),
                Some(None) => {} // unsubscribed
                None => std::future::pending().await,
            }
        }
    }

    fn note_change(&mut self, id: u32, view: watch::Receiver<Arc<View>>, now: Instant) {
        let watching = self.watch(id, view);
        match self.by_id.get_mut(&id) {
            Some(subscription) => {
                subscription.watching = watching;
                self.mark(id, now);
            }
            None => watching.abort(),
        }
    }

    /// Items for one message: the newest version of what changed, a bounded number. Empty: nothing to say.
    pub fn next_items(&mut self) -> Vec<Item> {
        let (mut items, mut size) = (Vec::new(), 0);
        while items.len() < MAX_ITEMS && size < parts::FULL {
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            let Some(item) = self.item(id) else { continue };
            match parts::size(&item.body) {
                large if large > parts::MAX_ITEM => self.keep_back(&item, large),
                fits => {
                    size += fits;
                    items.push(item);
                }
            }
        }
        items
    }

    /// The size of an answer that was too large to be sent, if there was one since this was last asked.
    pub fn too_large(&mut self) -> Option<usize> {
        self.too_large.take()
    }

    /// A proxy would end the stream over it, and all else would be lost as well. It keeps what it has.
    fn keep_back(&mut self, item: &Item, size: usize) {
        self.too_large = Some(size);
        if let Some(subscription) = self.by_id.get_mut(&item.id) {
            subscription.held = Held::Refused(item.version);
        }
    }

    fn item(&mut self, id: u32) -> Option<Item> {
        let subscription = self.by_id.get_mut(&id)?;
        if !std::mem::take(&mut subscription.dirty) {
            return None; // ended, and begun anew under the same id
        }
        let item = subscription.answer(id);
        match &item {
            Some(_) if subscription.lacks_parts() => {
                subscription.dirty = true;
                self.dirty.push_back(id);
            }
            Some(Item { version, .. }) if subscription.probe.is_none() => {
                let (version, later) = (*version, None);
                subscription.probe = Some(Probe { version, later });
            }
            _ => {}
        }
        self.settle_if_current(id);
        item
    }

    fn mark(&mut self, id: u32, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut subscription.dirty, true) {
            self.dirty.push_back(id);
        }
        if let Some(probe) = &mut subscription.probe {
            probe.later.get_or_insert(now);
        }
        self.wait_since(id, now);
    }

    /// The proxy lacks something since then, or since it did before.
    fn wait_since(&mut self, id: u32, since: Instant) {
        if let Some(subscription) = self.by_id.get_mut(&id)
            && subscription.pending.is_none()
        {
            subscription.pending = Some(since);
            self.pending.insert((since, id));
        }
    }

    /// The proxy lacks nothing once it took over the version that is current now.
    fn settle_if_current(&mut self, id: u32) -> bool {
        let is_current = self.by_id.get(&id).is_some_and(Subscription::is_current);
        if is_current {
            self.settle(id);
        }
        is_current
    }

    fn settle(&mut self, id: u32) {
        let Some(subscription) = self.by_id.get_mut(&id) else {
            return;
        };
        subscription.probe = None;
        if let Some(since) = subscription.pending.take() {
            self.pending.remove(&(since, id));
        }
    }

    fn watch(&mut self, id: u32, mut view: watch::Receiver<Arc<View>>) -> AbortHandle {
        let (change, handle) =
            abortable(async move { view.changed().await.ok().map(|()| (id, view)) });
        self.changes
            .push(Box::pin(async move { change.await.ok().flatten() }));
        handle
    }
}

impl Subscription {
    fn is_current(&self) -> bool {
        self.view.borrow().version == self.acknowledged
    }

    /// Was it sent something, but not yet all of what is current?
    fn lacks_parts(&self) -> bool {
        let current = self.view.borrow().version;
        matches!(&self.held, Held::Sent { view, .. } if view.version != current)
    }

    /// What brings the proxy to the newest version; `None` if it has been told already.
    fn answer(&mut self, id: u32) -> Option<Item> {
        let view = self.view.borrow().clone();
        let version = view.version;
        let body = match &self.held {
            Held::Claimed(held) if *held == version => Body::Unchanged,
            Held::Sent { view: sent, .. } if sent.version == version => return None,
            Held::Refused(refused) if *refused == version => return None,
            Held::Sent { view: sent, .. } => changes(sent, &view),
            _ => view.body.clone(),
        };
        if body == Body::Unchanged {
            self.acknowledged = version; // it said so itself
        }
        let from = match &self.held {
            Held::Sent { view, .. } => Some(view.as_ref()),
            _ => None,
        };
        let (body, view) = parts::bounded(from, &view, body);
        let (whole, version, as_delta) =
            (version, view.version, matches!(body, Body::Delta { .. }));
        self.begun = match as_delta {
            false => (version != whole).then_some((version, whole)),
            true => self.begun,
        };
        self.held = Held::Sent { view, as_delta };
        Some(Item { id, version, body })
    }
}

fn changes(sent: &View, view: &View) -> Body {
    match (&sent.body, &view.body) {
        (Body::Endpoints(old), Body::Endpoints(new)) => delta::between(sent.version, old, new),
        _ => None,
    }
    .unwrap_or_else(|| view.body.clone())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
