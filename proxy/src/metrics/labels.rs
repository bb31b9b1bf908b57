//! What tells one series from another. Values come from policy and certificates, never from a request.

use crate::connection::Direction;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// Stands for whatever exceeds a cap.
pub const OTHER: &str = "__other__";
/// Most groups remembered at once.
const MAX_GROUPS: usize = 10_000;

/// The other side of an edge, as far as it is proven or configured. Interned: equal groups are the same allocation, so
/// that comparing them is comparing pointers.
#[derive(Debug, Clone)]
pub struct Group(Arc<GroupFields>);

/// What a group consists of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupFields {
    /// Namespace of the peer; empty: unknown.
    pub namespace: String,
    /// Outbound `deploy/web`, inbound `sa/web` (what the certificate proves); empty: unknown.
    pub workload: String,
    /// Mutual TLS between both proxies.
    pub tls: bool,
}

/// Identifies the series of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeLabels {
    /// Which side of this pod.
    pub direction: Direction,
    /// Who called (inbound) or answered (outbound).
    pub peer: Group,
    /// `namespace/name:port` as called; empty for inbound and for pods called by their own address.
    pub service: Arc<str>,
    /// `namespace/name:port` chosen by the route; empty where there is none.
    pub backend: Arc<str>,
    /// The object that made the route, e.g. `TrafficSplit default/web`; empty: the service's own.
    pub route: Arc<str>,
}

/// Identifies a kind of connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionLabels {
    /// Which side of this pod.
    pub direction: Direction,
    /// Accepted or opened by the proxy.
    pub side: Side,
    /// Who is at the other end.
    pub peer: Group,
    /// Why the connection is not mutual TLS (`not_tls`, `foreign`, `local`, …); empty: it is.
    pub no_tls: &'static str,
    /// `http1`, `http2`, `opaque`, …
    pub protocol: &'static str,
}

/// Which end of the proxy a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Accepted.
    Src,
    /// Opened by the proxy.
    Dst,
}

/// A set of labels that can be replaced by one that says "the rest".
pub(super) trait Key: Clone + Eq + std::hash::Hash {
    /// The series that counts what exceeds the cap. Labels with few possible values stay.
    fn overflow(&self) -> Self;
    /// Stable order of a scrape.
    fn order(&self, other: &Self) -> std::cmp::Ordering;
}

impl Group {
    /// The group with these fields.
    pub fn new(namespace: &str, workload: &str, tls: bool) -> Self {
        let fields = GroupFields {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            tls,
        };
        let mut known = known().lock();
        if let Some(group) = known.get(&fields) {
            return group.clone();
        }
        if known.len() >= MAX_GROUPS {
            known.retain(|_, group| Arc::strong_count(&group.0) > 1);
        }
        let group = Self(Arc::new(fields.clone()));
        // Over the cap a group is merely not remembered; the registry's own cap bounds its series.
        if known.len() < MAX_GROUPS {
            known.insert(fields, group.clone());
        }
        group
    }

    /// Nobody known.
    pub fn unknown() -> Self {
        Self::new("", "", false)
    }

    /// True if both are the same allocation, which equal groups are (below the cap of remembered ones).
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn other(&self) -> Self {
        Self::new(OTHER, OTHER, self.tls)
    }
}

fn known() -> &'static Mutex<HashMap<GroupFields, Group>> {
    static KNOWN: OnceLock<Mutex<HashMap<GroupFields, Group>>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default)
}

impl Deref for Group {
    type Target = GroupFields;
    fn deref(&self) -> &GroupFields {
        &self.0
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.same(other) || self.0 == other.0
    }
}

impl Eq for Group {}

impl std::hash::Hash for Group {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Key for EdgeLabels {
    fn overflow(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            direction: self.direction,
            peer: self.peer.other(),
            service: other.clone(),
            backend: other.clone(),
            route: other,
        }
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |labels: &Self| {
            (
                labels.direction.label(),
                labels.service.clone(),
                labels.route.clone(),
            )
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.backend.cmp(&other.backend))
            .then_with(|| self.peer.0.cmp(&other.peer.0))
    }
}

impl Key for ConnectionLabels {
    fn overflow(&self) -> Self {
        Self {
            peer: self.peer.other(),
            ..self.clone()
        }
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |labels: &Self| {
            (
                labels.direction.label(),
                labels.side.label(),
                labels.protocol,
                labels.no_tls,
            )
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.peer.0.cmp(&other.peer.0))
    }
}

impl Key for Arc<str> {
    fn overflow(&self) -> Self {
        OTHER.into()
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.cmp(other)
    }
}

impl Side {
    /// `src` or `dst`.
    pub fn label(self) -> &'static str {
        match self {
            Side::Src => "src",
            Side::Dst => "dst",
        }
    }
}

/// `true` or `false`.
pub fn yes_no(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_groups_are_one() {
        let group = Group::new("default", "deploy/interned", true);
        assert!(group.same(&Group::new("default", "deploy/interned", true)));
        assert!(!group.same(&Group::new("default", "deploy/interned", false)));
    }
}
