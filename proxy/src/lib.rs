//! The Weft sidecar: carries all traffic of one pod, encrypted, governed and measured.
//!
//! ```text
//!                           outbound                                          inbound
//!   application ──► accept ─► known ─► detect ─┐            ┌─ accept ─► detect ─► tls ◄── peer proxy
//!                (4140)    (where does  (who    │            │  (4143)   (what     (who)
//!                           it lead?)   speaks?)│            │            is it?)
//!                                               ▼            ▼
//!                                     HTTP: http::server ─► stack ─► endpoint's pool ─► connect ─► peer proxy,
//!                                     bytes: tcp ───────────────────────────────────► connect ─► application
//!
//!   policy ◄─ discover ◄──── one Sync stream ──── controller ────► tls::identity (certificates)
//! ```
//!
//! Each worker thread has its own listeners, connections, stacks and pools ([`worker`]); one control thread runs
//! discovery, identity and [`admin`] ([`app`] starts them all).

// In the order a connection meets them.
pub mod accept;
pub mod addresses;
pub mod connection;
pub mod room;
pub mod worker;

pub mod inbound;
pub mod outbound;

pub mod detect;
pub mod io;
pub mod known;
pub mod tls;

pub mod http;
pub mod layers;
pub mod stack;
pub mod tcp;
pub mod tunnel;

pub mod balance;
pub mod connect;

// What they are told, and what they tell.
pub mod discover;
pub mod error;
pub mod metrics;
pub mod policy;
pub mod tap;
pub mod tell;

// Around them.
pub mod admin;
pub mod app;
pub mod command;
pub mod config;
pub mod footprint;
pub mod leave;
pub mod lines;
pub mod tasks;
pub mod upgrade;

#[cfg(test)]
mod allocations;
