//! The views somebody subscribed to: their last value, what they were computed from, and who must be told.

use crate::serve::View;
use crate::views::world::{Topic, World};
use crate::views::{self, ViewKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use weft_proxy_api::wire::{Body, encode};

/// Below this number, looking for views that nobody reads any more is not worth it.
const FEW: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Published {
    views: HashMap<ViewKey, Entry>,
    /// Which views were computed from a topic.
    readers: HashMap<Topic, HashSet<ViewKey>>,
    /// How many views there were after the last sweep.
    swept: usize,
    /// How many views were computed so far.
    computed: u64,
}

/// What is published now, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Views held for proxies.
    pub views: usize,
    /// Views computed since the start, the first time or anew.
    pub computed: u64,
    /// Endpoints in the sets among them.
    pub endpoints: usize,
}

#[derive(Debug)]
struct Entry {
    sender: watch::Sender<Arc<View>>,
    reads: HashSet<Topic>,
}

impl Published {
    /// The view of `key`, computed now if nobody had it. Proxies that ask the same share one view.
    pub(super) fn subscribe(&mut self, world: &World, key: ViewKey) -> watch::Receiver<Arc<View>> {
        if let Some(entry) = self.views.get(&key) {
            return entry.sender.subscribe();
        }
        if self.views.len() > FEW.max(2 * self.swept) {
            self.sweep();
        }
        self.computed += 1;
        let (view, reads) = compute(world, &key);
        let (sender, receiver) = watch::channel(Arc::new(view));
        self.insert(key, Entry { sender, reads });
        receiver
    }

    /// Computes every view anew that has read one of the topics, and publishes those that differ.
    pub(super) fn refresh(&mut self, world: &World, touched: &HashSet<Topic>) {
        let stale: HashSet<ViewKey> = touched
            .iter()
            .filter_map(|topic| self.readers.get(topic))
            .flatten()
            .cloned()
            .collect();
        for key in stale {
            let Some(mut entry) = self.remove(&key) else {
                continue;
            };
            if entry.sender.is_closed() {
                continue;
            }
            self.computed += 1;
            let (view, reads) = compute(world, &key);
            entry.sender.send_if_modified(|last| replace(last, view));
            entry.reads = reads;
            self.insert(key, entry);
        }
    }

    /// How much there is.
    pub(super) fn numbers(&self) -> Numbers {
        let sets = self
            .views
            .values()
            .map(|entry| match &entry.sender.borrow().body {
                Body::Endpoints(all) => all.len(),
                _ => 0,
            });
        Numbers {
            views: self.views.len(),
            computed: self.computed,
            endpoints: sets.sum(),
        }
    }

    /// Forgets the views whose last receiver is gone.
    pub(super) fn sweep(&mut self) {
        let closed = self
            .views
            .iter()
            .filter(|(_, entry)| entry.sender.is_closed());
        let closed: Vec<ViewKey> = closed.map(|(key, _)| key.clone()).collect();
        for key in &closed {
            self.remove(key);
        }
        self.swept = self.views.len();
    }

    fn insert(&mut self, key: ViewKey, entry: Entry) {
        for topic in &entry.reads {
            self.readers
                .entry(topic.clone())
                .or_default()
                .insert(key.clone());
        }
        self.views.insert(key, entry);
    }

    fn remove(&mut self, key: &ViewKey) -> Option<Entry> {
        let entry = self.views.remove(key)?;
        for topic in &entry.reads {
            if let Some(readers) = self.readers.get_mut(topic) {
                readers.remove(key);
                if readers.is_empty() {
                    self.readers.remove(topic);
                }
            }
        }
        Some(entry)
    }
}

fn compute(world: &World, key: &ViewKey) -> (View, HashSet<Topic>) {
    let (body, reads) = views::compute(world, key);
    (
        View {
            version: encode::version(&body),
            body,
        },
        reads,
    )
}

fn replace(last: &mut Arc<View>, view: View) -> bool {
    let differs = last.version != view.version;
    if differs {
        *last = Arc::new(view);
    }
    differs
}
