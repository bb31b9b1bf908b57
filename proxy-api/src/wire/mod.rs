//! Between checked values and protobuf. Decoding gives one clear error for each malformed field, with its path;
//! encoding interns every string.

pub mod decode;
pub mod encode;
/// Generated from `proto/weft.proto` by `cargo run -p weft-proxy-api --example generate`; a test fails when stale.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod generated;

use crate::policy::inbound::Inbound;
use crate::policy::outbound::{Endpoint, Outbound};
use std::net::SocketAddr;

/// What a proxy can subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The policy of the calling workload.
    Inbound,
    /// Where an address leads.
    Outbound(SocketAddr),
    /// An endpoint set, by the name a backend gave.
    Endpoints(String),
    /// The roots of the mesh.
    Trust,
}

/// The answer to a subscription.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// What the proxy holds is current.
    Unchanged,
    /// Policy of the workload.
    Inbound(Inbound),
    /// Where the address leads.
    Outbound(Outbound),
    /// The whole endpoint set.
    Endpoints(Vec<Endpoint>),
    /// Changes to the set of version `base`.
    Delta {
        /// Version this starts from.
        base: u64,
        /// New or changed endpoints, by address.
        upsert: Vec<Endpoint>,
        /// Addresses that are gone.
        remove: Vec<SocketAddr>,
    },
    /// The trust bundle.
    Trust(Trust),
}

/// The trust bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// X.509 certificates, DER.
    pub roots: Vec<Vec<u8>>,
    /// Trust domain of the mesh.
    pub domain: String,
}

/// One answer, with the subscription and the version it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The subscription.
    pub id: u32,
    /// Hash of the content; never 0.
    pub version: u64,
    /// The content.
    pub body: Body,
}
