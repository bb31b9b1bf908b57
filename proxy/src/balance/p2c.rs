//! Endpoint sets and the choice of two: of two endpoints drawn at random the less loaded one answers. Nobody herds
//! towards the single best one, and no list is sorted.

use super::breaker::Admission;
use super::endpoint::{Endpoint, Health, InFlight};
use crate::metrics::BackendMetrics;
use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Notify;
use weft_proxy_api::policy::outbound;

/// Draws before the search for a candidate becomes a walk. At least half of a set is never ejected, so that this many
/// misses are rare.
const DRAWS: usize = 8;

/// The endpoints of one backend: a snapshot that only discovery replaces.
pub struct EndpointSet {
    name: String,
    /// `None`: discovery has not said yet.
    endpoints: ArcSwapOption<Vec<Arc<Endpoint>>>,
    health: Arc<Health>,
    told: Notify,
}

/// A chosen endpoint, already counted in flight.
#[must_use]
pub struct Pick {
    /// Keep it until the request is done.
    pub in_flight: InFlight,
}

impl Pick {
    /// Where to send.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }
}

impl EndpointSet {
    /// A set about which nothing is known yet.
    pub fn new(name: &str, metrics: Arc<BackendMetrics>) -> Arc<Self> {
        let health = Health {
            metrics,
            ..Health::default()
        };
        let name = name.to_owned();
        Arc::new(Self {
            name,
            endpoints: ArcSwapOption::empty(),
            health: Arc::new(health),
            told: Notify::new(),
        })
    }

    /// Name, as the controller calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Chooses one; `None`: there is none.
    pub fn pick(&self, now: u64) -> Option<Pick> {
        self.pick_except(now, &[])
    }

    /// Chooses one that was not tried yet (`tried`: ids); where all were tried, any.
    pub fn pick_except(&self, now: u64, tried: &[u64]) -> Option<Pick> {
        self.pick_with(now, tried, &mut fastrand::Rng::new())
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.health.size.load(Relaxed)
    }

    /// True if there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has discovery said what is in the set?
    pub fn is_known(&self) -> bool {
        self.endpoints.load().is_some()
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

    /// All endpoints.
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full().unwrap_or_default()
    }

    /// Puts other endpoints in force. What is described as before keeps its state and its connections. One caller only.
    pub(crate) fn update(&self, specs: Vec<outbound::Endpoint>) {
        let before = self.endpoints();
        let mut known: HashMap<SocketAddr, &Arc<Endpoint>> =
            before.iter().map(|at| (at.spec.address, at)).collect();
        let keep = |spec: outbound::Endpoint| match known.remove(&spec.address) {
            Some(endpoint) if endpoint.spec == spec => endpoint.clone(),
            _ => Endpoint::of_set(spec, self.health.clone()),
        };
        let after: Vec<_> = specs.into_iter().map(keep).collect();
        self.put(after, &before);
    }

    fn put(&self, after: Vec<Arc<Endpoint>>, before: &[Arc<Endpoint>]) {
        let kept: std::collections::HashSet<u64> = after.iter().map(|at| at.id).collect();
        let after = Arc::new(after);
        self.health.size.store(after.len(), Relaxed);
        self.health.metrics.endpoints(after.len());
        self.endpoints.store(Some(after.clone()));
        before
            .iter()
            .filter(|at| !kept.contains(&at.id))
            .for_each(|at| at.retire());
        self.keep_half(&after);
        self.told.notify_waiters();
    }

    /// A set that shrank may have too many set aside.
    fn keep_half(&self, endpoints: &[Arc<Endpoint>]) {
        let now = super::now();
        let mut ejected = endpoints.iter().filter(|at| at.is_ejected());
        while self.health.ejected.load(Relaxed) > endpoints.len() / 2 {
            let Some(endpoint) = ejected.next() else {
                return;
            };
            endpoint.readmit(now);
        }
    }

    pub(super) fn pick_with(
        &self,
        now: u64,
        tried: &[u64],
        random: &mut fastrand::Rng,
    ) -> Option<Pick> {
        let endpoints = self.endpoints.load();
        let all = endpoints.as_ref()?;
        let choice = Choice { all, now, tried };
        let (endpoint, probe) = choice
            .two(random)
            // Everyone was tried or is set aside: better any than none.
            .or_else(|| {
                Choice {
                    tried: &[],
                    ..choice
                }
                .two(random)
            })
            .or_else(|| (!all.is_empty()).then(|| (&all[random.usize(..all.len())], false)))?;
        Some(Pick {
            in_flight: endpoint.begin(now, probe),
        })
    }
}

impl Drop for EndpointSet {
    /// Nobody routes here any more: connections to its endpoints need not be kept.
    fn drop(&mut self) {
        self.endpoints().iter().for_each(|at| at.retire());
    }
}

/// What is chosen from.
#[derive(Clone, Copy)]
struct Choice<'a> {
    all: &'a [Arc<Endpoint>],
    now: u64,
    tried: &'a [u64],
}

impl<'a> Choice<'a> {
    /// The less loaded of two. An endpoint whose time to prove itself has come is taken at once, as a probe.
    fn two(&self, random: &mut fastrand::Rng) -> Option<(&'a Arc<Endpoint>, bool)> {
        let (first, probe) = self.draw(random, None)?;
        if probe {
            return Some((first, true));
        }
        let Some((second, probe)) = self.draw(random, Some(first.id)) else {
            return Some((first, false));
        };
        let better = probe || second.load(self.now) < first.load(self.now);
        Some(if better {
            (second, probe)
        } else {
            (first, false)
        })
    }

    fn draw(
        &self,
        random: &mut fastrand::Rng,
        except: Option<u64>,
    ) -> Option<(&'a Arc<Endpoint>, bool)> {
        if self.all.len() > 2 {
            for _ in 0..DRAWS {
                let drawn = self.check(&self.all[random.usize(..self.all.len())], except);
                if drawn.is_some() {
                    return drawn;
                }
            }
        }
        self.walk(random, except)
    }

    fn walk(
        &self,
        random: &mut fastrand::Rng,
        except: Option<u64>,
    ) -> Option<(&'a Arc<Endpoint>, bool)> {
        let start = if self.all.is_empty() {
            0
        } else {
            random.usize(..self.all.len())
        };
        let (before, after) = self.all.split_at(start);
        after
            .iter()
            .chain(before)
            .find_map(|endpoint| self.check(endpoint, except))
    }

    fn check(
        &self,
        endpoint: &'a Arc<Endpoint>,
        except: Option<u64>,
    ) -> Option<(&'a Arc<Endpoint>, bool)> {
        if except == Some(endpoint.id) || self.tried.contains(&endpoint.id) {
            return None;
        }
        match endpoint.admit(self.now) {
            Admission::Closed => Some((endpoint, false)),
            Admission::Probe => Some((endpoint, true)),
            Admission::Open => None,
        }
    }
}

#[cfg(test)]
#[path = "simulation.rs"]
mod simulation;
