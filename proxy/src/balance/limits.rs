//! The breaker of a Service: how much one proxy asks of it at once. What is beyond is refused at once rather than queued,
//! so that a Service that stands still does not take its callers with it. Nothing is counted where nothing is limited.

use crate::metrics::BackendMetrics;
use parking_lot::Mutex;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use weft_proxy_api::policy::settings::Breaker;

/// No limit.
const NONE: u32 = u32::MAX;
/// Connections without use that are closed to make room for one that is needed, before that is refused.
const MOST_CLOSED: usize = 3;
/// How long one of them may take to end.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// Keeps connections for later, each counted, and closes one that nobody uses where another is needed.
pub(crate) trait Keeper: Send + Sync {
    /// Closes one; false: all are in use.
    fn close_unused(&self) -> bool;
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connections, over all endpoints.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
}

/// The limits of one Service and what is in use of them. Outlives changes of the settings.
#[derive(Debug, Default)]
pub struct Limits {
    any: AtomicBool,
    counts: [Count; 3],
    metrics: Arc<BackendMetrics>,
    keepers: Mutex<Vec<Weak<dyn Keeper>>>,
    /// Told when there is room again.
    freed: Notify,
}

#[derive(Debug)]
struct Count {
    used: AtomicU32,
    most: AtomicU32,
}

/// One that is counted until it is dropped.
#[derive(Debug)]
pub struct Permit(Option<(Arc<Limits>, Limit)>);

impl Limit {
    /// All, in the order of their numbers.
    pub const ALL: [Limit; 3] = [Limit::Connections, Limit::Pending, Limit::Requests];

    /// For metrics and texts.
    pub fn label(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::Pending => "pending",
            Limit::Requests => "requests",
        }
    }
}

impl Limits {
    /// No limits yet; refusals are counted in `metrics`.
    pub fn new(metrics: Arc<BackendMetrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            ..Self::default()
        })
    }

    /// Puts other limits in force. What is over a new one ends by itself.
    pub fn configure(&self, breaker: &Breaker) {
        let most = [breaker.connections, breaker.pending, breaker.requests];
        for (count, most) in self.counts.iter().zip(most) {
            count.most.store(most.unwrap_or(NONE), Relaxed);
        }
        self.any.store(most.iter().any(Option::is_some), Relaxed);
    }

    /// Takes one; an error where there is none left.
    pub fn acquire(self: &Arc<Self>, limit: Limit) -> Result<Permit, Limit> {
        if !self.any.load(Relaxed) {
            return Ok(Permit(None));
        }
        match self.take(limit) {
            true => Ok(Permit(Some((self.clone(), limit)))),
            false => Err(limit),
        }
    }

    /// A connection more. Those that are only kept for later are closed before one is refused.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Permit, Limit> {
        let limit = Limit::Connections;
        for _ in 0..MOST_CLOSED {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if !self.any.load(Relaxed) {
                return Ok(Permit(None));
            }
            if self.count(limit).take() {
                self.say(limit);
                return Ok(Permit(Some((self.clone(), limit))));
            }
            if !self.close_unused() {
                break;
            }
            // One that several requests shared ends in a task of its own.
            let _ = tokio::time::timeout(ENDS_WITHIN, freed).await;
        }
        self.acquire(limit)
    }

    /// Asks this keeper as well where a connection is needed.
    pub(crate) fn kept_by(&self, keeper: Weak<dyn Keeper>) {
        let mut keepers = self.keepers.lock();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    fn close_unused(&self) -> bool {
        // Outside of the lock: what is closed gives back what it took here.
        let keepers = self.keepers.lock().clone();
        let mut keepers = keepers.iter().filter_map(Weak::upgrade);
        keepers.any(|keeper| keeper.close_unused())
    }

    fn take(&self, limit: Limit) -> bool {
        let taken = self.count(limit).take();
        match taken {
            true => self.say(limit),
            false => self.metrics.breaker_refused(limit),
        }
        taken
    }

    fn release(&self, limit: Limit) {
        let Count { used, most } = self.count(limit);
        // Only who was at the limit can leave it.
        if used.fetch_sub(1, SeqCst) >= most.load(Relaxed) {
            self.metrics
                .breaker_full(limit, self.count(limit).is_full());
            self.freed.notify_waiters();
        }
    }

    /// Says that a limit is used up, if it is.
    fn say(&self, limit: Limit) {
        let count = self.count(limit);
        if count.is_full() {
            self.metrics.breaker_full(limit, true);
            // It may have ended before that was said, and nobody would say so again.
            if !count.is_full() {
                self.metrics.breaker_full(limit, false);
            }
        }
    }

    fn count(&self, limit: Limit) -> &Count {
        &self.counts[limit as usize]
    }
}

impl Count {
    /// One more, unless that is too many. Never counted before it is certain: at that moment another would be refused.
    fn take(&self) -> bool {
        let most = self.most.load(Relaxed);
        let more = |used: u32| (used < most).then(|| used + 1);
        self.used.fetch_update(SeqCst, Relaxed, more).is_ok()
    }

    fn is_full(&self) -> bool {
        self.used.load(SeqCst) >= self.most.load(Relaxed)
    }
}

impl Default for Count {
    fn default() -> Self {
        Self {
            used: AtomicU32::new(0),
            most: AtomicU32::new(NONE),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((limits, limit)) = self.0.take() {
            limits.release(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn most(requests: Option<u32>) -> Breaker {
        Breaker {
            requests,
            ..Breaker::default()
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_refused_until_something_ends() {
        let limits = Limits::new(Arc::default());
        limits.configure(&most(Some(2)));
        let (one, _two) = (
            limits.acquire(Limit::Requests).unwrap(),
            limits.acquire(Limit::Requests).unwrap(),
        );
        assert_eq!(
            limits.acquire(Limit::Requests).unwrap_err(),
            Limit::Requests
        );
        assert!(
            limits.acquire(Limit::Pending).is_ok(),
            "each limit by itself"
        );
        drop(one);
        assert!(limits.acquire(Limit::Requests).is_ok());
    }

    /// Keeps so many connections that nobody uses.
    struct Keeps(Mutex<Vec<Permit>>);

    impl Keeper for Keeps {
        fn close_unused(&self) -> bool {
            self.0.lock().pop().is_some()
        }
    }

    #[tokio::test]
    async fn connections_that_are_only_kept_make_room_for_those_that_are_needed() {
        let limits = Limits::new(Arc::default());
        limits.configure(&Breaker {
            connections: Some(2),
            ..Breaker::default()
        });
        let kept = vec![
            limits.connection().await.unwrap(),
            limits.connection().await.unwrap(),
        ];
        let keeps: Arc<dyn Keeper> = Arc::new(Keeps(Mutex::new(kept)));
        limits.kept_by(Arc::downgrade(&keeps));
        let _used = (
            limits.connection().await.unwrap(),
            limits.connection().await.unwrap(),
        );
        let refused = limits.connection().await;
        assert_eq!(refused.unwrap_err(), Limit::Connections, "all are in use");
    }

    #[test]
    fn limits_may_change_while_something_is_under_way() {
        let limits = Limits::new(Arc::default());
        let before = limits.acquire(Limit::Requests).unwrap();
        limits.configure(&most(Some(1)));
        let counted = limits.acquire(Limit::Requests).unwrap();
        drop(before);
        assert!(
            limits.acquire(Limit::Requests).is_err(),
            "what was not counted is not given back"
        );
        limits.configure(&most(None));
        drop(counted);
        limits.configure(&most(Some(1)));
        assert!(limits.acquire(Limit::Requests).is_ok());
        limits.configure(&most(Some(0)));
        assert!(limits.acquire(Limit::Requests).is_err());
    }
}
