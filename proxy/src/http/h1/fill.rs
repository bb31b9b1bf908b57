//! Takes the frames of an answer's body into what is to be written.

use super::encode::{Encoder, Mismatch};
use super::outgoing::Outgoing;
use crate::error::{Error, ErrorKind};
use crate::http::Body;
use http_body::{Body as _, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Where filling stopped.
pub(super) enum Filled {
    /// The body is over, and framed to its end.
    Ended,
    /// As much waits as may.
    Full,
    /// The body has no more right now.
    Waits,
    Broken(Error),
}

/// Frames as much of the body as there is, and as there is room for.
pub(super) fn fill(
    body: &mut Body,
    framing: &mut Encoder,
    out: &mut Outgoing,
    cx: &mut Context<'_>,
) -> Filled {
    while !out.is_full() {
        let framed = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Filled::Waits,
            Poll::Ready(None) => return ended(framing.end(None, out)),
            Poll::Ready(Some(Err(error))) => return Filled::Broken(error),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) => framing.data(data, out),
                Err(trailers) => return ended(framing.end(trailers.ok().as_ref(), out)),
            },
        };
        if let Err(mismatch) = framed {
            return ended(Err(mismatch));
        }
        if body.is_end_stream() {
            return ended(framing.end(None, out));
        }
    }
    Filled::Full
}

fn ended(framed: Result<(), Mismatch>) -> Filled {
    match framed {
        Ok(()) => Filled::Ended,
        Err(mismatch) => {
            Filled::Broken(Error::new(ErrorKind::UpstreamProtocol).with_source(mismatch))
        }
    }
}

/// An answer that is complete with its head: a text that stands ready was for nobody, yet it was not given up either.
pub(super) fn end_unsent(body: &mut Body) {
    if body.size_hint().exact().is_some() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(body).poll_frame(&mut cx);
    }
}
