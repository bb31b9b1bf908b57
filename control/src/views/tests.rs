//! A case for each decision the views take, with its negative twin.
#![allow(clippy::unwrap_used)]

mod access;
mod binding;
mod endpoints;
mod examples;
mod findings;
mod inbound;
mod outbound;
mod policy;
