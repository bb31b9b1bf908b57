//! One connection inside a tunnel, as a stream of bytes.

use super::client::Place;
use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of one stream.
#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Arrived, and not yet read.
    unread: Bytes,
    /// Arrived after that while nobody wanted to read.
    absorbed: BytesMut,
    /// How it ended, seen at that time.
    ended: Option<io::Result<()>>,
    /// On whose tunnel it is, where we opened it.
    place: Option<Place>,
}

impl Stream {
    /// Of a request and its answer.
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, place: Option<Place>) -> Self {
        Self {
            send,
            recv,
            unread: Bytes::new(),
            absorbed: BytesMut::new(),
            ended: None,
            place,
        }
    }

    /// Did we open it?
    pub fn is_ours(&self) -> bool {
        self.place.is_some()
    }

    /// Ends both directions at once; the other side sees a reset.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Takes in what has arrived while its reader waits for something else. Small frames that are kept one by one cost much
    /// more than their bytes, so HTTP/2 ends a whole tunnel for too many of them, whoever's they are; in one piece they
    /// cost what they are. The window, which nobody opens meanwhile, bounds it.
    pub fn absorb(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none()
            && let Poll::Ready(next) = self.recv.poll_data(cx)
        {
            match next {
                Some(Ok(data)) => self.absorbed.extend_from_slice(&data),
                Some(Err(error)) => self.ended = Some(Err(failed(error))),
                None => self.ended = Some(Ok(())),
            }
        }
    }

    /// The next piece; `None`: there are no more.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.absorbed.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.absorbed).freeze())));
        }
        // Asked again, HTTP/2 says the same again.
        if let Some(ended) = self.ended.take() {
            return Poll::Ready(ended.map(|()| None));
        }
        let next = ready!(self.recv.poll_data(cx));
        Poll::Ready(next.transpose().map_err(failed))
    }

    /// Waits for what the peer takes of us; `None`: it takes nothing any more.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(wanted);
        // Asked first: `poll_capacity` tells changes only.
        let room = self.send.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(self.send.poll_capacity(cx)) {
            Some(Ok(room)) => Poll::Ready(Ok(room)),
            Some(Err(error)) => Poll::Ready(Err(failed(error))),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.poll_piece(cx))? {
                Some(piece) => this.unread = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..n]);
        this.unread.advance(n);
        if this.unread.is_empty() {
            // It is a piece of a larger buffer, which would be kept for it.
            this.unread = Bytes::new();
        }
        // The peer may send as much again. Refused only where the stream has ended.
        let _ = this.recv.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        let n = ready!(this.poll_room(cx, buf.len()))?.min(buf.len());
        let data = Bytes::copy_from_slice(&buf[..n]);
        this.send.send_data(data, false).map_err(failed)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The tunnel writes what it has before it sleeps.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream that was reset has nothing to end; whoever reads is told.
        let _ = self.send.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}

fn failed(error: h2::Error) -> io::Error {
    let kind = match error.is_io() {
        true => io::ErrorKind::BrokenPipe,
        false => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}
