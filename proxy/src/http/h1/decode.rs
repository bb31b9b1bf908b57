//! Takes the body of a message out of what was read of its connection, without copying it (RFC 9112 sections 6 and 7).
//! One reading for requests and answers, and a strict one: lines end with CRLF, and all that is not data has a limit. Pure.

use crate::http::strict::{MAX_FIELDS, MAX_HEAD, line};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;

/// Bytes of all chunk extensions of a body.
pub(in crate::http) const MAX_EXTENSIONS: usize = 4 * 1024;
/// Bytes of the line of a chunk: its size and its extensions.
const MAX_CHUNK_LINE: usize = 16 + MAX_EXTENSIONS;
/// Bytes of a line of the trailers.
const MAX_TRAILER: usize = 32 * 1024;

/// A body that is being read, and how its end is found.
#[derive(Debug)]
pub(in crate::http) enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// It ends with its connection.
    UntilClose,
}

/// What was found next.
#[derive(Debug)]
pub(in crate::http) enum Decoded {
    /// Bytes of the body; never none.
    Data(Bytes),
    /// The fields behind it. The end follows.
    Trailers(HeaderMap),
    /// There is no more; what is left of the bytes read belongs to nobody, or to the next message.
    End,
    /// More has to be read first.
    More,
}

/// A chunk or trailer is not what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Malformed;

/// The connection ended within the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Broken;

/// Where in a chunked body the next byte belongs.
#[derive(Debug, Default)]
pub(in crate::http) struct Chunks {
    at: At,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes of the unfinished line that were searched for its end: one that comes byte by byte is not searched again.
    searched: usize,
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Size,
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// The line end behind the data of a chunk.
    DataEnd,
    Trailers,
    End,
}

#[derive(Debug, Default)]
struct Trailers {
    fields: HeaderMap,
    bytes: usize,
    count: usize,
}

impl Decoder {
    /// A body in chunks.
    pub(in crate::http) fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    /// Takes the next piece of the body out of `read`. Asked again after [`Decoded::More`], with more in it.
    pub(in crate::http) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Malformed> {
        match self {
            Decoder::Length(0) => Ok(Decoded::End),
            Decoder::Length(left) => Ok(take(left, read)),
            Decoder::Chunked(chunks) => chunks.decode(read),
            Decoder::UntilClose if read.is_empty() => Ok(Decoded::More),
            Decoder::UntilClose => Ok(Decoded::Data(read.split().freeze())),
        }
    }

    /// Nothing more belongs to the body.
    pub(in crate::http) fn at_end(&self) -> bool {
        match self {
            Decoder::Length(left) => *left == 0,
            Decoder::Chunked(chunks) => matches!(chunks.at, At::End),
            Decoder::UntilClose => false,
        }
    }

    /// Bytes still to come, where that is known.
    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        match self {
            Decoder::Length(left) => SizeHint::with_exact(*left),
            _ if self.at_end() => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// The connection has ended, and all that was read of it is decoded.
    pub(in crate::http) fn on_eof(&mut self) -> Result<(), Broken> {
        if matches!(self, Decoder::UntilClose) {
            *self = Decoder::Length(0);
        }
        self.at_end().then_some(()).ok_or(Broken)
    }
}

/// As much of what is left as was read.
fn take(left: &mut u64, read: &mut BytesMut) -> Decoded {
    if read.is_empty() {
        return Decoded::More;
    }
    let n = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= n as u64;
    Decoded::Data(read.split_to(n).freeze())
}

impl Chunks {
    fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match &mut self.at {
                At::Data(left) => {
                    let decoded = take(left, read);
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok(decoded);
                }
                At::DataEnd => match read[..] {
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        self.at = At::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(Malformed),
                },
                At::Size => match self.line(read, MAX_CHUNK_LINE)? {
                    Some(end) => {
                        self.size(&read[..end])?;
                        read.advance(end + 2);
                    }
                    None => return Ok(Decoded::More),
                },
                At::Trailers => match self.line(read, MAX_TRAILER)? {
                    Some(0) => {
                        read.advance(2);
                        self.at = At::End;
                        if let Some(trailers) = self.trailers.take() {
                            return Ok(Decoded::Trailers(trailers.fields));
                        }
                    }
                    Some(end) => {
                        self.trailers.get_or_insert_default().add(&read[..end])?;
                        read.advance(end + 2);
                    }
                    None => return Ok(Decoded::More),
                },
                At::End => return Ok(Decoded::End),
            }
        }
    }

    /// Length of the line in front, without its CRLF. `None`: its end was not read yet.
    fn line(&mut self, read: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', &read[self.searched..]) else {
            self.searched = read.len();
            return (read.len() <= most + 1).then_some(None).ok_or(Malformed);
        };
        let end = std::mem::take(&mut self.searched) + end;
        match end.checked_sub(1).filter(|end| *end <= most) {
            Some(end) if read[end] == b'\r' => Ok(Some(end)),
            _ => Err(Malformed),
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let (size, extension) = line::chunk(line).ok_or(Malformed)?;
        self.extensions += extension;
        self.at = match size {
            0 => At::Trailers,
            size => At::Data(size),
        };
        (self.extensions <= MAX_EXTENSIONS)
            .then_some(())
            .ok_or(Malformed)
    }
}

impl Trailers {
    fn add(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.bytes += line.len() + 2;
        self.count += 1;
        if self.bytes > MAX_HEAD || self.count > MAX_FIELDS {
            return Err(Malformed);
        }
        let (name, value) = line::field(line).map_err(|_| Malformed)?;
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Malformed)?;
        let added = self.fields.try_append(name, value);
        added.map(drop).map_err(|_| Malformed)
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a chunk or trailer is malformed")
    }
}

impl std::error::Error for Malformed {}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ended within the body")
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What a body is read as, fed in pieces of `piece` bytes: its data, its trailers, what is left of the bytes.
    fn read(mut decoder: Decoder, bytes: &[u8], piece: usize) -> Result<String, Malformed> {
        let (mut read, mut data, mut fields) = (BytesMut::new(), Vec::new(), String::new());
        let mut pieces = bytes.chunks(piece.max(1));
        loop {
            match decoder.decode(&mut read)? {
                Decoded::Data(found) => {
                    assert!(!found.is_empty());
                    data.extend_from_slice(&found);
                }
                Decoded::Trailers(found) => {
                    for (name, value) in &found {
                        fields += &format!("{name}={};", value.to_str().unwrap());
                    }
                }
                Decoded::End => {
                    assert!(decoder.at_end());
                    let rest = read.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    let data = String::from_utf8(data).unwrap();
                    return Ok(format!("{data}|{fields}|{rest}"));
                }
                Decoded::More => match pieces.next() {
                    Some(more) => read.extend_from_slice(more),
                    None => {
                        let ended = decoder.on_eof();
                        let data = String::from_utf8(data).unwrap();
                        return Ok(match ended {
                            Ok(()) => format!("{data}|closed"),
                            Err(Broken) => format!("{data}|broken"),
                        });
                    }
                },
            }
        }
    }

    #[test]
    fn a_body_reads_the_same_however_it_is_cut() {
        type Make = fn() -> Decoder;
        let chunked: Make = Decoder::chunked;
        let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(MAX_EXTENSIONS - 1));
        let extensions = format!("1;{}\r\na\r\n0;\r\n\r\n", "e".repeat(MAX_EXTENSIONS - 1));
        let fields = |count| format!("0\r\n{}\r\n", "a: b\r\n".repeat(count));
        let (most, more) = (fields(MAX_FIELDS), fields(MAX_FIELDS + 1));
        let all = format!("|{}|0", "a=b;".repeat(MAX_FIELDS));
        let rows: Vec<(Make, &str, Result<&str, Malformed>)> = vec![
            (|| Decoder::Length(3), "abc", Ok("abc||0")),
            (|| Decoder::Length(3), "abcd", Ok("abc||1")),
            (|| Decoder::Length(3), "ab", Ok("ab|broken")),
            (|| Decoder::Length(0), "", Ok("||0")),
            (|| Decoder::Length(u64::MAX), "ab", Ok("ab|broken")),
            (|| Decoder::UntilClose, "abc", Ok("abc|closed")),
            (|| Decoder::UntilClose, "", Ok("|closed")),
            (chunked, "3\r\nabc\r\n0\r\n\r\n", Ok("abc||0")),
            (chunked, "03\r\nabc\r\n00\r\n\r\nGET", Ok("abc||3")),
            (
                chunked,
                "A;x=y\r\n0123456789\r\n0;z\r\n\r\n",
                Ok("0123456789||0"),
            ),
            (
                chunked,
                "1\r\na\r\n0\r\nSum: 1\r\nx:\r\n\r\n",
                Ok("a|sum=1;x=;|0"),
            ),
            (chunked, &extension, Ok("a||0")),
            (chunked, &most, Ok(&all)),
            (chunked, "3\r\nab", Ok("ab|broken")),
            (chunked, "3\r\nabc\r\n", Ok("abc|broken")),
            (chunked, "0\r\n", Ok("|broken")),
            (chunked, "7fffffffffffffff\r\nab", Ok("ab|broken")),
            (chunked, &extensions, Err(Malformed)),
            (chunked, &more, Err(Malformed)),
            (chunked, "8000000000000000\r\nab", Err(Malformed)),
            (chunked, "10000000000000000\r\nab", Err(Malformed)),
            (
                chunked,
                "00000000000000001\r\na\r\n0\r\n\r\n",
                Err(Malformed),
            ),
            (chunked, "\r\na", Err(Malformed)),
            (chunked, "\n", Err(Malformed)),
            (chunked, "0x1\r\na", Err(Malformed)),
            (chunked, "+1\r\na", Err(Malformed)),
            (chunked, "1 \r\na", Err(Malformed)),
            (chunked, " 1\r\na", Err(Malformed)),
            (chunked, "1\na", Err(Malformed)),
            (chunked, "1;a\rb\r\na", Err(Malformed)),
            (chunked, "1;a\0\r\na", Err(Malformed)),
            (chunked, "1\r\nab\r\n", Err(Malformed)),
            (chunked, "1\r\na\n0\r\n\r\n", Err(Malformed)),
            (chunked, "1\r\na\rx", Err(Malformed)),
            (chunked, "0\r\n\n", Err(Malformed)),
            (chunked, "0\r\na b: c\r\n\r\n", Err(Malformed)),
            (chunked, "0\r\na: b\r\n c\r\n\r\n", Err(Malformed)),
            (chunked, "0\r\na: \0\r\n\r\n", Err(Malformed)),
        ];
        for (make, bytes, expected) in rows {
            for piece in [usize::MAX, 1, 2, 3, 7, 64] {
                let found = read(make(), bytes.as_bytes(), piece);
                let name = bytes.get(..40).unwrap_or(bytes).escape_debug();
                assert_eq!(
                    found.as_deref(),
                    expected.as_ref().map(|e| *e),
                    "{name}, {piece}"
                );
            }
        }
    }

    #[test]
    fn an_unfinished_line_has_a_limit() {
        for (start, most) in [("1;", MAX_CHUNK_LINE), ("0\r\na:", MAX_TRAILER)] {
            let mut decoder = Decoder::chunked();
            let mut read = BytesMut::from(start);
            let mut fed = 0;
            while decoder.decode(&mut read).is_ok() {
                read.extend_from_slice(&[b'x'; 100]);
                fed += 100;
            }
            assert!((most - 100..most + 200).contains(&fed), "{start:?}: {fed}");
        }
    }

    #[test]
    fn data_is_not_copied() {
        let mut read = BytesMut::from("5\r\nhello\r\n0\r\n\r\n");
        let at = read[3..].as_ptr();
        let Ok(Decoded::Data(data)) = Decoder::chunked().decode(&mut read) else {
            panic!("no data");
        };
        assert_eq!(data.as_ptr(), at);
    }

    #[test]
    fn the_length_is_known_where_it_can_be() {
        assert_eq!(Decoder::Length(5).size_hint().exact(), Some(5));
        assert_eq!(Decoder::chunked().size_hint().exact(), None);
        assert_eq!(Decoder::UntilClose.size_hint().exact(), None);
    }
}
