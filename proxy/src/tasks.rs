//! The one owner of background work: everything started is told to stop, waited for, and cut off at a deadline.

use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Now,
}

/// Starts the drain; one in the process.
#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

/// Sees the drain; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct DrainWatch(watch::Receiver<Phase>);

impl Drain {
    /// A drain that has not begun, and its first watcher.
    pub fn new() -> (Self, DrainWatch) {
        let (tx, rx) = watch::channel(Phase::Running);
        (Self(tx), DrainWatch(rx))
    }

    /// No new work; what runs may finish.
    pub fn start(&self) {
        self.advance(Phase::Draining);
    }

    /// What still runs is cut off.
    pub fn now(&self) {
        self.advance(Phase::Now);
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let later = *phase < to;
            *phase = (*phase).max(to);
            later
        });
    }
}

impl DrainWatch {
    /// Waits until the drain begins.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until what runs must end.
    pub async fn now(&self) {
        self.reached(Phase::Now).await;
    }

    /// Has the drain begun?
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    async fn reached(&self, phase: Phase) {
        // A dropped `Drain` counts as "now": nobody is left who could say so.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}
