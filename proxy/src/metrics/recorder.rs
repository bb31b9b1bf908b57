//! The `metrics` facade over the registry, for rare paths and for libraries. Names come from the catalogue; a name that is
//! not there is counted nowhere.

use super::catalogue::{self, Kind};
use super::registry::Metrics;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::sync::Arc;

/// Installed by `metrics::set_global_recorder(FacadeRecorder(metrics))`.
pub struct FacadeRecorder(pub Arc<Metrics>);

impl FacadeRecorder {
    fn cell(&self, key: &Key, kind: Kind) -> Option<Arc<super::rare::Rare>> {
        let metric = catalogue::find(key.name()).filter(|metric| metric.kind == kind)?;
        let value = |name: &&str| {
            key.labels()
                .find(|label| label.key() == *name)
                .map_or("", |label| label.value())
        };
        let values: Vec<&str> = metric.labels.iter().map(value).collect();
        (metric.tier == catalogue::Tier::Process).then(|| self.0.rare(metric, &values))
    }
}

impl Recorder for FacadeRecorder {
    // Help and units are the catalogue's.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.cell(key, Kind::Counter)
            .map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.cell(key, Kind::Gauge)
            .map_or_else(Gauge::noop, Gauge::from_arc)
    }

    /// Histograms are part of bundles only.
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    // The macros are what is tested; elsewhere handles are bound.
    #![allow(clippy::disallowed_macros)]
    use super::*;

    #[test]
    fn the_facade_and_the_handles_count_the_same_series() {
        let registry = Metrics::new("shop");
        metrics::with_local_recorder(&FacadeRecorder(registry.clone()), || {
            metrics::counter!("weft_identity_renewals_total", "result" => "ok").increment(2);
            metrics::gauge!("weft_identity_expiry_timestamp_seconds").set(12.0);
            metrics::counter!("weft_not_in_the_catalogue_total").increment(1);
        });
        registry.identity_renewals("ok").inc();
        assert_eq!(registry.identity_renewals("ok").get(), 3);
        assert_eq!(registry.identity_expiry().get(), 12.0);
        assert!(!registry.render().contains("not_in_the_catalogue"));
    }
}
