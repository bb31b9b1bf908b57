//! What is subscribed to and what is held of it: a state machine without sockets. An item goes in; what has changed and
//! what must be answered comes out.

use crate::tls::verify::has_root;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use weft_proxy_api::policy::inbound::Inbound;
use weft_proxy_api::policy::outbound::{Endpoint, Outbound};
use weft_proxy_api::wire::decode::BadItem;
use weft_proxy_api::wire::encode;
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Body, Item, Resource, Trust};

/// Most endpoints of one set.
const MOST_ENDPOINTS: usize = 100_000;

/// All subscriptions of this proxy. Survives the stream.
#[derive(Default)]
pub(super) struct Held {
    subscriptions: BTreeMap<u32, Subscription>,
    ids: HashMap<Resource, u32>,
    last_id: u32,
}

struct Subscription {
    resource: Resource,
    /// What is held; 0: nothing.
    version: u64,
    /// The endpoints held, for deltas.
    endpoints: BTreeMap<SocketAddr, Endpoint>,
}

/// Something new is in force.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Inbound(Inbound, u64),
    Outbound(SocketAddr, Outbound, u64),
    Endpoints(String, Vec<Endpoint>),
    Trust(Trust),
}

impl Change {
    /// What it is about, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Change::Inbound(..) => "inbound",
            Change::Outbound(..) => "outbound",
            Change::Endpoints(..) => "endpoints",
            Change::Trust(_) => "trust",
        }
    }
}

/// What follows from an item.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Effect {
    pub(super) change: Option<Change>,
    pub(super) answers: Vec<Message>,
    pub(super) rejected: bool,
}

impl Held {
    /// Subscribes; `None`: it is already.
    pub(super) fn subscribe(&mut self, resource: Resource) -> Option<Message> {
        if self.ids.contains_key(&resource) {
            return None;
        }
        self.last_id += 1;
        self.ids.insert(resource.clone(), self.last_id);
        let subscription = Subscription {
            resource,
            version: 0,
            endpoints: BTreeMap::new(),
        };
        let message = subscription.message(self.last_id);
        self.subscriptions.insert(self.last_id, subscription);
        Some(message)
    }

    pub(super) fn unsubscribe(&mut self, resource: &Resource) -> Option<Message> {
        let id = self.ids.remove(resource)?;
        self.subscriptions.remove(&id);
        Some(Message::Unsubscribe(pb::Unsubscribe { id }))
    }

    /// Everything again, for a new stream, naming what is held.
    pub(super) fn resume(&self) -> impl Iterator<Item = Message> + '_ {
        self.subscriptions
            .iter()
            .map(|(id, subscription)| subscription.message(*id))
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Takes in what the controller sent. What is malformed is rejected, and the last good one stays.
    pub(super) fn take(&mut self, item: Result<Item, BadItem>) -> Effect {
        match item {
            Ok(item) => self.take_item(item),
            Err(bad) => nack(bad.id, bad.version, bad.error.to_string()),
        }
    }

    fn take_item(&mut self, Item { id, version, body }: Item) -> Effect {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            // Crossed with our Unsubscribe.
            return Effect::default();
        };
        match subscription.accept(version, body) {
            Ok(change) => Effect {
                change,
                answers: vec![Message::Ack(pb::Ack { id, version })],
                rejected: false,
            },
            Err(Reject::Malformed(reason)) => nack(id, version, reason),
            Err(Reject::OtherBase) => self.start_over(id, version),
        }
    }

    /// A delta against something we do not hold: ask for the whole under a new id.
    fn start_over(&mut self, id: u32, version: u64) -> Effect {
        let mut effect = nack(
            id,
            version,
            "the delta starts from a version that is not held".to_owned(),
        );
        let Some(resource) = self.subscriptions.get(&id).map(|at| at.resource.clone()) else {
            return effect;
        };
        effect.answers.extend(self.unsubscribe(&resource));
        effect.answers.extend(self.subscribe(resource));
        effect
    }
}

enum Reject {
    Malformed(String),
    OtherBase,
}

impl Subscription {
    fn message(&self, id: u32) -> Message {
        let resource = Some(encode::resource(&self.resource));
        Message::Subscribe(pb::Subscribe {
            id,
            resource,
            version: self.version,
        })
    }

    fn accept(&mut self, version: u64, body: Body) -> Result<Option<Change>, Reject> {
        let change = match (&self.resource, body) {
            (_, Body::Unchanged) => return self.unchanged(version),
            (Resource::Inbound, Body::Inbound(inbound)) => Change::Inbound(inbound, version),
            (Resource::Outbound(target), Body::Outbound(outbound)) => {
                Change::Outbound(*target, outbound, version)
            }
            (Resource::Endpoints(_), Body::Endpoints(all)) => {
                self.endpoints = by_address(all)?;
                self.endpoints_change()
            }
            (
                Resource::Endpoints(_),
                Body::Delta {
                    base,
                    upsert,
                    remove,
                },
            ) => {
                self.apply(base, upsert, &remove)?;
                self.endpoints_change()
            }
            (Resource::Trust, Body::Trust(trust)) => Change::Trust(usable(trust)?),
            (resource, _) => {
                return Err(Reject::Malformed(format!(
                    "this is not an answer to {resource:?}"
                )));
            }
        };
        self.version = version;
        Ok(Some(change))
    }

    fn unchanged(&self, version: u64) -> Result<Option<Change>, Reject> {
        if self.version == version && version != 0 {
            Ok(None)
        } else {
            Err(Reject::OtherBase)
        }
    }

    fn apply(
        &mut self,
        base: u64,
        upsert: Vec<Endpoint>,
        remove: &[SocketAddr],
    ) -> Result<(), Reject> {
        if base != self.version || base == 0 {
            return Err(Reject::OtherBase);
        }
        if self.endpoints.len() + upsert.len() > MOST_ENDPOINTS {
            return Err(too_many());
        }
        remove
            .iter()
            .for_each(|address| drop(self.endpoints.remove(address)));
        self.endpoints.extend(
            upsert
                .into_iter()
                .map(|endpoint| (endpoint.address, endpoint)),
        );
        Ok(())
    }

    fn endpoints_change(&self) -> Change {
        let name = match &self.resource {
            Resource::Endpoints(name) => name.clone(),
            _ => String::new(),
        };
        Change::Endpoints(name, self.endpoints.values().cloned().collect())
    }
}

fn by_address(all: Vec<Endpoint>) -> Result<BTreeMap<SocketAddr, Endpoint>, Reject> {
    let given = all.len();
    let map: BTreeMap<_, _> = all
        .into_iter()
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    match map.len() {
        len if len > MOST_ENDPOINTS => Err(too_many()),
        len if len < given => Err(Reject::Malformed(
            "an address stands twice in the endpoint set".to_owned(),
        )),
        _ => Ok(map),
    }
}

/// A bundle without roots would cut every connection: that cannot be meant.
fn usable(trust: Trust) -> Result<Trust, Reject> {
    let refused = |why: &str| Err(Reject::Malformed(why.to_owned()));
    match trust.roots.is_empty() {
        true => refused("the trust bundle is empty"),
        false if !has_root(&trust.roots) => {
            refused("no certificate of the trust bundle can be used as a root")
        }
        false => Ok(trust),
    }
}

fn too_many() -> Reject {
    Reject::Malformed(format!(
        "an endpoint set has at most {MOST_ENDPOINTS} endpoints"
    ))
}

fn nack(id: u32, version: u64, reason: String) -> Effect {
    Effect {
        change: None,
        answers: vec![Message::Nack(pb::Nack {
            id,
            version,
            reason,
        })],
        rejected: true,
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
