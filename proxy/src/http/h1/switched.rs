//! A connection that has stopped speaking HTTP.

use crate::io::{Io, writes_through};
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// The socket, and what was read of it before it switched.
#[derive(Debug)]
pub(in crate::http) struct Switched {
    ahead: BytesMut,
    io: Io,
}

impl Switched {
    /// `ahead` is read first.
    pub(in crate::http) fn new(ahead: BytesMut, io: Io) -> Self {
        Self { ahead, io }
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let n = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..n]);
        this.ahead.advance(n);
        if this.ahead.is_empty() {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Switched, io);
