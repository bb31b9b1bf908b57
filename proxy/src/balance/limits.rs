//! The breaker of a Service: how much one proxy asks of it at once. What is beyond is refused at once rather than queued,
//! so that a Service that stands still does not take its callers with it. Nothing is counted where nothing is limited.

use crate::metrics::BackendMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use weft_proxy_api::policy::settings::Breaker;

/// No limit.
const NONE: u32 = u32::MAX;

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

    fn take(&self, limit: Limit) -> bool {
        let Count { used, most } = self.count(limit);
        let most = most.load(Relaxed);
        if used.fetch_add(1, Relaxed) < most {
            if used.load(Relaxed) >= most {
                self.metrics.breaker_full(limit, true);
            }
            return true;
        }
        used.fetch_sub(1, Relaxed);
        self.metrics.breaker_refused(limit);
        false
    }

    fn release(&self, limit: Limit) {
        let Count { used, most } = self.count(limit);
        // Only who was at the limit can leave it.
        if used.fetch_sub(1, Relaxed) >= most.load(Relaxed) {
            self.metrics.breaker_full(limit, false);
        }
    }

    fn count(&self, limit: Limit) -> &Count {
        &self.counts[limit as usize]
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
