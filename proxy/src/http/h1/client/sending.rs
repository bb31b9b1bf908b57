//! A request on its way to an endpoint.

use crate::error::{Error, ErrorKind};
use crate::http::h1::buffer;
use crate::http::h1::encode::{Encoder, Mismatch};
use crate::http::h1::outgoing::Outgoing;
use crate::http::{Body, Request};
use crate::io::Io;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What is still to be sent.
pub(super) struct Sending {
    out: Outgoing,
    encoder: Encoder,
    body: Body,
    state: State,
    /// Frames of the body that were taken.
    frames: u64,
}

enum State {
    /// The body goes on.
    Body,
    /// Its end is on its way.
    Rest,
    /// Everything was sent.
    Sent,
    /// The endpoint takes no more. It may have answered nevertheless (RFC 9112 section 9.5).
    Failed(io::Error),
}

impl Sending {
    /// A request of which nothing was sent.
    pub(super) fn new(request: Request) -> Self {
        let mut out = buffer::outgoing();
        let encoder = super::ask::write_head(&request, out.small());
        let state = match encoder {
            Encoder::Nothing => State::Rest,
            _ => State::Body,
        };
        let (head, body) = request.into_parts();
        buffer::give_back_fields(head.headers);
        Self {
            out,
            encoder,
            body,
            state,
            frames: 0,
        }
    }

    /// Another value as soon as anything has moved.
    pub(super) fn progress(&self) -> (u64, usize) {
        (self.frames, self.out.waiting())
    }

    /// All of it was sent.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent)
    }

    /// There is nothing more to send, or nobody who takes it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Sent | State::Failed(_))
    }

    /// Why the endpoint takes no more.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        match std::mem::replace(&mut self.state, State::Sent) {
            State::Failed(error) => Some(error),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Sends what can be sent now. An error is one of the request's own body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Result<(), Error> {
        while !self.is_over() {
            let waits = self.fill(cx)?;
            match self.out.poll_write_all(cx, io) {
                Poll::Ready(Ok(())) if matches!(self.state, State::Rest) => {
                    buffer::give_back_outgoing(&mut self.out);
                    self.state = State::Sent;
                }
                Poll::Ready(Ok(())) if waits => {
                    self.out.release();
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.body = Body::empty();
                    self.state = State::Failed(error);
                }
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes in as much of the body as there is room for. True: the body has nothing more now.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while matches!(self.state, State::Body) && !self.out.is_full() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(Ok(frame))) => {
                    self.frames += 1;
                    self.frame(frame)?;
                }
                // The client's body broke: that says whose fault it is.
                Poll::Ready(Some(Err(error))) => {
                    return Err(Error::new(error.kind()).with_source(error));
                }
            }
        }
        Ok(false)
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), Error> {
        match frame.into_data() {
            Ok(data) => {
                self.encoder.data(data, &mut self.out).map_err(mismatched)?;
                match self.body.is_end_stream() {
                    true => self.end(None),
                    false => Ok(()),
                }
            }
            Err(frame) => self.end(Some(frame)),
        }
    }

    fn end(&mut self, trailers: Option<Frame<Bytes>>) -> Result<(), Error> {
        let trailers = trailers.and_then(|frame| frame.into_trailers().ok());
        let ended = self.encoder.end(trailers.as_ref(), &mut self.out);
        ended.map_err(mismatched)?;
        self.body = Body::empty();
        self.state = State::Rest;
        Ok(())
    }
}

fn mismatched(mismatch: Mismatch) -> Error {
    Error::new(ErrorKind::ClientGone).with_source(mismatch)
}
