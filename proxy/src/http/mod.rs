//! HTTP in and out: the one request, response and body type, and the codecs behind a narrow interface, so that one can take
//! the place of another without the stack noticing.
//!
//! [`server::serve`] reads requests of an accepted connection and hands them to an [`HttpService`]; at its bottom
//! [`client`] and [`pool`] send them on. [`validate`] and [`headers`] are pure: what is refused, what is removed.
//!
//! # The seam of the codecs
//!
//! HTTP/2 is spoken by hyper and h2. HTTP/1.1 is spoken by our own codec ([`h1`]): a head is judged and taken over in one
//! look, and one task reads a request, waits for its answer and writes it, with no channel and wake-up on the way. A
//! connection at rest, in a pool as well, is next to nothing but its stream; what that costs: one that an endpoint has
//! closed is found when it is taken or swept, not at that moment. No layer, and nothing outside of this room, sees a type of
//! a codec. What one has to bring:
//!
//! | where | what it is asked for |
//! |---|---|
//! | `server.rs` | a future over an [`crate::io::Io`] that calls [`HttpService::send`] for each head with a [`Body`], and writes the answer; to be told to end with the last answer; to hold next to nothing between two requests; to give the stream back after a 101 |
//! | `client.rs` | does a connection still live, send a request on it; HTTP/2: give it back untouched if nothing of it was written, how many streams the peer allows |
//! | `body/source.rs` | frames of a body, their length where it is known, and whose fault a broken one is |
//! | `bridge.rs` | the endpoint's stream after a 101 |
//!
//! What a codec refuses is a request as well, with the [`strict::Refusal`] as an extension, so that it is answered, counted
//! and told like any other.

pub mod body;
pub mod bridge;
pub mod client;
pub mod h1;
pub mod headers;
pub mod heads;
pub mod kept;
pub mod outcome;
pub mod pool;
pub mod pushback;
pub mod replay;
pub mod server;
mod service;
pub mod strict;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod watch;

pub use body::{Attribution, Body};
pub use service::{HttpService, ServiceFuture};

/// The one request type.
pub type Request = http::Request<Body>;
/// The one response type.
pub type Response = http::Response<Body>;

/// The two codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl HttpVersion {
    /// The codec for a request of this version.
    pub fn of(version: http::Version) -> Self {
        match version {
            http::Version::HTTP_2 => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        }
    }

    /// Label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            HttpVersion::Http1 => "http/1",
            HttpVersion::Http2 => "h2",
        }
    }
}

/// Is this a gRPC request (or response)? Decided by its content type, as gRPC's own specification does.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    let kind = headers
        .get(http::header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes);
    kind.is_some_and(|kind| {
        kind.starts_with(b"application/grpc")
            && matches!(kind.get(16), None | Some(b'+' | b';' | b' '))
    })
}
