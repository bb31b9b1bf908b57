//! Holds HTTP/2 clients to the time a head may take. The codec bounds the size of a head, not its life: one whose last
//! CONTINUATION never comes would keep its connection, and every stream on it, for ever.

use crate::io::{Io, writes_through};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

#[cfg(test)]
mod tests;

/// What the client sends before its first frame (RFC 9113 section 3.4), bytes.
const PREFACE: u32 = 24;
/// Bytes before the payload of a frame (section 4.1).
const FRAME_HEAD: usize = 9;
/// Types of the frames that carry a head.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Flag of the last one.
const END_HEADERS: u8 = 4;

/// What the codec's error says when we ended a connection; it keeps nothing else of ours.
const LATE: &str = "the head of a request took too long";

/// A connection whose heads are timed as they are read.
pub(super) struct Timed {
    io: Io,
    frames: Frames,
    /// For the head with this number.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
    limit: Duration,
}

/// Follows the frames that pass by. Pure; it looks at 9 bytes of each and keeps none of the rest.
#[derive(Debug)]
pub struct Frames {
    head: [u8; FRAME_HEAD],
    /// Bytes of `head` that are there.
    have: usize,
    /// Payload (or preface) that has not passed yet.
    left: u32,
    /// What passes is part of a head. From the start: the preface and the first frame have the same time.
    in_head: bool,
    /// The payload that passes is the last of a head.
    last: bool,
    /// Heads that are complete.
    complete: u64,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            head: [0; FRAME_HEAD],
            have: 0,
            left: PREFACE,
            in_head: true,
            last: false,
            complete: 0,
        }
    }
}

impl Frames {
    /// Looks at what was read next.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n =
                    usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                bytes = &bytes[n..];
                // Not more than `left`.
                self.left -= n as u32;
            } else {
                let n = (FRAME_HEAD - self.have).min(bytes.len());
                self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                self.have += n;
                bytes = &bytes[n..];
                if self.have == FRAME_HEAD {
                    self.begin();
                }
            }
            if self.left == 0 && self.last {
                self.last = false;
                self.in_head = false;
                self.complete += 1;
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.have = 0;
        self.left = u32::from_be_bytes([0, a, b, c]);
        let head = matches!(kind, HEADERS | CONTINUATION);
        // The first frame of a connection ends what the preface began, whatever it is.
        let first = self.complete == 0 && !head;
        self.last = first || (head && flags & END_HEADERS != 0);
        self.in_head |= head;
    }

    /// Has a head begun (or the connection) that is not complete? Its number.
    pub fn unfinished(&self) -> Option<u64> {
        self.in_head.then_some(self.complete)
    }
}

impl Timed {
    pub(super) fn new(io: Io, limit: Duration) -> Self {
        Self {
            io,
            frames: Frames::default(),
            deadline: None,
            limit,
        }
    }

    /// Nothing more is there to be read.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(number) = self.frames.unfinished() else {
            self.deadline = None;
            return Poll::Pending;
        };
        if self.deadline.as_ref().is_none_or(|(of, _)| *of != number) {
            self.deadline = Some((number, Box::pin(tokio::time::sleep(self.limit))));
        }
        if let Some((_, deadline)) = &mut self.deadline {
            ready!(deadline.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, LATE)))
    }
}

/// Did the connection end because a head took too long?
pub(super) fn is_late(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::TimedOut && io.to_string() == LATE;
        }
        cause = error.source();
    }
    false
}

impl AsyncRead for Timed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                read?;
                this.frames.pass(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => this.keep_time(cx),
        }
    }
}

writes_through!(Timed, io);
