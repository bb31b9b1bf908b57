//! The stream's life: wait, dial, open, lost, wait longer. Where it is in its life is the state.

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Sleep, sleep};
use weft_proxy_api::wire::generated::{SyncRequest, SyncResponse, sync_request::Message};

/// Messages that may wait to be sent: all subscriptions and their endpoint sets fit, twice. A controller that lets more
/// pile up is not reading: the stream is given up.
const OUTBOX: usize = 65_536;
/// First wait, of a stream that was just lost or never was.
const FIRST: Duration = Duration::from_millis(100);
/// First wait after a failure to come back to a controller that was there: all its proxies do so at once.
const RETURN: Duration = Duration::from_secs(2);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(10);

/// Opens streams.
pub(super) trait Open: Send {
    /// A new stream that sends what comes out of `outbox`.
    fn open(
        &mut self,
        outbox: Receiver<SyncRequest>,
    ) -> BoxFuture<'static, Result<Incoming, String>>;
}

/// What the controller sends.
pub(super) type Incoming = BoxStream<'static, Result<SyncResponse, String>>;

/// One stream after another.
pub(super) struct Link<O> {
    open: O,
    state: State,
    /// Attempts since the controller last said something.
    failures: u32,
    /// It did, once.
    known: bool,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Dialling(
        BoxFuture<'static, Result<Incoming, String>>,
        Sender<SyncRequest>,
    ),
    Open(Incoming, Sender<SyncRequest>),
    /// Something could not be sent.
    Stuck,
}

/// What happened.
pub(super) enum Event {
    /// A stream is being opened: what is sent now goes first.
    Dialling,
    /// It is open.
    Opened,
    /// The controller said something.
    Message(SyncResponse),
    /// It broke, or could not be opened.
    Lost(String),
}

impl<O: Open> Link<O> {
    pub(super) fn new(open: O) -> Self {
        let now = State::Waiting(Box::pin(sleep(Duration::ZERO)));
        Self {
            open,
            state: now,
            failures: 0,
            known: false,
        }
    }

    /// Sends on the current stream. Without one nothing needs to be sent: the next one begins with everything.
    pub(super) fn send(&mut self, message: Message) {
        let (State::Dialling(_, outbox) | State::Open(_, outbox)) = &self.state else {
            return;
        };
        if outbox
            .try_send(SyncRequest {
                message: Some(message),
            })
            .is_err()
        {
            self.state = State::Stuck;
        }
    }

    /// What happens next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.state {
            State::Waiting(sleep) => {
                sleep.await;
                let (outbox, receiver) = mpsc::channel(OUTBOX);
                self.state = State::Dialling(self.open.open(receiver), outbox);
                Event::Dialling
            }
            State::Dialling(opening, outbox) => match opening.await {
                Ok(incoming) => {
                    self.state = State::Open(incoming, outbox.clone());
                    Event::Opened
                }
                Err(reason) => self.lost(reason),
            },
            State::Open(incoming, _) => match incoming.next().await {
                Some(Ok(message)) => {
                    (self.failures, self.known) = (0, true);
                    Event::Message(message)
                }
                Some(Err(reason)) => self.lost(reason),
                None => self.lost("the controller ended the stream".to_owned()),
            },
            State::Stuck => self.lost("the controller does not read".to_owned()),
        }
    }

    fn lost(&mut self, reason: String) -> Event {
        let delay = delay(self.failures, self.known, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(Box::pin(sleep(delay)));
        Event::Lost(reason)
    }
}

/// Full jitter: anything up to a bound that doubles. `known`: the controller was there before, so that all proxies lost it
/// at the same moment; after the first attempt they spread out at once.
fn delay(failures: u32, known: bool, random: f64) -> Duration {
    let bound = match (failures, known) {
        (0, _) => FIRST,
        (n, true) => RETURN * (1 << (n - 1).min(8)),
        (n, false) => FIRST * (1 << n.min(8)),
    };
    bound.min(LONGEST).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_spread() {
        let bounds = |known| {
            (0..9)
                .map(|n| delay(n, known, 1.0).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            bounds(false),
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(
            bounds(true),
            [
                100, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000, 10_000
            ]
        );
        assert_eq!(delay(40, true, 0.5), Duration::from_secs(5));
        assert_eq!(delay(40, false, 0.0), Duration::ZERO);
    }
}
