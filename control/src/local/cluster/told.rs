//! What pods and the controller are told: names, ConfigMaps, Services, objects.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;

use super::Cluster;
use crate::local::hosts::{self, Named, Own};
use crate::local::loopback::{self, Targets};
use crate::local::node::{Node, Phase};
use crate::local::objects;
use crate::local::services::Resolved;
use crate::local::spec::{self, Configs};
use crate::manifest::Object;
use crate::manifest::workload::Pod;
use crate::state::{Secrecy, TRUST_ANCHORS};
use weft_proxy_api::names::{self, inject};

impl Cluster {
    pub(super) fn publish_configs(&mut self) {
        // Whoever replaces roots writes this file anew.
        let state = self.node.tokens.as_ref();
        let trust = state.and_then(|state| state.read(TRUST_ANCHORS, Secrecy::Public).ok()?);
        self.trust = trust.or(self.trust.take());
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

    /// What pods without redirection must know of Services.
    pub(super) fn publish_services(&mut self) {
        let services: Vec<_> = self.services.iter().map(Resolved::object).collect();
        if **self.node.services.borrow() != services {
            self.node.services.send_replace(Arc::new(services));
        }
    }

    /// Every name pods may use.
    pub(super) fn names(&self) -> Vec<Named> {
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

    pub(super) fn write_hosts(&mut self) {
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
    pub(super) fn hosts_of(
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

    pub(super) fn write_objects(&mut self) -> Result<()> {
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

    /// Proxies that nothing is redirected to learn at their start what to listen for.
    pub(super) fn find_outdated_proxies(&mut self) {
        let mut late = BTreeMap::new();
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
                late.insert(
                    format!("proxy of {}/{}", meta.namespace, meta.name),
                    format!(
                        "pod {}/{} started before {} existed, and its proxy does not listen for it: restart the pod \
                         (rung loopback; meshctl local restart)",
                        meta.namespace,
                        meta.name,
                        what.join(", ")
                    ),
                );
            }
        }
        self.problems("proxy of ", late);
    }

    /// An address, said by the name of its Service where it is one's.
    pub(super) fn called(&self, at: SocketAddr) -> String {
        let mut of = self.services.iter();
        match of.find(|service| service.cluster_ips.contains(&at.ip())) {
            Some(Resolved { service, .. }) => {
                let meta = &service.metadata;
                format!("Service {}/{}:{}", meta.namespace, meta.name, at.port())
            }
            None => at.to_string(),
        }
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
        hostname: spec::hostname(pod),
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
