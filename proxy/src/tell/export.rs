//! Spans: which requests are traced, and how their spans get to a collector: in batches, over gRPC, by a task of the
//! control thread.

use super::context::{self, Context, TRACESTATE};
use super::otlp::{self, ExportTraceServiceRequest, KeyValue, Status, number, pair};
use super::{LONGEST, Span, Story, cut, text};
use crate::connect;
use crate::connection::Direction;
use crate::http::body::End;
use crate::metrics::{Count, Metrics};
use anyhow::{Context as _, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::lookup_host;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout, timeout_at};
use weft_proxy_api::names::VERSION;

/// Spans that wait to be sent.
const QUEUE: usize = 4096;
/// Spans that are sent at once.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// How long a batch may take, from the name of the collector to its answer.
const SEND: Duration = Duration::from_secs(10);
/// After a failure: what is made meanwhile waits, as far as there is room.
const AGAIN: Duration = Duration::from_secs(5);
/// Largest answer of a collector.
const MOST_ANSWER: usize = 64 * 1024;

/// How it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `host:port` of the collector.
    pub collector: String,
    /// Mark set on connections to it.
    pub mark: Option<u32>,
    /// Share of the requests without context that are traced.
    pub ratio: f64,
    /// `service.name`.
    pub service: String,
    /// `namespace/name` of the pod.
    pub pod: (String, String),
}

/// Decides which requests are traced, and takes their spans in.
pub struct Tracer {
    ratio: f64,
    queue: Sender<otlp::Span>,
    dropped: Count,
}

/// Sends spans.
pub struct Exporter {
    settings: Settings,
    queue: Receiver<otlp::Span>,
    sent: Count,
    failed: Count,
}

/// A tracer, and what sends its spans.
pub fn new(settings: Settings, metrics: &Metrics) -> (Tracer, Exporter) {
    let (tx, queue) = mpsc::channel(QUEUE);
    let tracer = Tracer {
        ratio: settings.ratio,
        queue: tx,
        dropped: metrics.spans("dropped"),
    };
    let exporter = Exporter {
        settings,
        queue,
        sent: metrics.spans("sent"),
        failed: metrics.spans("failed"),
    };
    (tracer, exporter)
}

impl Tracer {
    /// The span of a request, if it is traced; the next hop is told.
    pub(super) fn begin(&self, fields: &mut HeaderMap) -> Option<Span> {
        let context = match context::read(fields) {
            Some(context) => context,
            // Somebody has decided already, without a trace.
            None if self.ratio <= 0.0 || context::mentioned(fields) => return None,
            None => Context {
                trace: fastrand::u128(1..).to_be_bytes(),
                parent: None,
                sampled: fastrand::f64() < self.ratio,
            },
        };
        if !context.sampled {
            return None;
        }
        let id = fastrand::u64(1..).to_be_bytes();
        context::write(fields, &context, &id);
        let state = fields.get(TRACESTATE).cloned();
        Some(Span { context, id, state })
    }

    pub(super) fn tell(&self, story: &Story) {
        if let Some(span) = &story.span
            && self.queue.try_send(record(story, span)).is_err()
        {
            self.dropped.inc();
        }
    }
}

/// A span as OpenTelemetry wants it. Of the target only the path is told: a query is nobody's business.
fn record(story: &Story, span: &Span) -> otlp::Span {
    let (place, ending) = (&story.place, story.ending());
    let inbound = place.direction == Direction::Inbound;
    let start = story.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |since: Duration| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let method = cut(story.method.as_str());
    let error = cut(text(story.error.as_ref()));
    let failed = failure(story, inbound, error);
    let mut attributes = vec![
        pair("http.request.method", method),
        pair("url.scheme", story.uri.scheme_str().unwrap_or("http")),
        pair("url.path", cut(story.uri.path())),
        pair("network.protocol.version", version(story.version)),
        pair("weft.direction", place.direction.label()),
    ];
    server(&mut attributes, story);
    if story.status > 0 {
        attributes.push(number("http.response.status_code", story.status));
    }
    if let Some(code) = ending.grpc {
        attributes.push(number("rpc.grpc.status_code", code));
    }
    if let Some(client) = place.client {
        attributes.push(pair("client.address", client.ip().to_string()));
    }
    if let Some(identity) = &place.identity {
        attributes.push(pair("weft.client.identity", &**identity));
    }
    if let Some(service) = &place.service {
        attributes.push(pair("weft.service", &**service));
    }
    if let Some(failed) = &failed {
        attributes.push(pair("error.type", failed));
    }
    otlp::Span {
        trace_id: span.context.trace.to_vec(),
        span_id: span.id.to_vec(),
        trace_state: whole(text(span.state.as_ref())).to_owned(),
        parent_span_id: span.context.parent.map(Vec::from).unwrap_or_default(),
        name: method.to_owned(),
        kind: if inbound { otlp::SERVER } else { otlp::CLIENT },
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(start + ending.took),
        attributes,
        status: failed.map(|message| Status {
            message,
            code: otlp::FAILED,
        }),
        flags: 1,
    }
}

/// A list that means nothing in part.
fn whole(list: &str) -> &str {
    if list.len() <= LONGEST { list } else { "" }
}

/// The host the client named, or the address it called.
fn server(attributes: &mut Vec<KeyValue>, story: &Story) {
    let target = story.place.target;
    let named: Option<http::uri::Authority> = cut(story.host()).parse().ok();
    let (host, port) = match &named {
        Some(named) => (named.host().to_owned(), named.port_u16()),
        None => (target.ip().to_string(), None),
    };
    attributes.push(pair("server.address", host));
    attributes.push(number("server.port", port.unwrap_or(target.port())));
}

/// What kind of failure it was, for whoever made the span: a 404 is the client's mistake, not the server's.
fn failure(story: &Story, inbound: bool, error: &str) -> Option<String> {
    let lost = match story.ending().body {
        Some(End::Broken) => Some("broken"),
        Some(End::Late) => Some("timeout"),
        Some(End::Complete | End::Dropped) | None => None,
    };
    let bad = story.status >= if inbound { 500 } else { 400 };
    match (error, lost) {
        (_, Some(lost)) => Some(lost.to_owned()),
        ("", None) => bad.then(|| story.status.to_string()),
        (error, None) => Some(error.to_owned()),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

impl Exporter {
    /// Sends until every tracer is gone. A batch that cannot be sent is lost: a collector that is away costs spans,
    /// nothing else.
    pub async fn run(mut self) {
        let mut open = None;
        loop {
            let batch = self.batch().await;
            if batch.is_empty() {
                return;
            }
            let count = batch.len() as u64;
            let sent = timeout(SEND, self.send(batch, &mut open)).await;
            match sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {SEND:?}"))) {
                Ok(()) => self.sent.add(count),
                Err(error) => {
                    self.failed.add(count);
                    open = None;
                    tracing::warn!(
                        spans = count,
                        error = format!("{error:#}"),
                        "spans are lost"
                    );
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// At least one, with whatever comes soon after; none: there will be no more.
    async fn batch(&mut self) -> Vec<otlp::Span> {
        let mut batch = Vec::new();
        if self.queue.recv_many(&mut batch, BATCH).await == 0 {
            return batch;
        }
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(until, self.queue.recv_many(&mut batch, room)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
        batch
    }

    async fn send(
        &self,
        batch: Vec<otlp::Span>,
        open: &mut Option<SendRequest<Full<Bytes>>>,
    ) -> anyhow::Result<()> {
        if let Some(sender) = open
            && sender.ready().await.is_err()
        {
            *open = None;
        }
        let sender = match open {
            Some(sender) => sender,
            None => open.insert(self.connect().await?),
        };
        let request = Request::post(format!(
            "http://{}{}",
            self.settings.collector,
            otlp::EXPORT
        ))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(self.message(batch)))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        ensure!(head.status == 200, "the collector answers {}", head.status);
        let body = Limited::new(body, MOST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
        let said = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or(head.headers.get("grpc-status"));
        ensure!(text(said) == "0", "grpc-status {}", text(said));
        Ok(())
    }

    /// One message of gRPC: not compressed, its length, its bytes.
    fn message(&self, spans: Vec<otlp::Span>) -> Bytes {
        let Settings { service, pod, .. } = &self.settings;
        let resource = otlp::Resource {
            attributes: vec![
                pair("service.name", service.as_str()),
                pair("k8s.namespace.name", pod.0.as_str()),
                pair("k8s.pod.name", pod.1.as_str()),
                pair("telemetry.sdk.name", "weft"),
                pair("telemetry.sdk.language", "rust"),
                pair("telemetry.sdk.version", VERSION),
            ],
        };
        let scope = otlp::InstrumentationScope {
            name: "weft-proxy".to_owned(),
            version: VERSION.to_owned(),
        };
        let scope_spans = vec![otlp::ScopeSpans {
            scope: Some(scope),
            spans,
        }];
        let request = ExportTraceServiceRequest {
            resource_spans: vec![otlp::ResourceSpans {
                resource: Some(resource),
                scope_spans,
            }],
        };
        let length = request.encoded_len();
        let mut bytes = BytesMut::with_capacity(5 + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        bytes.put_slice(&request.encode_to_vec());
        bytes.freeze()
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let collector = &self.settings.collector;
        let mut last = anyhow::anyhow!("{collector} has no address");
        for address in lookup_host(collector).await.context("the collector")? {
            let connected = async {
                let socket = connect::socket(address, self.settings.mark)?;
                let tcp = socket.connect(address).await?;
                let handshake = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .handshake(TokioIo::new(tcp));
                let (sender, connection) = handshake.await?;
                tokio::spawn(connection);
                anyhow::Ok(sender)
            };
            match connected.await {
                Ok(sender) => return Ok(sender),
                Err(error) => last = error.context(format!("cannot reach {address}")),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests;
