//! A client's connection, as its loop and the body of the request that it reads share it: the body takes what it needs
//! straight from the socket, in whichever task it is read.

use super::buffer::ReadBuffer;
use super::decode::{Broken, Decoded, Decoder, Malformed};
use crate::error::{Error, ErrorKind};
use crate::footprint;
use crate::io::Io;
use bytes::BytesMut;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

/// One connection.
pub(super) struct Wire {
    /// `None`: its loop has ended, or it speaks another protocol now.
    io: Option<Io>,
    read: ReadBuffer,
    /// The client has sent everything it will send.
    ended: bool,
    upload: Upload,
    /// Told when the body has ended that another task reads, or when it wants something.
    looper: Option<Waker>,
    /// Whoever waits for more of the body; a socket that is let go of wakes nobody.
    reader: Option<Waker>,
    /// It was at rest before.
    rested: bool,
}

/// What is known about the body of the request.
#[derive(Debug)]
pub(super) enum Upload {
    /// All of it was read, or there is none.
    Complete,
    /// Somebody reads it, or will.
    Live(Decoder, Go),
    /// Nobody will read the rest.
    Abandoned(Decoder, Go),
    /// There will be no more of it.
    Broken,
}

/// Does the client wait to be told to go on (RFC 9110 section 10.1.1)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    /// It does not, or has been told.
    On,
    /// It waits.
    Waits,
    /// It is to be told now.
    Tell,
}

/// The body of a request, read from its client's connection.
pub(in crate::http) struct Asked {
    wire: Arc<Mutex<Wire>>,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    /// Nothing more is read.
    over: bool,
}

impl Wire {
    pub(super) fn new(io: Io) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            io: Some(io),
            read: ReadBuffer::default(),
            ended: false,
            upload: Upload::Complete,
            looper: None,
            reader: None,
            rested: false,
        }))
    }

    /// The socket; an error once it is gone.
    pub(super) fn io(&mut self) -> io::Result<&mut Io> {
        self.io.as_mut().ok_or_else(gone)
    }

    /// What was read and not used.
    pub(super) fn read(&mut self) -> &mut BytesMut {
        self.read.bytes()
    }

    pub(super) fn upload(&mut self) -> &mut Upload {
        &mut self.upload
    }

    /// Reads more; 0: there is no more.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let io = self.io.as_mut().ok_or_else(gone)?;
        let n = match ready!(self.read.poll_read(io, cx)) {
            // TLS that ends without saying so: what came before is whole or not by its own measure.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read?,
        };
        self.ended = n == 0;
        Poll::Ready(Ok(n))
    }

    /// While an answer is due: looks whether the client is still there. What it sends meanwhile is kept, one read of it. An
    /// end is none: who has asked everything still wants its answer.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while matches!(self.upload, Upload::Complete) && self.read.is_empty() && !self.ended {
            match self.poll_read(cx) {
                Poll::Ready(read) => read.map(drop)?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Begins to read the body of a request.
    pub(super) fn ask(this: &Arc<Mutex<Self>>, decoder: Decoder, go: Go) -> Asked {
        let left = decoder.size_hint().exact();
        this.lock().upload = Upload::Live(decoder, go);
        Asked {
            wire: this.clone(),
            left,
            over: false,
        }
    }

    /// Wakes this task when the body ends in another one.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>) {
        if matches!(self.upload, Upload::Live(..))
            && !self
                .looper
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.looper = Some(cx.waker().clone());
        }
    }

    /// Is the client to be told to go on? Only once.
    pub(super) fn tells(&mut self) -> bool {
        if let Upload::Live(_, go @ Go::Tell) | Upload::Abandoned(_, go @ Go::Tell) =
            &mut self.upload
        {
            *go = Go::On;
            return true;
        }
        false
    }

    /// Takes out of what was read what belongs to a body that nobody wants. `None`: there is more to come; else how many
    /// bytes that were.
    pub(super) fn discard(&mut self) -> (usize, bool) {
        let mut size = 0;
        while let Upload::Abandoned(decoder, _) = &mut self.upload {
            match decoder.decode(self.read.bytes()) {
                Ok(Decoded::Data(data)) => size += data.len(),
                Ok(Decoded::Trailers(_)) => {}
                Ok(Decoded::More) => return (size, false),
                Ok(Decoded::End) => self.upload = Upload::Complete,
                Err(Malformed) => self.upload = Upload::Broken,
            }
        }
        (size, true)
    }

    /// Nothing is under way.
    pub(super) fn rest(&mut self) {
        self.read.rest();
        // What opening it took, its handshake above all.
        if !std::mem::replace(&mut self.rested, true) {
            footprint::left_behind();
        }
    }

    /// Takes the socket, and what was read of it.
    pub(super) fn take(&mut self) -> Option<(Io, BytesMut)> {
        let io = self.io.take()?;
        Some((io, self.read.take()))
    }

    /// Lets go of everything, whoever else still has the connection; who is given back waits for it, and is to be woken.
    pub(super) fn close(&mut self) -> Option<Waker> {
        self.upload = Upload::Broken;
        drop(self.take());
        self.reader.take()
    }

    /// The body that somebody read has come to this; whoever listens is to know.
    fn becomes(&mut self, upload: Upload) -> Option<Waker> {
        self.upload = upload;
        self.reader = None;
        self.looper.take()
    }

    /// The next piece of the body, as [`Asked`] wants it.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        loop {
            let Upload::Live(decoder, go) = &mut self.upload else {
                return Poll::Ready(Err(Error::new(ErrorKind::ClientGone)));
            };
            let decoded = decoder.decode(self.read.bytes()).map_err(malformed)?;
            if !matches!(decoded, Decoded::More) {
                return Poll::Ready(Ok(decoded));
            }
            if *go == Go::Waits {
                *go = Go::Tell;
                // Its loop writes that.
                if let Some(looper) = self.looper.take() {
                    looper.wake();
                }
            }
            let Poll::Ready(read) = self.poll_read(cx) else {
                match &mut self.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            };
            if read.map_err(lost)? == 0 {
                return Poll::Ready(Err(lost(Broken)));
            }
        }
    }
}

impl Asked {
    /// The next frame, `None` at the end.
    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut wire = self.wire.lock();
        let piece = ready!(wire.poll_piece(cx));
        let (frame, upload) = match piece {
            Ok(Decoded::Data(data)) => {
                if let Some(left) = &mut self.left {
                    *left -= data.len() as u64;
                }
                let ends = self.left == Some(0);
                (
                    Some(Ok(Frame::data(data))),
                    ends.then_some(Upload::Complete),
                )
            }
            // The end is known with them.
            Ok(Decoded::Trailers(fields)) => {
                (Some(Ok(Frame::trailers(fields))), Some(Upload::Complete))
            }
            Ok(Decoded::End | Decoded::More) => (None, Some(Upload::Complete)),
            Err(error) => (Some(Err(error)), Some(Upload::Broken)),
        };
        if let Some(upload) = upload {
            self.over = true;
            let looper = wire.becomes(upload);
            drop(wire);
            // In the task of the loop, that looks anyway.
            if let Some(looper) = looper.filter(|looper| !looper.will_wake(cx.waker())) {
                looper.wake();
            }
        }
        Poll::Ready(frame)
    }

    /// Has the end been seen?
    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.over
    }

    /// Bytes still to come, where that is known.
    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut wire = self.wire.lock();
        if let Upload::Live(decoder, go) = std::mem::replace(&mut wire.upload, Upload::Broken) {
            let looper = wire.becomes(Upload::Abandoned(decoder, go));
            drop(wire);
            if let Some(looper) = looper {
                looper.wake();
            }
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// A body that breaks the rules is not the same as one that stops.
fn malformed(error: Malformed) -> Error {
    Error::new(ErrorKind::BadRequest)
        .with_detail("a chunk or trailer is malformed")
        .with_source(error)
}

fn lost(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::ClientGone).with_source(error)
}
