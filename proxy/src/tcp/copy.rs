//! Copies two streams into each other, each direction ending by itself (half-close).
//!
//! A direction owns no buffer. It reads into one large scratch buffer of its worker thread and writes from there at once;
//! only what the other side does not take is kept, and reading waits until that is gone. So an idle connection holds
//! nothing, a busy one moves sixteen full TLS records at a time, and a slow reader holds one small piece.

use crate::io::Io;
use crate::tls::RECORD;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a direction that was idle, or whose writer is slow, reads at once.
const SMALL: usize = 4 * 1024;
/// What a busy direction reads at once.
const LARGE: usize = 16 * RECORD;
/// A page of memory.
const PAGE: usize = 4 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// The buffer, which begins in the middle of a page: see [`RECORD`] for what is copied slowly from the beginning of one.
struct Scratch {
    bytes: Box<[u8]>,
    start: usize,
}

impl Scratch {
    fn new() -> Self {
        let bytes = vec![0; LARGE + PAGE].into_boxed_slice();
        let start = (PAGE / 2).wrapping_sub(bytes.as_ptr().addr()) % PAGE;
        Self { bytes, start }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..LARGE]
    }
}

/// What bytes are copied from.
pub trait Source: AsyncRead + Unpin {
    /// Is called instead of reading while the writer takes nothing.
    fn absorb(&mut self, _: &mut Context<'_>) {}

    /// Has the other side shown that it takes us?
    fn is_proven(&self) -> bool {
        true
    }
}

impl Source for Io {
    fn absorb(&mut self, cx: &mut Context<'_>) {
        Io::absorb(self, cx);
    }

    fn is_proven(&self) -> bool {
        Io::is_proven(self)
    }
}

/// A copy that failed.
#[derive(Debug)]
pub struct Broken {
    /// At the client's end rather than at the server's.
    pub at_client: bool,
    /// How.
    pub error: io::Error,
}

/// Copies until both directions have ended, or one failed. `count` is told bytes as they move: from the client, to it; and
/// whether the server has shown that it takes us, also when only that is new.
pub async fn copy<C, S>(
    client: &mut C,
    server: &mut S,
    mut count: impl FnMut(u64, u64, bool),
) -> Result<(), Broken>
where
    C: Source + AsyncWrite,
    S: Source + AsyncWrite,
{
    let (mut up, mut down) = (Half::default(), Half::default());
    let mut proven = server.is_proven();
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get();
            let sent = up.poll(cx, client, server, scratch);
            let received = down.poll(cx, server, client, scratch);
            if up.waits_for_its_writer() {
                client.absorb(cx);
            }
            if down.waits_for_its_writer() {
                server.absorb(cx);
            }
            let moved = (
                std::mem::take(&mut up.moved),
                std::mem::take(&mut down.moved),
            );
            let news = !proven && server.is_proven();
            proven |= news;
            if news || moved != (0, 0) {
                count(moved.0, moved.1, proven);
            }
            let broken = |at_client, error| Poll::Ready(Err(Broken { at_client, error }));
            match (sent, received) {
                (Poll::Ready(Err(error)), _) => broken(up.reader_failed, error),
                (_, Poll::Ready(Err(error))) => broken(!down.reader_failed, error),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        })
    })
    .await
}

/// One direction.
struct Half {
    /// Read, and not yet taken by the writer.
    rest: Vec<u8>,
    taken: usize,
    /// How much to read at once.
    want: usize,
    /// Bytes moved since they were last counted.
    moved: u64,
    unflushed: bool,
    /// It was the reader that failed, not the writer.
    reader_failed: bool,
    state: State,
}

/// Where a direction is in its life.
enum State {
    Open,
    /// The reader ended, well or badly; the writer is to be told once it has everything.
    Ended(io::Result<()>),
    Done,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            rest: Vec::new(),
            taken: 0,
            want: 4 * SMALL,
            moved: 0,
            unflushed: false,
            reader_failed: false,
            state: State::Open,
        }
    }
}

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        r: &mut R,
        w: &mut W,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.write_rest(cx, w))?;
            match &mut self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended(Err(error)) => {
                    self.reader_failed = true;
                    return Poll::Ready(Err(std::mem::replace(error, io::ErrorKind::Other.into())));
                }
                State::Ended(Ok(())) => {
                    ready!(Pin::new(&mut *w).poll_shutdown(cx))?;
                    self.state = State::Done;
                    continue;
                }
                State::Open => {}
            }
            let (n, quiet) = self.fill(cx, r, scratch);
            ready!(self.write(cx, w, &scratch[..n]))?;
            if quiet {
                ready!(self.flush(cx, w))?;
                return Poll::Pending;
            }
        }
    }

    /// Of a direction that is not ready.
    fn waits_for_its_writer(&self) -> bool {
        !self.rest.is_empty() || self.unflushed
    }

    /// Reads until there is nothing more for now, or enough. Says how much, and whether the reader will wake us.
    fn fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        r: &mut R,
        scratch: &mut [u8],
    ) -> (usize, bool) {
        let mut buf = ReadBuf::new(&mut scratch[..self.want]);
        loop {
            let before = buf.filled().len();
            match Pin::new(&mut *r).poll_read(cx, &mut buf) {
                Poll::Pending => {
                    if before < self.want / 4 {
                        self.want = (self.want / 2).max(SMALL);
                    }
                    return (before, true);
                }
                Poll::Ready(Ok(())) if buf.filled().len() > before => {}
                Poll::Ready(end) => {
                    self.state = State::Ended(end);
                    return (before, false);
                }
            }
            if buf.remaining() == 0 {
                self.want = (self.want * 4).min(LARGE);
                return (buf.filled().len(), false);
            }
        }
    }

    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        w: &mut W,
        bytes: &[u8],
    ) -> Poll<io::Result<()>> {
        let mut written = 0;
        while written < bytes.len() {
            match Pin::new(&mut *w).poll_write(cx, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    written += n;
                    self.moved += n as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rest = bytes[written..].to_vec();
                    // What a slow reader makes us hold stays small.
                    self.want = (self.want / 4).max(4 * SMALL);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_rest<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        w: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.rest.len() {
            let n = ready!(Pin::new(&mut *w).poll_write(cx, &self.rest[self.taken..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += n;
            self.moved += n as u64;
            self.unflushed = true;
        }
        self.taken = 0;
        self.rest = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// TLS keeps records that the socket did not take; they must leave before we sleep.
    fn flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        w: &mut W,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(w).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    impl Source for DuplexStream {}

    /// The ends of a client and a server whose other ends are copied into each other; runs `talk` meanwhile.
    async fn between<F>(
        size: usize,
        talk: impl FnOnce(DuplexStream, DuplexStream) -> F,
    ) -> (Result<(), Broken>, (u64, u64))
    where
        F: Future<Output = ()>,
    {
        let (client, mut near) = duplex(size);
        let (mut far, server) = duplex(size);
        let counted = Cell::new((0, 0));
        let count = |up, down, _| counted.set((counted.get().0 + up, counted.get().1 + down));
        let (copied, ()) = tokio::join!(copy(&mut near, &mut far, count), talk(client, server));
        (copied, counted.get())
    }

    #[test]
    fn the_buffer_is_whole_and_begins_in_the_middle_of_a_page() {
        let mut scratch = Scratch::new();
        let bytes = scratch.get();
        assert_eq!(bytes.as_ptr().addr() % PAGE, PAGE / 2);
        assert_eq!(bytes.len(), LARGE);
    }

    #[tokio::test]
    async fn an_answer_still_comes_after_the_client_has_ended() {
        let (copied, counted) = between(64, |mut client, mut server| async move {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = String::new();
            server.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "question");
            server.write_all(b"the answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "the answer");
        })
        .await;
        copied.unwrap();
        assert_eq!(counted, (8, 10));
    }

    #[tokio::test]
    async fn the_server_may_end_first() {
        let (copied, _) = between(64, |mut client, mut server| async move {
            server.write_all(b"bye").await.unwrap();
            server.shutdown().await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "bye");
            client.write_all(b"more").await.unwrap();
            client.shutdown().await.unwrap();
            server.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "byemore");
        })
        .await;
        copied.unwrap();
    }

    #[tokio::test]
    async fn bulk_arrives_whole_and_in_order_through_slow_pipes() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        let expected = data.clone();
        let (copied, counted) = between(10_000, |client, server| async move {
            let (mut from_client, mut to_client) = (tokio::io::split(server).0, Vec::new());
            let (mut read, mut write) = tokio::io::split(client);
            let send = async {
                write.write_all(&data).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut arrived = Vec::new();
            let (_, received) = tokio::join!(send, from_client.read_to_end(&mut arrived));
            assert_eq!(received.unwrap(), expected.len());
            assert!(arrived == expected);
            drop(from_client);
            read.read_to_end(&mut to_client).await.unwrap();
        })
        .await;
        copied.unwrap();
        assert_eq!(counted.0, 3_000_000);
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_ends_the_copy_and_is_named() {
        for client_goes in [false, true] {
            let (copied, _) = between(64, |client, server| async move {
                let (gone, mut stays) = match client_goes {
                    true => (client, server),
                    false => (server, client),
                };
                drop(gone);
                let _ = stays.write_all(&[0; 10]).await;
            })
            .await;
            assert_eq!(copied.unwrap_err().at_client, client_goes);
        }
    }

    /// Fails when it is read, and takes what is written.
    struct Reset;

    impl Source for Reset {}

    impl AsyncRead for Reset {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn whoever_resets_is_named() {
        let (mut silent, _other) = duplex(64);
        let broken = copy(&mut Reset, &mut silent, |_, _, _| ())
            .await
            .unwrap_err();
        assert!(broken.at_client, "{broken:?}");
        let broken = copy(&mut silent, &mut Reset, |_, _, _| ())
            .await
            .unwrap_err();
        assert!(!broken.at_client, "{broken:?}");
    }
}
