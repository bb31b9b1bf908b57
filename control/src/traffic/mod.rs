//! Who calls whom, how well and how safely: what proxies report, kept for a while and asked in many ways.
//!
//! ```text
//! proxies ──Attach──▶ read ──▶ table (totals, windows) ──┐
//!                                  world ──▶ inventory ──┴─▶ report ──▶ rows: stat, edges, routes, …
//! ```
//!
//! * [`counts`]: what is counted, and what follows from it: rates, quantiles.
//! * [`read`]: a summary as checked values. * [`table`]: what was reported, bounded.
//! * [`inventory`]: pods, Services, splits and permissions, as far as traffic is explained with them.
//! * [`report`]: both together, the one document that command line, dashboard and the metrics API are made from.
//! * [`resource`]: what can be asked about. * [`rows`]: the document, grouped; [`edges`]: as a graph, which [`graph`] draws;
//!   [`authz`]: by permission; [`why`]: in sentences.
//! * [`tap`]: single requests, as proxies show them; [`show`]: as lines.
//! * [`tiers`]: the detail of their metrics, for a while. * [`api`]: all of it over HTTP;
//!   [`gate`]: for whom.

pub mod api;
pub mod authz;
pub mod counts;
pub mod edges;
pub mod gate;
pub mod graph;
pub mod inventory;
pub mod measure;
pub mod read;
pub mod report;
pub mod resource;
pub mod rows;
pub mod show;
pub mod table;
pub mod tap;
pub mod tiers;
pub mod why;

pub use counts::Counts;
pub use inventory::Inventory;
pub use report::Report;
pub use table::TrafficTable;
