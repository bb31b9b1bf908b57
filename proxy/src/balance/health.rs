//! What the endpoints of a set know of each other: enough never to set aside more of them than the settings allow.

use super::breaker;
use super::limits::Limits;
use crate::metrics::BackendMetrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use weft_proxy_api::policy::settings::Ejection;

/// Shared by a set and its endpoints.
#[derive(Debug)]
pub(super) struct Health {
    size: AtomicUsize,
    ejected: AtomicUsize,
    /// Read when something fails; a success needs only the next line.
    rules: ArcSwap<Ejection>,
    /// Length of a part of the window, nanoseconds.
    slot: AtomicU64,
    /// Somebody was set aside or came back since the shares of zones were last worked out.
    changed: AtomicBool,
    /// Each endpoint's requests are counted by themselves.
    pub(super) one_by_one: AtomicBool,
    /// Of the Service the set is called through.
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<BackendMetrics>,
}

impl Health {
    pub(super) fn new(metrics: Arc<BackendMetrics>, limits: Arc<Limits>) -> Arc<Self> {
        let rules = Ejection::default();
        Arc::new(Self {
            size: AtomicUsize::new(0),
            ejected: AtomicUsize::new(0),
            slot: AtomicU64::new(breaker::slot(&rules)),
            rules: ArcSwap::from_pointee(rules),
            changed: AtomicBool::new(false),
            one_by_one: AtomicBool::new(false),
            limits,
            metrics,
        })
    }

    /// Puts other rules in force; what was counted stays.
    pub(super) fn configure(&self, rules: Ejection) {
        self.slot.store(breaker::slot(&rules), Relaxed);
        self.rules.store(Arc::new(rules));
    }

    pub(super) fn rules(&self) -> Ejection {
        **self.rules.load()
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot.load(Relaxed)
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    pub(super) fn resize(&self, size: usize) {
        self.size.store(size, Relaxed);
        self.changed.store(true, Release);
        self.metrics.endpoints(size);
    }

    /// How many are set aside now.
    pub(super) fn ejected(&self) -> usize {
        self.ejected.load(Relaxed)
    }

    /// How many may be.
    pub(super) fn most(&self) -> usize {
        let percent = usize::try_from(self.rules().min_healthy_percent.min(100)).unwrap_or(100);
        let size = self.size();
        size - (size * percent).div_ceil(100)
    }

    /// Takes a place among the ejected, if enough remain without it.
    pub(super) fn may_eject(&self) -> bool {
        let most = self.most();
        let taken = self.ejected.fetch_update(Relaxed, Relaxed, |ejected| {
            (ejected < most).then_some(ejected + 1)
        });
        if taken.is_ok() {
            self.metrics.ejected(1);
        }
        taken.is_ok()
    }

    pub(super) fn returned(&self) {
        let less = |ejected: usize| ejected.checked_sub(1);
        if self.ejected.fetch_update(Relaxed, Relaxed, less).is_ok() {
            self.metrics.ejected(-1);
        }
        self.changed();
    }

    /// To be told after the endpoint's breaker has changed.
    pub(super) fn changed(&self) {
        self.changed.store(true, Release);
    }

    /// True once after each change.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.load(Acquire) && self.changed.swap(false, AcqRel)
    }
}
