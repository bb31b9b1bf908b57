//! Single values by metric and label values, for what happens rarely: errors, renewals, verdicts by rule.

use super::catalogue::Metric;
use super::labels::{Key, OTHER};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A counter, or a gauge as the bits of an `f64`; both begin as 0.
pub(super) type Rare = AtomicU64;

/// Which value.
#[derive(Clone)]
pub(super) struct RareKey {
    pub(super) metric: &'static Metric,
    pub(super) values: Vec<Arc<str>>,
}

impl RareKey {
    pub(super) fn new(metric: &'static Metric, values: &[&str]) -> Self {
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        Self {
            metric,
            values: values.iter().map(|value| Arc::from(*value)).collect(),
        }
    }
}

impl PartialEq for RareKey {
    fn eq(&self, other: &Self) -> bool {
        self.metric.name == other.metric.name && self.values == other.values
    }
}

impl Eq for RareKey {}

impl std::hash::Hash for RareKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.metric.name, &self.values).hash(state);
    }
}

impl Key for RareKey {
    fn overflow(&self) -> Self {
        Self {
            metric: self.metric,
            values: self.values.iter().map(|_| OTHER.into()).collect(),
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.metric
            .name
            .cmp(other.metric.name)
            .then_with(|| self.values.cmp(&other.values))
    }
}
