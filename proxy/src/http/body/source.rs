//! Where the frames of a body come from.

use crate::error::{Error, ErrorKind};
use crate::http::client::{find_h2, is_ours};
use crate::http::h1::client::Answer;
use crate::http::h1::wire::Asked;
use crate::http::replay::Reader;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A frame, a failure, or the end.
type Next = Option<Result<Frame<Bytes>, Error>>;

#[derive(Default)]
pub(super) enum Source {
    #[default]
    Empty,
    Full(Bytes),
    /// From a connection; the kind says whose fault it is when it breaks.
    Incoming(Incoming, ErrorKind),
    /// From an HTTP/1 connection to an endpoint.
    Answer(Box<Answer>),
    /// From a client's HTTP/1 connection.
    Asked(Asked),
    /// Kept for another try.
    Replay(Reader),
    /// What was looked at already, and what follows it.
    Ahead(Box<(Next, Source)>),
    #[cfg(test)]
    Frames(
        std::collections::VecDeque<Result<Frame<Bytes>, Error>>,
        bool,
    ),
    #[cfg(test)]
    Ticking(tokio::time::Interval, u32),
}

impl Source {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        use http_body::Body as _;
        match self {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let data = std::mem::take(bytes);
                *self = Source::Empty;
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
            Source::Incoming(incoming, kind) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|e| broken_body(*kind, e))))
            }
            Source::Answer(answer) => answer.poll_frame(cx),
            Source::Asked(asked) => asked.poll_frame(cx),
            Source::Replay(reader) => reader.poll_frame(cx),
            Source::Ahead(_) => {
                let Source::Ahead(ahead) = std::mem::take(self) else {
                    return Poll::Ready(None);
                };
                let (next, rest) = *ahead;
                *self = rest;
                Poll::Ready(next)
            }
            #[cfg(test)]
            Source::Frames(frames, ends) => match frames.pop_front() {
                None if !*ends => Poll::Pending,
                next => Poll::Ready(next),
            },
            #[cfg(test)]
            Source::Ticking(_, 0) => Poll::Pending,
            #[cfg(test)]
            Source::Ticking(clock, left) => {
                ready!(clock.poll_tick(cx));
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data("tick".into()))))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Incoming(incoming, _) => http_body::Body::is_end_stream(incoming),
            Source::Answer(answer) => answer.is_end_stream(),
            Source::Asked(asked) => asked.is_end_stream(),
            Source::Replay(reader) => reader.is_end_stream(),
            Source::Ahead(_) => false,
            #[cfg(test)]
            Source::Frames(frames, ends) => *ends && frames.is_empty(),
            #[cfg(test)]
            Source::Ticking(..) => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Incoming(incoming, _) => incoming.size_hint(),
            Source::Answer(answer) => answer.size_hint(),
            Source::Asked(asked) => asked.size_hint(),
            Source::Replay(reader) => reader.size_hint(),
            Source::Ahead(_) => SizeHint::default(),
            #[cfg(test)]
            Source::Frames(..) | Source::Ticking(..) => SizeHint::default(),
        }
    }

    pub(super) fn label(&self) -> &'static str {
        match self {
            Source::Empty => "empty",
            Source::Full(_) => "full",
            Source::Incoming(..) => "incoming",
            Source::Answer(_) => "answer",
            Source::Asked(_) => "asked",
            Source::Replay(_) => "replay",
            Source::Ahead(_) => "ahead",
            #[cfg(test)]
            Source::Frames(..) => "frames",
            #[cfg(test)]
            Source::Ticking(..) => "ticking",
        }
    }
}

/// A body that breaks the rules is not the same as one that stops.
fn broken_body(kind: ErrorKind, error: hyper::Error) -> Error {
    use std::error::Error as _;
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let malformed = cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData
        )
    });
    let kind = match kind {
        ErrorKind::ClientGone if malformed => ErrorKind::BadRequest,
        // Its own request took it along.
        ErrorKind::UpstreamReset if find_h2(&error).is_some_and(is_ours) => ErrorKind::ClientGone,
        ErrorKind::UpstreamReset if malformed => ErrorKind::UpstreamProtocol,
        kind => kind,
    };
    Error::new(kind).with_source(error)
}
