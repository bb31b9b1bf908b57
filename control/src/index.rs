//! The index: everything the sources said, and the views that proxies subscribe to. Synchronous: events go in, the views
//! they touch are computed anew, and what really changed is published through watch channels.

#[cfg(test)]
mod clients_tests;
mod findings;
mod published;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;

use crate::manifest::{Kind, Loaded, Object, ObjectKey, Problem};
use crate::pod_ref::PodRef;
use crate::serve::{PodInfo, View, Views};
use crate::source::Event;
use crate::source::kube::kinds::{from_origin, is_legacy};
use crate::views::findings::Finding;
use crate::views::world::{Topic, World};
use crate::views::{self, Mesh, ViewKey};
use findings::Findings;
pub use findings::News;
use parking_lot::Mutex;
pub use published::Numbers;
use published::Published;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use weft_proxy_api::wire::{Body, Resource, Trust, encode};

/// The index. Shared behind an `Arc`; every call returns without waiting for anything but the lock.
///
/// Do not serve from it before [`Index::synced`] says true: what is missing at the start looks like deleted.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
    reached: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    world: World,
    /// Objects under the old name of their group, in force where there is none of the same name under the other.
    legacy: BTreeMap<ObjectKey, Loaded>,
    files: BTreeMap<Arc<str>, Vec<Problem>>,
    published: Published,
    findings: Findings,
    /// What was not told yet.
    news: News,
}

/// What is said of one object.
#[derive(Debug, Default)]
pub struct Said {
    /// Problems of what was written.
    pub written: Vec<Problem>,
    /// Between it and others.
    pub found: Vec<Finding>,
}

impl Index {
    /// An empty index. `enrolled`: pods whose proxies got a certificate in an earlier life of the controller.
    pub fn new(mesh: Mesh, enrolled: impl IntoIterator<Item = PodRef>) -> Self {
        let world = World::new(mesh, enrolled.into_iter().collect());
        let state = State {
            world,
            legacy: BTreeMap::new(),
            files: BTreeMap::new(),
            published: Published::default(),
            findings: Findings::default(),
            news: News::default(),
        };
        Self {
            state: Mutex::new(state),
            synced: watch::Sender::new(false),
            reached: watch::Sender::new(0),
        }
    }

    /// Takes all the events in, then publishes every view that differs; what else is wrong now.
    pub fn apply(&self, events: Vec<Event>) -> News {
        let (mut synced, mut reached) = (false, None);
        let mut state = self.state.lock();
        let mut touched = HashSet::new();
        for event in events {
            synced |= event == Event::Synced;
            if let Event::Reached(number) = event {
                reached = Some(number);
            }
            state.take(event, &mut touched);
        }
        state.publish(&touched);
        let news = std::mem::take(&mut state.news);
        drop(state);
        if synced {
            self.synced.send_replace(true);
        }
        if let Some(number) = reached {
            self.reached.send_replace(number);
        }
        news
    }

    /// The last number of an [`Event::Reached`]: all that was there when it was asked for is published.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// What is wrong within the files, without what is wrong between objects.
    pub fn file_problems(&self) -> Vec<Problem> {
        self.state
            .lock()
            .files
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// True once the sources have told all they had at the start.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// All that is wrong: in the files, and between the objects (a split whose backend does not exist, …).
    pub fn problems(&self) -> Vec<Problem> {
        let state = self.state.lock();
        let mut problems: Vec<Problem> = state.files.values().flatten().cloned().collect();
        problems.extend(state.findings.all(&state.world));
        problems.sort_by(|a, b| {
            (&a.origin, &a.object, &a.field).cmp(&(&b.origin, &b.object, &b.field))
        });
        problems
    }

    /// What is said of one object that was read from this file.
    pub fn said(&self, key: &ObjectKey, file: &str) -> Said {
        let state = self.state.lock();
        let object = key.to_string();
        let of_file = state.files.get(file).into_iter().flatten();
        let written = of_file.filter(|problem| problem.object.as_ref() == Some(&object));
        Said {
            written: written.cloned().collect(),
            found: state.findings.of(key).to_vec(),
        }
    }

    /// How many views there are, and what they cost.
    pub fn numbers(&self) -> Numbers {
        self.state.lock().published.numbers()
    }

    /// Pods whose proxies ever got a certificate, but those that are known to be gone.
    pub fn enrolled(&self) -> BTreeSet<PodRef> {
        self.state.lock().world.enrolled().clone()
    }

    /// Reads the world as it is now, e.g. to explain it.
    pub fn read<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.state.lock().world)
    }
}

impl Views for Index {
    fn subscribe(&self, proxy: &PodRef, resource: &Resource) -> watch::Receiver<Arc<View>> {
        let mut state = self.state.lock();
        let State {
            world, published, ..
        } = &mut *state;
        match ViewKey::of(proxy, resource) {
            Some(key) => published.subscribe(world, key),
            // The trust bundle is not made of resources; whoever serves it answers from the CA.
            None => watch::Sender::new(Arc::new(no_roots(world.mesh()))).subscribe(),
        }
    }

    fn pod(&self, pod: &PodRef) -> Option<PodInfo> {
        views::pod::info(&self.state.lock().world, pod)
    }

    fn enroll(&self, pod: &PodRef) {
        let mut state = self.state.lock();
        let touched = state.world.enroll(pod);
        state.publish(&touched);
    }
}

impl State {
    fn take(&mut self, event: Event, touched: &mut HashSet<Topic>) {
        match event {
            Event::Apply(loaded) => {
                self.see_off(&loaded.key, pod_uid(&loaded.object));
                self.world.apply(loaded, touched);
            }
            Event::Delete(key) => {
                self.see_off(&key, None);
                match self.legacy.get(&key).cloned() {
                    Some(other) => self.world.apply(other, touched),
                    None => self.world.delete(&key, touched),
                }
            }
            Event::ApplyLegacy(loaded) => {
                self.legacy.insert(loaded.key.clone(), loaded.clone());
                let known = self.world.object(&loaded.key);
                if known.is_none_or(|it| is_legacy(&it.origin.file)) {
                    self.world.apply(loaded, touched);
                }
            }
            Event::DeleteLegacy(key) => {
                self.legacy.remove(&key);
                let known = self.world.object(&key);
                if known.is_some_and(|it| is_legacy(&it.origin.file)) {
                    self.world.delete(&key, touched);
                }
            }
            Event::Problems { file, problems } => self.take_problems(file, problems),
            Event::Synced | Event::Reached(_) => {}
        }
    }

    /// Forgets the proxy of a pod that gives way to another one of its name (of a StatefulSet, say), or to none. Only where
    /// an API server tells pods apart: a manifest that was gone for a moment is of the same pod, whose proxy still runs.
    fn see_off(&mut self, key: &ObjectKey, next: Option<&str>) {
        let Some(last) = self.world.object(key).filter(|_| key.kind == Kind::Pod) else {
            return;
        };
        if pod_uid(&last.object) != next && from_origin(&last.origin.file).is_some() {
            self.world
                .disenroll(&PodRef::new(&key.namespace, &key.name));
        }
    }

    fn take_problems(&mut self, file: Arc<str>, problems: Vec<Problem>) {
        let before = self.files.get(&file).map_or(&[][..], Vec::as_slice);
        if self.news.compare(before, &problems) {
            self.news.files.insert(file.clone());
        }
        match problems.is_empty() {
            true => drop(self.files.remove(&file)),
            false => drop(self.files.insert(file, problems)),
        }
    }

    fn publish(&mut self, touched: &HashSet<Topic>) {
        self.published.refresh(&self.world, touched);
        self.findings.refresh(&self.world, touched, &mut self.news);
    }
}

/// What tells a pod from a later one of the same name, where that is known.
fn pod_uid(object: &Object) -> Option<&str> {
    match object {
        Object::Pod(pod) => pod.metadata.uid.as_deref(),
        _ => None,
    }
}

fn no_roots(mesh: &Mesh) -> View {
    let body = Body::Trust(Trust {
        roots: vec![],
        domain: mesh.trust_domain.clone(),
    });
    View {
        version: encode::version(&body),
        body,
    }
}
