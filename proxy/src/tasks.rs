//! The one owner of background work: everything started is told to stop, waited for, and cut off at a deadline.

use crate::connection::Direction;
use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Leaving,
    Inbound,
    Outbound,
    Now,
}

impl Phase {
    fn drain(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Phase::Inbound,
            Direction::Outbound => Phase::Outbound,
        }
    }
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

    /// We are going: others are to be told, and are still served.
    pub fn announce(&self) {
        self.advance(Phase::Leaving);
    }

    /// No new inbound work; what runs may finish.
    pub fn start_inbound(&self) {
        self.advance(Phase::Inbound);
    }

    /// No new work in either direction; what runs may finish.
    pub fn start(&self) {
        self.advance(Phase::Outbound);
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
    /// Waits until the process is told to end.
    pub async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Has the process been told to end?
    pub fn is_leaving(&self) -> bool {
        *self.0.borrow() >= Phase::Leaving
    }

    /// Waits until there is to be no new work in this direction.
    pub async fn draining(&self, direction: Direction) {
        self.reached(Phase::drain(direction)).await;
    }

    /// Waits until what runs must end.
    pub async fn now(&self) {
        self.reached(Phase::Now).await;
    }

    /// Is there to be no new work in this direction?
    pub fn is_draining(&self, direction: Direction) -> bool {
        *self.0.borrow() >= Phase::drain(direction)
    }

    async fn reached(&self, phase: Phase) {
        // A dropped `Drain` counts as "now": nobody is left who could say so.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}

/// Everything a thread has started; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    ended: Notify,
}

/// Counts a task as long as it lives, however it ends.
struct Counted(Arc<Running>);

impl Tasks {
    /// Runs `task`. A panic ends that task only; `panicked` is told.
    pub fn spawn<F>(&self, task: F, panicked: impl FnOnce() + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self.0.clone());
        tokio::spawn(async move {
            let _counted = counted;
            // What the task shared is atomics, locks that do not poison, and its own connection.
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panicked();
            }
        });
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until none is left.
    pub async fn idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_goes_step_by_step_and_never_back() {
        use Direction::{Inbound, Outbound};
        let (drain, watch) = Drain::new();
        assert!(!watch.is_leaving());
        drain.announce();
        watch.leaving().await;
        assert!(!watch.is_draining(Inbound));
        drain.start_inbound();
        watch.draining(Inbound).await;
        assert!(!watch.is_draining(Outbound));
        drain.start();
        watch.draining(Outbound).await;
        drain.now();
        drain.announce();
        watch.now().await;
        assert!(watch.is_draining(Outbound));
    }

    #[tokio::test]
    async fn tasks_are_waited_for_and_a_panic_ends_only_its_own() {
        let tasks = Tasks::default();
        let panics = Arc::new(AtomicUsize::new(0));
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move { drop(held.await) }, || {});
        let seen = panics.clone();
        tasks.spawn(async { panic!("on purpose") }, move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(tasks.count(), 2);
        drop(release);
        tasks.idle().await;
        assert_eq!((tasks.count(), panics.load(Ordering::Relaxed)), (0, 1));
    }
}
