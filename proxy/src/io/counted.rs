//! A stream whose bytes are counted as they pass its socket, and its life if the proxy opened it. Two relaxed additions
//! beside each system call.

use super::{Io, writes_through};
use crate::metrics::{ConnectionMetrics, OpenConnection};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// A stream and what it is counted on.
#[derive(Debug)]
pub struct Counted {
    pub(super) io: Io,
    metrics: Arc<ConnectionMetrics>,
    /// Ends with the stream, wherever that is by then: in a pool, a codec, or a tunnel.
    _open: Option<OpenConnection>,
}

impl Io {
    /// Counts bytes from here on.
    pub fn counted(self, metrics: Arc<ConnectionMetrics>) -> Self {
        Io::Counted(Box::new(Counted {
            io: self,
            metrics,
            _open: None,
        }))
    }

    /// Counts bytes from here on, and as open until it is dropped.
    pub fn counted_as(self, open: OpenConnection) -> Self {
        Io::Counted(Box::new(Counted {
            io: self,
            metrics: open.metrics().clone(),
            _open: Some(open),
        }))
    }
}

impl Counted {
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = written {
            self.metrics.bytes(0, *n as u64);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.metrics.bytes((buf.filled().len() - before) as u64, 0);
        }
        read
    }
}

writes_through!(Counted, io, wrote);
