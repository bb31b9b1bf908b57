//! What belongs to one connection stays on it, and what only a peer proxy may say is taken from everybody else. Pure.
//! Every head is looked through once; nothing is looked up, and nothing is removed where there is nothing to remove.

use super::validate::{asks_for_upgrade, tokens};
use super::{HttpVersion, Request, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use weft_proxy_api::names::headers as names;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Who calls, told to the application.
pub const CLIENT_ID: HeaderName = HeaderName::from_static(names::CLIENT_ID);
/// Milliseconds left.
pub const DEADLINE: HeaderName = HeaderName::from_static(names::DEADLINE);
/// Code and name of an error made by a proxy.
pub const ERROR: HeaderName = HeaderName::from_static(names::ERROR);

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
        let upgrade = (request.version() == http::Version::HTTP_11).then(|| upgrade_to(request.headers())).flatten();
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
        let upgrade = switching.then(|| response.headers().get(UPGRADE).cloned()).flatten();
        remove_hop_by_hop(response.headers_mut(), true);
        if let Some(protocol) = upgrade {
            write_upgrade(response.headers_mut(), protocol);
        }
    }
}

/// Removes every reserved name, in every spelling.
pub fn remove_reserved(headers: &mut HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| is_reserved(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

struct Found {
    hop_by_hop: bool,
    reserved: bool,
}

fn look(headers: &HeaderMap) -> Found {
    let mut found = Found { hop_by_hop: false, reserved: false };
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

/// `weft-*` and the identity headers of other meshes. Many servers read `_` as `-`, so it is the same here.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Nearly every name is done with after one byte.
    if !matches!(name.first(), Some(b'w' | b'x' | b'l')) {
        return false;
    }
    starts_alike(name, names::RESERVED_PREFIX.as_bytes())
        || names::FOREIGN.iter().any(|foreign| foreign.len() == name.len() && starts_alike(name, foreign.as_bytes()))
}

fn starts_alike(name: &[u8], prefix: &[u8]) -> bool {
    let alike = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
    name.len() >= prefix.len() && name.iter().zip(prefix).all(alike)
}

fn remove_hop_by_hop(headers: &mut HeaderMap, http1: bool) {
    // HTTP/2 has no Connection, and its TE may only say `trailers`, which gRPC insists on.
    let nominated: Vec<HeaderName> =
        headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in nominated.iter().filter(|name| may_be_nominated(name)) {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if http1 {
        headers.remove(TE);
    }
}

/// `Connection` cannot take away what the meaning of the message, or our policy, depends on.
fn may_be_nominated(name: &HeaderName) -> bool {
    let protected = [HOST, CONTENT_LENGTH, TRAILER, http::header::AUTHORIZATION, http::header::COOKIE];
    !protected.contains(name) && !is_reserved(name)
}

/// What the client wants to speak instead of HTTP/1.1; never HTTP/2, which would slip past the stack.
fn upgrade_to(headers: &HeaderMap) -> Option<HeaderValue> {
    if !asks_for_upgrade(headers) {
        return None;
    }
    let mut wanted = headers.get_all(UPGRADE).iter().flat_map(tokens);
    let is_http = |word: &[u8]| word.eq_ignore_ascii_case(b"h2c") || word.eq_ignore_ascii_case(b"h2");
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
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        None => {
            request.headers_mut().remove(CONTENT_LENGTH);
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;
    use http::Version;

    fn request(version: Version, fields: &[(&str, &str)], body: Body) -> Request {
        let mut head = http::Request::builder().version(version).uri("http://web/");
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        head.body(body).unwrap()
    }

    fn names_of(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn reserved_names_are_known_in_every_spelling() {
        for name in ["weft-client-id", "weft_client_id", "weft-anything", "WEFT-X", "x-forwarded-client-cert", "x_forwarded_client_cert", "L5d-Client-Id"] {
            assert!(is_reserved(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in ["weft", "x-forwarded-for", "location", "l5d-client-idx", "wefty", "x-weft-id"] {
            assert!(!is_reserved(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
    }

    #[test]
    fn only_a_peer_proxy_may_send_reserved_names() {
        let fields = [("host", "web"), ("weft-deadline-ms", "5"), ("weft_client_id", "a"), ("x-forwarded-client-cert", "b")];
        let mut from_peer = request(Version::HTTP_11, &fields, Body::empty());
        clean_request(&mut from_peer, Trust::Peer);
        assert_eq!(from_peer.headers().len(), 4);
        let mut from_app = request(Version::HTTP_11, &fields, Body::empty());
        clean_request(&mut from_app, Trust::Nobody);
        assert_eq!(names_of(from_app.headers()), ["host"]);
    }

    #[test]
    fn hop_by_hop_fields_stay_on_their_connection() {
        let rows: &[(&[(&str, &str)], &[&str])] = &[
            (&[("host", "w"), ("connection", "keep-alive"), ("keep-alive", "5")], &["host"]),
            (&[("host", "w"), ("connection", "x-hop, close"), ("x-hop", "1"), ("x-end", "2")], &["host", "x-end"]),
            (&[("host", "w"), ("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "2")], &["host"]),
            (&[("host", "w"), ("connection", "host, content-length, cookie"), ("cookie", "a")], &["cookie", "host"]),
            (&[("host", "w"), ("proxy-connection", "keep-alive"), ("te", "trailers")], &["host"]),
            (&[("host", "w"), ("upgrade", "websocket")], &["host"]),
            (&[("host", "w"), ("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAA")], &["host"]),
            (&[("host", "w"), ("connection", "Upgrade"), ("upgrade", "websocket")], &["connection", "host", "upgrade"]),
        ];
        for (fields, left) in rows {
            let mut request = request(Version::HTTP_11, fields, Body::empty());
            clean_request(&mut request, Trust::Nobody);
            assert_eq!(names_of(request.headers()), *left, "{fields:?}");
        }
    }

    #[test]
    fn http2_keeps_te_and_http10_never_upgrades() {
        let mut grpc = request(Version::HTTP_2, &[("te", "trailers")], Body::empty());
        clean_request(&mut grpc, Trust::Nobody);
        assert_eq!(names_of(grpc.headers()), ["te"]);
        let fields = [("host", "w"), ("connection", "upgrade"), ("upgrade", "websocket")];
        let mut old = request(Version::HTTP_10, &fields, Body::empty());
        clean_request(&mut old, Trust::Nobody);
        assert_eq!(names_of(old.headers()), ["host"]);
    }

    #[test]
    fn connection_cannot_take_our_own_names_away() {
        let fields = [("host", "w"), ("connection", "weft-client-id"), ("weft-client-id", "a")];
        let mut request = request(Version::HTTP_11, &fields, Body::empty());
        clean_request(&mut request, Trust::Peer);
        assert_eq!(names_of(request.headers()), ["host", "weft-client-id"]);
    }

    #[test]
    fn framing_is_written_from_the_body() {
        let mut known = request(Version::HTTP_11, &[("host", "w"), ("transfer-encoding", "chunked")], Body::full("abc"));
        clean_request(&mut known, Trust::Nobody);
        assert_eq!(known.headers().get(CONTENT_LENGTH).unwrap(), "3");
        assert!(!known.headers().contains_key(TRANSFER_ENCODING));
        let frames = [Ok(http_body::Frame::data(bytes::Bytes::from_static(b"abc")))];
        let mut unknown = request(Version::HTTP_11, &[("host", "w")], Body::frames(frames));
        clean_request(&mut unknown, Trust::Nobody);
        assert_eq!(unknown.headers().get(TRANSFER_ENCODING).unwrap(), "chunked");
    }

    #[test]
    fn a_response_keeps_its_upgrade_only_when_it_switches() {
        let response = |status: u16| {
            let head = http::Response::builder().status(status).header("connection", "upgrade").header("upgrade", "websocket");
            let mut response = head.header("weft-error", "E103").body(Body::empty()).unwrap();
            clean_response(&mut response, Trust::Nobody);
            names_of(response.headers()).join(" ")
        };
        assert_eq!(response(101), "connection upgrade");
        assert_eq!(response(426), "");
    }
}
