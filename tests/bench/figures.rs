//! What one repetition measured, by name; and several of them as median and range.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names of figures. Each has one unit, said here.
pub(crate) mod name {
    /// CPU µs per request, both proxies; then of each.
    pub(crate) const CPU_REQUEST: &str = "cpu_us_per_request";
    pub(crate) const CPU_REQUEST_CLIENT: &str = "cpu_us_per_request_client";
    pub(crate) const CPU_REQUEST_SERVER: &str = "cpu_us_per_request_server";
    /// CPU s per GB (10^9 bytes), both proxies.
    pub(crate) const CPU_GB: &str = "cpu_s_per_gb";
    /// Requests (connections, messages) per second.
    pub(crate) const RATE: &str = "per_second";
    /// Payload, Gbit/s.
    pub(crate) const GBIT: &str = "gbit_per_second";
    /// Latency, µs.
    pub(crate) const P50: &str = "p50_us";
    pub(crate) const P99: &str = "p99_us";
    pub(crate) const P999: &str = "p999_us";
    /// Share of the machine used by others, 0 to 1.
    pub(crate) const OTHERS: &str = "others";
    /// Requests that failed.
    pub(crate) const ERRORS: &str = "errors";
    /// Resident memory of both proxies, MB: now, the most ever, and some time after idle connections were closed.
    pub(crate) const RSS: &str = "rss_mb";
    pub(crate) const RSS_PEAK: &str = "rss_peak_mb";
    pub(crate) const RSS_AFTER: &str = "rss_after_mb";
    /// Resident memory before the connections, MB.
    pub(crate) const RSS_BEFORE: &str = "rss_before_mb";
    /// Memory per idle connection, KB.
    pub(crate) const IDLE_CLIENT: &str = "idle_kb_client";
    pub(crate) const IDLE_SERVER: &str = "idle_kb_server";
    /// Connections held.
    pub(crate) const CONNECTIONS: &str = "connections";
    /// Exec to the first answer, ms.
    pub(crate) const START: &str = "start_ms";
    /// Size of the program, MB.
    pub(crate) const SIZE: &str = "size_mb";
    /// Resident memory of the client-side proxy, MB.
    pub(crate) const RSS_CLIENT: &str = "rss_client_mb";
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) values: BTreeMap<String, f64>,
    /// Why there are none, or what went wrong with some.
    pub(crate) problem: Option<String>,
}

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.values.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn problem(text: impl Into<String>) -> Self {
        Self {
            problem: Some(text.into()),
            ..Self::default()
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "values": self.values, "problem": self.problem })
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let values = value["values"].as_object().into_iter().flatten();
        Self {
            values: values
                .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
                .collect(),
            problem: value["problem"].as_str().map(str::to_owned),
        }
    }
}

/// Median and range of one figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// All repetitions of one peer in one case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repetitions(pub(crate) Vec<Figures>);

impl Repetitions {
    pub(crate) fn spread(&self, name: &str) -> Option<Spread> {
        let mut all: Vec<f64> = self
            .0
            .iter()
            .filter_map(|one| one.values.get(name).copied())
            .collect();
        all.sort_by(f64::total_cmp);
        let (min, max) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Spread {
            median: f64::midpoint(low, high),
            min,
            max,
        })
    }

    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.spread(name).map(|spread| spread.median)
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.0.iter().find_map(|one| one.problem.as_deref())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .0
            .iter()
            .flat_map(|one| one.values.keys().cloned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_range() {
        let of = |value| Figures {
            values: [("x".to_owned(), value)].into(),
            problem: None,
        };
        let spread = Repetitions([3.0, 1.0, 2.0, 10.0].map(of).to_vec())
            .spread("x")
            .unwrap_or_else(|| unreachable!());
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 10.0));
        assert!(Repetitions::default().spread("x").is_none());
    }
}
