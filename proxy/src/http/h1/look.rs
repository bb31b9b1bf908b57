//! The reading of requests by itself, for those who try it out from outside: fuzzing and measurements.

use super::decode::{Decoded, Decoder};
use super::request::Parser;
use crate::http::Body;
use crate::http::strict::Refusal;
use bytes::BytesMut;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Each request as a text, and where it ended.
    pub requests: Vec<(String, usize)>,
    /// Why the next one was refused.
    pub refused: Option<Refusal>,
    /// The body of the next one was malformed.
    pub malformed: bool,
}

/// Reads the requests in `bytes`, which come in pieces of `size`.
pub fn requests(bytes: &[u8], size: usize) -> Seen {
    let mut reader = Reader::default();
    for piece in bytes.chunks(size.max(1)) {
        reader.read.extend_from_slice(piece);
        reader.come += piece.len();
        while reader.step() {}
        if reader.seen.malformed || reader.seen.refused.is_some() {
            break;
        }
    }
    reader.seen
}

/// Reads one head; is there one?
pub fn head(bytes: &mut BytesMut) -> bool {
    matches!(Parser::default().parse(bytes), Ok(Some(_)))
}

#[derive(Default)]
struct Reader {
    parser: Parser,
    body: Option<Decoder>,
    read: BytesMut,
    /// Bytes that have come.
    come: usize,
    text: String,
    seen: Seen,
}

impl Reader {
    /// Takes the next thing out of what was read; is there more?
    fn step(&mut self) -> bool {
        match &mut self.body {
            None => match self.parser.parse(&mut self.read) {
                Ok(Some(head)) => {
                    self.body = Some(match head.says {
                        says if says.chunked => Decoder::chunked(),
                        says => Decoder::Length(says.length.unwrap_or_default()),
                    });
                    let request = head.into_request(Body::empty());
                    let (method, target) = (request.method(), request.uri());
                    self.text = format!("{method} {target} {:?} ", request.headers());
                    true
                }
                Ok(None) => false,
                Err(refusal) => {
                    self.seen.refused = Some(refusal);
                    false
                }
            },
            Some(decoder) => match decoder.decode(&mut self.read) {
                Ok(Decoded::Data(data)) => {
                    self.text += &data.escape_ascii().to_string();
                    true
                }
                Ok(Decoded::Trailers(fields)) => {
                    self.text += &format!(" {fields:?}");
                    true
                }
                Ok(Decoded::More) => false,
                Ok(Decoded::End) => {
                    self.body = None;
                    let end = self.come - self.read.len();
                    let text = std::mem::take(&mut self.text);
                    self.seen.requests.push((text, end));
                    true
                }
                Err(_) => {
                    self.seen.malformed = true;
                    false
                }
            },
        }
    }
}
