//! What is to be written to an HTTP/1 connection: heads, framing and small bodies together in one buffer, large bodies as
//! they came. All of it leaves with one write where the system takes it.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Bytes waiting from which nothing more is taken in.
pub(in crate::http) const MOST_WAITING: usize = 64 * 1024;
/// Up to this size, bytes, a piece is copied behind what is there: that costs less than a slice of its own.
const SMALL: usize = 2 * 1024;
/// Most slices of one write.
const SLICES: usize = 32;
/// Room that is kept for the next message, bytes.
const KEPT: usize = 8 * 1024;

/// What is to be written, in order.
#[derive(Debug, Default)]
pub(in crate::http) struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// Behind the pieces.
    last: BytesMut,
    /// Bytes of the pieces.
    in_pieces: usize,
    /// Written, but maybe not sent yet.
    unflushed: bool,
}

impl Outgoing {
    /// Where heads and framing are appended to.
    pub(in crate::http) fn small(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    /// Appends a piece of any size.
    pub(in crate::http) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= SMALL {
            self.last.extend_from_slice(&bytes);
            return;
        }
        if !self.last.is_empty() {
            let before = self.last.split().freeze();
            self.push_piece(before);
        }
        self.push_piece(bytes);
    }

    fn push_piece(&mut self, piece: Bytes) {
        self.in_pieces += piece.len();
        self.pieces.push_back(piece);
    }

    /// Everything is written.
    pub(in crate::http) fn is_empty(&self) -> bool {
        self.in_pieces == 0 && self.last.is_empty()
    }

    /// Bytes that are still to be written.
    pub(in crate::http) fn waiting(&self) -> usize {
        self.in_pieces + self.last.len()
    }

    /// Everything is written, and on its way.
    pub(in crate::http) fn is_sent(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// No more should be added before some is written.
    pub(in crate::http) fn is_full(&self) -> bool {
        self.waiting() >= MOST_WAITING
    }

    /// Is there room already?
    pub(in crate::http) fn has_room(&self) -> bool {
        self.last.capacity() > 0
    }

    /// Is there room, and nothing else?
    pub(in crate::http) fn is_room_only(&self) -> bool {
        self.has_room() && self.is_sent()
    }

    /// Gives back the room of what was written. For a connection that rests.
    pub(in crate::http) fn release(&mut self) {
        if self.is_empty() {
            *self = Self {
                unflushed: self.unflushed,
                ..Self::default()
            };
        }
    }

    /// Writes everything, and sees to it that it is sent.
    pub(in crate::http) fn poll_write_all<W>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        if !self.pieces.is_empty() && !io.is_write_vectored() {
            self.join();
        }
        while !self.is_empty() {
            let written = ready!(self.poll_write(cx, io))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin,
    {
        let io = Pin::new(io);
        if self.pieces.is_empty() {
            return io.poll_write(cx, &self.last);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = self.pieces.iter().map(|piece| &piece[..]);
        let all = all.chain((!self.last.is_empty()).then_some(&self.last[..]));
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        io.poll_write_vectored(cx, &slices[..used])
    }

    /// Makes one piece of all, for a stream that takes no more at a time.
    fn join(&mut self) {
        let mut all = BytesMut::with_capacity(self.in_pieces + self.last.len());
        for piece in self.pieces.drain(..) {
            all.extend_from_slice(&piece);
        }
        all.extend_from_slice(&self.last);
        self.last = all;
        self.in_pieces = 0;
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let n = written.min(piece.len());
            self.in_pieces -= n;
            written -= n;
            if n < piece.len() {
                piece.advance(n);
                return;
            }
            self.pieces.pop_front();
        }
        if written < self.last.len() {
            self.last.advance(written);
        } else if self.last.capacity() <= KEPT {
            self.last.clear();
        } else {
            self.last = BytesMut::new();
        }
    }

    /// Everything that waits, in one piece.
    #[cfg(test)]
    pub(in crate::http) fn take_all(&mut self) -> Vec<u8> {
        let mut all: Vec<u8> = self.pieces.drain(..).flatten().collect();
        self.in_pieces = 0;
        all.extend_from_slice(&self.last.split());
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Takes so many bytes in one write.
    #[derive(Default)]
    struct Taking {
        most: usize,
        /// One slice at a time.
        plain: bool,
        taken: Vec<u8>,
        writes: usize,
        flushes: usize,
    }

    impl AsyncWrite for Taking {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = bytes.len().min(self.most);
            self.writes += 1;
            self.taken.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            assert!(!self.plain);
            let before = self.taken.len();
            for slice in slices {
                let room = self.most - (self.taken.len() - before);
                self.taken
                    .extend_from_slice(&slice[..slice.len().min(room)]);
            }
            self.writes += 1;
            Poll::Ready(Ok(self.taken.len() - before))
        }
        fn is_write_vectored(&self) -> bool {
            !self.plain
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(out: &mut Outgoing, most: usize, plain: bool) -> Taking {
        let mut io = Taking {
            most,
            plain,
            ..Taking::default()
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            out.poll_write_all(&mut cx, &mut io),
            Poll::Ready(Ok(()))
        ));
        assert!(out.is_empty());
        io
    }

    #[test]
    fn bytes_leave_in_order_however_they_are_taken() {
        for (most, plain) in [(7, false), (1000, false), (4096, true), (usize::MAX, false)] {
            let mut out = Outgoing::default();
            let mut expected = Vec::new();
            for (round, size) in [10, 3000, 0, 5, 2048, 2049, 70_000, 1]
                .into_iter()
                .enumerate()
            {
                let bytes = vec![b'a' + round as u8; size];
                expected.extend_from_slice(&bytes);
                out.push(bytes.into());
            }
            assert!(out.is_full());
            let io = write(&mut out, most, plain);
            assert!(io.taken == expected, "in pieces of {most}");
            assert_eq!(io.flushes, 1);
        }
    }

    #[test]
    fn a_message_is_one_write() {
        for size in [0, 10, 2000, 60_000] {
            let mut out = Outgoing::default();
            out.small().extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            out.push(vec![b'x'; size].into());
            assert_eq!(
                write(&mut out, usize::MAX, size % 3 == 1).writes,
                1,
                "{size}"
            );
        }
    }

    #[test]
    fn small_pieces_without_number_are_bounded_by_their_bytes() {
        let mut out = Outgoing::default();
        let mut pushed = 0;
        while !out.is_full() {
            out.push(Bytes::from_static(b"0123456789"));
            pushed += 1;
        }
        assert_eq!(pushed, MOST_WAITING.div_ceil(10));
        write(&mut out, usize::MAX, false);
        out.release();
        assert_eq!((out.last.capacity(), out.pieces.capacity()), (0, 0));
    }

    #[test]
    fn one_that_takes_nothing_is_an_error() {
        let mut out = Outgoing::default();
        out.push(Bytes::from_static(b"a"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let written = out.poll_write_all(&mut cx, &mut Taking::default());
        assert!(matches!(written, Poll::Ready(Err(_))));
    }
}
