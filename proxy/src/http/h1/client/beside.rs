//! An endpoint that answers before it has read the request. The upload goes on whether or not somebody reads the answer,
//! so it gets a task; the connection is shared, one way for each of the two.

use super::reading::Reading;
use super::sending::Sending;
use super::{Conn, Home};
use crate::io::Io;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::task::AbortHandle;

/// The answer's side. Dropping it before [`Self::answered`] closes the connection.
pub(super) struct Beside {
    both: Option<Arc<Mutex<Both>>>,
    upload: AbortHandle,
}

struct Both {
    /// `None`: closed, or given back.
    io: Option<Io>,
    sending: Sending,
    /// The answer has ended, and the connection goes there with the upload's end.
    then: Option<Home>,
    /// Waits for bytes of the answer.
    reader: Option<Waker>,
}

impl Beside {
    /// Lets the upload go on by itself.
    pub(super) fn new(io: Io, sending: Sending) -> Self {
        let both = Arc::new(Mutex::new(Both {
            io: Some(io),
            sending,
            then: None,
            reader: None,
        }));
        let upload = both.clone();
        let upload = tokio::spawn(poll_fn(move |cx| upload.lock().poll_upload(cx)));
        Self {
            both: Some(both),
            upload: upload.abort_handle(),
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        reading: &mut Reading,
        expected: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let Some(both) = &self.both else {
            return Poll::Ready(Ok(0));
        };
        let mut both = both.lock();
        // Whoever drops the stream has to say so, as the stream itself cannot.
        both.reader = Some(cx.waker().clone());
        match &mut both.io {
            Some(io) => reading.poll(cx, io, expected),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The answer was read to its end; `home`: the connection can be used again, once the request was sent.
    pub(super) fn answered(mut self, home: Option<Home>) {
        let (Some(home), Some(both)) = (home, self.both.take()) else {
            return;
        };
        let mut lock = both.lock();
        match lock.sending.is_sent() {
            true => lock.give_back(home),
            false if lock.sending.is_over() => lock.io = None,
            false => lock.then = Some(home),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(both) = self.both.take() {
            self.upload.abort();
            both.lock().io = None;
        }
    }
}

impl Both {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(());
        };
        if self.sending.poll(cx, io).is_err() {
            // The request broke off: so must the connection, and the answer with it.
            self.io = None;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            return Poll::Ready(());
        }
        if !self.sending.is_over() {
            return Poll::Pending;
        }
        match self.then.take() {
            Some(home) if self.sending.is_sent() => self.give_back(home),
            Some(_) => self.io = None,
            // The answer is still being read.
            None => {}
        }
        Poll::Ready(())
    }

    fn give_back(&mut self, home: Home) {
        if let Some(io) = self.io.take() {
            home.put_idle(Conn::used(io));
        }
    }
}
