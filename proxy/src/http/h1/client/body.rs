//! The body of an answer, read from the endpoint's connection by whoever wants it; no task stands between. With its last
//! byte the connection goes back to its pool.

use super::beside::Beside;
use super::reading::Reading;
use super::{Busy, Conn, Home, protocol, reset};
use crate::error::Error;
use crate::http::Body;
use crate::http::h1::decode::{Decoded, Decoder};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::io;
use std::task::{Context, Poll, ready};

/// An answer whose head was read.
pub(in crate::http) struct Answer {
    wire: Wire,
    reading: Reading,
    decoder: Decoder,
    /// Where the connection goes, if it can carry another exchange.
    home: Option<Home>,
    /// It broke off, and that is to be told next.
    broke: Option<Error>,
}

/// Who else has the connection.
pub(super) enum Wire {
    /// Nobody.
    Own(Busy),
    /// The request, which is still being sent.
    Shared(Beside),
    /// It was let go of.
    Over,
}

impl Wire {
    /// Why the request broke off, where that has ended the answer.
    fn broke(&self) -> Option<Error> {
        match self {
            Wire::Shared(beside) => beside.broke(),
            Wire::Own(_) | Wire::Over => None,
        }
    }
}

impl Answer {
    pub(super) fn new(wire: Wire, reading: Reading, decoder: Decoder, home: Option<Home>) -> Self {
        Self {
            wire,
            reading,
            decoder,
            home,
            broke: None,
        }
    }

    /// As a body. One that was read already needs the connection no more.
    pub(super) fn into_body(mut self) -> Body {
        if self.decoder.at_end() {
            self.finish();
            return Body::empty();
        }
        match self.decoder {
            Decoder::Length(length) if self.reading.read.len() as u64 >= length => {
                let Ok(Decoded::Data(data)) = self.decoder.decode(&mut self.reading.read) else {
                    return Body::empty();
                };
                self.finish();
                Body::full(data)
            }
            _ => Body::answer(Box::new(self)),
        }
    }

    /// The next frame, a failure, or the end.
    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(error) = self.broke.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let decoded = self.decoder.decode(&mut self.reading.read);
            if self.decoder.at_end() {
                self.finish();
            }
            match decoded {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(malformed) => {
                    self.wire = Wire::Over;
                    return Poll::Ready(Some(Err(protocol(malformed))));
                }
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => match self.decoder.on_eof() {
                    Ok(()) => self.finish(),
                    Err(broken) => return self.breaks_off(cx, reset(broken)),
                },
                Ok(_) => {}
                Err(error) => {
                    let error = self.wire.broke().unwrap_or_else(|| reset(error));
                    return self.breaks_off(cx, error);
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let expected = self.decoder.size_hint().exact();
        match &mut self.wire {
            Wire::Own(busy) => self.reading.poll(cx, busy.io()?, expected),
            Wire::Shared(beside) => beside.poll_read(cx, &mut self.reading, expected),
            Wire::Over => Poll::Ready(Ok(0)),
        }
    }

    /// What came before goes on first: whoever passes the answer on does that when there is nothing more for the moment.
    fn breaks_off<T>(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<T> {
        self.wire = Wire::Over;
        self.broke = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing more belongs to this answer: what is there nevertheless is nobody's, and ends the connection.
    fn finish(&mut self) {
        let read = std::mem::take(&mut self.reading.read);
        let home = self.home.take().filter(|_| read.is_empty());
        match (std::mem::replace(&mut self.wire, Wire::Over), home) {
            (Wire::Own(busy), home) => match (busy.done().map(Conn::used), home) {
                (Some(conn), Some(home)) => home.put_idle(conn),
                (conn, _) => drop(conn),
            },
            (Wire::Shared(beside), home) => beside.answered(home),
            (Wire::Over, _) => {}
        }
    }

    /// Was all of it passed on?
    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.decoder.at_end()
    }

    /// How much is still to come.
    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}
