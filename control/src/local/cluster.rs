//! What there should be and what there is, brought together again after every change.

mod resolved;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::addresses::Numbers;
use super::kubelet::{self, End, Handle};
use super::mesh::Injected;
use super::nat::Forward;
use super::node::{Node, Phase, PodState};
use super::objects::Folder;
use super::services::Resolved;
use super::workloads::{self, Action, Actual, Desired, Style};
use crate::manifest::workload::Pod;
use crate::manifest::{Loaded, Object, ObjectKey};
use crate::source::Event;

/// Most pods on one machine.
const MAX_PODS: usize = 1000;

/// Where problems of making pods begin.
const PODS_OF: &str = "pods of ";

fn pods_of(owner: &ObjectKey) -> String {
    format!("{PODS_OF}{owner}")
}

/// A pod that was made.
pub(crate) struct Entry {
    pub(crate) pod: Pod,
    pub(crate) owner: ObjectKey,
    hash: String,
    pub(crate) number: u16,
    pub(crate) handle: Handle,
    pub(crate) began: Instant,
    pub(crate) deleting: Option<jiff::Timestamp>,
    hosts: String,
}

impl Entry {
    pub(crate) fn state(&self) -> PodState {
        self.handle.state.borrow().clone()
    }

    /// Take it out of service, then end it.
    pub(crate) fn delete(&mut self, how: End) {
        self.deleting.get_or_insert_with(jiff::Timestamp::now);
        if *self.handle.end.borrow() != Some(End::Quickly) {
            self.handle.end.send_replace(Some(how));
        }
    }

    fn actual(&self) -> Actual {
        let state = self.handle.state.borrow();
        Actual {
            name: self.pod.metadata.name.clone(),
            hash: self.hash.clone(),
            ready: state.ready() && self.deleting.is_none(),
            finished: matches!(state.phase, Phase::Succeeded | Phase::Failed),
            deleting: self.deleting.is_some(),
        }
    }
}

/// The node's whole state.
pub(crate) struct Cluster {
    pub(crate) node: Arc<Node>,
    pub(crate) objects: BTreeMap<ObjectKey, Loaded>,
    /// By file, as the source reports them.
    pub(crate) file_problems: BTreeMap<String, Vec<String>>,
    /// By object, found by the node itself.
    pub(crate) own_problems: BTreeMap<String, String>,
    pub(crate) pods: BTreeMap<(String, String), Entry>,
    pub(crate) services: Vec<Resolved>,
    pub(crate) synced: bool,
    pub(crate) stamps: HashMap<ObjectKey, u64>,
    trust: Option<String>,
    injected: Injected,
    pod_numbers: Numbers,
    service_numbers: Numbers,
    service_ips: BTreeMap<String, std::net::IpAddr>,
    loaded_rules: Option<Vec<Forward>>,
    folder: Folder,
}

impl Cluster {
    pub(crate) fn new(node: Arc<Node>, trust: Option<String>) -> Self {
        let dir: PathBuf = node.options.state.join("objects");
        let space = node.space();
        Self {
            node,
            objects: BTreeMap::new(),
            file_problems: BTreeMap::new(),
            own_problems: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: Vec::new(),
            synced: false,
            stamps: HashMap::new(),
            trust,
            injected: Injected::default(),
            pod_numbers: space.pods(),
            service_numbers: space.services(),
            service_ips: BTreeMap::new(),
            loaded_rules: None,
            folder: Folder::new(dir),
        }
    }

    /// Take in what the folders say.
    pub(crate) fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Apply(loaded) | Event::ApplyLegacy(loaded) => {
                    self.injected.changed(&loaded.key);
                    self.objects.insert(loaded.key.clone(), loaded);
                }
                Event::Delete(key) | Event::DeleteLegacy(key) => {
                    self.injected.forget(&key);
                    self.objects.remove(&key);
                    self.stamps.remove(&key);
                }
                Event::Problems { file, problems } => {
                    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    if self.node.options.verbose {
                        lines.iter().for_each(|line| eprintln!("{line}"));
                    }
                    if lines.is_empty() {
                        self.file_problems.remove(&*file);
                    } else {
                        self.file_problems.insert(file.to_string(), lines);
                    }
                }
                Event::Synced => self.synced = true,
                Event::Reached(_) => {}
            }
        }
        self.publish_configs();
    }

    /// One step towards what there should be. Called again whenever something changed.
    pub(crate) async fn reconcile(&mut self) {
        if !self.synced {
            return;
        }
        // New pods begin with the roots of today, whatever made them necessary.
        self.publish_configs();
        self.bury();
        let desired = self.desired();
        self.resolve_services();
        self.orphans(&desired);
        let kept: BTreeSet<String> = desired.iter().map(|it| pods_of(&it.key)).collect();
        self.own_problems
            .retain(|about, _| !about.starts_with(PODS_OF) || kept.contains(about));
        for wanted in &desired {
            self.step(wanted);
        }
        self.resolve_services();
        self.load_rules().await;
        self.write_hosts();
        self.find_outdated_proxies();
        if let Err(error) = self.write_objects() {
            self.problem(
                "objects",
                &format!("cannot tell the controller about pods: {error:#}"),
            );
        }
    }

    /// Everything that makes pods, injected.
    pub(crate) fn desired(&mut self) -> Vec<Desired> {
        let mut all = Vec::new();
        let mut problems = BTreeMap::new();
        let about = |key: &ObjectKey| format!("inject {key}");
        for (key, loaded) in &self.objects {
            if matches!(loaded.object, Object::CronJob(_)) {
                let why = "CronJobs are not run on this node; a Job is";
                problems.insert(about(key), format!("{}: {key}: {why}", loaded.origin));
                continue;
            }
            let stamp = self.stamps.get(key).copied().unwrap_or(0);
            if workloads::desired(key, &loaded.object, 0).is_none() {
                continue;
            }
            let (object, mistake) = self.injected.of(loaded, &self.objects);
            all.extend(object.and_then(|it| workloads::desired(key, &it, stamp)));
            if let Some(why) = mistake {
                problems.insert(about(key), format!("{}: {key}: {why}", loaded.origin));
            }
        }
        self.problems("inject ", problems);
        all
    }

    /// Is everything as it should be? If not, what is missing.
    pub(crate) fn unfinished(&mut self) -> Vec<String> {
        if !self.synced {
            return vec!["the folders are being read".into()];
        }
        let mut missing = Vec::new();
        for wanted in self.desired() {
            let pods: Vec<_> = self.of(&wanted.key).map(Entry::actual).collect();
            let settled =
                workloads::plan(&wanted, &pods).is_empty() && !pods.iter().any(|pod| pod.deleting);
            let good = pods
                .iter()
                .filter(|pod| pod.hash == wanted.hash && (pod.ready || pod.finished))
                .count();
            if !settled || good < wanted.replicas as usize {
                missing.push(format!(
                    "{}: {good} of {} ready{}",
                    wanted.key,
                    wanted.replicas,
                    self.why(&wanted.key)
                ));
            }
        }
        missing.extend(
            self.pods
                .values()
                .filter(|e| e.deleting.is_some())
                .map(|e| format!("pod {} is ending", e.pod.metadata.name)),
        );
        missing
    }

    fn why(&self, owner: &ObjectKey) -> String {
        let message = self.of(owner).find_map(|entry| {
            let state = entry.handle.state.borrow();
            let container = state
                .containers
                .iter()
                .find(|c| !c.ready && c.reason.is_some());
            state.message.clone().or_else(|| {
                container.and_then(|c| Some(format!("container {}: {}", c.name, c.reason.clone()?)))
            })
        });
        message.map(|why| format!(" ({why})")).unwrap_or_default()
    }

    fn of(&self, owner: &ObjectKey) -> impl Iterator<Item = &Entry> {
        self.pods
            .values()
            .filter(move |entry| entry.owner == *owner)
    }

    fn problem(&mut self, about: &str, why: &str) {
        if self.own_problems.get(about).is_none_or(|old| old != why) && self.node.options.verbose {
            eprintln!("{why}");
        }
        self.own_problems.insert(about.to_owned(), why.to_owned());
    }

    /// All that is wrong with one sort of things, by what it is about, which begins with the sort. What is wrong no more goes,
    /// and what was said is not said again.
    fn problems(&mut self, sort: &str, now: BTreeMap<String, String>) {
        self.own_problems
            .retain(|about, _| !about.starts_with(sort) || now.contains_key(about));
        for (about, why) in now {
            self.problem(&about, &why);
        }
    }

    fn bury(&mut self) {
        let gone: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, e)| e.handle.state.borrow().gone)
            .map(|(k, _)| k.clone())
            .collect();
        for key in gone {
            self.pods.remove(&key);
            self.pod_numbers.release(&format!("{}/{}", key.0, key.1));
        }
    }

    fn orphans(&mut self, desired: &[Desired]) {
        for entry in self.pods.values_mut() {
            if !desired.iter().any(|wanted| wanted.key == entry.owner) {
                entry.delete(End::Gently);
            }
        }
    }

    fn step(&mut self, wanted: &Desired) {
        let pods: Vec<_> = self.of(&wanted.key).map(Entry::actual).collect();
        for action in workloads::plan(wanted, &pods) {
            match action {
                Action::Create(number) => {
                    let about = pods_of(&wanted.key);
                    match self.create(wanted, number) {
                        Ok(()) => drop(self.own_problems.remove(&about)),
                        Err(error) => {
                            return self.problem(&about, &format!("{}: {error:#}", wanted.key));
                        }
                    }
                }
                Action::Delete(name) => {
                    if let Some(entry) = self.pods.get_mut(&(wanted.key.namespace.clone(), name)) {
                        entry.delete(End::Gently);
                    }
                }
            }
        }
    }

    fn create(&mut self, wanted: &Desired, number: Option<u32>) -> Result<()> {
        let mut pod = workloads::make(wanted, number, &mut || fastrand::u64(..));
        if wanted.style == Style::Once && pod.spec.restart_policy.is_none() {
            pod.spec.restart_policy = Some("OnFailure".into());
        }
        pod.metadata.creation_timestamp = Some(jiff::Timestamp::now());
        let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        if self.pods.contains_key(&key) {
            return Ok(());
        }
        anyhow::ensure!(self.pods.len() < MAX_PODS, "{MAX_PODS} pods run already");
        let name = format!("{}/{}", key.0, key.1);
        let number = self
            .pod_numbers
            .take(&name)
            .ok_or_else(|| anyhow::anyhow!("no pod address is left"))?;
        let hosts = self.hosts_of(&pod, number, None, &self.names());
        let handle = kubelet::start(self.node.clone(), pod.clone(), number, &hosts)?;
        let owner = wanted.key.clone();
        let entry = Entry {
            pod,
            owner,
            hash: wanted.hash.clone(),
            number,
            handle,
            began: Instant::now(),
            deleting: None,
            hosts,
        };
        self.pods.insert(key, entry);
        Ok(())
    }
}
