//! The three chains a request travels, each read downwards in the order of the request; the response comes back up.
//!
//! | line | file | what it adds | errors it makes | counts |
//! |---|---|---|---|---|
//! | record | `layers/record.rs` | counts the answer when its body has ended | | `weft_requests_total`, `weft_responses_total`, latency, bytes |
//! | tell | `layers/tell.rs` | the access log and spans of traces, where asked for | | `weft_access_log_lines_total`, `weft_spans_total` |
//! | respond | `layers/respond.rs` | makes an answer out of a failure | | `weft_errors_total` by code |
//! | limit | `layers/limit.rs` | bounds requests in flight | E114 | `weft_requests_in_flight` |
//! | check | `layers/check.rs` | refuses ambiguity, one canonical form, removes what the sender may not say | E101, E127 | |
//! | authorize | `layers/authorize.rs` | asks the policy in force, holds clients to its rate limits | E110, E111, E123 | allowed, denied and limited by rule; says which route counts |
//! | timeout | `layers/timeout.rs` | holds the policy's limits of time, and the caller's | E115, E116, E132 | `weft_timeouts_total` |
//! | retry | `layers/retry.rs` | sends again what was not processed, and what the policy names | | `weft_retries_total` |
//! | fault | `layers/fault.rs` | fails on purpose | E129 | `weft_faults_total` |
//! | route | `layers/route.rs` | route, weighted backend, endpoint | E104, E105, E110, E113, E122, E126, E131 | says which edge counts |
//! | client | `http/client.rs` | pool of connections | E106 to E109, E117, E118, E125, E127 | |

use crate::balance;
use crate::connect::Connector;
use crate::connection::{Connection, Direction};
use crate::discover::InboundHandle;
use crate::http::HttpService;
use crate::http::client::Pools;
use crate::http::kept::MostKept;
use crate::layers::authorize::AuthorizeLayer;
use crate::layers::budget::Budget;
use crate::layers::check::CheckLayer;
use crate::layers::fault::FaultLayer;
use crate::layers::limit::{LimitLayer, MAX_IN_FLIGHT, Memory};
use crate::layers::record::RecordLayer;
use crate::layers::respond::RespondLayer;
use crate::layers::retry::{Attempt, RetryLayer};
use crate::layers::route::Route;
use crate::layers::tell::TellLayer;
use crate::layers::timeout::TimeoutLayer;
use crate::lines::Lines;
use crate::metrics::{EdgeLabels, EdgeMetrics, Group, Metrics};
use crate::policy::{Destination, OutboundPlan};
use crate::tell::{Place, Teller};
use crate::tunnel::Tunnels;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tower::ServiceBuilder;

#[cfg(test)]
mod breaker_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod resilience_tests;
#[cfg(test)]
mod tests;

/// What every stack of a worker uses.
pub struct Shared {
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Opens connections.
    pub connector: Connector,
    /// Ways for bytes of this worker, by endpoint.
    pub tunnels: Tunnels,
    /// Connections of this worker, by endpoint.
    pub pools: Arc<Pools>,
    /// The policy in force for the application's own ports.
    pub inbound: InboundHandle,
    /// Lines that may be written about refused callers.
    pub lines: Arc<Lines>,
    /// Requests of this worker in flight, inbound and outbound.
    in_flight: [Arc<AtomicUsize>; 2],
    memory: Arc<Memory>,
    /// For requests to the application, whatever the connection they came on.
    budget: Arc<Budget>,
    /// Who is told about requests; most of the time nobody.
    teller: Option<Arc<Teller>>,
}

impl Shared {
    /// One per worker.
    pub fn new(
        metrics: Arc<Metrics>,
        connector: Connector,
        inbound: InboundHandle,
        teller: Option<Arc<Teller>>,
        kept: MostKept,
    ) -> Arc<Self> {
        let tunnels = Tunnels::new(connector.clone(), metrics.clone());
        let pools = Pools::new(connector.clone(), metrics.clone(), kept);
        let flights = [Direction::Inbound, Direction::Outbound].map(|at| metrics.in_flight(at));
        let in_flight = flights.map(|flights| flights.join());
        let memory = Memory::watching(flights.map(Arc::clone).into());
        Arc::new(Self {
            metrics,
            connector,
            tunnels,
            pools,
            inbound,
            in_flight,
            memory: Arc::new(memory),
            lines: Arc::default(),
            budget: Budget::new(Default::default()),
            teller,
        })
    }

    /// Is the memory that we may have nearly used up?
    pub fn is_short_of_memory(&self) -> bool {
        self.memory.is_short()
    }

    fn limit(&self, direction: Direction) -> LimitLayer {
        let own = self.in_flight[direction as usize].clone();
        let all = self.metrics.in_flight(direction).clone();
        LimitLayer::new(own, all, MAX_IN_FLIGHT, self.memory.clone())
    }
}

/// From a peer to the application; one per connection.
pub fn inbound(shared: &Arc<Shared>, conn: &Arc<Connection>) -> HttpService {
    let edge = shared.metrics.inbound_edge(conn.peer.identity());
    let stack = ServiceBuilder::new()
        // On top: whatever happens below is counted.
        .layer(RecordLayer::new(
            edge.clone(),
            Direction::Inbound,
            shared.metrics.clone(),
        ))
        // Where every failure has become an answer.
        .layer(TellLayer::new(shared.teller.as_ref(), || {
            Place::inbound(conn)
        }))
        // Above all that can fail.
        .layer(RespondLayer::new(
            shared.metrics.clone(),
            Direction::Inbound,
        ))
        // Before any work is done for a request.
        .layer(shared.limit(Direction::Inbound))
        // Before anybody looks into the request: what is judged is what is forwarded.
        .layer(CheckLayer::inbound(conn))
        // Nothing is done for a caller before it is allowed.
        .layer(AuthorizeLayer::new(
            shared.inbound.clone(),
            conn.clone(),
            edge,
            shared.metrics.clone(),
            shared.lines.clone(),
        ))
        // Around all tries: the caller does not wait longer for two.
        .layer(TimeoutLayer::inbound(&shared.metrics))
        // The application closes idle connections when it likes.
        .layer(RetryLayer::new(
            shared.budget.clone(),
            shared.metrics.clone(),
            Direction::Inbound,
            String::new(),
        ))
        .map_request(|attempt: Attempt| attempt.request)
        .service(shared.pools.plain(Direction::Inbound, conn.dial));
    HttpService::new(stack)
}

/// From the application to a destination; one per destination and worker.
pub fn outbound(shared: &Arc<Shared>, to: &Arc<Destination>) -> HttpService {
    let called = match &**to.plan() {
        OutboundPlan::Service(plan) => plan.service.name.to_string(),
        _ => String::new(),
    };
    let stack = ServiceBuilder::new()
        // On top: whatever happens below is counted.
        .layer(RecordLayer::new(
            edge(shared, to),
            Direction::Outbound,
            shared.metrics.clone(),
        ))
        // Where every failure has become an answer.
        .layer(TellLayer::new(shared.teller.as_ref(), || {
            Place::outbound(to.target, &called)
        }))
        // Above all that can fail.
        .layer(RespondLayer::new(
            shared.metrics.clone(),
            Direction::Outbound,
        ))
        // Before any work is done for a request.
        .layer(shared.limit(Direction::Outbound))
        // Before routing: what is matched is what is forwarded.
        .layer(CheckLayer::outbound(to.target))
        // Around all tries: the caller does not wait longer for two.
        .layer(TimeoutLayer::outbound(&shared.metrics, to.clone()))
        // Above routing, so that another try may go to another endpoint.
        .layer(RetryLayer::new(
            to.budget().clone(),
            shared.metrics.clone(),
            Direction::Outbound,
            called.clone(),
        ))
        // Where the service would fail.
        .layer(FaultLayer::new(shared.metrics.clone(), &called))
        .service(Route::new(shared.clone(), to.clone()));
    HttpService::new(stack)
}

/// To one endpoint; kept by the worker's pools as long as it is in use.
pub fn endpoint(shared: &Arc<Shared>, at: &Arc<balance::Endpoint>) -> HttpService {
    shared.pools.endpoint(at, HttpService::at_seam)
}

/// Where requests are counted that never get as far as a backend.
pub fn edge(shared: &Shared, to: &Destination) -> Arc<EdgeMetrics> {
    match &**to.plan() {
        OutboundPlan::Service(plan) => plan.metrics.clone(),
        OutboundPlan::Endpoint(plan) => plan.metrics.clone(),
        OutboundPlan::PassThrough(edge) => edge.clone(),
        OutboundPlan::Refused(_) | OutboundPlan::Unknown => shared.metrics.edge(EdgeLabels {
            direction: Direction::Outbound,
            peer: Group::new("", "", false),
            service: "".into(),
            backend: "".into(),
            route: "".into(),
        }),
    }
}
