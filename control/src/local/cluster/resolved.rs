//! Services resolved: their addresses, their endpoints, the rules that lead from one to the other.

use std::collections::BTreeMap;

use super::Cluster;
use crate::local::services::{self, Given, Member, Resolved};
use crate::manifest::k8s::{EndpointSlice, Endpoints, Service};
use crate::manifest::{Kind, Loaded, Object, ObjectKey};

impl Cluster {
    pub(super) fn resolve_services(&mut self) {
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
        let mut problems = BTreeMap::new();
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
                    let slices = slices(&self.objects, service);
                    let given = Given {
                        endpoints: endpoints(&self.objects, service),
                        slices: &slices,
                    };
                    resolved.push(services::resolve(service, ips, &members, given));
                }
                Err(why) => {
                    problems.insert(about, format!("{}: {}: {why}", loaded.origin, loaded.key));
                }
            }
        }
        self.services = resolved;
        self.publish_services();
        self.problems("service ", problems);
        let objects = &self.objects;
        let there = |owner: &str| {
            owner.split_once('/').is_some_and(|(ns, name)| {
                objects.contains_key(&ObjectKey::new(Kind::Service, ns, name))
            })
        };
        self.service_ips.retain(|owner, _| there(owner));
        self.service_numbers.keep(there);
    }

    pub(super) async fn load_rules(&mut self) {
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
}

fn endpoints<'a>(
    objects: &'a BTreeMap<ObjectKey, Loaded>,
    service: &Service,
) -> Option<&'a Endpoints> {
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
