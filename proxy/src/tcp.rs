//! Bytes that are not HTTP: choose an endpoint, connect, copy both ways, account.

mod copy;

pub use copy::copy;

use crate::balance::{self, EndpointSet, InFlight, Outcome};
use crate::connection::{CloseReason, Connection, Direction};
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::metrics::{ConnectionMetrics, EdgeMetrics, OpenConnection};
use crate::policy::{BackendPlan, Destination, OutboundPlan};
use crate::stack::Shared;
use crate::tls::Alpn;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Endpoints tried before a connection is given up.
const MAX_ATTEMPTS: usize = 3;
/// How long a connection waits for the first answer about a set of endpoints.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Label of what these connections carry.
const PROTOCOL: &str = "opaque";

/// An open way to whoever serves, and what its end is to be told to.
pub struct Upstream {
    /// The bytes.
    pub io: Io,
    edge: Arc<EdgeMetrics>,
    in_flight: Option<(InFlight, Duration)>,
    open: OpenConnection,
}

/// Opens a connection that carries bytes to `destination`.
pub async fn open(shared: &Shared, destination: &Destination) -> Result<Upstream, Error> {
    // The plan is taken once: a connection of bytes follows the routes that were in force when it came.
    let plan = Arc::clone(&destination.plan());
    match &*plan {
        OutboundPlan::Service(service) => {
            let route = service.route_tcp();
            let nobody = match route.backends.is_empty() {
                true => ErrorKind::NoEndpoints,
                false => ErrorKind::AllWeightsZero,
            };
            let backend = route.choose().ok_or(nobody)?;
            to_backend(shared, backend).await
        }
        OutboundPlan::Endpoint(plan) => {
            let in_flight = plan.endpoint.start();
            let started = Instant::now();
            let io = shared
                .connector
                .connect(&plan.endpoint.spec, Alpn::Opaque)
                .await?;
            let connect = started.elapsed();
            Ok(Upstream::to_endpoint(
                shared,
                io,
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
    }
}

/// To one endpoint of a backend; one that cannot be reached is followed by another.
async fn to_backend(shared: &Shared, backend: &BackendPlan) -> Result<Upstream, Error> {
    let _ = timeout(KNOWN_TIMEOUT, backend.endpoints.known()).await;
    let mut tried = Vec::new();
    loop {
        let (in_flight, id) = pick(&backend.endpoints, &tried)?;
        let started = Instant::now();
        match shared
            .connector
            .connect(&in_flight.endpoint().spec, Alpn::Opaque)
            .await
        {
            Ok(io) => {
                let edge = backend.edge(in_flight.endpoint());
                let connect = started.elapsed();
                return Ok(Upstream::to_endpoint(shared, io, edge, in_flight, connect));
            }
            Err(error) => {
                in_flight.done(Outcome::ConnectFailure, started.elapsed());
                tried.push(id);
                if tried.len() >= MAX_ATTEMPTS.min(backend.endpoints.len()) {
                    return Err(error);
                }
            }
        }
    }
}

fn pick(endpoints: &EndpointSet, tried: &[u64]) -> Result<(InFlight, u64), Error> {
    let pick = endpoints
        .pick_except(balance::now(), tried)
        .ok_or(ErrorKind::NoEndpoints)?;
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
            in_flight: None,
            open,
        }
    }

    fn to_endpoint(
        shared: &Shared,
        io: Io,
        edge: Arc<EdgeMetrics>,
        in_flight: InFlight,
        connect: Duration,
    ) -> Self {
        let group = &in_flight.endpoint().group;
        let open = shared.metrics.opened_to(group, io.is_mutual(), PROTOCOL);
        Self {
            io,
            edge,
            in_flight: Some((in_flight, connect)),
            open,
        }
    }

    /// Copies both ways until both have ended, one failed, or `conn.closed` fires.
    pub async fn run(
        mut self,
        client: &mut Io,
        conn: &Connection,
        accepted: &ConnectionMetrics,
    ) -> Result<(), Error> {
        self.edge.connection();
        let edge = self.edge.clone();
        let opened = self.open.metrics().clone();
        let count = |received, sent| {
            edge.bytes(received, sent);
            accepted.bytes(received, sent);
            opened.bytes(sent, received);
        };
        let copied = tokio::select! {
            copied = copy(client, &mut self.io, count) => {
                copied.map_err(|error| Error::new(ErrorKind::UpstreamReset).with_source(error))
            }
            why = conn.closed.closed() => Err(Error::new(match why {
                CloseReason::Withdrawn => ErrorKind::Denied,
                CloseReason::Shutdown => ErrorKind::ShuttingDown,
            })),
        };
        if copied.is_err() {
            // A connection that broke must not look like one that ended.
            client.reset_on_drop();
            self.io.reset_on_drop();
        }
        if let Some((in_flight, connect)) = self.in_flight {
            in_flight.done(Outcome::Success, connect);
        }
        copied
    }
}
