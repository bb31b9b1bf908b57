//! Endpoint sets: what discovery says, with what is known about each endpoint. Whatever is described as before keeps its
//! state and its connections when the set or its settings change.

use super::endpoint::{Endpoint, InFlight};
use super::health::Health;
use super::layout::{Layout, Place};
use super::limits::{Limit, Limits};
use crate::metrics::BackendMetrics;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Notify;
use weft_proxy_api::policy::outbound;
use weft_proxy_api::policy::settings::{Balancer, Ejection};

/// The endpoints of one backend, as one Service reaches them: a snapshot that only discovery replaces.
pub struct EndpointSet {
    name: String,
    /// `None`: discovery has not said yet.
    layout: ArcSwapOption<Layout>,
    settings: Mutex<Balancer>,
    place: Place,
    health: Arc<Health>,
    told: Notify,
}

/// A chosen endpoint, already counted in flight.
#[must_use]
pub struct Pick {
    /// Keep it until the request is done.
    pub in_flight: InFlight,
}

/// What is to be picked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Ids of endpoints that were tried already.
    pub tried: &'a [u64],
    /// What ties the request to others (see [`super::key_of`]).
    pub key: Option<u64>,
}

/// How long the first request to a set waits to hear what is in it: as long as for where its address leads.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nobody was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Discovery has not said yet what is in the set.
    Unknown,
    /// There is no endpoint.
    Nobody,
    /// All are set aside, and the settings allow that.
    AllEjected,
    /// The breaker of the Service is open.
    Full(Limit),
}

impl Pick {
    /// Where to send.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }
}

impl EndpointSet {
    /// A set about which nothing is known yet, called without settings.
    pub fn new(name: &str, metrics: Arc<BackendMetrics>) -> Arc<Self> {
        Self::placed(name, metrics, Place::default(), Arc::default())
    }

    /// The same, seen from `place` and within the limits of the Service it is called through.
    pub fn placed(
        name: &str,
        metrics: Arc<BackendMetrics>,
        place: Place,
        limits: Arc<Limits>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            layout: ArcSwapOption::empty(),
            settings: Mutex::default(),
            place,
            health: Health::new(metrics, limits),
            told: Notify::new(),
        })
    }

    /// Name, as the controller calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Chooses one; where all were tried, any.
    pub fn pick(&self, now: u64, wish: Wish<'_>) -> Result<Pick, Refusal> {
        self.pick_with(now, wish, &mut fastrand::Rng::new())
    }

    /// Chooses one for a request, within the limits of its Service.
    pub fn pick_for(&self, now: u64, wish: Wish<'_>) -> Result<Pick, Refusal> {
        let permit = self.health.limits.acquire(Limit::Requests);
        let permit = permit.map_err(Refusal::Full)?;
        let mut pick = self.pick(now, wish)?;
        pick.in_flight.hold(permit);
        Ok(pick)
    }

    /// Limits of the Service it is called through.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.health.limits
    }

    /// Whether each endpoint's requests are counted by themselves. Off at first.
    pub(crate) fn count_one_by_one(&self, on: bool) {
        self.health.one_by_one.store(on, Relaxed);
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.health.size()
    }

    /// True if there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has discovery said what is in the set?
    pub fn is_known(&self) -> bool {
        self.layout.load().is_some()
    }

    /// Waits until discovery has said what is in the set (also if that is nothing).
    pub async fn known(&self) {
        let told = self.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !self.is_known() {
            told.await;
        }
    }

    /// The same, but for a few seconds at most: an application should be told soon.
    pub(crate) async fn known_soon(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.known()).await;
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let layout = self.layout.load();
        layout
            .as_ref()
            .map_or_else(Vec::new, |layout| layout.all.members.clone())
    }

    /// Puts other settings in force. One caller only, the same as of [`Self::update`].
    pub(crate) fn configure(&self, balancer: &Balancer, ejection: Ejection) {
        if self.health.rules() != ejection {
            self.health.configure(ejection);
            self.keep_healthy(&self.endpoints());
        }
        let mut settings = self.settings.lock();
        if *settings != *balancer {
            *settings = balancer.clone();
            if self.is_known() {
                self.lay_out(self.endpoints(), &settings);
            }
        }
    }

    /// Puts other endpoints in force. One caller only.
    pub fn update(&self, specs: Vec<outbound::Endpoint>) {
        self.update_at(super::now(), specs);
    }

    fn update_at(&self, now: u64, specs: Vec<outbound::Endpoint>) {
        let before = self.endpoints();
        let mut known: HashMap<SocketAddr, &Arc<Endpoint>> =
            before.iter().map(|at| (at.spec.address, at)).collect();
        // Where all are new nobody is: there is nobody to spare them.
        let since = if before.is_empty() { 0 } else { now };
        let keep = |spec: outbound::Endpoint| match known.remove(&spec.address) {
            Some(endpoint) if endpoint.spec == spec => endpoint.clone(),
            _ => Endpoint::of_set(spec, self.health.clone(), since),
        };
        let after: Vec<_> = specs.into_iter().map(keep).collect();
        self.put(after, &before);
    }

    fn put(&self, after: Vec<Arc<Endpoint>>, before: &[Arc<Endpoint>]) {
        let kept: std::collections::HashSet<u64> = after.iter().map(|at| at.id).collect();
        self.health.resize(after.len());
        self.lay_out(after.clone(), &self.settings.lock());
        before
            .iter()
            .filter(|at| !kept.contains(&at.id))
            .for_each(|at| at.retire());
        self.keep_healthy(&after);
        self.told.notify_waiters();
    }

    fn lay_out(&self, members: Vec<Arc<Endpoint>>, settings: &Balancer) {
        let layout = Layout::new(members, settings, &self.place);
        self.layout.store(Some(Arc::new(layout)));
    }

    /// A set that shrank, or whose settings changed, may have too many set aside.
    fn keep_healthy(&self, endpoints: &[Arc<Endpoint>]) {
        let now = super::now();
        let mut ejected = endpoints.iter().filter(|at| at.is_ejected());
        while self.health.ejected() > self.health.most() {
            let Some(endpoint) = ejected.next() else {
                return;
            };
            endpoint.readmit(now);
        }
    }

    fn pick_with(
        &self,
        now: u64,
        Wish { tried, key }: Wish<'_>,
        random: &mut fastrand::Rng,
    ) -> Result<Pick, Refusal> {
        let layout = self.layout.load();
        let layout = layout.as_ref().ok_or(Refusal::Unknown)?;
        let (endpoint, probe) = layout
            .choose((now, tried, key), &self.health, random)
            // Everyone was tried or is set aside: better any than none.
            .or_else(|| layout.choose((now, &[], key), &self.health, random))
            .map_or_else(|| self.last_resort(layout, random), Ok)?;
        Ok(Pick {
            in_flight: endpoint.begin(now, probe),
        })
    }

    fn last_resort<'a>(
        &self,
        layout: &'a Layout,
        random: &mut fastrand::Rng,
    ) -> Result<(&'a Arc<Endpoint>, bool), Refusal> {
        let any = layout.all.any(random).ok_or(Refusal::Nobody)?;
        if self.health.most() >= self.health.size() {
            return Err(Refusal::AllEjected);
        }
        Ok((any, false))
    }
}

impl Drop for EndpointSet {
    /// Nobody routes here any more: connections to its endpoints need not be kept.
    fn drop(&mut self) {
        self.endpoints().iter().for_each(|at| at.retire());
    }
}

#[cfg(test)]
#[path = "simulation.rs"]
mod simulation;
