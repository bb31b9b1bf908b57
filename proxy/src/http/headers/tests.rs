//! What stays on its connection, and who may say what.
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
    for name in [
        "weft-client-id",
        "weft_client_id",
        "weft-anything",
        "WEFT-X",
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "L5d-Client-Id",
    ] {
        assert!(
            is_reserved(&HeaderName::from_bytes(name.as_bytes()).unwrap()),
            "{name}"
        );
    }
    for name in [
        "weft",
        "x-forwarded-for",
        "location",
        "l5d-client-idx",
        "wefty",
        "x-weft-id",
    ] {
        assert!(
            !is_reserved(&HeaderName::from_bytes(name.as_bytes()).unwrap()),
            "{name}"
        );
    }
}

#[test]
fn only_a_peer_proxy_may_send_reserved_names() {
    let fields = [
        ("host", "web"),
        ("weft-deadline-ms", "5"),
        ("weft_client_id", "a"),
        ("x-forwarded-client-cert", "b"),
    ];
    let mut from_peer = request(Version::HTTP_11, &fields, Body::empty());
    clean_request(&mut from_peer, Trust::Peer);
    assert_eq!(from_peer.headers().len(), 4);
    let mut from_app = request(Version::HTTP_11, &fields, Body::empty());
    clean_request(&mut from_app, Trust::Nobody);
    assert_eq!(names_of(from_app.headers()), ["host"]);
}

#[test]
fn hop_by_hop_fields_stay_on_their_connection() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (
            &[
                ("host", "w"),
                ("connection", "keep-alive"),
                ("keep-alive", "5"),
            ],
            &["host"],
        ),
        (
            &[
                ("host", "w"),
                ("connection", "x-hop, close"),
                ("x-hop", "1"),
                ("x-end", "2"),
            ],
            &["host", "x-end"],
        ),
        (
            &[
                ("host", "w"),
                ("connection", "x-a"),
                ("connection", "x-b"),
                ("x-a", "1"),
                ("x-b", "2"),
            ],
            &["host"],
        ),
        (
            &[
                ("host", "w"),
                ("connection", "host, content-length, cookie"),
                ("cookie", "a"),
            ],
            &["cookie", "host"],
        ),
        (
            &[
                ("host", "w"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers"),
            ],
            &["host"],
        ),
        (&[("host", "w"), ("upgrade", "websocket")], &["host"]),
        (
            &[
                ("host", "w"),
                ("connection", "upgrade, http2-settings"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAA"),
            ],
            &["host"],
        ),
        (
            &[
                ("host", "w"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
            ],
            &["connection", "host", "upgrade"],
        ),
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
    let fields = [
        ("host", "w"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    let mut old = request(Version::HTTP_10, &fields, Body::empty());
    clean_request(&mut old, Trust::Nobody);
    assert_eq!(names_of(old.headers()), ["host"]);
}

#[test]
fn connection_cannot_take_our_own_names_away() {
    let fields = [
        ("host", "w"),
        ("connection", "weft-client-id"),
        ("weft-client-id", "a"),
    ];
    let mut request = request(Version::HTTP_11, &fields, Body::empty());
    clean_request(&mut request, Trust::Peer);
    assert_eq!(names_of(request.headers()), ["host", "weft-client-id"]);
}

#[test]
fn framing_is_written_from_the_body() {
    let mut known = request(
        Version::HTTP_11,
        &[("host", "w"), ("transfer-encoding", "chunked")],
        Body::full("abc"),
    );
    clean_request(&mut known, Trust::Nobody);
    assert_eq!(known.headers().get(CONTENT_LENGTH).unwrap(), "3");
    assert!(!known.headers().contains_key(TRANSFER_ENCODING));
    let frames = [Ok(http_body::Frame::data(bytes::Bytes::from_static(
        b"abc",
    )))];
    let mut unknown = request(Version::HTTP_11, &[("host", "w")], Body::frames(frames));
    clean_request(&mut unknown, Trust::Nobody);
    assert_eq!(unknown.headers().get(TRANSFER_ENCODING).unwrap(), "chunked");
}

#[test]
fn a_response_keeps_its_upgrade_only_when_it_switches() {
    let response = |status: u16| {
        let head = http::Response::builder()
            .status(status)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        let mut response = head
            .header("weft-error", "E103")
            .body(Body::empty())
            .unwrap();
        clean_response(&mut response, Trust::Nobody);
        names_of(response.headers()).join(" ")
    };
    assert_eq!(response(101), "connection upgrade");
    assert_eq!(response(426), "");
}
