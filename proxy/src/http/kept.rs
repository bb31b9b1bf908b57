//! How many connections to endpoints are kept for later requests, over all pools of a worker and all workers: whoever asks
//! another address each time would otherwise leave one behind at every one of them.
//!
//! Beyond the limit the pool that was not used for longest gives up its oldest, found as a clock finds pages: pools stand
//! in a queue, and one that was used since it was last looked at goes to the end of it. So a request costs two counts and
//! a flag, and nothing is sorted.

use super::pool::Pool;
use crate::metrics::{Count, Flights, Metrics};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Pools that are asked for one whenever one is put back: more than one, so that those in use do not pile up.
const LOOKS: usize = 16;

/// How many may be kept.
#[derive(Debug, Clone, Copy)]
pub struct MostKept {
    /// By the process.
    pub most: usize,
    /// The workers that share it.
    pub workers: usize,
}

impl Default for MostKept {
    fn default() -> Self {
        Self {
            most: usize::MAX,
            workers: 1,
        }
    }
}

/// Connections that the pools of one worker keep.
pub(super) struct Kept {
    own: Arc<AtomicUsize>,
    all: Arc<Flights>,
    most: MostKept,
    closed: Count,
    /// Pools that keep some, or did; the next to be asked in front.
    queue: Mutex<VecDeque<Weak<Pool>>>,
}

/// What a pool has for whoever asks it for its oldest.
pub(super) enum Asked {
    /// It was used lately.
    Used,
    /// It closed one, and may have more.
    Closed,
    /// All that it has is in use.
    Busy,
    /// It has none.
    Empty,
}

impl Kept {
    pub(super) fn new(metrics: &Metrics, most: MostKept) -> Arc<Self> {
        let all = metrics.kept().clone();
        Arc::new(Self {
            own: all.join(),
            all,
            most,
            closed: metrics.kept_closed(),
            queue: Mutex::default(),
        })
    }

    /// A pool that had `before` has `after` of them.
    pub(super) fn changed(&self, before: usize, after: usize) {
        if after > before {
            self.own.fetch_add(after - before, Relaxed);
        } else if after < before {
            self.own.fetch_sub(before - after, Relaxed);
        }
    }

    /// Takes a pool that has some into the queue.
    pub(super) fn list(&self, pool: &Arc<Pool>) {
        self.queue.lock().push_back(Arc::downgrade(pool));
    }

    /// Closes the oldest beyond the limit, of those few that are looked at each time. No pool may be locked.
    pub(super) fn make_room(&self) {
        for _ in 0..LOOKS {
            if !self.is_over() {
                return;
            }
            let Some(next) = self.queue.lock().pop_front() else {
                return;
            };
            let Some(pool) = next.upgrade() else { continue };
            match pool.close_oldest() {
                Asked::Used | Asked::Busy => self.queue.lock().push_back(next),
                Asked::Closed => {
                    self.closed.inc();
                    self.queue.lock().push_front(next);
                }
                Asked::Empty => {}
            }
        }
    }

    /// Only a worker that has more than its share looks at what the others have.
    fn is_over(&self) -> bool {
        let share = self.most.most / self.most.workers.max(1);
        self.own.load(Relaxed) > share && self.all.total() > self.most.most
    }

    /// Forgets pools that are gone.
    pub(super) fn sweep(&self) {
        self.queue.lock().retain(|pool| pool.strong_count() > 0);
    }
}
