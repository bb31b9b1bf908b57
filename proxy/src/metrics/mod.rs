//! The golden measures. One catalogue says every name; one registry owns every series; what is counted per request is
//! counted through handles bound beforehand: relaxed additions, no lock, no hash, no text.
//!
//! * [`catalogue`]: names, kinds, units, help, labels, tiers.
//! * [`labels`]: what distinguishes one series from another; never a raw host, path or address.
//! * [`histogram`]: latency in fixed buckets.
//! * [`bundle`]: the handles that travel together: an edge, a kind of connection, a backend.
//! * `tier`: how much of it is said; `endpoints`: what only the most detailed tier counts.
//! * [`reasons`]: why something was denied.
//! * [`registry`]: families of bundles, bounded, with series of what is gone removed.
//! * `render`, `render_alias`: the text a scrape reads, and the names existing tools look for.
//! * [`summary`]: all of it as values, for the controller.
//! * [`recorder`]: the `metrics` facade over the same registry, for rare paths.

pub mod bundle;
pub mod catalogue;
mod endpoints;
mod family;
pub mod format;
pub mod histogram;
pub mod labels;
mod process;
mod rare;
pub mod reasons;
pub mod recorder;
pub mod registry;
mod render;
mod render_alias;
pub mod statuses;
pub mod summary;
mod text;
mod tier;

pub use bundle::{
    BackendMetrics, Code, ConnectionMetrics, Count, EdgeMetrics, Flights, Level, OpenConnection,
};
pub use endpoints::EndpointMetrics;
pub use labels::{ConnectionLabels, EdgeLabels, Group, Side};
pub use registry::Metrics;
pub use summary::EdgeSummary;
