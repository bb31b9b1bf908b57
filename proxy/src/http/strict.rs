//! Looks over HTTP/1 requests before the codec reads them, because the codec repairs in silence what must be refused
//! (it drops a Content-Length beside Transfer-Encoding, merges equal lengths and takes a bare LF for a line end), and
//! refuses the rest with a bare answer of its own. Also holds clients to the time a head may take, which starts with its
//! first byte, not with the silence before.
//!
//! What is refused is cut off at the offending line, and ended by a field that makes the stack answer why; in a body, by
//! bytes that make the codec's body fail.

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

pub(super) mod line;
mod scan;
#[cfg(test)]
mod tests;

use scan::MAX_LINE;
pub use scan::{MAX_FIELDS, MAX_HEAD, Place, REFUSED, Refusal, Scanned, Scanner};

/// A connection whose requests are looked over as they are read.
pub(super) struct Strict {
    io: Io,
    scanner: Scanner,
    /// Read, but not a whole line yet.
    partial: BytesMut,
    /// In order, but more than the reader asked for.
    passed: BytesMut,
    /// For the head with this number; hardly ever there, so it is to take little room.
    deadline: Option<Box<(u64, Pin<Box<Sleep>>)>>,
    head_timeout: Duration,
    refused: bool,
    /// Everything written has left.
    flushed: bool,
    signals: Signals,
}

/// What a connection, its codec's service and who drives them tell each other.
#[derive(Clone, Default)]
pub(super) struct Signals(Arc<State>);

#[derive(Default)]
struct State {
    /// The connection stops speaking HTTP.
    tunnel: AtomicBool,
    /// The codec waits for a request: nothing of one was read, and nothing of an answer is still to be written.
    waiting: AtomicBool,
    /// Something was read or written since the last look.
    stirred: AtomicBool,
}

impl Signals {
    pub(super) fn tunnel(&self) {
        self.0.tunnel.store(true, Relaxed);
    }

    /// Is the connection idle, and was it at the last look?
    pub(super) fn at_rest(&self) -> bool {
        !self.0.stirred.swap(false, Relaxed) && self.0.waiting.load(Relaxed)
    }
}

impl Strict {
    pub(super) fn new(io: Io, head_timeout: Duration, signals: Signals) -> Self {
        let (partial, passed) = Default::default();
        let scanner = Scanner::default();
        Self {
            io,
            scanner,
            partial,
            passed,
            deadline: None,
            head_timeout,
            refused: false,
            flushed: true,
            signals,
        }
    }

    /// Gives back what the codec read and made nothing of.
    pub(super) fn put_back(&mut self, unread: &[u8]) {
        let later = self.passed.split();
        self.passed.extend_from_slice(unread);
        self.passed.unsplit(later);
    }

    /// Waits until there is something to read, or an end. Only for a connection from which everything was read.
    pub(super) async fn readable(&mut self) {
        if !self.passed.is_empty() {
            return;
        }
        match self.io.tcp() {
            // An error is one for the codec to find, too.
            Some(tcp) => drop(tcp.readable().await),
            #[cfg(test)]
            None => {
                use tokio::io::AsyncReadExt;
                let mut byte = [0; 1];
                let n = self.io.read(&mut byte).await.unwrap_or(0);
                self.partial.extend_from_slice(&byte[..n]);
            }
            #[cfg(not(test))]
            None => {}
        }
    }

    /// Reads straight into the reader's buffer. `None`: nothing whole yet.
    fn read_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<()>>> {
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
        // Only its end makes a line worth another look: one that comes byte by byte is not read again for each of them.
        let ends = more.filled().contains(&b'\n');
        self.partial.extend_from_slice(more.filled());
        if ends || self.partial.len() > MAX_LINE {
            let scanned = self.scanner.scan(&self.partial);
            self.passed.unsplit(self.partial.split_to(scanned.passed));
            if let Some(refusal) = scanned.refused {
                self.refuse(refusal);
            }
        }
        Poll::Ready(Ok(true))
    }

    fn refuse(&mut self, refusal: Refusal) {
        let ending = refusal.ending(self.scanner.place());
        self.refused = true;
        self.partial = BytesMut::new();
        self.passed.extend_from_slice(ending.as_bytes());
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) {
        let in_head = match self.scanner.place() {
            Place::Between => !self.partial.is_empty(),
            Place::Head => true,
            Place::Body => false,
        };
        if !in_head || self.refused {
            self.deadline = None;
            return;
        }
        let (number, limit) = (self.scanner.head(), self.head_timeout);
        // The one before may have ended in the same read.
        self.deadline.take_if(|deadline| deadline.0 != number);
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::new((number, Box::pin(tokio::time::sleep(limit)))));
        if deadline.1.as_mut().poll(cx).is_ready() {
            self.deadline = None;
            self.refuse(Refusal::Late);
        }
    }

    /// Says whether the codec waits for a request now.
    fn note(&self, read: bool) {
        let state = &*self.signals.0;
        if read {
            state.stirred.store(true, Relaxed);
        }
        let between = self.scanner.place() == Place::Between && self.partial.is_empty();
        state
            .waiting
            .store(!read && between && self.flushed && !self.refused, Relaxed);
    }

    /// Something of an answer is on its way.
    fn wrote(&mut self) {
        self.flushed = false;
        self.signals.0.waiting.store(false, Relaxed);
        self.signals.0.stirred.store(true, Relaxed);
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.passed.len().min(buf.remaining());
        buf.put_slice(&self.passed[..n]);
        self.passed.advance(n);
        if self.passed.is_empty() {
            self.passed = BytesMut::new();
        }
    }

    fn poll_watched(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
                self.read_more(cx)
                    .map_ok(|more| !more && self.passed.is_empty())
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
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.signals.0.tunnel.load(Relaxed) {
            let read = this.poll_watched(cx, buf);
            this.note(read.is_ready());
            return read;
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
