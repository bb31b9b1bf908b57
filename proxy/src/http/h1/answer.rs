//! Writes the head of an answer, and decides how its body is framed (RFC 9112 section 6) and whether the connection lives on
//! (section 9). Pure but for the date.

use super::encode::{Encoder, write_field};
use super::outgoing::Outgoing;
use super::request::Says;
use crate::http::validate::{asks_for_upgrade, has_token};
use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;
use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(test)]
mod tests;

/// Tells a client to go on (RFC 9110 section 10.1.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Room for a usual head, bytes.
const ROOM: usize = 512;

/// What was asked, as far as the form of the answer depends on it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Form {
    pub(super) says: Says,
    /// The method is HEAD.
    pub(super) head: bool,
    /// It asks to speak another protocol.
    pub(super) upgrade: bool,
}

impl Form {
    pub(super) fn new(says: Says, method: &Method, fields: &HeaderMap) -> Self {
        Self {
            says,
            head: method == Method::HEAD,
            upgrade: says.upgrade && !says.old && asks_for_upgrade(fields),
        }
    }
}

/// Writes the head, and says how the body follows. `keep`: the connection may live on; it becomes false where it cannot, and
/// the head says so.
pub(super) fn write(
    answer: &Parts,
    length: &SizeHint,
    form: Form,
    keep: &mut bool,
    out: &mut Outgoing,
) -> Encoder {
    let fields = &answer.headers;
    let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    let bodiless = form.head || has_no_body(answer.status);
    let framing = match bodiless {
        true => Encoder::Nothing,
        false => framing(fields, length, form.says),
    };
    *keep &= framing != Encoder::UntilClose;
    let out = out.small();
    out.reserve(ROOM);
    write_status(answer, form.says.old, out);
    let found = write_end_to_end(fields, switches, out);
    *keep &= !found.close;
    if !switches {
        write_length(answer, length, &framing, form, out);
        match *keep {
            false => out.put_slice(b"connection: close\r\n"),
            true if form.says.old => out.put_slice(b"connection: keep-alive\r\n"),
            true => {}
        }
    }
    if !found.date {
        write_date(out);
    }
    out.put_slice(b"\r\n");
    framing
}

/// Has an answer with this status never a body, whatever its fields say (RFC 9112 section 6.3)?
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// The length where it is known; old clients know no chunks.
fn framing(fields: &HeaderMap, length: &SizeHint, says: Says) -> Encoder {
    match length.exact().or_else(|| declared(fields)) {
        Some(length) => Encoder::Length(length),
        None if says.old => Encoder::UntilClose,
        // Without that wish there may be nobody who reads them.
        None if says.trailers => Encoder::chunked(fields),
        None => Encoder::Chunked(Default::default()),
    }
}

fn declared(fields: &HeaderMap) -> Option<u64> {
    let value = fields.get(CONTENT_LENGTH)?;
    let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
    value.to_str().ok().filter(|_| digits)?.parse().ok()
}

fn write_status(answer: &Parts, old: bool, out: &mut BytesMut) {
    let status = answer.status;
    if status == StatusCode::OK && !old && answer.extensions.is_empty() {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put_slice(match old {
        true => b"HTTP/1.0 ",
        false => b"HTTP/1.1 ",
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    let said = answer.extensions.get::<ReasonPhrase>();
    let usual = || status.canonical_reason().unwrap_or("<none>").as_bytes();
    let reason = said.map_or_else(usual, ReasonPhrase::as_bytes);
    out.reserve(reason.len() + ROOM);
    out.put_slice(reason);
    out.put_slice(b"\r\n");
}

/// What was seen on the way.
#[derive(Default)]
struct Found {
    date: bool,
    close: bool,
}

/// All but what belongs to the connection, and the length, which is ours to say. One that `switches` says to what.
fn write_end_to_end(fields: &HeaderMap, switches: bool, out: &mut BytesMut) -> Found {
    let mut found = Found::default();
    for (name, value) in fields {
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            continue;
        }
        if name == CONNECTION {
            found.close |= has_token(value, "close");
            if !switches {
                continue;
            }
        }
        found.date |= name == DATE;
        write_field(name, value.as_bytes(), out);
    }
    found
}

fn write_length(
    answer: &Parts,
    length: &SizeHint,
    framing: &Encoder,
    form: Form,
    out: &mut BytesMut,
) {
    let said = match framing {
        Encoder::Length(length) => Some(*length),
        Encoder::Chunked(_) => return out.put_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::UntilClose => None,
        // That of the body which another request would have got.
        Encoder::Nothing if answer.status == StatusCode::NOT_MODIFIED => declared(&answer.headers),
        Encoder::Nothing if form.head && !has_no_body(answer.status) => {
            declared(&answer.headers).or(length.exact().filter(|length| *length > 0))
        }
        Encoder::Nothing => None,
    };
    if let Some(length) = said {
        out.put_slice(b"content-length: ");
        write_number(length, out);
        out.put_slice(b"\r\n");
    }
}

fn write_number(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

thread_local! {
    /// A second, and how it is written.
    static NOW: RefCell<(Duration, String)> = const { RefCell::new((Duration::MAX, String::new())) };
}

/// Writes the date; it is formatted once in a second.
fn write_date(out: &mut BytesMut) {
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs());
    NOW.with_borrow_mut(|(of, text)| {
        if *of != second {
            *of = second;
            *text = httpdate::fmt_http_date(now);
        }
        out.reserve(64);
        out.put_slice(b"date: ");
        out.put_slice(text.as_bytes());
        out.put_slice(b"\r\n");
    });
}
