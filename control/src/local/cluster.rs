//! What there should be and what there is, brought together again after every change.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::addresses::Numbers;
use super::hosts::{self, Named, Own};
use super::kubelet::{self, End, Handle};
use super::loopback::{self, Targets};
use super::mesh::Injected;
use super::nat::Forward;
use super::node::{Node, Phase, PodState};
use super::objects::{self, Folder};
use super::services::{self, Given, Member, Resolved};
use super::spec::Configs;
use super::workloads::{self, Action, Actual, Desired, Style};
use crate::manifest::k8s::{EndpointSlice, Service};
use crate::manifest::workload::Pod;
use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use crate::source::Event;
use weft_proxy_api::names::{self, inject};

/// Most pods on one machine.
const MAX_PODS: usize = 1000;

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
                Event::Apply(loaded) => {
                    self.injected.changed(&loaded.key);
                    self.objects.insert(loaded.key.clone(), loaded);
                }
                Event::Delete(key) => {
                    self.injected.changed(&key);
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
            }
        }
        self.publish_configs();
    }

    /// One step towards what there should be. Called again whenever something changed.
    pub(crate) async fn reconcile(&mut self) {
        if !self.synced {
            return;
        }
        self.bury();
        let desired = self.desired();
        self.resolve_services();
        self.orphans(&desired);
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
        let mut problems = Vec::new();
        for (key, loaded) in &self.objects {
            if matches!(loaded.object, Object::CronJob(_)) {
                problems.push((
                    key.to_string(),
                    Some(format!(
                        "{}: {key}: CronJobs are not run on this node; a Job is",
                        loaded.origin
                    )),
                ));
                continue;
            }
            let stamp = self.stamps.get(key).copied().unwrap_or(0);
            if workloads::desired(key, &loaded.object, 0).is_none() {
                continue;
            }
            match self.injected.of(loaded, &self.objects) {
                Ok(object) => all.extend(workloads::desired(key, &object, stamp)),
                Err(why) => problems.push((
                    key.to_string(),
                    Some(format!("{}: {key}: {why}", loaded.origin)),
                )),
            }
        }
        self.own_problems
            .retain(|key, _| !key.starts_with("inject "));
        for (key, why) in problems {
            if let Some(why) = why {
                self.problem(&format!("inject {key}"), &why);
            }
        }
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
                    let about = format!("pods of {}", wanted.key);
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

    fn publish_configs(&mut self) {
        let mut configs = Configs::new();
        for loaded in self.objects.values() {
            if let Object::ConfigMap(map) = &loaded.object {
                configs.insert(
                    (loaded.key.namespace.clone(), loaded.key.name.clone()),
                    map.data.clone(),
                );
            }
            if let Some(trust) = &self.trust {
                let key = (
                    loaded.key.namespace.clone(),
                    inject::TRUST_CONFIG_MAP.to_owned(),
                );
                configs.insert(key, [(inject::TRUST_KEY.to_owned(), trust.clone())].into());
            }
        }
        if **self.node.configs.borrow() != configs {
            self.node.configs.send_replace(Arc::new(configs));
        }
    }

    fn resolve_services(&mut self) {
        let states: Vec<_> = self
            .pods
            .values()
            .map(|e| {
                (
                    &e.pod,
                    e.handle.state.borrow().clone(),
                    e.deleting.is_some(),
                )
            })
            .collect();
        let members: Vec<_> = states
            .iter()
            .map(|(pod, state, deleting)| Member {
                pod,
                ips: &state.ips,
                ready: state.ready() && !deleting,
            })
            .collect();
        let mut resolved = Vec::new();
        let mut problems = Vec::new();
        for loaded in self.objects.values() {
            let Object::Service(service) = &loaded.object else {
                continue;
            };
            let about = format!("service {}", loaded.key);
            match services::cluster_ips(
                service,
                self.node.space(),
                &mut self.service_numbers,
                &mut self.service_ips,
            ) {
                Ok(ips) => {
                    problems.push((about, None));
                    let slices = slices(&self.objects, service);
                    let given = Given {
                        endpoints: endpoints(&self.objects, service),
                        slices: &slices,
                    };
                    resolved.push(services::resolve(service, ips, &members, given));
                }
                Err(why) => problems.push((
                    about,
                    Some(format!("{}: {}: {why}", loaded.origin, loaded.key)),
                )),
            }
        }
        self.services = resolved;
        self.publish_services();
        for (about, why) in problems {
            match why {
                Some(why) => self.problem(&about, &why),
                None => drop(self.own_problems.remove(&about)),
            }
        }
        let objects = &self.objects;
        let there = |owner: &str| {
            owner.split_once('/').is_some_and(|(ns, name)| {
                objects.contains_key(&ObjectKey::new(Kind::Service, ns, name))
            })
        };
        let gone: Vec<_> = self
            .service_ips
            .keys()
            .filter(|owner| !there(owner))
            .cloned()
            .collect();
        for owner in gone {
            self.service_ips.remove(&owner);
            self.service_numbers.release(&owner);
        }
    }

    async fn load_rules(&mut self) {
        let rules: Vec<_> = self.services.iter().flat_map(Resolved::forwards).collect();
        if self.loaded_rules.as_ref() == Some(&rules) {
            return;
        }
        match self
            .node
            .network
            .load(&self.node.children, &rules, &self.node.options.state)
            .await
        {
            Ok(()) => drop(self.own_problems.remove("rules")),
            Err(error) => self.problem("rules", &format!("Service addresses: {error:#}")),
        }
        // Not tried again before something changes: the reason would be the same.
        self.loaded_rules = Some(rules);
    }

    /// Every name pods may use.
    fn names(&self) -> Vec<Named> {
        let control = Named {
            namespace: names::SYSTEM_NAMESPACE.into(),
            name: names::CONTROL_ACCOUNT.into(),
            ips: vec![self.node.space().node().into()],
            members: vec![],
        };
        let named = self
            .services
            .iter()
            .map(Resolved::named)
            .filter(|n| !n.ips.is_empty());
        hosts::sorted(named.chain([control]))
    }

    fn write_hosts(&mut self) {
        let names = self.names();
        let mut changed = Vec::new();
        for (key, entry) in &self.pods {
            let listens = entry.handle.state.borrow().targets.clone();
            let text = self.hosts_of(&entry.pod, entry.number, listens.as_ref(), &names);
            if text != entry.hosts {
                let file = self.node.pod_dir(&entry.pod.metadata).join("hosts");
                // In place: the file is mounted, and a mount stays with the file it was made of.
                if rewrite(&file, &text).is_ok() {
                    changed.push((key.clone(), text));
                }
            }
        }
        for (key, text) in changed {
            if let Some(entry) = self.pods.get_mut(&key) {
                entry.hosts = text;
            }
        }
    }

    /// The hosts file of a pod. Without redirection names lead to the listeners of its proxy, which are known once it
    /// was started.
    fn hosts_of(
        &self,
        pod: &Pod,
        number: u16,
        listens: Option<&Targets>,
        names: &[Named],
    ) -> String {
        let own = own(&self.node, pod, number);
        match self.node.place(&pod.metadata, number) {
            Some(place) if loopback::is_meshed(pod) => {
                let now = place.targets(pod);
                let to_listeners = |named: &Named| named.called_by(number, listens.unwrap_or(&now));
                hosts::render(&own, &names.iter().map(to_listeners).collect::<Vec<_>>())
            }
            _ => hosts::render(&own, names),
        }
    }

    /// Proxies that nothing is redirected to learn at their start what to listen for.
    fn find_outdated_proxies(&mut self) {
        self.own_problems
            .retain(|about, _| !about.starts_with("proxy of "));
        let mut late = Vec::new();
        for entry in self.pods.values().filter(|e| e.deleting.is_none()) {
            let meta = &entry.pod.metadata;
            let state = entry.handle.state.borrow();
            let (Some(place), Some(then)) = (self.node.place(meta, entry.number), &state.targets)
            else {
                continue;
            };
            if matches!(state.phase, Phase::Succeeded | Phase::Failed) {
                continue;
            }
            let missing = place.targets(&entry.pod).without(then);
            if !missing.is_empty() {
                let what: Vec<_> = missing.meant().iter().map(|at| self.called(*at)).collect();
                late.push((
                    format!("proxy of {}/{}", meta.namespace, meta.name),
                    format!(
                        "pod {}/{} started before {} existed, and its proxy does not listen for it: restart the pod \
                         (rung loopback; meshctl local restart)",
                        meta.namespace,
                        meta.name,
                        what.join(", ")
                    ),
                ));
            }
        }
        for (about, why) in late {
            self.problem(&about, &why);
        }
    }

    /// An address, said by the name of its Service where it is one's.
    fn called(&self, at: SocketAddr) -> String {
        let mut of = self.services.iter();
        match of.find(|service| service.cluster_ips.contains(&at.ip())) {
            Some(Resolved { service, .. }) => {
                let meta = &service.metadata;
                format!("Service {}/{}:{}", meta.namespace, meta.name, at.port())
            }
            None => at.to_string(),
        }
    }

    /// What pods without redirection must know of Services.
    fn publish_services(&mut self) {
        let services: Vec<_> = self.services.iter().map(Resolved::object).collect();
        if **self.node.services.borrow() != services {
            self.node.services.send_replace(Arc::new(services));
        }
    }

    fn write_objects(&mut self) -> Result<()> {
        let mut wanted: BTreeMap<String, String> = self
            .services
            .iter()
            .map(|s| objects::service(&s.object()))
            .collect();
        for entry in self.pods.values() {
            let state = entry.handle.state.borrow();
            if !state.ips.is_empty() {
                let (name, text) = objects::pod(&entry.pod, &state, entry.deleting);
                wanted.insert(name, text);
            }
        }
        self.folder.sync(wanted)
    }
}

fn own(node: &Node, pod: &Pod, number: u16) -> Own {
    let addresses = node.space().pod(number);
    let mut ips = vec![match node.place(&pod.metadata, number) {
        Some(place) => place.bind(pod).into(),
        None => addresses.v4.into(),
    }];
    if node.network.v6() {
        ips.push(addresses.v6.into());
    }
    Own {
        namespace: pod.metadata.namespace.clone(),
        hostname: super::spec::hostname(pod),
        ips,
        aliases: pod
            .spec
            .host_aliases
            .iter()
            .map(|alias| (alias.ip.clone(), alias.hostnames.clone()))
            .collect(),
    }
}

fn rewrite(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::options().write(true).open(file)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn endpoints<'a>(
    objects: &'a BTreeMap<ObjectKey, Loaded>,
    service: &Service,
) -> Option<&'a crate::manifest::k8s::Endpoints> {
    let meta = &service.metadata;
    match objects
        .get(&ObjectKey::new(
            Kind::Endpoints,
            &meta.namespace,
            &meta.name,
        ))
        .map(|l| &l.object)
    {
        Some(Object::Endpoints(endpoints)) => Some(endpoints),
        _ => None,
    }
}

fn slices<'a>(
    objects: &'a BTreeMap<ObjectKey, Loaded>,
    service: &Service,
) -> Vec<&'a EndpointSlice> {
    let mine = |slice: &&EndpointSlice| {
        slice.metadata.namespace == service.metadata.namespace
            && slice.metadata.labels.get(EndpointSlice::SERVICE_LABEL)
                == Some(&service.metadata.name)
    };
    let all = objects.values().filter_map(|l| match &l.object {
        Object::EndpointSlice(slice) => Some(&**slice),
        _ => None,
    });
    all.filter(mine).collect()
}
