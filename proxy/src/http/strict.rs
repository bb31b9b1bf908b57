//! Looks over HTTP/1 requests before the codec reads them, because the codec repairs in silence what must be refused:
//! it drops a Content-Length beside Transfer-Encoding, merges equal lengths and takes a bare LF for a line end. Also
//! holds clients to the time a head may take, which starts with its first byte, not with the silence before.
//!
//! What is refused is cut off at the offending line, and ended by a field that makes the stack answer why.

use crate::io::Io;
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Name of the field that carries a [`Refusal`] to the stack. Whoever else sends it refuses only themselves.
pub const REFUSED: &str = "weft-refused";

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A line ends without CR.
    BareLf,
    /// A field goes on in the next line.
    Folded,
    /// Something between the name of a field and its colon, or no colon at all.
    FieldName,
    /// Content-Length and Transfer-Encoding.
    TwoFramings,
    /// More than one Content-Length.
    TwoLengths,
    /// A Content-Length that is not a number.
    Length,
    /// The head took too long.
    Late,
}

impl Refusal {
    const ALL: [Refusal; 7] = {
        use Refusal::*;
        [BareLf, Folded, FieldName, TwoFramings, TwoLengths, Length, Late]
    };

    /// As the value of [`REFUSED`] says it.
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let digit = value.first()?.checked_sub(b'0')?;
        Self::ALL.get(usize::from(digit)).copied()
    }

    /// A sentence for the client.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::BareLf => "a line of the head ends without CR",
            Refusal::Folded => "a header field is folded over several lines",
            Refusal::FieldName => "a header field has no proper name",
            Refusal::TwoFramings => "both Content-Length and Transfer-Encoding",
            Refusal::TwoLengths => "more than one Content-Length",
            Refusal::Length => "Content-Length is not a number",
            Refusal::Late => "the head was not finished in time",
        }
    }

    /// What ends the head in place of what was refused.
    fn ending(self, begun: bool) -> String {
        let start = if begun { "" } else { "GET / HTTP/1.1\r\nhost: refused\r\n" };
        format!("{start}{REFUSED}: {}\r\n\r\n", self as u8)
    }
}

/// Follows the framing of requests. Pure; fed in pieces of any size.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests, or in a head whose first line was seen.
    Head { begun: bool },
    Body(u64),
    ChunkSize,
    /// Its line end included.
    ChunkData(u64),
    Trailers,
    /// The codec will see for itself.
    Unwatched,
}

impl Default for State {
    fn default() -> Self {
        State::Head { begun: false }
    }
}

/// What a piece turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes are in order; what follows is an unfinished line, or refused.
    pub passed: usize,
    /// Why the rest is refused.
    pub refused: Option<Refusal>,
}

impl Scanner {
    /// Looks at the next bytes; those after `passed` are to be shown again, with more behind them.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Unwatched => at = bytes.len(),
                State::Body(left) | State::ChunkData(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= taken as u64;
                    at += taken;
                    self.after_data();
                }
                _ => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
                    if let Err(refused) = self.line(&rest[..end]) {
                        return Scanned { passed: at, refused: Some(refused) };
                    }
                    at += end + 1;
                }
            }
        }
        Scanned { passed: at, refused: None }
    }

    /// Is a head under way?
    pub fn in_head(&self) -> bool {
        self.state == State::Head { begun: true }
    }

    fn between(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    fn after_data(&mut self) {
        match self.state {
            State::Body(0) => self.state = State::default(),
            State::ChunkData(0) => self.state = State::ChunkSize,
            _ => {}
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(line) = line.strip_suffix(b"\r") else {
            return if self.between() { Err(Refusal::BareLf) } else { self.unwatch() };
        };
        match self.state {
            State::Head { begun: false } => self.state = State::Head { begun: !line.is_empty() },
            State::Head { begun: true } if line.is_empty() => self.head_ended(),
            State::Head { begun: true } => self.field(line)?,
            State::ChunkSize => self.chunk(line)?,
            State::Trailers if line.is_empty() => self.state = State::default(),
            _ => {}
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Refusal::Folded);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::FieldName)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.ends_with(b" ") || name.ends_with(b"\t") {
            return Err(Refusal::FieldName);
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.chunked = true;
                if self.length.is_some() { Err(Refusal::TwoFramings) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match (self.length.replace(number.ok_or(Refusal::Length)?), self.chunked) {
            (Some(_), _) => Err(Refusal::TwoLengths),
            (None, true) => Err(Refusal::TwoFramings),
            (None, false) => Ok(()),
        }
    }

    fn head_ended(&mut self) {
        self.state = match (std::mem::take(&mut self.chunked), self.length.take()) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Body(length),
            _ => State::default(),
        };
    }

    /// Chunks are judged by the codec; here they are only followed.
    fn chunk(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let size = std::str::from_utf8(&line[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        self.state = match size {
            Some(0) => State::Trailers,
            Some(size) if size < u64::MAX - 2 => State::ChunkData(size + 2),
            _ => State::Unwatched,
        };
        Ok(())
    }

    fn unwatch(&mut self) -> Result<(), Refusal> {
        self.state = State::Unwatched;
        Ok(())
    }
}

/// A connection whose requests are looked over as they are read.
pub(super) struct Strict {
    io: Io,
    scanner: Scanner,
    /// Read, but not a whole line yet.
    partial: BytesMut,
    /// In order, but more than the reader asked for.
    passed: BytesMut,
    deadline: Option<Pin<Box<Sleep>>>,
    head_timeout: Duration,
    most_partial: usize,
    refused: bool,
    tunnel: Tunnel,
}

/// Set when the connection stops speaking HTTP.
#[derive(Clone, Default)]
pub(super) struct Tunnel(Arc<AtomicBool>);

impl Tunnel {
    pub(super) fn open(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Strict {
    pub(super) fn new(io: Io, head_timeout: Duration, most_partial: usize, tunnel: Tunnel) -> Self {
        let (partial, passed) = Default::default();
        let scanner = Scanner::default();
        Self { io, scanner, partial, passed, deadline: None, head_timeout, most_partial, refused: false, tunnel }
    }

    /// Reads straight into the reader's buffer. `None`: nothing whole yet.
    fn read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Option<()>>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            return Poll::Ready(Ok(Some(())));
        }
        let scanned = self.scanner.scan(&buf.filled()[before..]);
        let passed = before + scanned.passed;
        if scanned.refused.is_none() {
            self.partial.extend_from_slice(&buf.filled()[passed..]);
        }
        buf.set_filled(passed);
        if let Some(refusal) = scanned.refused {
            self.refuse(refusal);
        }
        Poll::Ready(Ok((scanned.passed > 0).then_some(())))
    }

    /// Reads more of an unfinished line. `false`: the connection has ended.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut chunk = [0; 4096];
        let mut more = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
        if more.filled().is_empty() {
            // The codec knows what to say about half a head.
            self.passed.unsplit(self.partial.split());
            return Poll::Ready(Ok(false));
        }
        self.partial.extend_from_slice(more.filled());
        let scanned = self.scanner.scan(&self.partial);
        self.passed.unsplit(self.partial.split_to(scanned.passed));
        if let Some(refusal) = scanned.refused {
            self.refuse(refusal);
        } else if self.partial.len() > self.most_partial {
            // The codec refuses heads of this size.
            self.scanner.state = State::Unwatched;
            self.passed.unsplit(self.partial.split());
        }
        Poll::Ready(Ok(true))
    }

    fn refuse(&mut self, refusal: Refusal) {
        let ending = refusal.ending(self.scanner.in_head());
        self.refused = true;
        self.partial = BytesMut::new();
        self.passed.extend_from_slice(ending.as_bytes());
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) {
        let in_head = self.scanner.in_head() || (self.scanner.between() && !self.partial.is_empty());
        if !in_head || self.refused {
            self.deadline = None;
            return;
        }
        let limit = self.head_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if deadline.as_mut().poll(cx).is_ready() {
            self.deadline = None;
            self.refuse(Refusal::Late);
        }
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.passed.len().min(buf.remaining());
        buf.put_slice(&self.passed[..n]);
        self.passed.advance(n);
        if self.passed.is_empty() {
            self.passed = BytesMut::new();
        }
    }

    fn poll_watched(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.passed.is_empty() {
                self.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            if self.refused {
                // Nothing after it is read: the connection ends with the answer.
                return Poll::Pending;
            }
            let read = if self.partial.is_empty() {
                self.read_through(cx, buf).map_ok(|whole| whole.is_some())
            } else {
                self.read_more(cx).map_ok(|more| !more && self.passed.is_empty())
            };
            match read {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.keep_time(cx);
                    if self.passed.is_empty() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncRead for Strict {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.tunnel.0.load(Relaxed) {
            return this.poll_watched(cx, buf);
        }
        if !this.partial.is_empty() {
            this.passed.unsplit(this.partial.split());
        }
        if !this.passed.is_empty() {
            this.hand_over(buf);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Strict {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans in pieces of `size`; gives back what passed, and the refusal.
    fn scan(input: &[u8], size: usize) -> (usize, Option<Refusal>) {
        let mut scanner = Scanner::default();
        let (mut passed, mut seen) = (0, 0);
        while seen < input.len() {
            seen = (seen + size).min(input.len());
            let scanned = scanner.scan(&input[passed..seen]);
            passed += scanned.passed;
            if scanned.refused.is_some() {
                return (passed, scanned.refused);
            }
        }
        (passed, None)
    }

    #[test]
    fn well_formed_requests_pass_in_pieces_of_any_size() {
        let inputs: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\ncGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ];
        for input in inputs {
            for size in 1..=input.len() {
                assert_eq!(scan(input, size), (input.len(), None), "{} by {size}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn what_the_codec_would_repair_is_refused_at_its_line() {
        let rows: [(&[u8], &[u8], Refusal); 10] = [
            (b"GET / HTTP/1.1\r\n", b"host: a\n\r\n", Refusal::BareLf),
            (b"", b"GET / HTTP/1.1\nhost: a\r\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nhost: a\r\n", b" b\r\n\r\n", Refusal::Folded),
            (b"GET / HTTP/1.1\r\n", b"host : a\r\n\r\n", Refusal::FieldName),
            (b"GET / HTTP/1.1\r\n", b"host\r\n\r\n", Refusal::FieldName),
            (b"P / HTTP/1.1\r\nContent-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n\r\n", Refusal::TwoFramings),
            (b"P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n", b"content-length: 3\r\n\r\n", Refusal::TwoFramings),
            (b"P / HTTP/1.1\r\ncontent-length: 3\r\n", b"content-length: 3\r\n\r\n", Refusal::TwoLengths),
            (b"P / HTTP/1.1\r\n", b"content-length: 3, 3\r\n\r\n", Refusal::Length),
            (b"P / HTTP/1.1\r\ncontent-length: 1\r\n\r\nxG / HTTP/1.1\r\n", b"a: b\n\r\n", Refusal::BareLf),
        ];
        for (good, bad, refusal) in rows {
            let input = [good, bad].concat();
            for size in 1..=input.len() {
                assert_eq!(scan(&input, size), (good.len(), Some(refusal)), "{} by {size}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn a_refusal_survives_its_way_through_a_field() {
        for refusal in Refusal::ALL {
            let ending = refusal.ending(true);
            let value = ending.trim_end().rsplit_once(' ').map(|(_, value)| value.as_bytes());
            assert_eq!(value.and_then(Refusal::from_value), Some(refusal));
        }
        assert_eq!(Refusal::from_value(b"9"), None);
        assert_eq!(Refusal::from_value(b""), None);
    }
}
