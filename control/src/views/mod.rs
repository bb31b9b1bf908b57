//! Views: resources in, the answer for a proxy out. Pure, and where the meaning of SMI lives; D-numbers in the comments
//! and tests are those of the decisions in the documentation.
//!
//! * [`world`]: the objects, and a reader that notes what a view was computed from.
//! * [`inbound`]: the policy of a pod; [`access`]: who may call it; [`binding`]: whom an IdentityBinding describes;
//!   [`ports`]: what its ports speak.
//! * [`outbound`]: where an address leads; [`split`]: which Services share it; [`endpoints`]: which pods serve.
//! * [`policy`]: how a Service is called and how much its pods accept, by ServicePolicies; [`requests`]: those that an object
//!   means when it names groups of routes.
//! * [`pod`]: what a pod is in the mesh: identity, labels, whether it has a proxy.
//! * [`findings`]: what is suspicious between the objects.

pub mod access;
pub mod binding;
pub mod endpoints;
pub mod findings;
pub mod inbound;
pub mod outbound;
pub mod pod;
pub mod policy;
pub mod ports;
pub mod requests;
pub mod split;
pub mod world;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use crate::pod_ref::PodRef;
use std::collections::HashSet;
use std::net::SocketAddr;
use weft_proxy_api::names;
use weft_proxy_api::policy::{Access, MetricsTier};
use weft_proxy_api::wire::{Body, Resource};
use world::{Reader, Topic, World};

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Access where neither pod nor namespace says anything.
    pub access: Access,
    /// Tier of metrics, in the same way.
    pub metrics: MetricsTier,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            trust_domain: names::DEFAULT_TRUST_DOMAIN.to_owned(),
            access: Access::Permissive,
            metrics: MetricsTier::default(),
        }
    }
}

/// Which view: proxies with the same key see the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ViewKey {
    /// The policy of a pod.
    Inbound(PodRef),
    /// Where an address leads.
    Outbound(SocketAddr),
    /// An endpoint set, `namespace/service:port`.
    Endpoints(String),
}

impl ViewKey {
    /// The view a proxy means; `None` for the trust bundle.
    pub fn of(proxy: &PodRef, resource: &Resource) -> Option<Self> {
        match resource {
            Resource::Inbound => Some(Self::Inbound(proxy.clone())),
            Resource::Outbound(address) => Some(Self::Outbound(*address)),
            // All that can mean nothing are one view: what a proxy makes up is not kept.
            Resource::Endpoints(name) if name.len() > endpoints::LONGEST_NAME => {
                Some(Self::Endpoints(String::new()))
            }
            Resource::Endpoints(name) => Some(Self::Endpoints(name.clone())),
            Resource::Trust => None,
        }
    }
}

/// The body of a view, and every topic it was computed from: as long as none is touched, the body stays.
pub fn compute(world: &World, key: &ViewKey) -> (Body, HashSet<Topic>) {
    let reader = Reader::new(world);
    let body = match key {
        ViewKey::Inbound(pod) => Body::Inbound(inbound::view(&reader, pod)),
        ViewKey::Outbound(address) => Body::Outbound(outbound::view(&reader, *address)),
        ViewKey::Endpoints(name) => Body::Endpoints(endpoints::view(&reader, name)),
    };
    (body, reader.into_topics())
}
