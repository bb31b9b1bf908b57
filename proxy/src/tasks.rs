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

/// Where it is, and whether another process accepts in its place.
#[derive(Debug, Clone, Copy)]
struct Stage {
    phase: Phase,
    handed_over: bool,
}

/// How connections are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the next answer: another process serves whoever comes again.
    Next,
    /// As soon as nothing is under way.
    Idle,
}

/// Starts the drain; one in the process.
#[derive(Debug)]
pub struct Drain(watch::Sender<Stage>);

/// Sees the drain; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct DrainWatch(watch::Receiver<Stage>);

impl Drain {
    /// A drain that has not begun, and its first watcher.
    pub fn new() -> (Self, DrainWatch) {
        let (tx, rx) = watch::channel(Stage {
            phase: Phase::Running,
            handed_over: false,
        });
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

    /// Another process accepts in our place; what is open here ends with its next answer.
    pub fn hand_over(&self) {
        self.0.send_modify(|stage| stage.handed_over = true);
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|stage| {
            let later = stage.phase < to;
            stage.phase = stage.phase.max(to);
            later
        });
    }
}

impl DrainWatch {
    /// Was anything said since this watcher was last asked? One load; always true where nobody is left who could say it.
    pub(crate) fn stirred(&mut self) -> bool {
        match self.0.has_changed() {
            Ok(false) => false,
            _ => {
                self.0.mark_unchanged();
                true
            }
        }
    }

    /// Waits until the process is told to end.
    pub async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Has the process been told to end?
    pub fn is_leaving(&self) -> bool {
        self.0.borrow().phase >= Phase::Leaving
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
        self.0.borrow().phase >= Phase::drain(direction)
    }

    /// Waits until another process accepts in our place.
    pub async fn handed_over(&self) {
        self.until(|stage| stage.handed_over).await;
    }

    /// Does another process accept in our place?
    pub fn is_handed_over(&self) -> bool {
        self.0.borrow().handed_over
    }

    /// Waits until nothing more is to be accepted in this direction, here.
    pub async fn no_more(&self, direction: Direction) {
        let until = Phase::drain(direction);
        self.until(|stage| stage.handed_over || stage.phase >= until)
            .await;
    }

    /// Waits until connections of this direction are to end in another way than they were last told.
    pub async fn ending(&self, direction: Direction, told: Option<Ending>) -> Ending {
        let idle = Phase::drain(direction);
        let next = |stage: &Stage| told.is_none() && stage.handed_over;
        self.until(|stage| next(stage) || stage.phase >= idle).await;
        match self.is_draining(direction) || !next(&self.0.borrow()) {
            true => Ending::Idle,
            false => Ending::Next,
        }
    }

    async fn reached(&self, phase: Phase) {
        self.until(|stage| stage.phase >= phase).await;
    }

    async fn until(&self, reached: impl FnMut(&Stage) -> bool) {
        // A dropped `Drain` counts as "now": nobody is left who could say so.
        let _ = self.0.clone().wait_for(reached).await;
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
    async fn connections_that_were_handed_over_end_with_the_next_answer_and_then_at_once() {
        use Direction::{Inbound, Outbound};
        let (drain, watch) = Drain::new();
        drain.hand_over();
        watch.no_more(Outbound).await;
        assert!(watch.is_handed_over() && !watch.is_draining(Inbound));
        let told = watch.ending(Inbound, None).await;
        assert_eq!(told, Ending::Next);
        drain.start();
        assert_eq!(watch.ending(Inbound, Some(told)).await, Ending::Idle);
        assert_eq!(watch.ending(Inbound, None).await, Ending::Idle);
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
