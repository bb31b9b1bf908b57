//! The byte streams the proxy works with, as one type, so that nothing above is generic over its transport.

mod counted;
mod through;

pub use counted::Counted;
pub(crate) use through::writes_through;

use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connected stream: plain, plain with bytes that detection already read, or TLS in either role.
#[derive(Debug)]
pub enum Io {
    /// A socket.
    Tcp(TcpStream),
    /// A socket whose first bytes were read already.
    Prefixed(ReadAhead),
    /// TLS, we are the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<ReadAhead>>),
    /// TLS, we are the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<ReadAhead>>),
    /// A stream of a tunnel.
    Stream(Box<crate::tunnel::Stream>),
    /// Any of these, with its bytes counted.
    Counted(Box<Counted>),
    /// An in-memory pipe.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// A socket and bytes that were read from it before its reader asked: by detection, or ahead of need.
///
/// rustls asks for 4 KiB at a time. While those reads come back full the connection is busy, and one large read ahead
/// replaces sixteen small ones; when it goes quiet the buffer is given back.
#[derive(Debug)]
pub struct ReadAhead {
    ahead: BytesMut,
    busy: bool,
    tcp: TcpStream,
}

/// What is read at once while a connection is busy.
const LARGE_READ: usize = 64 * 1024;

impl ReadAhead {
    /// Nothing was read yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self::with_prefix(BytesMut::new(), tcp)
    }

    /// `prefix` is read first, then `tcp`.
    pub fn with_prefix(prefix: BytesMut, tcp: TcpStream) -> Self {
        Self {
            ahead: prefix,
            busy: false,
            tcp,
        }
    }

    /// Reads straight into the caller's buffer, and notes whether that filled it.
    fn read_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.busy = read.is_ready() && buf.remaining() == 0 && buf.filled().len() > before;
        read
    }

    /// Reads a large piece; less than a caller's worth ends the busy time.
    fn read_ahead(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<()>> {
        self.ahead.reserve(LARGE_READ);
        let read = std::task::ready!(append_read(&mut self.tcp, cx, &mut self.ahead));
        self.busy = self.ahead.len() > wanted;
        Poll::Ready(read)
    }
}

/// Appends one read to `into`, without zeroing it first.
fn append_read(
    tcp: &mut TcpStream,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<()>> {
    use tokio::io::AsyncReadExt;
    let read = std::pin::pin!(tcp.read_buf(into));
    read.poll(cx).map_ok(|_| ())
}

impl Io {
    /// The socket below.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Io::Tcp(tcp) => Some(tcp),
            Io::Prefixed(p) => Some(&p.tcp),
            Io::TlsServer(tls) => Some(&tls.get_ref().0.tcp),
            Io::TlsClient(tls) => Some(&tls.get_ref().0.tcp),
            Io::Counted(counted) => counted.io.tcp(),
            Io::Stream(_) => None,
            #[cfg(test)]
            Io::Memory(_) => None,
        }
    }

    /// Is it mutual TLS that we opened?
    pub fn is_mutual(&self) -> bool {
        match self {
            Io::TlsClient(_) => true,
            Io::Stream(stream) => stream.is_ours(),
            Io::Counted(counted) => counted.io.is_mutual(),
            _ => false,
        }
    }

    /// Has the other side shown that it takes us? The handshake of a client is over before the server judges its
    /// certificate (RFC 8446 section 4.4); session tickets come after that.
    pub fn is_proven(&self) -> bool {
        match self {
            Io::TlsClient(tls) => tls.get_ref().1.tls13_tickets_received() > 0,
            Io::Counted(counted) => counted.io.is_proven(),
            _ => true,
        }
    }

    /// Takes in what has arrived for a reader that waits for something else, where that would cost others.
    pub fn absorb(&mut self, cx: &mut Context<'_>) {
        match self {
            Io::Stream(stream) => stream.absorb(cx),
            Io::Counted(counted) => counted.io.absorb(cx),
            _ => {}
        }
    }

    /// Dropping the stream from now on resets the connection instead of ending it.
    pub fn reset_on_drop(&mut self) {
        if let Io::Stream(stream) = self {
            stream.reset();
        }
        if let Some(tcp) = self.tcp() {
            let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl From<TcpStream> for Io {
    fn from(tcp: TcpStream) -> Self {
        Io::Tcp(tcp)
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if !this.busy || buf.remaining() >= LARGE_READ {
                return this.read_through(cx, buf);
            }
            match this.read_ahead(cx, buf.remaining()) {
                Poll::Ready(Ok(())) => {}
                other => {
                    // Quiet, or over: nothing is kept for it.
                    this.ahead = BytesMut::new();
                    return other;
                }
            }
        }
        let n = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..n]);
        this.ahead.advance(n);
        if this.ahead.is_empty() && !this.busy {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(ReadAhead, tcp);

/// Calls the same method of whatever `self` is.
macro_rules! each {
    ($this:expr, $io:ident => $call:expr) => {
        match $this {
            Io::Tcp($io) => $call,
            Io::Prefixed($io) => $call,
            Io::TlsServer($io) => $call,
            Io::TlsClient($io) => $call,
            Io::Stream($io) => $call,
            Io::Counted($io) => $call,
            #[cfg(test)]
            Io::Memory($io) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
