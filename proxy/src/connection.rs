//! What is known about one accepted connection: the value that travels down beside its bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::Notify;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::inbound::Caller;

/// Which way traffic goes, seen from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the application.
    Inbound,
    /// From the application.
    Outbound,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    /// To or from the application.
    pub direction: Direction,
    /// Who connected.
    pub client: SocketAddr,
    /// Where it was going before the kernel redirected it.
    pub target: SocketAddr,
    /// Inbound: where the application is dialled. The same as `target`, except for listeners with a fixed target.
    pub dial: SocketAddr,
    /// What the other end of the accepted socket proved.
    pub peer: Peer,
    /// Fires when the connection must end: permission withdrawn, or the drain's deadline.
    pub closed: CloseSignal,
}

/// Who is on the other end of the accepted socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A proxy that proved this identity.
    Mutual(SpiffeId),
    /// Nobody we know, and why not.
    Plain(NoTls),
}

/// Why a connection has no mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoTls {
    /// The client spoke no TLS.
    NotTls,
    /// The client spoke TLS, but not ours: it is passed through untouched.
    Foreign,
    /// Outbound: the application itself.
    Local,
}

/// Why a connection was told to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The policy that admitted it no longer does.
    Withdrawn,
    /// The drain's deadline passed, or a second signal came.
    Shutdown,
}

/// Tells the parts of one connection to end; cheap to clone, and small, as every connection has one.
#[derive(Debug, Clone, Default)]
pub struct CloseSignal(Arc<Closing>);

#[derive(Debug, Default)]
struct Closing {
    /// 0: not fired; else one more than the place of the reason in [`CloseReason::ALL`].
    reason: AtomicU8,
    fired: Notify,
}

impl Direction {
    /// Label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

impl Connection {
    /// The caller as policy sees it.
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            identity: self.peer.identity(),
            address: self.client.ip().to_canonical(),
        }
    }
}

impl Peer {
    /// The proven identity.
    pub fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Peer::Mutual(id) => Some(id),
            Peer::Plain(_) => None,
        }
    }
}

impl NoTls {
    /// Label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            NoTls::NotTls => "not_tls",
            NoTls::Foreign => "foreign",
            NoTls::Local => "local",
        }
    }
}

impl CloseReason {
    /// All of them, in the order of their declaration.
    const ALL: [CloseReason; 2] = [CloseReason::Withdrawn, CloseReason::Shutdown];

    /// Label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            CloseReason::Withdrawn => "withdrawn",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

impl CloseSignal {
    /// A signal that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the connection; the first reason stays.
    pub fn close(&self, why: CloseReason) {
        let (first, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        let set = self
            .0
            .reason
            .compare_exchange(0, why as u8 + 1, first, relaxed);
        if set.is_ok() {
            self.0.fired.notify_waiters();
        }
    }

    /// Why it fired, if it did.
    pub fn reason(&self) -> Option<CloseReason> {
        let reason = self.0.reason.load(Ordering::Acquire).checked_sub(1)?;
        CloseReason::ALL.get(usize::from(reason)).copied()
    }

    /// Waits until it fires.
    pub async fn closed(&self) -> CloseReason {
        loop {
            // Made before the reason is looked at: a firing in between wakes it all the same.
            let fired = self.0.fired.notified();
            if let Some(reason) = self.reason() {
                return reason;
            }
            fired.await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_first_reason_to_close_stays() {
        let signal = CloseSignal::new();
        assert_eq!(signal.reason(), None);
        signal.close(CloseReason::Withdrawn);
        signal.clone().close(CloseReason::Shutdown);
        assert_eq!(signal.closed().await, CloseReason::Withdrawn);
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let signal = CloseSignal::new();
        let close = async { signal.close(CloseReason::Shutdown) };
        let (first, second, ()) = tokio::join!(signal.closed(), signal.closed(), close);
        assert_eq!(
            (first, second),
            (CloseReason::Shutdown, CloseReason::Shutdown)
        );
    }
}
