//! Writes the head of a request (RFC 9112 sections 3 and 6), its framing our own. Pure.

use crate::http::Request;
use crate::http::h1::encode::{Encoder, write_field, write_fields};
use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Uri};
use http_body::Body as _;
use std::fmt::Write;

/// Writes the head, and says how its body is framed.
pub(super) fn write_head(request: &Request, out: &mut BytesMut) -> Encoder {
    out.reserve(256);
    out.put_slice(request.method().as_str().as_bytes());
    out.put_u8(b' ');
    write_target(request.uri(), out);
    out.put_slice(b" HTTP/1.1\r\n");
    let encoder = encoder(request);
    write_framed(request.headers(), &encoder, out);
    out.put_slice(b"\r\n");
    encoder
}

fn write_target(uri: &Uri, out: &mut BytesMut) {
    match (uri.scheme(), uri.path_and_query()) {
        (None, Some(path)) => out.put_slice(path.as_str().as_bytes()),
        // A whole address is one only where somebody else than a client made the request. Nothing can fail here.
        _ => drop(write!(out, "{uri}")),
    }
}

/// A length that the head says stays, as does chunked; else the body says it.
fn encoder(request: &Request) -> Encoder {
    let (fields, body) = (request.headers(), request.body());
    if body.is_end_stream() {
        return Encoder::Nothing;
    }
    if fields.contains_key(TRANSFER_ENCODING) {
        return Encoder::chunked(fields);
    }
    let said = fields.get(CONTENT_LENGTH).and_then(|length| {
        let text = length.to_str().ok()?;
        text.parse().ok()
    });
    match said.or(body.size_hint().exact()) {
        Some(length) => Encoder::Length(length),
        None => Encoder::chunked(fields),
    }
}

/// All fields, and of those that frame the body the one that does.
fn write_framed(fields: &HeaderMap, encoder: &Encoder, out: &mut BytesMut) {
    if !fields.contains_key(CONTENT_LENGTH) && !fields.contains_key(TRANSFER_ENCODING) {
        write_fields(fields, out);
        return write_framing(encoder, out);
    }
    let mut framed = false;
    for (name, value) in fields {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_field(name, value.as_bytes(), out);
        } else if *encoder == Encoder::Nothing {
            // Said of no body, only that it has no bytes is true.
            if *name == CONTENT_LENGTH && value == "0" && !framed {
                write_field(name, value.as_bytes(), out);
                framed = true;
            }
        } else if !framed {
            write_framing(encoder, out);
            framed = true;
        }
    }
}

fn write_framing(encoder: &Encoder, out: &mut BytesMut) {
    match encoder {
        Encoder::Length(length) => {
            // Nothing can fail here.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Encoder::Chunked(_) => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::Nothing | Encoder::UntilClose => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;

    #[test]
    fn framing_is_written_once_and_in_its_place() {
        let unknown = || Body::frames([Ok(http_body::Frame::data("abc".into()))]);
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(Fields, Body, &str); 9] = [
            (&[("host", "w")], Body::empty(), "host: w"),
            (
                &[("content-length", "0"), ("host", "w")],
                Body::empty(),
                "content-length: 0|host: w",
            ),
            (
                &[("content-length", "5"), ("host", "w")],
                Body::empty(),
                "host: w",
            ),
            (
                &[("transfer-encoding", "chunked"), ("a", "b")],
                Body::empty(),
                "a: b",
            ),
            (
                &[("content-length", "3"), ("a", "b")],
                Body::full("abc"),
                "content-length: 3|a: b",
            ),
            (&[("a", "b")], Body::full("abc"), "a: b|content-length: 3"),
            (&[("a", "b")], unknown(), "a: b|transfer-encoding: chunked"),
            (
                &[("transfer-encoding", "chunked"), ("a", "b")],
                Body::full("abc"),
                "transfer-encoding: chunked|a: b",
            ),
            (
                &[("content-length", "3"), ("transfer-encoding", "chunked")],
                unknown(),
                "transfer-encoding: chunked",
            ),
        ];
        for (fields, body, expected) in rows {
            let mut request = Request::new(body);
            *request.uri_mut() = "/a?b=c".parse().unwrap();
            for (name, value) in fields {
                let value = http::HeaderValue::from_static(value);
                request.headers_mut().append(*name, value);
            }
            let mut out = BytesMut::new();
            write_head(&request, &mut out);
            let expected = format!(
                "GET /a?b=c HTTP/1.1\r\n{}\r\n\r\n",
                expected.replace('|', "\r\n")
            );
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn a_target_is_a_path_or_what_it_was() {
        for (uri, expected) in [
            ("/", "/"),
            ("/a?b", "/a?b"),
            ("*", "*"),
            ("http://w/x", "http://w/x"),
            ("http://w", "http://w/"),
        ] {
            let mut out = BytesMut::new();
            write_target(&uri.parse().unwrap(), &mut out);
            assert_eq!(out, expected);
        }
    }
}
