//! Room for what is read, lent to a connection only while something is under way: most connections are idle most of the
//! time, and then hold none. Each thread keeps a few buffers and maps of fields for the next that needs one; the same for
//! what is written.

use super::super::client::READ_BUFFER;
use super::outgoing::Outgoing;
use crate::footprint;
use crate::io::Io;
use bytes::BytesMut;
use http::HeaderMap;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncReadExt;

/// Bytes a buffer has at first.
pub(in crate::http) const FIRST: usize = 8 * 1024;
/// With less room than this, bytes, nothing is read.
const LEAST: usize = 1024;
/// How many of each a thread keeps.
const KEPT: usize = 4;
/// Fields that a map which is kept has room for, at most.
const MOST_FIELDS: usize = 64;

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

#[derive(Default)]
struct Spare {
    buffers: Vec<BytesMut>,
    maps: Vec<HeaderMap>,
    outgoing: Vec<Outgoing>,
    /// Buffers that are lent.
    lent: usize,
    /// Some were let go since all of them were last here.
    let_go: bool,
}

/// What was read of one connection and not used yet. It holds a buffer only while there is something in it, or until
/// [`Self::rest`] is told that nothing is under way.
#[derive(Debug, Default)]
pub(in crate::http) struct ReadBuffer {
    bytes: BytesMut,
    lent: bool,
    /// Bytes to be read at once.
    room: usize,
}

impl ReadBuffer {
    /// What was read.
    pub(in crate::http) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Was nothing read that was not used?
    pub(in crate::http) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads once; 0: the other side has ended. More is read at once while reads come back full.
    pub(in crate::http) fn poll_read(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let before = self.bytes.len();
        let room = self.bytes.capacity() - before;
        let read = pin!(io.read_buf(&mut self.bytes));
        let n = ready!(read.poll(cx))?;
        if n == room {
            self.room = (2 * self.room).min(READ_BUFFER);
        } else if n < self.room / 4 {
            self.room = (self.room / 2).max(FIRST);
        }
        Poll::Ready(Ok(n))
    }

    fn make_room(&mut self) {
        if !self.lent {
            self.lent = true;
            self.room = FIRST;
            let spare = take();
            // Bytes that are there came from elsewhere: they are few.
            let already = std::mem::replace(&mut self.bytes, spare);
            self.bytes.extend_from_slice(&already);
        }
        if self.bytes.capacity() - self.bytes.len() < (self.room / 4).max(LEAST) {
            self.bytes.reserve(self.room);
        }
    }

    /// Nothing is under way: the room is given back, unless there is something in it.
    pub(in crate::http) fn rest(&mut self) {
        if self.lent && self.bytes.is_empty() {
            self.lent = false;
            give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Takes out what was read.
    pub(in crate::http) fn take(&mut self) -> BytesMut {
        let bytes = std::mem::take(&mut self.bytes);
        if std::mem::take(&mut self.lent) {
            returned();
        }
        bytes
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.bytes.clear();
        self.rest();
    }
}

/// A buffer of at least [`FIRST`] bytes.
fn take() -> BytesMut {
    let spare = with(|spare| {
        spare.lent += 1;
        spare.buffers.pop()
    });
    spare
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(FIRST))
}

/// Keeps the buffer if it is no larger than a new one, and nobody holds bytes of it.
fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    let fits = buffer.try_reclaim(FIRST) && buffer.capacity() == FIRST;
    with(|spare| match fits && spare.buffers.len() < KEPT {
        true => spare.buffers.push(buffer),
        false => spare.let_go = true,
    });
    returned();
}

/// Memory is asked to be given back where a thread has nothing under way; elsewhere the next needs it at once.
fn returned() {
    let left = with(|spare| {
        spare.lent = spare.lent.saturating_sub(1);
        spare.lent == 0 && std::mem::take(&mut spare.let_go)
    });
    if left == Some(true) {
        footprint::left_behind();
    }
}

/// A map without fields.
pub(in crate::http) fn fields() -> HeaderMap {
    with(|spare| spare.maps.pop()).flatten().unwrap_or_default()
}

/// Keeps the room of a map that has been written or read.
pub(in crate::http) fn give_back_fields(mut fields: HeaderMap) {
    if fields.capacity() == 0 || fields.capacity() > MOST_FIELDS {
        return;
    }
    // Before the borrow: values may be of any origin.
    fields.clear();
    with(|spare| {
        if spare.maps.len() < KEPT {
            spare.maps.push(fields);
        }
    });
}

/// Room for what is written.
pub(in crate::http) fn outgoing() -> Outgoing {
    with(|spare| spare.outgoing.pop())
        .flatten()
        .unwrap_or_default()
}

/// Takes the room of what was written, if all of it was.
pub(in crate::http) fn give_back_outgoing(out: &mut Outgoing) {
    if out.is_room_only() {
        let out = std::mem::take(out);
        with(|spare| {
            if spare.outgoing.len() < KEPT {
                spare.outgoing.push(out);
            }
        });
    }
}

/// `None`: the thread ends.
fn with<T>(look: impl FnOnce(&mut Spare) -> T) -> Option<T> {
    SPARE.try_with(|spare| look(&mut spare.borrow_mut())).ok()
}

/// Buffers that connections of this thread hold.
#[cfg(test)]
pub(in crate::http) fn lent() -> usize {
    with(|spare| spare.lent).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncWriteExt, duplex};

    async fn read(buffer: &mut ReadBuffer, io: &mut Io) -> usize {
        poll_fn(|cx| buffer.poll_read(io, cx)).await.unwrap()
    }

    #[tokio::test]
    async fn a_connection_at_rest_holds_no_buffer() {
        let (ours, mut theirs) = duplex(1 << 20);
        let (mut io, mut buffer) = (Io::Memory(ours), ReadBuffer::default());
        let before = lent();
        for _ in 0..3 {
            let idle = futures_util::poll!(poll_fn(|cx| buffer.poll_read(&mut io, cx)));
            assert!(idle.is_pending());
            buffer.rest();
            assert_eq!((lent(), buffer.bytes.capacity()), (before, 0));
            theirs.write_all(b"hello").await.unwrap();
            assert_eq!(read(&mut buffer, &mut io).await, 5);
            buffer.rest();
            assert_eq!((lent(), &buffer.bytes[..]), (before + 1, &b"hello"[..]));
            drop(buffer.bytes().split_to(5).freeze());
            buffer.rest();
            assert_eq!(lent(), before);
        }
    }

    #[tokio::test]
    async fn more_is_read_at_once_while_reads_come_back_full() {
        let (ours, mut theirs) = duplex(1 << 20);
        let (mut io, mut buffer) = (Io::Memory(ours), ReadBuffer::default());
        theirs.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
        let mut sizes = Vec::new();
        for _ in 0..6 {
            sizes.push(read(&mut buffer, &mut io).await);
            // Held by nobody: the same room again.
            buffer.bytes().clear();
        }
        assert_eq!(sizes[0], FIRST);
        assert!(sizes.is_sorted(), "{sizes:?}");
        assert!(*sizes.last().unwrap() >= READ_BUFFER / 2, "{sizes:?}");
        buffer.rest();
        with(|spare| assert!(spare.buffers.iter().all(|kept| kept.capacity() == FIRST)));
    }

    #[test]
    fn room_for_writing_is_used_again_when_all_was_written() {
        let mut out = outgoing();
        out.push(bytes::Bytes::from_static(b"a"));
        give_back_outgoing(&mut out);
        assert!(!out.is_empty());
        out.take_all();
        out.small().reserve(1);
        give_back_outgoing(&mut out);
        assert!(!out.has_room() && outgoing().has_room() && !outgoing().has_room());
    }

    #[test]
    fn a_map_is_used_again_without_its_fields() {
        let mut map = HeaderMap::with_capacity(8);
        map.insert("a", http::HeaderValue::from_static("b"));
        give_back_fields(map);
        let map = fields();
        assert!(map.is_empty() && map.capacity() >= 8);
        give_back_fields(HeaderMap::with_capacity(1000));
        assert!(fields().capacity() < 1000);
    }
}
