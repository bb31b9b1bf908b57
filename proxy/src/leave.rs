//! How the proxy leaves without losing a request.
//!
//! A pod is told to end at the same moment as its peers are told to stop calling it, and nobody says who hears first. A
//! proxy that stopped accepting at once (as most do) would refuse those who hear late. So it leaves in steps:
//!
//! | step | begins | what happens |
//! |---|---|---|
//! | leaving | SIGTERM | not ready any more; everything is served as before |
//! | inbound | nothing new for [`QUIET`], at most [`LINGER`] later | inbound: no new connections, GOAWAY or `connection: close` |
//! | outbound | the last inbound connection has ended | the same outbound: until then the application may need others to answer |
//! | now | grace over, or a second signal | what is left is cut off |
//!
//! "New" is a connection or a request: a peer that has not heard yet uses the connections it has. Peers of ours close
//! idle ones when they hear, and take a refused connection to another endpoint; so what could still be lost is a request
//! that is not idempotent, comes on an idle HTTP/1 connection of somebody who has not heard for [`LINGER`], and crosses
//! its close.

//!
//! After a hot upgrade ([`crate::upgrade`]) nobody has to hear anything, as another process answers at the same address:
//!
//! | step | begins | what happens |
//! |---|---|---|
//! | handed over | the new process accepts | nothing is accepted here; HTTP/2: GOAWAY; HTTP/1: `connection: close` on the next answer |
//! | idle | [`LAST_ASK`] later, or half the grace | connections on which nothing was asked are closed |
//! | now | grace over, or a signal | what is left is cut off |

use crate::metrics::Metrics;
use crate::tasks::Drain;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Silence after which everybody is taken to have heard.
pub const QUIET: Duration = Duration::from_secs(1);
/// Longest wait for silence.
pub const LINGER: Duration = Duration::from_secs(5);
/// How long an idle HTTP/1 connection may still ask after a hand-over. Closing it at once could cross a request.
pub const LAST_ASK: Duration = Duration::from_secs(10);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Goes through the steps up to the last but one.
pub async fn leave(drain: &Drain, metrics: &Metrics) {
    drain.announce();
    silence(|| metrics.arrivals()).await;
    tracing::info!("no new inbound work any more");
    drain.start_inbound();
    while metrics.inbound_open() > 0 {
        sleep(LOOK).await;
    }
    drain.start();
}

/// Another process accepts: goes through the steps up to the last but one. `ended`: nothing is open any more.
pub async fn after_hand_over(drain: &Drain, grace: Duration, ended: &watch::Receiver<bool>) {
    let mut ended = ended.clone();
    tokio::select! {
        _ = ended.wait_for(|ended| *ended) => {}
        () = sleep(LAST_ASK.min(grace / 2)) => drain.start(),
    }
}

/// Waits until `arrivals` has not changed for [`QUIET`], at most [`LINGER`].
async fn silence(arrivals: impl Fn() -> u64) {
    let started = Instant::now();
    let (mut seen, mut since) = (arrivals(), started);
    while since.elapsed() < QUIET && started.elapsed() < LINGER {
        sleep(LOOK).await;
        let now = arrivals();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Direction;

    #[tokio::test(start_paused = true)]
    async fn silence_is_waited_for_and_noise_not_for_ever() {
        let start = Instant::now();
        silence(|| 7).await;
        assert_eq!(start.elapsed(), QUIET);
        let start = Instant::now();
        silence(|| start.elapsed().as_millis().min(1500) as u64).await;
        assert_eq!(start.elapsed(), Duration::from_millis(2500));
        let start = Instant::now();
        silence(|| start.elapsed().as_millis() as u64).await;
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn outbound_stays_as_long_as_somebody_is_served() {
        let metrics = Metrics::new("shop");
        let (drain, watch) = Drain::new();
        let served = metrics.accepted_plain(Direction::Inbound);
        let leaving = async {
            leave(&drain, &metrics).await;
        };
        let watching = async {
            watch.draining(Direction::Inbound).await;
            assert!(watch.is_leaving() && !watch.is_draining(Direction::Outbound));
            sleep(Duration::from_secs(10)).await;
            assert!(!watch.is_draining(Direction::Outbound));
            drop(served);
            watch.draining(Direction::Outbound).await;
        };
        tokio::join!(leaving, watching);
    }
}
