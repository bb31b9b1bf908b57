//! What belongs to one connection stays on it, and what only a peer proxy may say is taken from everybody else. Pure.
//! Every head is looked through once; nothing is looked up, and nothing is removed where there is nothing to remove.

use super::validate::{asks_for_upgrade, tokens};
use super::{HttpVersion, Request, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use weft_proxy_api::names::headers as names;

#[cfg(test)]
mod tests;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Who calls, told to the application.
pub const CLIENT_ID: HeaderName = HeaderName::from_static(names::CLIENT_ID);
/// Milliseconds left.
pub const DEADLINE: HeaderName = HeaderName::from_static(names::DEADLINE);
/// Code and name of an error made by a proxy.
pub const ERROR: HeaderName = HeaderName::from_static(names::ERROR);
/// Which rule, identity and object refused a request.
pub const DENIED_BY: HeaderName = HeaderName::from_static(names::DENIED_BY);

/// May the sender use reserved names?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// An authenticated peer proxy.
    Peer,
    /// Anybody else, the application included.
    Nobody,
}

/// Makes the head of a request fit to be sent on: hop-by-hop fields and reserved names gone, framing written anew.
pub fn clean_request(request: &mut Request, trust: Trust) {
    let found = look(request.headers());
    if found.reserved && trust == Trust::Nobody {
        remove_reserved(request.headers_mut());
    }
    if trust == Trust::Nobody {
        request.body_mut().remove_reserved_trailers();
    }
    let http1 = HttpVersion::of(request.version()) == HttpVersion::Http1;
    if found.hop_by_hop {
        let upgrade = (request.version() == http::Version::HTTP_11)
            .then(|| upgrade_to(request.headers()))
            .flatten();
        remove_hop_by_hop(request.headers_mut(), http1);
        if let Some(protocol) = upgrade {
            write_upgrade(request.headers_mut(), protocol);
        }
    }
    if http1 {
        write_framing(request);
    }
}

/// The same for a response. A 101 keeps its two fields.
pub fn clean_response(response: &mut Response, trust: Trust) {
    let found = look(response.headers());
    if found.reserved && trust == Trust::Nobody {
        remove_reserved(response.headers_mut());
    }
    if trust == Trust::Nobody {
        response.body_mut().remove_reserved_trailers();
    }
    if found.hop_by_hop {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = switching
            .then(|| response.headers().get(UPGRADE).cloned())
            .flatten();
        remove_hop_by_hop(response.headers_mut(), true);
        if let Some(protocol) = upgrade {
            write_upgrade(response.headers_mut(), protocol);
        }
    }
}

/// Removes every reserved name, in every spelling.
pub fn remove_reserved(headers: &mut HeaderMap) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| is_reserved(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

struct Found {
    hop_by_hop: bool,
    reserved: bool,
}

fn look(headers: &HeaderMap) -> Found {
    let mut found = Found {
        hop_by_hop: false,
        reserved: false,
    };
    for name in headers.keys() {
        found.hop_by_hop |= is_hop_by_hop(name);
        found.reserved |= is_reserved(name);
    }
    found
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // The comparison with a standard name is one of small numbers, unlike that with a text.
    match name.as_str().len() {
        2 => name == TE,
        7 => name == UPGRADE,
        10 => name == CONNECTION || name == KEEP_ALIVE,
        14 => name == HTTP2_SETTINGS,
        16 => name == PROXY_CONNECTION,
        17 => name == TRANSFER_ENCODING,
        _ => false,
    }
}

/// Is it a name that only we may use?
pub fn is_reserved(name: &HeaderName) -> bool {
    names::is_reserved(name.as_str())
}

fn remove_hop_by_hop(headers: &mut HeaderMap, http1: bool) {
    // HTTP/2 has no Connection, and its TE may only say `trailers`, which gRPC insists on.
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in nominated.iter().filter(|name| may_be_nominated(name)) {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if http1 {
        headers.remove(TE);
    }
}

/// `Connection` cannot take away what the meaning of the message, or our policy, depends on.
fn may_be_nominated(name: &HeaderName) -> bool {
    let protected = [
        HOST,
        CONTENT_LENGTH,
        TRAILER,
        http::header::AUTHORIZATION,
        http::header::COOKIE,
    ];
    !protected.contains(name) && !is_reserved(name)
}

/// What the client wants to speak instead of HTTP/1.1; never HTTP/2, which would slip past the stack.
fn upgrade_to(headers: &HeaderMap) -> Option<HeaderValue> {
    if !asks_for_upgrade(headers) {
        return None;
    }
    let mut wanted = headers.get_all(UPGRADE).iter().flat_map(tokens);
    let is_http =
        |word: &[u8]| word.eq_ignore_ascii_case(b"h2c") || word.eq_ignore_ascii_case(b"h2");
    let first = wanted.find(|word| !is_http(word))?;
    HeaderValue::from_bytes(first).ok()
}

fn write_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The length if it is known, else chunked: hyper would drop the body of a GET that says neither.
fn write_framing(request: &mut Request) {
    if request.body().is_end_stream() {
        return;
    }
    match request.body().size_hint().exact() {
        Some(length) => {
            if !request.headers().contains_key(CONTENT_LENGTH) {
                request
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        None => {
            request.headers_mut().remove(CONTENT_LENGTH);
            request
                .headers_mut()
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}
