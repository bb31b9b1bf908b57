//! What is known, for everyone to look up. Destinations are found without crossing threads; only what is new is asked of
//! the control thread. What nobody uses for a while is forgotten.

use super::held::Change;
use crate::balance::{EndpointSet, Limits, Place, now};
use crate::error::ErrorKind;
use crate::metrics::Metrics;
use crate::policy::outbound::{Compiler, WantedSet};
use crate::policy::{Destination, InboundPlan};
use arc_swap::ArcSwapOption;
use foldhash::HashMap;
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use weft_proxy_api::policy::MetricsTier;
use weft_proxy_api::wire::{Resource, Trust};

/// Most destinations known at once.
pub(super) const MOST_DESTINATIONS: usize = 10_000;
/// What nobody used for so long is unsubscribed.
const IDLE: Duration = Duration::from_secs(60);
/// Where there are [`MANY`] destinations, this part of it is enough.
const SOONER: u64 = 6;
/// So many that somebody seems to call another one each time. Forgotten sooner, they do not fill the room for new ones.
const MANY: usize = MOST_DESTINATIONS / 8;

/// Seen by every thread.
pub(super) struct Shared {
    pub(super) inbound: ArcSwapOption<InboundPlan>,
    pub(super) inbound_version: watch::Sender<u64>,
    pub(super) trust: watch::Sender<Option<Arc<Trust>>>,
    pub(super) destinations: RwLock<HashMap<SocketAddr, Arc<Destination>>>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a look-up found.
pub(super) enum Found {
    /// Known, or at least asked for.
    Known(Arc<Destination>),
    /// Not known before: the control thread must be told.
    New(Arc<Destination>),
    /// There are too many.
    Full,
}

impl Shared {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            inbound: ArcSwapOption::empty(),
            inbound_version: watch::Sender::new(0),
            trust: watch::Sender::new(None),
            destinations: RwLock::default(),
            connected: watch::Sender::new(false),
            metrics,
        }
    }

    pub(super) fn find(&self, target: SocketAddr) -> Found {
        if let Some(destination) = self.destinations.read().get(&target) {
            destination.touch();
            return Found::Known(destination.clone());
        }
        let mut all = self.destinations.write();
        // Another thread may have been faster.
        if let Some(destination) = all.get(&target) {
            return Found::Known(destination.clone());
        }
        if all.len() >= MOST_DESTINATIONS {
            return Found::Full;
        }
        let destination = Destination::new(target);
        all.insert(target, destination.clone());
        Found::New(destination)
    }

    /// Why nobody has said yet where an address leads.
    pub(super) fn unanswered(&self) -> ErrorKind {
        match *self.connected.borrow() {
            true => ErrorKind::PolicyUnknown,
            false => ErrorKind::ControlUnreachable,
        }
    }

    /// Takes back what was new.
    pub(super) fn forget(&self, target: SocketAddr) {
        self.destinations.write().remove(&target);
    }
}

/// The control thread's side: turns changes into plans and knows what is still used.
pub(super) struct Cache {
    shared: Arc<Shared>,
    sets: Sets,
    idle: u64,
}

/// Endpoint sets, by name and the Service they are called through: each Service has settings of its own, and judges by them.
struct Sets {
    place: Place,
    kept: HashMap<SetKey, Kept>,
    /// By Service.
    limits: HashMap<String, Weak<Limits>>,
}

/// Name of a set; the Service it is called through, where that is not the one it belongs to.
type SetKey = (String, Option<String>);

struct Kept {
    set: Arc<EndpointSet>,
    /// Since when no plan refers to it; 0: one does.
    unused_since: u64,
}

impl Cache {
    pub(super) fn new(shared: Arc<Shared>, place: Place) -> Self {
        let sets = Sets {
            place,
            kept: HashMap::default(),
            limits: HashMap::default(),
        };
        let idle = u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX);
        Self { shared, sets, idle }
    }

    /// Puts a change in force. Returns what must be subscribed to because of it.
    pub(super) fn apply(&mut self, change: Change) -> Vec<Resource> {
        match change {
            Change::Inbound(inbound, version) => {
                self.inbound(InboundPlan::new(inbound, version, &self.shared.metrics))
            }
            Change::Outbound(target, outbound, version) => {
                return self.outbound(target, outbound, version);
            }
            Change::Endpoints(name, all) => {
                let named = |kept: &&Kept| kept.set.name() == name;
                let sets = self.sets.kept.values().filter(named);
                sets.for_each(|kept| kept.set.update(all.clone()));
            }
            Change::Trust(trust) => drop(self.shared.trust.send_replace(Some(Arc::new(trust)))),
        }
        Vec::new()
    }

    fn inbound(&self, plan: InboundPlan) {
        let version = plan.version;
        let plan = match &*self.shared.inbound.load() {
            Some(before) => plan.after(before),
            None => plan,
        };
        self.shared.metrics.set_workload(&plan.inbound.workload);
        self.shared.metrics.set_tier(plan.inbound.metrics);
        self.shared.inbound.store(Some(Arc::new(plan)));
        self.shared.inbound_version.send_replace(version);
    }

    fn outbound(
        &mut self,
        target: SocketAddr,
        outbound: weft_proxy_api::policy::outbound::Outbound,
        version: u64,
    ) -> Vec<Resource> {
        let Some(destination) = self.shared.destinations.read().get(&target).cloned() else {
            return Vec::new();
        };
        let Self { shared, sets, .. } = self;
        let mut wanted = Vec::new();
        let mut find = |set: &WantedSet<'_>| {
            let (set, new) = sets.find(set, &shared.metrics);
            if new {
                wanted.push(Resource::Endpoints(set.name().to_owned()));
            }
            set
        };
        let plan = Compiler {
            metrics: &shared.metrics,
            sets: &mut find,
        }
        .compile(outbound);
        destination.put(plan, version);
        wanted
    }

    /// Counts by endpoint, or not any more.
    pub(super) fn count_by(&self, tier: MetricsTier) {
        let one_by_one = tier >= MetricsTier::Endpoints;
        let sets = self.sets.kept.values();
        sets.for_each(|kept| kept.set.count_one_by_one(one_by_one));
    }

    /// Forgets what nobody has used for a while; returns what to unsubscribe from.
    pub(super) fn sweep(&mut self) -> Vec<Resource> {
        self.sweep_at(now())
    }

    fn sweep_at(&mut self, now: u64) -> Vec<Resource> {
        let mut gone = self.sweep_destinations(now);
        gone.extend(self.sets.sweep(now, self.idle));
        gone
    }

    fn sweep_destinations(&self, now: u64) -> Vec<Resource> {
        let mut gone = Vec::new();
        // Under the write lock nobody can begin to use what is about to go.
        let mut all = self.shared.destinations.write();
        let many = all.len() >= MANY;
        let enough = if many { self.idle / SOONER } else { self.idle };
        all.retain(|target, destination| {
            let idle = now.saturating_sub(destination.used()) >= enough;
            let keep = Arc::strong_count(destination) > 1 || !idle;
            if !keep {
                gone.push(Resource::Outbound(*target));
            }
            keep
        });
        if all.capacity() > 4 * all.len().max(MANY) {
            all.shrink_to(MANY);
        }
        gone
    }
}

impl Sets {
    /// The set, with the settings it is called with now. True: its endpoints must be asked for.
    fn find(&mut self, wanted: &WantedSet<'_>, metrics: &Metrics) -> (Arc<EndpointSet>, bool) {
        let through = (wanted.name != wanted.service).then(|| wanted.service.to_owned());
        let key = (wanted.name.to_owned(), through);
        let new = !self.kept.keys().any(|(name, _)| name == wanted.name);
        let limits = self.limits(wanted.service, metrics);
        let known = self.kept.get(&key).map(|kept| kept.set.clone());
        let set = known.unwrap_or_else(|| self.make(wanted, &limits, metrics));
        let kept = Kept {
            set: set.clone(),
            unused_since: 0,
        };
        self.kept.insert(key, kept);
        if let Some(settings) = wanted.settings {
            limits.configure(&settings.breaker);
            set.configure(&settings.balancer, settings.ejection);
        }
        (set, new)
    }

    fn make(
        &self,
        wanted: &WantedSet<'_>,
        limits: &Arc<Limits>,
        metrics: &Metrics,
    ) -> Arc<EndpointSet> {
        let counts = metrics.backend(wanted.name);
        let set = EndpointSet::placed(wanted.name, counts, self.place.clone(), limits.clone());
        set.count_one_by_one(metrics.tier() >= MetricsTier::Endpoints);
        // Another Service may know its endpoints already.
        let named = |kept: &&Kept| kept.set.name() == wanted.name && kept.set.is_known();
        if let Some(same) = self.kept.values().find(named) {
            let specs = same.set.endpoints();
            set.update(specs.iter().map(|at| at.spec.clone()).collect());
        }
        set
    }

    /// The limits of a Service, the same for all of its sets.
    fn limits(&mut self, service: &str, metrics: &Metrics) -> Arc<Limits> {
        if let Some(limits) = self.limits.get(service).and_then(Weak::upgrade) {
            return limits;
        }
        let limits = Limits::new(metrics.backend(service));
        self.limits
            .insert(service.to_owned(), Arc::downgrade(&limits));
        limits
    }

    fn sweep(&mut self, now: u64, idle: u64) -> Vec<Resource> {
        let mut gone = Vec::new();
        self.kept.retain(|(name, _), kept| {
            if Arc::strong_count(&kept.set) > 1 {
                kept.unused_since = 0;
                return true;
            }
            if kept.unused_since == 0 {
                kept.unused_since = now;
            }
            let keep = now.saturating_sub(kept.unused_since) < idle;
            if !keep {
                gone.push(name.clone());
            }
            keep
        });
        // What another Service still uses stays subscribed to.
        gone.retain(|gone| !self.kept.keys().any(|(name, _)| name == gone));
        gone.sort();
        gone.dedup();
        self.limits.retain(|_, limits| limits.strong_count() > 0);
        gone.into_iter().map(Resource::Endpoints).collect()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
