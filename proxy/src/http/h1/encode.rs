//! Frames the body of a message that is sent (RFC 9112 sections 6 and 7), and refuses one that is not as long as its head
//! says. Pure.

use super::outgoing::Outgoing;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};

/// A body that is being sent, and how its end is marked.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) enum Encoder {
    /// The message has none.
    Nothing,
    /// So many bytes are still to be sent.
    Length(u64),
    /// In chunks.
    Chunked(Announced),
    /// By the end of the connection.
    UntilClose,
}

/// Names of the trailers that the head has announced: only those are sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Announced(Option<Box<[HeaderName]>>);

/// A body is not as long as its head has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Mismatch {
    /// It has more.
    Long,
    /// It ended before.
    Short,
}

impl Encoder {
    /// A body in chunks, for a message with these fields.
    pub(in crate::http) fn chunked(fields: &HeaderMap) -> Self {
        Self::Chunked(Announced::by(fields))
    }

    /// Sends a piece of the body.
    pub(in crate::http) fn data(
        &mut self,
        data: Bytes,
        out: &mut Outgoing,
    ) -> Result<(), Mismatch> {
        if data.is_empty() {
            // A chunk of no bytes would be the end.
            return Ok(());
        }
        match self {
            Encoder::Nothing => return Err(Mismatch::Long),
            Encoder::Length(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(Mismatch::Long)?;
                out.push(data);
            }
            Encoder::Chunked(_) => {
                write_size(data.len(), out.small());
                out.push(data);
                out.small().put_slice(b"\r\n");
            }
            Encoder::UntilClose => out.push(data),
        }
        Ok(())
    }

    /// Ends the body, with trailers if there are any.
    pub(in crate::http) fn end(
        &mut self,
        trailers: Option<&HeaderMap>,
        out: &mut Outgoing,
    ) -> Result<(), Mismatch> {
        match std::mem::replace(self, Encoder::Nothing) {
            Encoder::Nothing | Encoder::UntilClose | Encoder::Length(0) => Ok(()),
            Encoder::Length(_) => Err(Mismatch::Short),
            Encoder::Chunked(announced) => {
                out.small().put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    announced.write(trailers, out.small());
                }
                out.small().put_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

impl Announced {
    fn by(fields: &HeaderMap) -> Self {
        if !fields.contains_key(TRAILER) {
            return Self(None);
        }
        let values = fields.get_all(TRAILER).iter();
        let names = values.flat_map(crate::http::validate::tokens);
        let names = names.filter_map(|name| HeaderName::from_bytes(name).ok());
        Self(Some(names.filter(may_trail).collect()))
    }

    fn write(&self, trailers: &HeaderMap, out: &mut BytesMut) {
        let Some(names) = &self.0 else { return };
        for (name, value) in trailers {
            if names.contains(name) {
                write_field(name, value.as_bytes(), out);
            }
        }
    }
}

/// What frames a message, routes it or changes how it is read has no place behind it (RFC 9110 section 6.5.1).
fn may_trail(name: &HeaderName) -> bool {
    let framing = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    !framing.contains(name)
}

/// Writes the fields of a head.
pub(in crate::http) fn write_fields(fields: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in fields {
        write_field(name, value.as_bytes(), out);
    }
}

/// Writes one field.
pub(in crate::http) fn write_field(name: &HeaderName, value: &[u8], out: &mut BytesMut) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes the line in front of a chunk.
fn write_size(size: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.reserve(digits as usize + 2);
    for place in (0..digits).rev() {
        out.put_u8(DIGITS[(size >> (4 * place)) & 15]);
    }
    out.put_slice(b"\r\n");
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mismatch::Long => "the body has more bytes than its head has said",
            Mismatch::Short => "the body has fewer bytes than its head has said",
        })
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn written(out: &mut Outgoing) -> String {
        let text = String::from_utf8(out.take_all()).unwrap();
        assert!(out.is_empty());
        text
    }

    #[test]
    fn a_body_is_framed_as_its_head_says() {
        let large = "x".repeat(5000);
        let framed = format!("1388\r\n{large}\r\n0\r\n\r\n");
        let rows: [(Encoder, &[&str], Result<&str, Mismatch>); 11] = [
            (Encoder::Nothing, &[], Ok("")),
            (Encoder::Nothing, &["a"], Err(Mismatch::Long)),
            (Encoder::Length(3), &["ab", "", "c"], Ok("abc")),
            (Encoder::Length(3), &["abcd"], Err(Mismatch::Long)),
            (Encoder::Length(3), &["abc", "d"], Err(Mismatch::Long)),
            (Encoder::Length(3), &["ab"], Err(Mismatch::Short)),
            (Encoder::Length(0), &[], Ok("")),
            (Encoder::UntilClose, &["ab", "c"], Ok("abc")),
            (
                Encoder::chunked(&HeaderMap::new()),
                &["hello", "", "0123456789abcdef"],
                Ok("5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"),
            ),
            (Encoder::chunked(&HeaderMap::new()), &[], Ok("0\r\n\r\n")),
            (Encoder::chunked(&HeaderMap::new()), &[&large], Ok(&framed)),
        ];
        for (mut encoder, pieces, expected) in rows {
            let name = format!("{encoder:?} {}", pieces.len());
            let mut out = Outgoing::default();
            let pieces = pieces.iter().map(|piece| Bytes::from(piece.to_string()));
            let mut sent = pieces.map(|piece| encoder.data(piece, &mut out));
            let sent = sent.find(Result::is_err).unwrap_or(Ok(()));
            let sent = sent.and_then(|()| encoder.end(None, &mut out));
            match expected {
                Ok(expected) => {
                    assert_eq!(sent, Ok(()), "{name}");
                    assert_eq!(written(&mut out), expected, "{name}");
                }
                Err(expected) => assert_eq!(sent, Err(expected), "{name}"),
            }
        }
    }

    #[test]
    fn only_announced_and_harmless_trailers_are_sent() {
        let value = HeaderValue::from_static;
        let mut head = HeaderMap::new();
        head.append(TRAILER, value("sum, Host"));
        head.append(TRAILER, value("X-End"));
        let mut trailers = HeaderMap::new();
        for name in ["sum", "host", "x-end", "x-other"] {
            trailers.append(name, value("1"));
        }
        let sent = |head: &HeaderMap| {
            let mut out = Outgoing::default();
            let mut encoder = Encoder::chunked(head);
            encoder.end(Some(&trailers), &mut out).unwrap();
            written(&mut out)
        };
        assert_eq!(sent(&head), "0\r\nsum: 1\r\nx-end: 1\r\n\r\n");
        assert_eq!(sent(&HeaderMap::new()), "0\r\n\r\n");
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for size in [0, 1, 15, 16, 255, 256, 65_536, usize::MAX] {
            let mut out = BytesMut::new();
            write_size(size, &mut out);
            assert_eq!(out, format!("{size:x}\r\n"));
        }
    }
}
