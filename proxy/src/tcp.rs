//! Bytes that are not HTTP: choose an endpoint, connect, copy both ways, account.

mod copy;

pub use copy::copy;

use crate::balance::{self, EndpointSet, InFlight, Outcome};
use crate::connect::Connector;
use crate::connection::{CloseReason, Connection};
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::metrics::{ConnectionMetrics, EdgeMetrics};
use crate::policy::{BackendPlan, Destination, OutboundPlan};
use crate::tls::Alpn;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Endpoints tried before a connection is given up.
const MAX_ATTEMPTS: usize = 3;
/// How long a connection waits for the first answer about a set of endpoints.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// An open way to whoever serves, and what its end is to be told to.
pub struct Upstream {
    /// The bytes.
    pub io: Io,
    edge: Arc<EdgeMetrics>,
    in_flight: Option<(InFlight, Duration)>,
}

/// Opens a connection that carries bytes to `destination`.
pub async fn open(connector: &Connector, destination: &Destination) -> Result<Upstream, Error> {
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
            to_backend(connector, backend).await
        }
        OutboundPlan::Endpoint(plan) => {
            let in_flight = plan.endpoint.start();
            let started = Instant::now();
            let io = connector.connect(&plan.endpoint.spec, Alpn::Opaque).await?;
            Ok(Upstream {
                io,
                edge: plan.metrics.clone(),
                in_flight: Some((in_flight, started.elapsed())),
            })
        }
        OutboundPlan::PassThrough(edge) => {
            let io = connector.connect_plain(destination.target).await?;
            Ok(Upstream {
                io,
                edge: edge.clone(),
                in_flight: None,
            })
        }
        OutboundPlan::Refused(reason) => {
            Err(Error::new(ErrorKind::RefusedTarget).with_detail(reason.clone()))
        }
    }
}

/// To one endpoint of a backend; one that cannot be reached is followed by another.
async fn to_backend(connector: &Connector, backend: &BackendPlan) -> Result<Upstream, Error> {
    let _ = timeout(KNOWN_TIMEOUT, backend.endpoints.known()).await;
    let mut tried = Vec::new();
    loop {
        let (in_flight, id) = pick(&backend.endpoints, &tried)?;
        let started = Instant::now();
        match connector
            .connect(&in_flight.endpoint().spec, Alpn::Opaque)
            .await
        {
            Ok(io) => {
                let edge = backend.edge(in_flight.endpoint());
                return Ok(Upstream {
                    io,
                    edge,
                    in_flight: Some((in_flight, started.elapsed())),
                });
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
    pub fn local(io: Io, edge: Arc<EdgeMetrics>) -> Self {
        Self {
            io,
            edge,
            in_flight: None,
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
        let count = |received, sent| {
            edge.bytes(received, sent);
            accepted.bytes(received, sent);
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
