//! One client's connection: reads requests, hands them to the stack and writes the answers, one after the other, all in one
//! task. While nothing is under way, what is left of it is the socket and a few words.
//!
//! ```text
//! Head ──► Stack ──► Body ──► LeftOver ──► Head   the next request
//!                      │          └──────► End    close, politely where something is unread
//!                      └────────────────────────► another protocol, after a 101
//! ```

use super::answer::{self, CONTINUE, Form};
use super::buffer;
use super::decode::Decoder;
use super::encode::Encoder;
use super::fill::{Filled, end_unsent, fill};
use super::outgoing::Outgoing;
use super::request::{Head, Parser, Says};
use super::switched::Switched;
use super::wire::{Go, Upload, Wire};
use crate::error::{Error, ErrorKind};
use crate::http::bridge::{Far, Upgrade};
use crate::http::pool::Held;
use crate::http::strict::Refusal;
use crate::http::{Body, HttpService, Request, Response, ServiceFuture};
use crate::io::Io;
use crate::tasks::Ending;
use http::StatusCode;
use http_body::Body as _;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

/// Most bytes of an unwanted body that are read for the sake of the connection.
const MOST_READ_AWAY: usize = 64 * 1024;
/// How long what nobody wants is read: for the sake of the connection, or so that a reset does not overtake the answer.
const READ_AWAY_TIME: Duration = Duration::from_secs(1);

/// Serves one connection; a future that ends with it.
pub(in crate::http) struct Server {
    wire: Arc<Mutex<Wire>>,
    parser: Parser,
    out: Outgoing,
    step: Step,
    form: Form,
    /// The connection may be used for another request.
    keep: bool,
    /// Something of the answer may have left.
    begun: bool,
    /// Something that was sent will not be read.
    unread: bool,
    told: Option<Ending>,
    /// For the head, or for what is read away; hardly ever there, so it is to take little room.
    deadline: Option<Pin<Box<Sleep>>>,
    head_timeout: Duration,
    /// Key of the client's address.
    client: u64,
    service: HttpService,
}

/// What became of a connection.
pub(in crate::http) enum Served {
    /// It has ended.
    Ended,
    /// It speaks another protocol from here on.
    Switched(Upgrade, Switched),
}

/// What is being done.
enum Step {
    /// A head is read, or waited for.
    Head,
    /// The stack has the request.
    Stack(ServiceFuture),
    /// The answer's body is written.
    Body(Body, Encoder),
    /// The answer is complete, and leaves.
    Leaving(Option<Upgrade>),
    /// It has left; the request's body is not over yet. So many bytes of it were read for nobody.
    LeftOver(usize),
    /// Nothing more is served.
    End { shut: bool },
}

/// What a step comes to: the next one, or the end.
type Next = Poll<Result<Option<Served>, Error>>;

impl Server {
    pub(in crate::http) fn new(
        io: Io,
        head_timeout: Duration,
        client: u64,
        service: HttpService,
    ) -> Self {
        Self {
            wire: Wire::new(io),
            parser: Parser::default(),
            out: Outgoing::default(),
            step: Step::Head,
            form: Form::default(),
            keep: true,
            begun: false,
            unread: false,
            told: None,
            deadline: None,
            head_timeout,
            client,
            service,
        }
    }

    /// Ends the connection in this way; to be polled after that.
    pub(in crate::http) fn end(&mut self, how: Ending) {
        self.told = Some(how);
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Next {
        match ready!(self.poll_parse(cx)?) {
            Some(Ok(head)) => {
                let (says, body) = (head.says, self.body(&head));
                self.start(head.into_request(body), says, says.is_persistent());
            }
            Some(Err(why)) => {
                let (request, says) = self.parser.refused(why);
                self.unread = true;
                self.start(request, says, false);
            }
            None => self.step = Step::End { shut: false },
        }
        Poll::Ready(Ok(None))
    }

    /// The next head, or why it is refused; `None`: there will be none.
    fn poll_parse(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Head, Refusal>>, Error>> {
        let mut wire = self.wire.lock();
        loop {
            if let Some(parsed) = self.parser.parse(wire.read()).transpose() {
                return Poll::Ready(Ok(Some(parsed)));
            }
            let begun = self.parser.has_begun();
            if !begun && self.told == Some(Ending::Idle) {
                // Who asks at this moment sees the connection end.
                return Poll::Ready(Ok(None));
            }
            match wire.poll_read(cx) {
                Poll::Ready(Ok(0)) if begun => return Poll::Ready(Err(vanished(cut_off()))),
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(vanished(error))),
                Poll::Pending if begun => {
                    let limit = self.head_timeout;
                    ready!(expires(&mut self.deadline, limit, cx));
                    return Poll::Ready(Ok(Some(Err(Refusal::Late))));
                }
                Poll::Pending => {
                    wire.rest();
                    buffer::give_back_outgoing(&mut self.out);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The body that follows a head.
    fn body(&self, head: &Head) -> Body {
        let decoder = match head.says {
            says if !says.has_body() => return Body::empty(),
            says if says.chunked => Decoder::chunked(),
            says => Decoder::Length(says.length.unwrap_or_default()),
        };
        let go = match head.says.expects && !head.says.old {
            true => Go::Waits,
            false => Go::On,
        };
        Body::asked(Wire::ask(&self.wire, decoder, go))
    }

    fn start(&mut self, mut request: Request, says: Says, keep: bool) {
        self.deadline = None;
        self.keep = keep;
        self.form = Form::new(says, request.method(), request.headers());
        request.body_mut().set_client(self.client);
        self.step = Step::Stack(self.service.send(request));
    }

    fn poll_stack(&mut self, cx: &mut Context<'_>) -> Next {
        let Step::Stack(answering) = &mut self.step else {
            return Poll::Ready(Ok(None));
        };
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            // What is left of the request ends first: it is to be known what became of its body.
            self.step = Step::Head;
            return Poll::Ready(self.answer(answer?).map(|()| None));
        }
        let mut wire = self.wire.lock();
        wire.listen(cx);
        if wire.tells() {
            self.out.push(CONTINUE.into());
        }
        if !self.out.is_sent() {
            let io = wire.io().map_err(vanished)?;
            if let Poll::Ready(written) = self.out.poll_write_all(cx, io) {
                written.map_err(vanished)?;
            }
        }
        wire.watch(cx).map_err(vanished)?;
        Poll::Pending
    }

    /// Writes the head of the answer.
    fn answer(&mut self, mut answer: Response) -> Result<(), Error> {
        self.begun = false;
        let upgrade = self.granted(&mut answer)?;
        let (parts, mut body) = answer.into_parts();
        self.keep &= self.upload_allows_more() & self.told.is_none();
        if !self.out.has_room() {
            self.out = buffer::outgoing();
        }
        let length = body.size_hint();
        let framing = answer::write(&parts, &length, self.form, &mut self.keep, &mut self.out);
        buffer::give_back_fields(parts.headers);
        self.step = match (upgrade, framing) {
            (Some(upgrade), _) => Step::Leaving(Some(upgrade)),
            (None, Encoder::Nothing) => {
                end_unsent(&mut body);
                Step::Leaving(None)
            }
            (None, framing) => Step::Body(body, framing),
        };
        Ok(())
    }

    /// The far end, if the client is to speak another protocol from here on.
    fn granted(&mut self, answer: &mut Response) -> Result<Option<Upgrade>, Error> {
        if !answer.status().is_informational() {
            return Ok(None);
        }
        // Another one would be taken for what comes before the answer.
        let endpoint = answer.extensions_mut().remove::<Far>();
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS && self.form.upgrade;
        let endpoint = endpoint.filter(|_| switches);
        let endpoint = endpoint.ok_or_else(|| Error::new(ErrorKind::Internal))?;
        let stream = answer.extensions_mut().remove::<Held>();
        Ok(Some(Upgrade { endpoint, stream }))
    }

    /// Can the request's body still come to its end, so that another request may follow it?
    fn upload_allows_more(&mut self) -> bool {
        let mut wire = self.wire.lock();
        if wire.tells() {
            self.out.push(CONTINUE.into());
        }
        match wire.upload() {
            Upload::Complete => true,
            // Whether its body comes is the client's choice, now that it has its answer.
            upload @ (Upload::Live(_, Go::Waits) | Upload::Abandoned(_, Go::Waits)) => {
                *upload = Upload::Broken;
                false
            }
            Upload::Live(..) => true,
            Upload::Abandoned(decoder, _) => {
                let left = decoder.size_hint().exact();
                let much = left.is_some_and(|left| left > MOST_READ_AWAY as u64);
                wire.discard();
                !much && !matches!(wire.upload(), Upload::Broken)
            }
            Upload::Broken => false,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Next {
        let Step::Body(body, framing) = &mut self.step else {
            return Poll::Ready(Ok(None));
        };
        loop {
            let filled = fill(body, framing, &mut self.out, cx);
            let mut wire = self.wire.lock();
            wire.listen(cx);
            let io = wire.io().map_err(vanished)?;
            if let (Filled::Broken(_), false) = (&filled, self.begun) {
                // Better no answer than half of one.
                self.out = Outgoing::default();
            }
            self.begun = true;
            let written = self.out.poll_write_all(cx, io);
            match (filled, written) {
                (Filled::Broken(error), _) => return Poll::Ready(Err(error)),
                (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(vanished(error))),
                (Filled::Ended, _) => break,
                (_, Poll::Pending) => return Poll::Pending,
                (Filled::Full, Poll::Ready(Ok(()))) => {}
                (Filled::Waits, Poll::Ready(Ok(()))) => {
                    wire.watch(cx).map_err(vanished)?;
                    return Poll::Pending;
                }
            }
        }
        self.step = Step::Leaving(None);
        Poll::Ready(Ok(None))
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Next {
        let mut wire = self.wire.lock();
        wire.listen(cx);
        let io = wire.io().map_err(vanished)?;
        ready!(self.out.poll_write_all(cx, io)).map_err(vanished)?;
        let Step::Leaving(upgrade) = &mut self.step else {
            return Poll::Ready(Ok(None));
        };
        if upgrade.is_some() && matches!(wire.upload(), Upload::Live(..)) {
            // What belongs to the request comes before the other protocol.
            return Poll::Pending;
        }
        let Some(upgrade) = upgrade.take() else {
            self.step = Step::LeftOver(0);
            return Poll::Ready(Ok(None));
        };
        if !matches!(wire.upload(), Upload::Complete) {
            return Poll::Ready(Err(vanished(cut_off())));
        }
        let (io, ahead) = wire.take().ok_or_else(|| vanished(cut_off()))?;
        let client = Switched::new(ahead, io);
        Poll::Ready(Ok(Some(Served::Switched(upgrade, client))))
    }

    /// Waits for the end of the request's body, and reads away what nobody wants.
    fn poll_left_over(&mut self, cx: &mut Context<'_>) -> Next {
        let Step::LeftOver(read) = &mut self.step else {
            return Poll::Ready(Ok(None));
        };
        let mut wire = self.wire.lock();
        let goes_on = loop {
            match wire.upload() {
                Upload::Complete => break true,
                Upload::Broken => break false,
                // Somebody is still sending it on.
                Upload::Live(..) => {
                    wire.listen(cx);
                    return Poll::Pending;
                }
                Upload::Abandoned(..) => {}
            }
            let (size, all) = wire.discard();
            *read += size;
            if all {
                continue;
            }
            if !self.keep || *read > MOST_READ_AWAY {
                break false;
            }
            match wire.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => break false,
                Poll::Pending => {
                    ready!(expires(&mut self.deadline, READ_AWAY_TIME, cx));
                    break false;
                }
            }
        };
        self.deadline = None;
        self.unread |= !goes_on || (!self.keep && !wire.read().is_empty());
        self.step = match goes_on && self.keep {
            true => Step::Head,
            false => Step::End { shut: false },
        };
        Poll::Ready(Ok(None))
    }

    /// Ends our half. A socket that is closed with bytes unread resets its connection, and the reset may overtake the
    /// answer: so a client that was cut short has a moment to take that in.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Next {
        let Step::End { shut } = &mut self.step else {
            return Poll::Ready(Ok(None));
        };
        let mut wire = self.wire.lock();
        if !*shut {
            let io = wire.io().map_err(vanished)?;
            let done = ready!(Pin::new(io).poll_shutdown(cx));
            *shut = true;
            if done.is_err() {
                return Poll::Ready(Ok(Some(Served::Ended)));
            }
        }
        while self.unread {
            // Asked first: whoever sends without a pause would never be late.
            if expires(&mut self.deadline, READ_AWAY_TIME, cx).is_ready() {
                break;
            }
            wire.read().clear();
            match ready!(wire.poll_read(cx)) {
                Ok(1..) => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(Some(Served::Ended)))
    }
}

impl Future for Server {
    type Output = Result<Served, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let next = match &this.step {
                Step::Head => this.poll_head(cx),
                Step::Stack(_) => this.poll_stack(cx),
                Step::Body(..) => this.poll_body(cx),
                Step::Leaving(_) => this.poll_leave(cx),
                Step::LeftOver(_) => this.poll_left_over(cx),
                Step::End { .. } => this.poll_end(cx),
            };
            if let Some(served) = ready!(next)? {
                return Poll::Ready(Ok(served));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut wire = self.wire.lock();
        if let (Step::Body(_, Encoder::UntilClose), Ok(io)) = (&self.step, wire.io()) {
            // Its end would be taken for that of the body.
            io.reset_on_drop();
        }
        // A body that somebody still holds is not to keep the connection.
        let reader = wire.close();
        drop(wire);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Runs from the first time it is asked.
fn expires(
    deadline: &mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
    deadline.as_mut().poll(cx)
}

fn cut_off() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// The client is no longer there.
fn vanished(error: io::Error) -> Error {
    Error::new(ErrorKind::ClientGone).with_source(error)
}
