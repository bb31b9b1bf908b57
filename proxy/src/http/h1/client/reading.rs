//! What was read of a connection, and how much is read at once: little at first, so that most answers cost no more memory
//! than they have bytes, and much of one that keeps coming.

use crate::http::client::READ_BUFFER;
use crate::io::Io;
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// What is read at once until a read comes back full, bytes. On the stack.
const LITTLE: usize = 8 * 1024;

/// Bytes that were read and not made use of yet.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) read: BytesMut,
    /// Room that is made for a large read; 0: small ones do.
    room: usize,
}

impl Reading {
    /// Reads once; 0: the stream has ended. So many bytes are expected, if that is known.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        expected: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let expected = expected.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        match (self.room, expected) {
            (0, None) => self.poll_little(cx, io),
            (_, Some(bytes)) if bytes <= LITTLE => self.poll_little(cx, io),
            (_, Some(bytes)) => self.poll_much(cx, io, bytes.min(READ_BUFFER)),
            (room, None) => self.poll_much(cx, io, room),
        }
    }

    fn poll_little(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); LITTLE];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(io).poll_read(cx, &mut space))?;
        self.read.extend_from_slice(space.filled());
        if space.remaining() == 0 {
            self.room = 4 * LITTLE;
        }
        Poll::Ready(Ok(space.filled().len()))
    }

    fn poll_much(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < LITTLE {
            self.read.reserve(room);
        }
        let spare = self.read.capacity() - self.read.len();
        let Poll::Ready(n) = pin!(io.read_buf(&mut self.read)).poll(cx) else {
            if self.read.is_empty() {
                // Nothing is kept for what may be long in coming.
                self.read = BytesMut::new();
            }
            return Poll::Pending;
        };
        if matches!(n, Ok(n) if n == spare) {
            self.room = (self.room * 4).min(READ_BUFFER);
        }
        Poll::Ready(n)
    }
}
