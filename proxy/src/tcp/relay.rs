//! A connection of bytes whose both ends are open. It is all that is left of a connection once it was let in, so it is
//! kept small: most such connections are idle most of the time.

use super::{Upstream, Whose, copy};
use crate::connection::{CloseReason, Connection};
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::worker::{Carries, End, Worker};
use std::sync::Arc;

/// Two ends, and what is known about the connection.
pub struct Relay {
    client: Io,
    upstream: Upstream,
    conn: Arc<Connection>,
    protocol: &'static str,
}

impl Relay {
    /// `client` was let in, and `upstream` is open; `protocol` is a label.
    pub fn new(
        client: Io,
        upstream: Upstream,
        conn: Arc<Connection>,
        protocol: &'static str,
    ) -> Self {
        Self {
            client,
            upstream,
            conn,
            protocol,
        }
    }

    /// Copies both ways until both have ended, one failed, or the connection is told to end.
    pub async fn run(mut self, worker: &Arc<Worker>) -> Result<(), End> {
        let open = worker.open(&self.conn, Carries::Bytes, self.protocol);
        self.upstream.edge.connection();
        let copied = {
            let Self {
                client,
                upstream,
                conn,
                ..
            } = &mut self;
            let (edge, io, accepted) = (&upstream.edge, &mut upstream.io, open.metrics());
            let (opened, size) = (upstream.open.metrics(), &upstream.size);
            let mut trial = upstream.trial.as_mut();
            let count = |received, sent, proven| {
                if proven && let Some(trial) = trial.take() {
                    trial.succeeded();
                }
                edge.bytes(received, sent);
                accepted.bytes(received, sent);
                opened.bytes(sent, received);
                if let Some(size) = size {
                    size.add(received + sent);
                }
            };
            tokio::select! {
                copied = copy(client, io, count) => copied.map_err(|broken| {
                    let whose = match broken.at_client {
                        true => ErrorKind::ClientGone,
                        false => ErrorKind::UpstreamReset,
                    };
                    Error::new(whose).with_source(broken.error)
                }),
                why = conn.closed.closed() => Err(Error::new(match why {
                    CloseReason::Withdrawn => ErrorKind::Denied,
                    CloseReason::Shutdown => ErrorKind::ShuttingDown,
                })),
            }
        };
        if copied.is_err() {
            // A connection that broke must not look like one that ended.
            self.client.reset_on_drop();
            self.upstream.io.reset_on_drop();
        }
        self.upstream.ended(match &copied {
            Err(error) if error.kind() != ErrorKind::UpstreamReset => Whose::Other,
            Err(_) => Whose::Endpoint,
            Ok(()) => Whose::Nobody,
        });
        Ok(copied?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::Accepted;
    use crate::room::Unproven;
    use crate::{inbound, outbound};
    use tokio::net::TcpStream;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size3<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    fn size2<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_holds_a_small_future() {
        type W = &'static Arc<Worker>;
        let relay = size2(|relay: Relay, worker: W| relay.run(worker));
        let into = size3(
            |w: W, tcp: TcpStream, accepted: Accepted, unproven: Unproven| {
                inbound::serve(w, tcp, accepted, unproven)
            },
        );
        let out =
            size(|w: W, tcp: TcpStream, accepted: Accepted| outbound::serve(w, tcp, accepted));
        println!("relay {relay}, inbound {into}, outbound {out}");
        assert!(relay < 1280, "{relay} bytes");
    }
}
