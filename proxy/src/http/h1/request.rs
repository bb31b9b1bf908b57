//! Reads the head of a request, line by line as they come: each is judged and taken over in one look. Values and the target
//! stay where they were read. Pure.

use super::buffer;
use crate::http::strict::line::{self, Start};
use crate::http::strict::{MAX_FIELDS, MAX_HEAD, MAX_LINE, Refusal};
use crate::http::validate::tokens;
use crate::http::{Body, Request};
use bytes::{Buf, Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

#[cfg(test)]
mod tests;

/// Reads heads, one after the other; fed in pieces of any size.
#[derive(Debug, Default)]
pub(in crate::http) struct Parser {
    /// One of which more is to come. Heads mostly come whole, so it is to take little room.
    unfinished: Option<Box<Head>>,
    /// Bytes of the unfinished line that were searched for its end: one that comes byte by byte is not searched again.
    searched: usize,
}

/// The head of a request.
#[derive(Debug)]
pub(in crate::http) struct Head {
    method: Method,
    target: Uri,
    fields: HeaderMap,
    /// What it says about its body and its connection.
    pub(in crate::http) says: Says,
    started: bool,
    /// Bytes so far.
    size: usize,
    count: usize,
}

/// What a head says about the message and its connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Says {
    /// HTTP/1.0.
    pub(in crate::http) old: bool,
    /// Content-Length.
    pub(in crate::http) length: Option<u64>,
    /// Transfer-Encoding: chunked.
    pub(in crate::http) chunked: bool,
    /// Connection: close.
    pub(super) close: bool,
    /// Connection: keep-alive.
    pub(super) keep: bool,
    /// Expect: 100-continue.
    pub(in crate::http) expects: bool,
    /// There is an Upgrade.
    pub(in crate::http) upgrade: bool,
    /// TE: trailers.
    pub(in crate::http) trailers: bool,
}

impl Parser {
    /// Takes lines out of `read` until a head is whole; the bytes behind it stay. `None`: more is needed.
    pub(in crate::http) fn parse(&mut self, read: &mut BytesMut) -> Result<Option<Head>, Refusal> {
        let mut head = match self.unfinished.take() {
            Some(head) => *head,
            None if read.is_empty() => return Ok(None),
            None => Head::new(),
        };
        let refusal = loop {
            let Some(end) = memchr::memchr(b'\n', &read[self.searched..]) else {
                self.searched = read.len();
                // Its CR may be there already.
                if read.len() <= MAX_LINE + 1 {
                    self.keep(head);
                    return Ok(None);
                }
                break Refusal::TooLarge;
            };
            let end = std::mem::take(&mut self.searched) + end;
            match head.line(read.split_to(end + 1).freeze()) {
                Ok(false) => {}
                Ok(true) => return Ok(Some(head)),
                Err(refusal) => break refusal,
            }
        };
        self.unfinished = Some(Box::new(head));
        Err(refusal)
    }

    fn keep(&mut self, head: Head) {
        // Nothing but empty lines counts as nothing, except towards the limit.
        if head.size > 0 {
            self.unfinished = Some(Box::new(head));
        }
    }

    /// Has a head begun that is not whole?
    pub(in crate::http) fn has_begun(&self) -> bool {
        self.searched > 0 || self.unfinished.as_ref().is_some_and(|head| head.started)
    }

    /// What was read of a head that is refused, as a request without a body that says why.
    pub(in crate::http) fn refused(&mut self, why: Refusal) -> (Request, Says) {
        self.searched = 0;
        let mut head = self.unfinished.take().map_or_else(Head::new, |head| *head);
        if !head.started {
            head.fields
                .insert(HOST, HeaderValue::from_static("refused"));
        }
        head.says.length = None;
        head.says.chunked = false;
        let says = head.says;
        let mut request = head.into_request(Body::empty());
        request.extensions_mut().insert(why);
        (request, says)
    }
}

impl Head {
    fn new() -> Self {
        Self {
            method: Method::GET,
            target: Uri::default(),
            fields: HeaderMap::new(),
            says: Says::default(),
            started: false,
            size: 0,
            count: 0,
        }
    }

    /// Takes over the next line; `true`: it was the last.
    fn line(&mut self, line: Bytes) -> Result<bool, Refusal> {
        let Some(text) = line.strip_suffix(b"\r\n") else {
            let text = &line[..line.len() - 1];
            // Without CR, and not HTTP either: then that is what is wrong with it.
            let other = !self.started && line::start(text) == Err(Refusal::NotHttp);
            return Err(match other {
                true => Refusal::NotHttp,
                false => Refusal::BareLf,
            });
        };
        if self.started && text.is_empty() {
            return Ok(true);
        }
        self.size += line.len();
        self.count += usize::from(self.started);
        if self.size > MAX_HEAD || self.count > MAX_FIELDS || text.len() > MAX_LINE {
            return Err(Refusal::TooLarge);
        }
        if self.started {
            self.field(line)?;
        } else if !text.is_empty() {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            self.start(line)?;
        }
        Ok(false)
    }

    fn start(&mut self, mut line: Bytes) -> Result<(), Refusal> {
        let Start {
            method,
            target,
            old,
        } = line::start(&line[..line.len() - 2])?;
        let (before, length) = (method.len() + 1, target.len());
        self.method = Method::from_bytes(method).map_err(|_| Refusal::StartLine)?;
        line.advance(before);
        line.truncate(length);
        self.target = Uri::from_maybe_shared(line).map_err(|_| Refusal::Target)?;
        self.fields = buffer::fields();
        self.says.old = old;
        self.started = true;
        Ok(())
    }

    fn field(&mut self, mut line: Bytes) -> Result<(), Refusal> {
        let (name, value) = line::field(&line[..line.len() - 2])?;
        let (at, length) = (
            value.as_ptr() as usize - line.as_ptr() as usize,
            value.len(),
        );
        let name_length = name.len();
        let name = HeaderName::from_bytes(name).map_err(|_| Refusal::FieldName)?;
        line.advance(at);
        line.truncate(length);
        // SAFETY: no control characters but tabs, as `line::field` has seen to; that is all that the checked way asks for.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(line) };
        self.says.field(name_length, &name, &value)?;
        self.fields.append(name, value);
        Ok(())
    }

    /// The version it names.
    fn version(&self) -> Version {
        match self.says.old {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        }
    }

    /// With its body.
    pub(in crate::http) fn into_request(self, body: Body) -> Request {
        let mut request = Request::new(body);
        *request.version_mut() = self.version();
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target;
        *request.headers_mut() = self.fields;
        request
    }
}

impl Says {
    /// May the connection be used for another request (RFC 9112 section 9.3)?
    pub(in crate::http) fn is_persistent(self) -> bool {
        !self.close && (self.keep || !self.old)
    }

    /// Does a body follow?
    pub(in crate::http) fn has_body(self) -> bool {
        self.chunked || self.length.is_some_and(|length| length > 0)
    }

    /// Looks at a field, whose name is so long.
    fn field(
        &mut self,
        length: usize,
        name: &HeaderName,
        value: &HeaderValue,
    ) -> Result<(), Refusal> {
        use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
        match length {
            2 if name == TE => self.trailers |= has_token(value, "trailers"),
            6 if name == EXPECT => {
                self.expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue")
            }
            7 if name == UPGRADE => self.upgrade = true,
            10 if name == CONNECTION => {
                self.close |= has_token(value, "close");
                self.keep |= has_token(value, "keep-alive");
            }
            14 if name == CONTENT_LENGTH => return self.content_length(value.as_bytes()),
            17 if name == TRANSFER_ENCODING => return self.transfer_encoding(value.as_bytes()),
            _ => {}
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|_| digits)
            .and_then(|text| text.parse::<i64>().ok())
            .and_then(|number| u64::try_from(number).ok());
        match (
            self.length.replace(number.ok_or(Refusal::Length)?),
            self.chunked,
        ) {
            (Some(_), _) => Err(Refusal::TwoLengths),
            (None, true) => Err(Refusal::TwoFramings),
            (None, false) => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::TwoFramings);
        }
        if self.old || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Encoding);
        }
        self.chunked = true;
        Ok(())
    }
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    // Mostly it is the only one.
    value.as_bytes().eq_ignore_ascii_case(token.as_bytes())
        || tokens(value).any(|word| word.eq_ignore_ascii_case(token.as_bytes()))
}
