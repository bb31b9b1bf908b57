//! What is told about single requests, where somebody asked for it: a line of the access log ([`access`]), a span of a
//! trace ([`context`], [`export`]). Both are begun and ended beside the request ([`crate::layers::tell`]), and formatted,
//! written and sent elsewhere, from bounded queues. A full queue loses what it cannot hold and counts it; traffic never
//! waits.

pub mod access;
pub mod context;
pub mod export;
pub mod otlp;

use crate::connection::{Connection, Direction};
use crate::http::Request;
use crate::http::body::End;
use access::AccessLog;
use context::{Context, SpanId};
use export::Tracer;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version, header};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Longest text of a client that is told, bytes: what waits to be told is bounded in number.
const LONGEST: usize = 1024;

/// Who is told. There is none where nothing was asked for.
pub struct Teller {
    /// Lines.
    pub access: Option<AccessLog>,
    /// Spans.
    pub tracer: Option<Tracer>,
}

/// What is the same for all requests of a stack.
#[derive(Debug, Clone)]
pub struct Place {
    /// To or from the application.
    pub direction: Direction,
    /// Who connected (inbound: one stack for each connection).
    pub client: Option<SocketAddr>,
    /// What the client proved to be.
    pub identity: Option<Arc<str>>,
    /// Where the connection was going.
    pub target: SocketAddr,
    /// The Service called, `namespace/name` (outbound).
    pub service: Option<Arc<str>>,
}

/// One request, from its beginning to the end of its answer.
pub struct Story {
    teller: Arc<Teller>,
    /// Where.
    pub place: Arc<Place>,
    /// When, on the wall and by the clock that never jumps.
    pub at: SystemTime,
    started: Instant,
    /// Method.
    pub method: Method,
    /// Target, with the query.
    pub uri: Uri,
    /// Version of HTTP the client speaks.
    pub version: Version,
    /// Host, where the target does not name it.
    pub host: Option<HeaderValue>,
    /// What the client says it is.
    pub agent: Option<HeaderValue>,
    /// Its span, where it is traced.
    pub span: Option<Span>,
    /// Status of the answer; 0: none.
    pub status: u16,
    /// `weft-error` of the answer.
    pub error: Option<HeaderValue>,
    /// How it ended; taken when told.
    pub ending: Option<Ending>,
}

/// The place of a request in its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace it belongs to, and the caller's span, if there is one.
    pub context: Context,
    /// Its own.
    pub id: SpanId,
    /// `tracestate`, as it came.
    pub state: Option<HeaderValue>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// gRPC code.
    pub grpc: Option<u8>,
    /// How the body ended; `None`: there was no answer, the client had left.
    pub body: Option<End>,
    /// From the head of the request to the end of the answer.
    pub took: std::time::Duration,
}

impl Place {
    /// Requests of a connection to the application.
    pub fn inbound(conn: &Connection) -> Self {
        Self {
            direction: Direction::Inbound,
            client: Some(conn.client),
            identity: conn.peer.identity().map(|id| id.as_str().into()),
            target: conn.target,
            service: None,
        }
    }

    /// Requests of the application to a destination.
    pub fn outbound(target: SocketAddr, service: &str) -> Self {
        Self {
            direction: Direction::Outbound,
            client: None,
            identity: None,
            target,
            service: (!service.is_empty()).then(|| service.into()),
        }
    }
}

impl Teller {
    /// Begins the story of a request, if anybody wants to hear it; a traced request is told about its new parent.
    pub fn begin(
        self: &Arc<Self>,
        place: &Arc<Place>,
        request: &mut Request,
    ) -> Option<Box<Story>> {
        let span = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.begin(request.headers_mut()));
        if span.is_none() && self.access.is_none() {
            return None;
        }
        let field = |name| request.headers().get(name).cloned();
        Some(Box::new(Story {
            teller: self.clone(),
            place: place.clone(),
            at: SystemTime::now(),
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: field(header::HOST),
            agent: field(header::USER_AGENT),
            span,
            status: 0,
            error: None,
            ending: None,
        }))
    }
}

impl Story {
    /// The answer has ended.
    pub fn ended(mut self: Box<Self>, bytes: u64, grpc: Option<u8>, body: Option<End>) {
        let took = self.started.elapsed();
        self.ending = Some(Ending {
            bytes,
            grpc,
            body,
            took,
        });
        let teller = self.teller.clone();
        if let (Some(tracer), Some(_)) = (&teller.tracer, &self.span) {
            tracer.tell(&self);
        }
        if let Some(access) = &teller.access {
            access.tell(self);
        }
    }

    /// Host the client asked for, without what no host contains.
    pub fn host(&self) -> &str {
        without_userinfo(match self.uri.authority() {
            Some(authority) => authority.as_str(),
            None => text(self.host.as_ref()),
        })
    }

    /// Lets go of the buffers that its texts are pieces of: what waits is to hold little more than is told of it.
    fn detach(&mut self) {
        let apart = |text: &[u8]| HeaderValue::from_bytes(&text[..text.len().min(LONGEST)]).ok();
        let field = |field: &Option<HeaderValue>| apart(field.as_ref()?.as_bytes());
        self.host = match self.uri.authority() {
            Some(authority) => apart(authority.as_str().as_bytes()),
            None => field(&self.host),
        };
        (self.agent, self.error) = (field(&self.agent), field(&self.error));
        let target = self.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        self.uri = cut(target).parse().unwrap_or_default();
        if let Some(span) = &mut self.span {
            span.state = None;
        }
    }

    /// Did policy refuse it?
    pub fn denied(&self) -> bool {
        let code = text(self.error.as_ref());
        code.starts_with("E110 ") || code.starts_with("E111 ")
    }

    /// How it ended; only a story that is not told yet has none.
    pub fn ending(&self) -> Ending {
        self.ending.unwrap_or(Ending {
            bytes: 0,
            grpc: None,
            body: None,
            took: self.started.elapsed(),
        })
    }
}

/// A part of all: a number from 0 to 1.
pub(crate) fn share(value: &str) -> Result<f64, String> {
    let share: Option<f64> = value.parse().ok();
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// As much of a text as is told.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// An authority without what may stand before it, `user:password@`: a request with that is refused, but told about.
pub(crate) fn without_userinfo(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// A field as text; what is not text is left out.
pub(crate) fn text(field: Option<&HeaderValue>) -> &str {
    field.and_then(|value| value.to_str().ok()).unwrap_or("")
}
