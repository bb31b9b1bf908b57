//! An endpoint that answers before it has read the request. The upload goes on whether or not somebody reads the answer,
//! so it gets a task; the connection is shared, one way for each of the two. Once the answer is over nobody waits for the
//! rest, so it has to keep moving.

use super::reading::Reading;
use super::sending::Sending;
use super::{Busy, Conn, Home};
use crate::error::Error;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Sleep;

/// How long an upload may stand still whose answer is over.
pub(super) const STANDS_STILL: Duration = Duration::from_secs(30);

/// The answer's side. Dropping it before [`Self::answered`] closes the connection.
pub(super) struct Beside {
    both: Option<Arc<Mutex<Both>>>,
    upload: AbortHandle,
}

struct Both {
    /// `None`: closed, or given back.
    io: Option<Busy>,
    sending: Sending,
    /// Why the request broke off.
    broke: Option<Error>,
    /// The answer has ended, and the connection goes there with the upload's end, if it goes anywhere.
    then: Option<Option<Home>>,
    /// Waits for bytes of the answer.
    reader: Option<Waker>,
    /// Sends the request.
    sender: Option<Waker>,
    /// Since the answer has ended.
    limit: Option<Limit>,
}

/// When nothing will have moved for too long.
struct Limit {
    at: Pin<Box<Sleep>>,
    /// How far the request had come when that was set.
    progress: (u64, usize),
}

impl Beside {
    /// Lets the upload go on by itself.
    pub(super) fn new(io: Busy, sending: Sending) -> Self {
        let both = Arc::new(Mutex::new(Both {
            io: Some(io),
            sending,
            broke: None,
            then: None,
            reader: None,
            sender: None,
            limit: None,
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
            Some(busy) => reading.poll(cx, busy.io()?, expected),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Why there is no more of the answer, if its own request broke off: that is not the endpoint's doing.
    pub(super) fn broke(&self) -> Option<Error> {
        let mut both = self.both.as_ref()?.lock();
        both.broke.take()
    }

    /// The answer was read to its end; `home`: the connection can be used again, once the request was sent.
    pub(super) fn answered(mut self, home: Option<Home>) {
        let Some(both) = self.both.take() else {
            return;
        };
        let mut lock = both.lock();
        lock.then = Some(home);
        if lock.sending.is_over() {
            return lock.finish();
        }
        // It looks at its time from now on.
        let sender = lock.sender.take();
        drop(lock);
        if let Some(sender) = sender {
            sender.wake();
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
        let Some(Ok(io)) = self.io.as_mut().map(Busy::io) else {
            return Poll::Ready(());
        };
        if let Err(error) = self.sending.poll(cx, io) {
            // The request broke off: so must the connection, and the answer with it.
            self.io = None;
            self.broke = Some(error);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            return Poll::Ready(());
        }
        if self.sending.is_over() {
            self.finish();
            return Poll::Ready(());
        }
        self.sender = Some(cx.waker().clone());
        if self.then.is_some() && self.stands_still(cx) {
            self.io = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn stands_still(&mut self, cx: &mut Context<'_>) -> bool {
        let progress = self.sending.progress();
        let limit = self.limit.take();
        let mut limit = limit
            .filter(|limit| limit.progress == progress)
            .unwrap_or_else(|| Limit {
                at: Box::pin(tokio::time::sleep(STANDS_STILL)),
                progress,
            });
        let late = limit.at.as_mut().poll(cx).is_ready();
        self.limit = Some(limit);
        late
    }

    /// The request is over; if the answer is as well, so is the exchange.
    fn finish(&mut self) {
        let Some(home) = self.then.take() else {
            return;
        };
        let io = self.io.take().and_then(Busy::done);
        let conn = io.map(Conn::used);
        if let (Some(conn), Some(home), true) = (conn, home, self.sending.is_sent()) {
            home.put_idle(conn);
        }
    }
}
