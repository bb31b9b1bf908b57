//! Where an address leads, ready to be followed: routes with their weights in alias tables, backends with their
//! endpoint sets and metric handles. Made once per version by discovery.

use super::ServiceTerms;
use crate::balance::{Endpoint, EndpointSet, now};
use crate::connection::Direction;
use crate::layers::budget::Budget;
use crate::metrics::{BackendMetrics, EdgeLabels, EdgeMetrics, Group, Metrics};
use crate::policy::HashSource;
use arc_swap::{ArcSwap, Guard};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::watch;
use weft_proxy_api::policy::matching::RequestView;
use weft_proxy_api::policy::outbound::{self, Outbound};
use weft_proxy_api::policy::settings::{Fallback, ServiceSettings};
use weft_proxy_api::policy::weights::Alias;

/// Workloads behind one backend whose series are kept at hand.
const EDGES_AT_HAND: usize = 32;

/// One `ip:port` the application calls. Kept up to date by discovery as long as someone holds it.
pub struct Destination {
    /// The address called.
    pub target: SocketAddr,
    plan: ArcSwap<OutboundPlan>,
    version: watch::Sender<u64>,
    used: AtomicU64,
    budget: Arc<Budget>,
}

/// What to do with a destination.
pub enum OutboundPlan {
    /// Route, split and balance.
    Service(Arc<ServicePlan>),
    /// A pod called by its own address.
    Endpoint(Arc<EndpointPlan>),
    /// Dial it as it is, in plain.
    PassThrough(Arc<EdgeMetrics>),
    /// Do not dial it: why.
    Refused(String),
    /// Nobody has said yet.
    Unknown,
}

/// A pod called by its own address.
pub struct EndpointPlan {
    /// The pod.
    pub endpoint: Arc<Endpoint>,
    /// Its series.
    pub metrics: Arc<EdgeMetrics>,
}

/// A Service.
pub struct ServicePlan {
    /// As checked.
    pub service: outbound::Service,
    /// Same order as `service.routes`; never empty.
    pub routes: Vec<RoutePlan>,
    /// What holds for requests beyond where they go.
    pub terms: ServiceTerms,
    /// Series of requests that no route saw.
    pub metrics: Arc<EdgeMetrics>,
    /// What ties requests together, where something does.
    pub key: Option<HashSource>,
    /// Asked while the breaker is open or nobody is left.
    pub fallback: Option<FallbackPlan>,
}

/// Who is asked instead of a Service.
pub struct FallbackPlan {
    /// Who.
    pub backend: Arc<BackendPlan>,
    /// Figures of the Service itself.
    pub counts: Arc<BackendMetrics>,
}

/// One route.
pub struct RoutePlan {
    /// Index into `backends`; `None`: all weights 0.
    pub choice: Option<Alias>,
    /// Same order as the route's backends.
    pub backends: Vec<Arc<BackendPlan>>,
    /// Series of requests of this route that no backend saw.
    pub metrics: Arc<EdgeMetrics>,
}

/// One weighted choice.
pub struct BackendPlan {
    /// As checked.
    pub backend: outbound::Backend,
    /// Its endpoints.
    pub endpoints: Arc<EndpointSet>,
    /// Series where no endpoint was chosen.
    pub metrics: Arc<EdgeMetrics>,
    edges: Edges,
}

/// The series of the workloads behind one backend: few, found by comparing pointers.
struct Edges {
    /// With an empty peer.
    labels: EdgeLabels,
    known: ArcSwap<Vec<(Group, Arc<EdgeMetrics>)>>,
    metrics: Arc<Metrics>,
}

/// What plans are made with.
pub struct Compiler<'a> {
    /// Series are bound here.
    pub metrics: &'a Arc<Metrics>,
    /// Finds or makes (and subscribes to) an endpoint set.
    pub sets: &'a mut dyn FnMut(&WantedSet<'_>) -> Arc<EndpointSet>,
}

/// An endpoint set a plan needs.
pub struct WantedSet<'a> {
    /// Name of the set.
    pub name: &'a str,
    /// The Service through which it is called.
    pub service: &'a str,
    /// How that is called; `None`: as it would be by itself.
    pub settings: Option<&'a ServiceSettings>,
}

impl Destination {
    /// A destination nobody has said anything about: refused until someone does.
    pub fn new(target: SocketAddr) -> Arc<Self> {
        let plan = ArcSwap::from_pointee(OutboundPlan::Unknown);
        let used = AtomicU64::new(now());
        Arc::new(Self {
            target,
            plan,
            version: watch::Sender::new(0),
            used,
            budget: Budget::new(Default::default()),
        })
    }

    /// The plan in force.
    pub fn plan(&self) -> Guard<Arc<OutboundPlan>> {
        self.plan.load()
    }

    /// Its version; 0: nothing is known yet.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits until the version is not `seen`; returns the new one.
    pub async fn changed(&self, seen: u64) -> u64 {
        let mut version = self.version.subscribe();
        let next = version
            .wait_for(|version| *version != seen)
            .await
            .map(|version| *version);
        match next {
            Ok(version) => version,
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// What its tries beyond the first are paid from, by all workers.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Puts another plan in force.
    pub fn put(&self, plan: OutboundPlan, version: u64) {
        self.budget.set(match &plan {
            OutboundPlan::Service(plan) => plan.service.settings.budget,
            _ => Default::default(),
        });
        self.plan.store(Arc::new(plan));
        self.version.send_replace(version);
    }

    pub(crate) fn touch(&self) {
        self.used.store(now(), Relaxed);
    }

    /// When it was last asked for, as [`now`] says it.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

impl ServicePlan {
    /// The route of an HTTP request.
    pub fn route_http(&self, request: &RequestView<'_>) -> &RoutePlan {
        // Most services have one route: nothing to match.
        if self.routes.len() == 1 {
            &self.routes[0]
        } else {
            &self.routes[self.service.route_http(request)]
        }
    }

    /// The route of bytes; of TLS to `server` where that could be read.
    pub fn route_bytes(&self, server: Option<&str>) -> &RoutePlan {
        &self.routes[match server {
            Some(server) => self.service.route_tls(server),
            None => self.service.route_tcp(),
        }]
    }
}

impl RoutePlan {
    /// A backend by weight; `None`: all weights 0.
    pub fn choose(&self) -> Option<&Arc<BackendPlan>> {
        let choice = self.choice.as_ref()?;
        if let [only] = self.backends.as_slice() {
            return Some(only);
        }
        self.backends
            .get(choice.pick(fastrand::u64(..), fastrand::u64(..)))
    }
}

impl BackendPlan {
    /// The series of what is sent to this endpoint. No lock, no hash: a search among the few workloads behind a backend.
    pub fn edge(&self, endpoint: &Endpoint) -> Arc<EdgeMetrics> {
        self.edges.of(&endpoint.group)
    }
}

impl Edges {
    fn of(&self, group: &Group) -> Arc<EdgeMetrics> {
        let known = self.known.load();
        match known.iter().find(|(at, _)| at.same(group)) {
            Some((_, edge)) => edge.clone(),
            None => self.bind(group),
        }
    }

    fn bind(&self, group: &Group) -> Arc<EdgeMetrics> {
        let edge = self.metrics.edge(EdgeLabels {
            peer: group.clone(),
            ..self.labels.clone()
        });
        self.known.rcu(|known| {
            // Workloads come and go; what is still used is bound again.
            let keep = if known.len() < EDGES_AT_HAND {
                known.as_slice()
            } else {
                &[]
            };
            let mut known = keep.to_vec();
            known.push((group.clone(), edge.clone()));
            known
        });
        edge
    }
}

impl Compiler<'_> {
    /// Makes the plan of a destination.
    pub fn compile(&mut self, outbound: Outbound) -> OutboundPlan {
        match outbound {
            Outbound::Service(service) => OutboundPlan::Service(Arc::new(self.service(service))),
            Outbound::Endpoint(spec) => OutboundPlan::Endpoint(Arc::new(self.endpoint(spec))),
            Outbound::PassThrough => {
                OutboundPlan::PassThrough(self.metrics.edge(labels("", "", "")))
            }
            Outbound::Refused { reason } => OutboundPlan::Refused(reason),
        }
    }

    fn service(&mut self, service: outbound::Service) -> ServicePlan {
        let called = service.name.to_string();
        let settings = &*service.settings;
        let routes = service
            .routes
            .iter()
            .map(|route| self.route((&called, settings), route))
            .collect();
        let fallback = settings.breaker.fallback.as_ref();
        let fallback = fallback.map(|to| self.fallback(&called, to));
        ServicePlan {
            key: HashSource::of(&settings.balancer.policy),
            fallback,
            metrics: self.metrics.edge(labels(&called, "", "")),
            routes,
            terms: ServiceTerms::new(&service.settings),
            service,
        }
    }

    fn route(&mut self, from: (&str, &ServiceSettings), route: &outbound::Route) -> RoutePlan {
        let object = route.object.as_deref().unwrap_or_default();
        let weights: Vec<u64> = route
            .backends
            .iter()
            .map(|backend| backend.weight)
            .collect();
        let backend = |backend: &outbound::Backend| {
            let set = WantedSet {
                name: &backend.endpoints,
                service: from.0,
                settings: Some(from.1),
            };
            Arc::new(self.backend(from.0, object, backend, &set))
        };
        let backends = route.backends.iter().map(backend).collect();
        let metrics = self.metrics.edge(labels(from.0, "", object));
        RoutePlan {
            choice: Alias::new(&weights),
            backends,
            metrics,
        }
    }

    /// Asked instead of `called`, but by its own name: neither its limits nor its settings are those of `called`.
    fn fallback(&mut self, called: &str, to: &Fallback) -> FallbackPlan {
        let backend = outbound::Backend {
            name: to.name.clone(),
            weight: 1,
            endpoints: to.endpoints.clone(),
        };
        let set = WantedSet {
            name: &to.endpoints,
            service: &to.endpoints,
            settings: None,
        };
        FallbackPlan {
            backend: Arc::new(self.backend(called, "", &backend, &set)),
            counts: self.metrics.backend(called),
        }
    }

    fn backend(
        &mut self,
        called: &str,
        route: &str,
        backend: &outbound::Backend,
        set: &WantedSet<'_>,
    ) -> BackendPlan {
        let labels = labels(called, &backend.name.to_string(), route);
        let metrics = self.metrics.edge(labels.clone());
        let edges = Edges {
            labels,
            known: ArcSwap::default(),
            metrics: self.metrics.clone(),
        };
        BackendPlan {
            endpoints: (self.sets)(set),
            backend: backend.clone(),
            metrics,
            edges,
        }
    }

    fn endpoint(&mut self, spec: outbound::Endpoint) -> EndpointPlan {
        let endpoint = Endpoint::new(spec);
        let metrics = self.metrics.edge(EdgeLabels {
            peer: endpoint.group.clone(),
            ..labels("", "", "")
        });
        EndpointPlan { endpoint, metrics }
    }
}

fn labels(service: &str, backend: &str, route: &str) -> EdgeLabels {
    let peer = Group::unknown();
    EdgeLabels {
        direction: Direction::Outbound,
        peer,
        service: service.into(),
        backend: backend.into(),
        route: route.into(),
    }
}

impl Drop for EndpointPlan {
    /// Connections to it need not be kept.
    fn drop(&mut self) {
        self.endpoint.retire();
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
