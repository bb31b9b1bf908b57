//! Bytes that are not HTTP: choose an endpoint, connect, copy both ways, account.

mod copy;
mod relay;

pub use copy::{Broken, copy};
pub use relay::Relay;

use crate::balance::{self, EndpointSet, InFlight, Limit, Outcome, Refusal, Wish};
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::layers::route::outcome;
use crate::metrics::{EdgeMetrics, OpenConnection};
use crate::policy::{BackendPlan, Destination, OutboundPlan};
use crate::stack::Shared;
use crate::tunnel::{Carrier, Size};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Endpoints tried before a connection is given up.
const MAX_ATTEMPTS: usize = 3;

/// Label of what these connections carry.
const PROTOCOL: &str = "opaque";

/// An open way to whoever serves, and what its end is to be told to.
pub struct Upstream {
    /// The bytes.
    pub io: Io,
    edge: Arc<EdgeMetrics>,
    trial: Option<Trial>,
    open: OpenConnection,
    size: Option<Size>,
}

/// What an endpoint is judged by: a connection of bytes to it that is up.
struct Trial {
    in_flight: InFlight,
    /// How long it took to come up.
    connect: Duration,
}

/// Through whom a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Both ends were done.
    Nobody,
    /// The endpoint, or the way to it, broke it off.
    Endpoint,
    /// The client, or this proxy.
    Other,
}

impl Trial {
    /// The endpoint has taken us.
    fn succeeded(&mut self) {
        self.in_flight.succeeded(self.connect);
    }

    /// It is over. What broke off before the endpoint had taken us was never a connection.
    fn ended(self, proven: bool, whose: Whose) {
        let outcome = match (proven, whose) {
            (true, _) | (_, Whose::Nobody) => Outcome::Success,
            (false, Whose::Endpoint) => Outcome::ConnectFailure,
            (false, Whose::Other) => Outcome::Cancelled,
        };
        self.in_flight.done(outcome, self.connect);
    }
}

/// Opens a connection that carries bytes to `destination`, by a client whose address has this key (see
/// [`balance::key_of_ip`]). `server`: the name in a ClientHello that is passed on.
pub async fn open(
    shared: &Shared,
    destination: &Destination,
    client: u64,
    server: Option<&str>,
) -> Result<Upstream, Error> {
    // The plan is taken once: a connection of bytes follows the routes that were in force when it came.
    let plan = Arc::clone(&destination.plan());
    match &*plan {
        OutboundPlan::Service(service) => {
            let route = service.route_bytes(server);
            let nobody = match route.backends.is_empty() {
                true => ErrorKind::NoEndpoints,
                false => ErrorKind::AllWeightsZero,
            };
            let backend = route.choose().ok_or(nobody)?;
            let key = service
                .key
                .as_ref()
                .and_then(|key| key.key_of_bytes(client));
            match (to_backend(shared, backend, key).await, &service.fallback) {
                (Err(error), Some(fallback)) if asks_elsewhere(&error) => {
                    fallback.counts.fallback();
                    to_backend(shared, &fallback.backend, key).await
                }
                (opened, _) => opened,
            }
        }
        OutboundPlan::Endpoint(plan) => {
            let in_flight = plan.endpoint.start();
            let started = Instant::now();
            let carrier = shared.tunnels.connect(&plan.endpoint.spec).await?;
            let connect = started.elapsed();
            Ok(Upstream::to_endpoint(
                shared,
                carrier,
                plan.metrics.clone(),
                in_flight,
                connect,
            ))
        }
        OutboundPlan::PassThrough(edge) => {
            let io = shared.connector.connect_plain(destination.target).await?;
            Ok(Upstream::plain(
                shared,
                Direction::Outbound,
                io,
                edge.clone(),
            ))
        }
        OutboundPlan::Refused(reason) => {
            Err(Error::new(ErrorKind::RefusedTarget).with_detail(reason.clone()))
        }
        OutboundPlan::Unknown => Err(shared.inbound.unanswered().into()),
    }
}

/// Nobody was asked: that is what a fallback is for.
fn asks_elsewhere(error: &Error) -> bool {
    use ErrorKind::{BreakerOpen, Ejected, NoEndpoints};
    matches!(error.kind(), BreakerOpen | Ejected | NoEndpoints)
}

/// To one endpoint of a backend; one that cannot be reached is followed by another.
async fn to_backend(
    shared: &Shared,
    backend: &BackendPlan,
    key: Option<u64>,
) -> Result<Upstream, Error> {
    backend.endpoints.known_soon().await;
    let limits = backend.endpoints.limits();
    let permit = limits.connection().await;
    let permit = permit.map_err(Error::breaker_open)?;
    let _waits = limits
        .acquire(Limit::Pending)
        .map_err(Error::breaker_open)?;
    let mut tried = Vec::new();
    loop {
        let wish = Wish { tried: &tried, key };
        let (in_flight, id) = pick(shared, &backend.endpoints, wish)?;
        let started = Instant::now();
        match shared.tunnels.connect(&in_flight.endpoint().spec).await {
            Ok(carrier) => {
                let edge = backend.edge(in_flight.endpoint());
                let connect = started.elapsed();
                let mut upstream = Upstream::to_endpoint(shared, carrier, edge, in_flight, connect);
                upstream.open = upstream.open.within(permit);
                return Ok(upstream);
            }
            Err(error) => {
                let took = started.elapsed();
                in_flight.done(outcome(&error), took);
                tried.push(id);
                if tried.len() >= MAX_ATTEMPTS.min(backend.endpoints.len()) {
                    return Err(error);
                }
            }
        }
    }
}

fn pick(
    shared: &Shared,
    endpoints: &EndpointSet,
    wish: Wish<'_>,
) -> Result<(InFlight, u64), Error> {
    let refused = |refusal| match refusal {
        Refusal::Unknown => shared.inbound.unanswered().into(),
        Refusal::Nobody => ErrorKind::NoEndpoints.into(),
        Refusal::AllEjected => ErrorKind::Ejected.into(),
        Refusal::Full(limit) => Error::breaker_open(limit),
    };
    let pick = endpoints.pick(balance::now(), wish).map_err(refused)?;
    let id = pick.endpoint().id;
    Ok((pick.in_flight, id))
}

impl Upstream {
    /// A connection to the local application.
    pub fn local(shared: &Shared, io: Io, edge: Arc<EdgeMetrics>) -> Self {
        Self::plain(shared, Direction::Inbound, io, edge)
    }

    fn plain(shared: &Shared, direction: Direction, io: Io, edge: Arc<EdgeMetrics>) -> Self {
        let open = shared.metrics.opened_plain(direction, PROTOCOL);
        Self {
            io,
            edge,
            trial: None,
            open,
            size: None,
        }
    }

    fn to_endpoint(
        shared: &Shared,
        Carrier { io, size }: Carrier,
        edge: Arc<EdgeMetrics>,
        in_flight: InFlight,
        connect: Duration,
    ) -> Self {
        let mut trial = Trial { in_flight, connect };
        // It is up: nobody waits for a word from it any more.
        trial.in_flight.answered(connect);
        if io.is_proven() {
            trial.succeeded();
        }
        let group = &trial.in_flight.endpoint().group;
        let open = shared.metrics.opened_to(group, io.is_mutual(), PROTOCOL);
        Self {
            io,
            edge,
            trial: Some(trial),
            open,
            size,
        }
    }

    /// It broke off before it was relayed.
    pub fn broke(mut self) {
        self.ended(Whose::Endpoint);
    }

    fn ended(&mut self, whose: Whose) {
        if let Some(trial) = self.trial.take() {
            trial.ended(self.io.is_proven(), whose);
        }
    }
}

#[cfg(test)]
mod tests;
