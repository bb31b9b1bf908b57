//! Reads the head of an answer (RFC 9112 sections 4 to 6), as strictly as that of a request: what two programs could read
//! in two ways is refused. Pure.

use crate::http::client::{MAX_FIELDS, MAX_HEAD};
use crate::http::h1::buffer;
use crate::http::h1::decode::Decoder;
use crate::http::strict::{Refusal, line};
use crate::http::validate::has_token;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;

/// What is wrong with a head.
pub(super) type Wrong = &'static str;

const TOO_LARGE: Wrong = "the endpoint sent too large a head";
const NOT_HTTP: Wrong = "the endpoint sent something else than an HTTP/1.1 answer";

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    /// Where it is not the usual one.
    pub(super) reason: Option<ReasonPhrase>,
    /// The connection may carry another exchange, as far as the endpoint says.
    pub(super) keep_alive: bool,
    length: Option<u64>,
    chunked: bool,
}

/// Looks for the end of a head that comes in pieces; each byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Bytes that were searched.
    searched: usize,
    /// Where the unfinished line begins.
    line: usize,
    /// Finished ones.
    lines: usize,
}

impl Search {
    /// Takes a head out of what was read. `None`: not all of it is there.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Option<Head>, Wrong> {
        let Some(end) = self.end(read)? else {
            return Ok(None);
        };
        let fields = std::mem::take(self).lines.saturating_sub(1);
        parse(&read.split_to(end).freeze(), fields).map(Some)
    }

    fn end(&mut self, read: &[u8]) -> Result<Option<usize>, Wrong> {
        const START: &[u8] = b"HTTP/1.";
        let start = read.len().min(START.len());
        if read[..start] != START[..start] {
            return Err(NOT_HTTP);
        }
        while let Some(at) = memchr::memchr(b'\n', &read[self.searched..]) {
            let at = self.searched + at;
            if read[at - 1] != b'\r' {
                return Err("the endpoint sent a line that ends without CR");
            }
            let end = at + 1;
            self.searched = end;
            if self.line == at - 1 {
                return (end <= MAX_HEAD).then_some(Some(end)).ok_or(TOO_LARGE);
            }
            self.line = end;
            self.lines += 1;
            if self.lines > MAX_FIELDS + 1 {
                return Err(TOO_LARGE);
            }
        }
        self.searched = read.len();
        (read.len() <= MAX_HEAD).then_some(None).ok_or(TOO_LARGE)
    }
}

fn parse(bytes: &Bytes, count: usize) -> Result<Head, Wrong> {
    let mut lines = Lines(bytes);
    let (old, status, reason) = status_line(lines.next().unwrap_or_default())?;
    let mut fields = buffer::fields();
    fields.reserve(count);
    let mut head = Head {
        status,
        fields,
        reason,
        keep_alive: !old,
        length: None,
        chunked: false,
    };
    let mut close = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line::field(line).map_err(|refusal| match refusal {
            Refusal::Folded => "the endpoint folded a header field",
            Refusal::FieldValue => "the endpoint sent a control character in a header field",
            _ => "the endpoint sent a header field without a proper name",
        })?;
        let name = HeaderName::from_bytes(name).map_err(|_| NOT_HTTP)?;
        // SAFETY: the line was found to have no control character but tabs, which is what a value may be made of.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(bytes.slice_ref(value)) };
        if name == CONTENT_LENGTH {
            head.content_length(value.as_bytes())?;
        } else if name == TRANSFER_ENCODING {
            head.transfer_encoding(value.as_bytes())?;
        } else if name == CONNECTION {
            close |= has_token(&value, "close");
            head.keep_alive |= has_token(&value, "keep-alive");
        }
        head.fields.append(name, value);
    }
    head.keep_alive &= !close;
    if head.chunked && head.length.is_some() {
        return Err("the endpoint sent both Content-Length and Transfer-Encoding");
    }
    if head.chunked && old {
        return Err("the endpoint sent Transfer-Encoding in HTTP/1.0");
    }
    Ok(head)
}

/// The lines of a head, without their ends; only whole ones.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.0)?;
        let line = &self.0[..end.saturating_sub(1)];
        self.0 = &self.0[end + 1..];
        Some(line)
    }
}

/// `HTTP/1.x SP status [SP reason]`. True: HTTP/1.0.
fn status_line(line: &[u8]) -> Result<(bool, StatusCode, Option<ReasonPhrase>), Wrong> {
    let (version, rest) = line.split_at_checked(9).ok_or(NOT_HTTP)?;
    let old = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err(NOT_HTTP),
    };
    let (code, rest) = rest.split_at_checked(3).ok_or(NOT_HTTP)?;
    let status = StatusCode::from_bytes(code).map_err(|_| NOT_HTTP)?;
    let reason = match rest {
        [] => return Ok((old, status, None)),
        [b' ', reason @ ..] => reason,
        _ => return Err(NOT_HTTP),
    };
    let usual = status.canonical_reason().unwrap_or_default();
    if reason == usual.as_bytes() {
        return Ok((old, status, None));
    }
    let reason = ReasonPhrase::try_from(reason).map_err(|_| NOT_HTTP)?;
    Ok((old, status, Some(reason)))
}

impl Head {
    fn content_length(&mut self, value: &[u8]) -> Result<(), Wrong> {
        const WRONG: Wrong = "the endpoint sent a Content-Length that is not a number";
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| digits);
        let number = text.and_then(|text| text.parse::<i64>().ok());
        let number = number.and_then(|number| u64::try_from(number).ok());
        match self.length.replace(number.ok_or(WRONG)?) {
            Some(_) => Err("the endpoint sent more than one Content-Length"),
            None => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Wrong> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err("the endpoint sent a Transfer-Encoding other than one `chunked`");
        }
        self.chunked = true;
        Ok(())
    }

    /// One that is followed by another.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// How the body is read (RFC 9112 section 6.3); `to_head`: of an answer to HEAD.
    pub(super) fn decoder(&self, to_head: bool) -> Decoder {
        let empty = matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        match self.length {
            _ if to_head || empty => Decoder::Length(0),
            _ if self.chunked => Decoder::chunked(),
            Some(length) => Decoder::Length(length),
            None => Decoder::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The head as it is read when it comes in such pieces, and what is left behind it.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<(Head, usize)>, Wrong> {
        let (mut search, mut read) = (Search::default(), BytesMut::new());
        for piece in bytes.chunks(piece) {
            read.extend_from_slice(piece);
            if let Some(head) = search.take(&mut read)? {
                return Ok(Some((head, read.len())));
            }
        }
        Ok(None)
    }

    fn shown(bytes: &[u8], piece: usize) -> String {
        match read(bytes, piece) {
            Err(_) => "refused".into(),
            Ok(None) => "more".into(),
            Ok(Some((head, _))) => {
                let keep = if head.keep_alive { "keep" } else { "close" };
                format!("{} {keep} {:?}", head.status.as_u16(), head.decoder(false))
            }
        }
    }

    #[test]
    fn a_head_reads_the_same_however_it_is_cut() {
        let chunked = format!("200 keep {:?}", Decoder::chunked());
        let fields = |count| format!("HTTP/1.1 204 \r\n{}\r\n", "A: b\r\n".repeat(count));
        let (most, more) = (fields(MAX_FIELDS), fields(MAX_FIELDS + 1));
        let rows = [
            ("HTTP/1.1 200 OK\r\n\r\n", "200 keep UntilClose"),
            ("HTTP/1.1 200\r\n\r\n", "200 keep UntilClose"),
            ("HTTP/1.1 299 Just so\tso\r\n\r\n", "299 keep UntilClose"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nbody",
                "200 keep Length(7)",
            ),
            (
                "HTTP/1.1 200 OK\r\nCONTENT-LENGTH:007 \t\r\n\r\n",
                "200 keep Length(7)",
            ),
            (
                "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n",
                "304 keep Length(0)",
            ),
            ("HTTP/1.1 204 x\r\n\r\n", "204 keep Length(0)"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                &chunked,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n\r\n",
                "200 close UntilClose",
            ),
            (
                "HTTP/1.1 204 x\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
                "204 close Length(0)",
            ),
            ("HTTP/1.0 204 x\r\n\r\n", "204 close Length(0)"),
            (
                "HTTP/1.0 204 x\r\nConnection: Keep-Alive\r\n\r\n",
                "204 keep Length(0)",
            ),
            (&most, "204 keep Length(0)"),
            (
                "HTTP/1.1 200 OK\r\nX: \u{e9}\r\nEmpty:\r\n\r\n",
                "200 keep UntilClose",
            ),
            ("HTTP/1.1 200 OK\r\nX: a", "more"),
            ("HTT", "more"),
            ("", "more"),
            (&more, "refused"),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", "refused"),
            ("http/1.1 200 OK\r\n\r\n", "refused"),
            ("HTTP/1.2 200 OK\r\n\r\n", "refused"),
            ("HTTP/1.1  200 OK\r\n\r\n", "refused"),
            ("HTTP/1.1 20 OK\r\n\r\n", "refused"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "refused"),
            ("HTTP/1.1 099 OK\r\n\r\n", "refused"),
            ("HTTP/1.1 200 O\0K\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\n\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX: a\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nX: \x7f\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "refused"),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "refused"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
                "refused",
            ),
            (
                "HTTP/1.1 204 x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                "refused",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "refused",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
                "refused",
            ),
            (
                "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
                "refused",
            ),
        ];
        for (bytes, expected) in rows {
            for piece in [usize::MAX, 1, 2, 7] {
                let found = shown(bytes.as_bytes(), piece);
                assert_eq!(found, expected, "{}, {piece}", bytes.escape_debug());
            }
        }
    }

    #[test]
    fn what_follows_a_head_is_left_and_its_fields_are_not_copied() {
        let mut read = BytesMut::from("HTTP/1.1 200 Fine\r\nA: 1\r\na: 2\r\n\r\nbody");
        let range = read.as_ptr_range();
        let head = Search::default().take(&mut read).unwrap().unwrap();
        assert_eq!(read, "body");
        assert_eq!(head.reason.unwrap().as_bytes(), b"Fine");
        let values: Vec<_> = head.fields.get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(range.contains(&values[0].as_bytes().as_ptr()));
    }

    #[test]
    fn a_head_without_end_has_a_limit() {
        for start in ["HTTP/1.1 200 ", "HTTP/1.1 200 OK\r\nX: "] {
            let (mut search, mut read) = (Search::default(), BytesMut::from(start));
            while search.take(&mut read).is_ok() {
                read.extend_from_slice(&[b'x'; 100]);
            }
            assert!((MAX_HEAD..MAX_HEAD + 200).contains(&read.len()), "{start}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, _) = read(bytes, 100).unwrap().unwrap();
        assert!(head.decoder(true).at_end());
    }
}
