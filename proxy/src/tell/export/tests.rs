#![allow(clippy::unwrap_used)]
use super::*;
use crate::tell::context::{self, TraceId};
use crate::tell::{Ending, Place, Teller};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::net::TcpListener;

/// A collector that keeps what it gets, and answers with this status of gRPC.
async fn collector(status: &'static str) -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (tx, rx) = mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tx = tx.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let tx = tx.clone();
                async move {
                    assert_eq!(request.uri().path(), otlp::EXPORT);
                    let bytes = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(bytes[0], 0);
                    let message = ExportTraceServiceRequest::decode(&bytes[5..]).unwrap();
                    tx.send(message).await.unwrap();
                    let answer = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", status);
                    Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(tcp), answer));
        }
    });
    (at, rx)
}

fn settings(collector: String, ratio: f64) -> Settings {
    Settings {
        collector,
        mark: None,
        ratio,
        service: "web".into(),
        pod: ("shop".into(), "web-0".into()),
    }
}

fn headers(traceparent: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("traceparent", traceparent.parse().unwrap());
    fields
}

const TRACE: TraceId = [7; 16];

fn story(direction: Direction, status: u16, span: Span) -> Box<Story> {
    let place = Place {
        direction,
        client: Some("10.1.0.1:4000".parse().unwrap()),
        identity: None,
        target: "10.1.0.2:8080".parse().unwrap(),
        service: None,
    };
    let nobody = Teller {
        access: None,
        tracer: None,
    };
    Box::new(Story {
        teller: Arc::new(nobody),
        place: Arc::new(place),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        started: Instant::now(),
        method: http::Method::POST,
        uri: "/cart?card=4111".parse().unwrap(),
        version: http::Version::HTTP_11,
        host: Some("web.shop:80".parse().unwrap()),
        agent: None,
        span: Some(span),
        status,
        error: None,
        ending: Some(Ending {
            bytes: 5,
            grpc: None,
            body: Some(End::Complete),
            took: Duration::from_millis(3),
        }),
    })
}

fn child() -> Span {
    let context = Context {
        trace: TRACE,
        parent: Some([2; 8]),
        sampled: true,
    };
    Span {
        context,
        id: [3; 8],
        state: None,
    }
}

#[tokio::test]
async fn a_collector_gets_spans_with_their_parents_and_without_queries() {
    let (at, mut got) = collector("0").await;
    let metrics = Metrics::new("shop");
    let (tracer, exporter) = new(settings(at, 0.0), &metrics);
    let sending = tokio::spawn(exporter.run());
    tracer.tell(&story(Direction::Inbound, 200, child()));
    tracer.tell(&story(Direction::Outbound, 404, child()));
    drop(tracer);
    let message = got.recv().await.unwrap();
    sending.await.unwrap();
    let of = &message.resource_spans[0];
    let resource = of.resource.clone().unwrap();
    assert_eq!(resource.attributes[0], pair("service.name", "web"));
    let [server, client] = &of.scope_spans[0].spans[..] else {
        panic!("two spans: {message:?}")
    };
    assert_eq!((server.kind, client.kind), (otlp::SERVER, otlp::CLIENT));
    assert_eq!(server.trace_id, TRACE);
    assert_eq!(
        (&server.span_id[..], &server.parent_span_id[..]),
        (&[3; 8][..], &[2; 8][..])
    );
    let took = server.end_time_unix_nano - server.start_time_unix_nano;
    assert_eq!(took, 3_000_000);
    for attribute in [
        pair("http.request.method", "POST"),
        pair("url.path", "/cart"),
        pair("server.address", "web.shop"),
        number("server.port", 80),
        number("http.response.status_code", 200),
        pair("network.protocol.version", "1.1"),
        pair("client.address", "10.1.0.1"),
    ] {
        assert!(server.attributes.contains(&attribute), "{attribute:?}");
    }
    assert!(!format!("{message:?}").contains("4111"));
    // What the caller got wrong is an error of the caller's span alone.
    assert_eq!(server.status, None);
    assert_eq!(client.status.as_ref().unwrap().code, otlp::FAILED);
    assert!(client.attributes.contains(&pair("error.type", "404")));
    assert_eq!(metrics.spans("sent").get(), 2);
}

#[test]
fn what_a_client_made_long_takes_little_room_in_the_queue() {
    let mut story = story(Direction::Inbound, 200, child());
    let long = "x".repeat(30_000);
    story.uri = format!("/{long}").parse().unwrap();
    story.method = long.parse().unwrap();
    story.host = Some(long.parse().unwrap());
    let state = Some(format!("a={long}").parse().unwrap());
    let span = Span { state, ..child() };
    let record = record(&story, &span);
    assert!(record.encoded_len() < 5 * LONGEST);
    assert_eq!(record.trace_state, "", "not in part");
}

#[tokio::test]
async fn what_a_collector_does_not_take_is_counted_and_what_has_no_room_too() {
    let (at, mut got) = collector("14").await;
    let metrics = Metrics::new("shop");
    let (tracer, exporter) = new(settings(at, 0.0), &metrics);
    (0..=QUEUE).for_each(|_| tracer.tell(&story(Direction::Inbound, 200, child())));
    assert_eq!(metrics.spans("dropped").get(), 1);
    let sending = tokio::spawn(exporter.run());
    let first = got.recv().await.unwrap();
    assert_eq!(first.resource_spans[0].scope_spans[0].spans.len(), BATCH);
    while metrics.spans("failed").get() < BATCH as u64 {
        tokio::task::yield_now().await;
    }
    sending.abort();
}

#[tokio::test]
async fn the_caller_decides_and_the_ratio_only_where_nobody_has() {
    let metrics = Metrics::new("shop");
    let traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (never, _exporter) = new(settings("collector:1".into(), 0.0), &metrics);
    let (always, _exporter) = new(settings("collector:1".into(), 1.0), &metrics);
    for tracer in [&never, &always] {
        let mut fields = headers(traced);
        let span = tracer.begin(&mut fields).unwrap();
        let next = context::read(&fields).unwrap();
        assert_eq!(
            (next.trace, next.parent),
            (span.context.trace, Some(span.id))
        );
        assert_eq!(
            span.context.parent,
            Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31])
        );
        // Not traced: not touched.
        let mut fields = headers(&traced.replace("-01", "-00"));
        let before = fields.clone();
        assert_eq!(tracer.begin(&mut fields), None);
        assert_eq!(fields, before);
    }
    let mut fields = HeaderMap::new();
    assert_eq!(never.begin(&mut fields), None);
    assert!(fields.is_empty());
    let first = always.begin(&mut fields).unwrap();
    assert_eq!(first.context.parent, None);
    assert_eq!(context::read(&fields).unwrap().parent, Some(first.id));
}
