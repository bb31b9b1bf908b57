//! Our HTTP/1.1 codec (RFC 9112). What both ends share is pure: [`decode`] takes a body out of what was read, [`encode`]
//! frames one that is sent. [`outgoing`] holds what is to be written, so that a message leaves in as few writes as possible.
//!
//! Towards endpoints, [`client`] drives one exchange. Towards clients, [`server`] is the loop of one connection: [`request`] reads heads, [`answer`] writes them, and [`wire`]
//! is what the loop shares with the body of the request.

mod answer;
pub(in crate::http) mod buffer;
pub(in crate::http) mod client;
pub(in crate::http) mod decode;
pub(in crate::http) mod encode;
mod fill;
pub mod look;
pub(in crate::http) mod outgoing;
pub(in crate::http) mod request;
pub(in crate::http) mod server;
pub(in crate::http) mod switched;
pub(in crate::http) mod wire;
