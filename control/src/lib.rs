//! The controller: resources → index → views → proxies.
//!
//! ```text
//! source (folders, Kubernetes) ──events──▶ index ──views (pure)──▶ serve ──Sync──▶ proxies
//!                                                        ca, token ──▶ serve ──Certify─▶
//! ```
//!
//! [`app`] starts all of it; [`args`] says with what settings; [`state`] keeps what must survive a restart; [`kube`] is what
//! is asked of a Kubernetes API server.

pub mod admin;
pub mod analyze;
pub mod app;
pub mod args;
pub mod ca;
pub mod check;
pub mod crd;
pub mod dashboard;
pub mod demo;
pub mod describe;
pub mod export;
pub mod index;
pub mod inject;
pub mod install;
pub mod kube;
pub mod live;
pub mod local;
pub mod manifest;
pub mod monitoring;
pub mod peers;
pub mod pod_ref;
pub mod policy;
pub mod scrape;
pub mod serve;
pub mod simulate;
pub mod smi;
pub mod source;
pub mod state;
pub mod terminal;
pub mod token;
pub mod traffic;
pub mod views;
pub mod webhook;
