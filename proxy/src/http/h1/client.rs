//! HTTP/1.1 towards an endpoint: one connection, one exchange at a time, driven by whoever waits for the answer and then
//! by whoever reads its body. There is no task and no channel, and a connection at rest is nothing but its stream.

use super::decode::Decoder;
use super::switched::Switched;
use crate::error::{BoxError, Error, ErrorKind};
use crate::http::bridge::Far;
use crate::http::pool::Pool;
use crate::http::{Request, Response, validate};
use crate::io::Io;
use answer::{Head, Search};
use beside::Beside;
pub(in crate::http) use body::Answer;
use body::Wire;
use http::{Method, StatusCode};
use reading::Reading;
use sending::Sending;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;

mod answer;
mod ask;
mod beside;
mod body;
mod reading;
mod sending;
#[cfg(test)]
mod tests;

/// Interim answers (1xx) to one request that are read past.
const MOST_INTERIM: usize = 100;

/// Where connections come from and go back to.
type Home = Arc<Pool>;

/// A connection between two exchanges.
pub(in crate::http) struct Conn {
    /// `None`: an exchange has it.
    io: Option<Io>,
    used: bool,
}

/// What a connection at rest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Rest {
    /// Nothing, as it should.
    Quiet,
    /// It has ended.
    Ended,
    /// It sent bytes that nobody asked for. They are nobody's answer.
    Spoke,
}

impl Conn {
    /// One that was just opened.
    pub(in crate::http) fn new(io: Io) -> Self {
        Self {
            io: Some(io),
            used: false,
        }
    }

    fn used(io: Io) -> Self {
        Self {
            io: Some(io),
            used: true,
        }
    }

    /// Looks whether it still lives. That is known from what the runtime has noticed: in the usual case the system is not
    /// asked, and nobody is told later.
    pub(in crate::http) fn look(&mut self) -> Rest {
        let Some(io) = &mut self.io else {
            return Rest::Ended;
        };
        let mut byte = [0; 1];
        let mut byte = ReadBuf::new(&mut byte);
        match at_once(|cx| Pin::new(&mut *io).poll_read(cx, &mut byte)) {
            Poll::Pending => Rest::Quiet,
            Poll::Ready(Ok(())) if !byte.filled().is_empty() => Rest::Spoke,
            Poll::Ready(_) => Rest::Ended,
        }
    }
}

impl Drop for Conn {
    /// A connection at rest ends with a word, as TLS wants it.
    fn drop(&mut self) {
        if let Some(io) = &mut self.io {
            let _ = at_once(|cx| Pin::new(&mut *io).poll_shutdown(cx));
        }
    }
}

/// Polls once, for what can be had now; not even a task that has used up its share is put off.
fn at_once<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(unconstrained(poll_fn(poll))).poll(&mut cx)
}

/// A connection in an exchange. One that is cut off is reset: to the endpoint an end means only that nothing more is asked,
/// and it would go on working for nobody.
struct Busy(Option<Io>);

impl Busy {
    fn io(&mut self) -> io::Result<&mut Io> {
        self.0
            .as_mut()
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn is_mutual(&self) -> bool {
        self.0.as_ref().is_some_and(Io::is_mutual)
    }

    /// The exchange is over, or the connection is another's to end.
    fn done(mut self) -> Option<Io> {
        self.0.take()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(io) = &mut self.0 {
            io.reset_on_drop();
        }
    }
}

/// Sends a request, and waits for the head of its answer. Dropping it resets the connection.
pub(in crate::http) async fn send(
    conn: Conn,
    request: Request,
    home: &Home,
) -> Result<Response, Error> {
    let mut exchange = Exchange::new(conn, request)?;
    let head = poll_fn(|cx| exchange.poll_head(cx)).await?;
    exchange.answer(head, home)
}

/// One request and its answer.
struct Exchange {
    io: Busy,
    sending: Sending,
    reading: Reading,
    search: Search,
    /// It was idle before.
    reused: bool,
    /// The endpoint has said something.
    heard: bool,
    to_head: bool,
    upgrade: bool,
    interim: usize,
}

impl Exchange {
    fn new(mut conn: Conn, request: Request) -> Result<Self, Error> {
        let io = conn.io.take().ok_or(ErrorKind::Internal)?;
        Ok(Self {
            io: Busy(Some(io)),
            to_head: request.method() == Method::HEAD,
            upgrade: validate::asks_for_upgrade(request.headers()),
            sending: Sending::new(request),
            reading: Reading::default(),
            search: Search::default(),
            reused: conn.used,
            heard: false,
            interim: 0,
        })
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        let io = self.io.0.as_mut().ok_or(ErrorKind::Internal)?;
        self.sending.poll(cx, io)?;
        loop {
            match ready!(self.reading.poll(cx, io, None)) {
                Ok(0) => return Poll::Ready(Err(self.unanswered(None))),
                Ok(_) => self.heard = true,
                Err(error) => return Poll::Ready(Err(self.unanswered(Some(error)))),
            }
            while let Some(head) = self.search.take(&mut self.reading.read).map_err(wrong)? {
                if !head.is_interim() {
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    let detail = "the endpoint sent one interim answer after the other";
                    return Poll::Ready(Err(wrong(detail)));
                }
            }
        }
    }

    /// The connection ended instead.
    fn unanswered(&mut self, error: Option<io::Error>) -> Error {
        let early = || io::Error::new(io::ErrorKind::UnexpectedEof, "no answer came");
        let ended = error.is_none();
        let cause = self.sending.failure().or(error).unwrap_or_else(early);
        let error = reset(cause);
        match (self.heard, ended && self.io.is_mutual()) {
            // A proxy says goodbye only to a connection that was at rest; what breaks is cut off.
            (false, true) => error.never_processed(),
            (false, false) if self.reused => error.raced_with_close(),
            _ => error,
        }
    }

    fn answer(self, head: Head, home: &Home) -> Result<Response, Error> {
        let decoder = head.decoder(self.to_head);
        let mut response = Response::default();
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let endpoint = Far::connection(self.switched()?);
            response.extensions_mut().insert(endpoint);
            return Ok(response);
        }
        let ends = !head.keep_alive || matches!(decoder, Decoder::UntilClose);
        let mut home = (!ends).then(|| home.clone());
        let wire = if self.sending.is_sent() {
            Wire::Own(self.io)
        } else if self.sending.is_over() {
            home = None;
            Wire::Own(self.io)
        } else {
            Wire::Shared(Beside::new(self.io, self.sending))
        };
        *response.body_mut() = Answer::new(wire, self.reading, decoder, home).into_body();
        Ok(response)
    }

    /// The connection, which speaks another protocol from here on.
    fn switched(self) -> Result<Switched, Error> {
        if !self.upgrade {
            let detail = "the endpoint switched protocols although nobody asked for it";
            return Err(wrong(detail));
        }
        if !self.sending.is_sent() {
            return Err(wrong(
                "the endpoint switched protocols before it had the whole request",
            ));
        }
        let io = self.io.done().ok_or(ErrorKind::Internal)?;
        Ok(Switched::new(self.reading.read, io))
    }
}

fn wrong(detail: &'static str) -> Error {
    Error::new(ErrorKind::UpstreamProtocol).with_detail(detail)
}

fn protocol(cause: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::UpstreamProtocol).with_source(cause)
}

fn reset(cause: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::UpstreamReset).with_source(cause)
}
