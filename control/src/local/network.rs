//! How pods and Services of a node are reached: over a network of its own, or over the machine's loopback.

use std::path::Path;

use anyhow::Result;

use super::addresses::Space;
use super::bridge::Bridge;
use super::children::Children;
use super::nat::Forward;
use super::relays::Relays;

/// The node's network.
pub(crate) enum Network {
    /// Namespaces and rules of the kernel.
    Bridge(Bridge),
    /// Explicit addresses; the node itself passes on what is said to Services.
    Loopback(Relays),
}

impl Network {
    /// What this space needs.
    pub(crate) async fn set_up(space: Space) -> Result<Self> {
        Ok(match space {
            Space::Bridge => Network::Bridge(Bridge::set_up().await?),
            Space::Loopback => Network::Loopback(Relays::set_up(space.node())?),
        })
    }

    /// Pods have IPv6 addresses too.
    pub(crate) fn v6(&self) -> bool {
        matches!(self, Network::Bridge(bridge) if bridge.v6)
    }

    /// Make the addresses of Services lead to these endpoints, and no others.
    pub(crate) async fn load(
        &self,
        children: &Children,
        forwards: &[Forward],
        lock_dir: &Path,
    ) -> Result<()> {
        match self {
            Network::Bridge(bridge) => bridge.load(children, forwards, lock_dir).await,
            Network::Loopback(relays) => relays.load(forwards),
        }
    }
}
