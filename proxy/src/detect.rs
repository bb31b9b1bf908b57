//! What do the first bytes say? A pure function over everything read so far, and the reader that feeds it.
//!
//! The answer never depends on how the bytes were cut into segments. It is "need more" only while it is open, and the
//! caller bounds that by size ([`MAX_BYTES`]) and time ([`MAX_WAIT`]).

mod hello;

pub use hello::ClientHello;

use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// Bytes looked at before the answer must be there.
pub const MAX_BYTES: usize = 16 * 1024;
/// Time the client may take from its first byte until the answer must be there.
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// First thing an HTTP/2 client sends (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods that make bytes HTTP even if the rest of the line is broken: it is answered 400, not tunnelled.
const METHODS: [&[u8]; 9] = [
    b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT",
];

/// What a connection speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// TLS; what its first message offers.
    Tls(ClientHello),
    /// HTTP/1.x, well-formed or not.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Opaque,
}

impl Protocol {
    /// The server that a TLS client names.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Protocol::Tls(hello) => hello.sni.as_deref(),
            _ => None,
        }
    }
}

/// What is known after the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Still open.
    NeedMore,
    /// Certain.
    Is(Protocol),
}

/// Judges the first bytes of a client. `ended`: there will be no more of them, or no more time.
pub fn detect(bytes: &[u8], ended: bool) -> Answer {
    let ended = ended || bytes.len() >= MAX_BYTES;
    match guess(bytes) {
        Guess::Is(protocol) => Answer::Is(protocol),
        Guess::Maybe(_) if !ended => Answer::NeedMore,
        Guess::Maybe(otherwise) => Answer::Is(otherwise),
    }
}

/// Certain, or open with what it counts as if nothing more comes.
enum Guess {
    Is(Protocol),
    Maybe(Protocol),
}

fn guess(bytes: &[u8]) -> Guess {
    if bytes.first() == Some(&hello::RECORD) {
        return match hello::parse(bytes) {
            hello::Parsed::Hello(hello) => Guess::Is(Protocol::Tls(hello)),
            hello::Parsed::Incomplete => Guess::Maybe(Protocol::Opaque),
            hello::Parsed::NotTls => Guess::Is(Protocol::Opaque),
        };
    }
    if bytes.starts_with(PREFACE) {
        return Guess::Is(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        // A request line `PRI * HTTP/2.0` with another continuation is HTTP, and wrong.
        return Guess::Maybe(if bytes.len() > 4 {
            Protocol::Http1
        } else {
            Protocol::Opaque
        });
    }
    request_line(bytes)
}

/// HTTP/1, as far as the first line tells. Empty lines before it are allowed (RFC 9112 section 2.2).
fn request_line(bytes: &[u8]) -> Guess {
    let start = bytes
        .iter()
        .take_while(|b| matches!(b, b'\r' | b'\n'))
        .count();
    let bytes = &bytes[start..];
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let known = METHODS
        .iter()
        .any(|m| line.starts_with(m) && line.get(m.len()) == Some(&b' '));
    if !known
        && line
            .trim_ascii_end()
            .iter()
            .any(|b| b.is_ascii_control() && !matches!(b, b'\t' | b'\r'))
    {
        return Guess::Is(Protocol::Opaque);
    }
    let blank = line.iter().position(|b| *b == b' ');
    if line[..blank.unwrap_or(line.len())]
        .iter()
        .any(|b| !b.is_ascii_graphic() && *b != b'\r')
    {
        return Guess::Is(Protocol::Opaque);
    }
    match end {
        Some(_) if ends_in_version(line) => Guess::Is(Protocol::Http1),
        Some(_) => Guess::Is(Protocol::Opaque),
        None if known => Guess::Maybe(Protocol::Http1),
        None => Guess::Maybe(Protocol::Opaque),
    }
}

/// Is the last word of the line `HTTP/…`, in any case?
fn ends_in_version(line: &[u8]) -> bool {
    let last = line
        .trim_ascii_end()
        .rsplit(|b| matches!(b, b' ' | b'\t'))
        .next()
        .unwrap_or_default();
    last.len() > 4 && last[..5].eq_ignore_ascii_case(b"HTTP/")
}

/// Reads from `io` into `buffer` until the answer is certain. `buffer` may hold bytes already and keeps all that was
/// read. Can be dropped and called again with the same buffer.
///
/// The clock starts with the first byte; a silent client is the caller's business.
pub async fn read<R: AsyncRead + Unpin>(
    io: &mut R,
    buffer: &mut BytesMut,
) -> std::io::Result<Protocol> {
    let mut deadline = None;
    let mut ended = false;
    loop {
        if !buffer.is_empty() || ended {
            if let Answer::Is(protocol) = detect(buffer, ended) {
                return Ok(protocol);
            }
            deadline.get_or_insert_with(|| Instant::now() + MAX_WAIT);
        }
        buffer.reserve(2048);
        ended = match deadline {
            None => io.read_buf(buffer).await? == 0,
            Some(at) => match timeout_at(at, io.read_buf(buffer)).await {
                Ok(read) => read? == 0,
                Err(_) => true,
            },
        };
    }
}

#[cfg(test)]
mod tests;
