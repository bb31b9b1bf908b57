#![allow(clippy::unwrap_used)]
use super::*;
use crate::http::Body;
use crate::policy::ServiceTerms;
use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tower::service_fn;
use weft_proxy_api::policy::settings::{self, RequestSettings, ServiceSettings, Timeouts};

const GRPC: &str = "application/grpc";

fn layer(budget: Arc<Budget>) -> (RetryLayer, Arc<Metrics>) {
    let metrics = Metrics::new("shop");
    let (direction, service) = (Direction::Outbound, "shop/web:80".to_owned());
    (
        RetryLayer::new(budget, metrics.clone(), direction, service),
        metrics,
    )
}

fn counted(metrics: &Metrics, result: &'static str) -> u64 {
    let service = "shop/web:80";
    metrics.retries(Direction::Outbound, service, result).get()
}

/// Fails `times` times with what `fail` makes; tells how often it was called.
async fn tries(
    method: &str,
    body: Body,
    times: usize,
    fail: fn(Request) -> Error,
) -> (usize, bool) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let below = service_fn(move |attempt: Attempt| {
        let call = counted.fetch_add(1, Relaxed);
        assert_eq!(attempt.tried.ids().len(), call);
        async move {
            if call < times {
                Err(fail(attempt.request).sent_to(call as u64))
            } else {
                Ok(Response::new(Body::empty()))
            }
        }
    });
    let mut stack = layer(Budget::new(Default::default())).0.layer(below);
    let request = http::Request::builder().method(method).body(body).unwrap();
    let answer = stack.call(request.into()).await;
    (calls.load(Relaxed), answer.is_ok())
}

#[tokio::test]
async fn only_what_was_not_processed_is_sent_again() {
    let connect = |request| Error::new(ErrorKind::ConnectFailed).with_request(request);
    let raced = |_| Error::new(ErrorKind::UpstreamReset).raced_with_close();
    let refused = |_| Error::new(ErrorKind::UpstreamReset).never_processed();
    let reset = |_| Error::new(ErrorKind::UpstreamReset);
    type Row = (
        &'static str,
        &'static str,
        usize,
        fn(Request) -> Error,
        (usize, bool),
    );
    let rows: [Row; 9] = [
        ("GET", "", 1, connect, (2, true)),
        ("POST", "body", 1, connect, (2, true)),
        ("GET", "", 2, connect, (3, true)),
        ("GET", "", 3, connect, (3, false)),
        ("GET", "", 1, raced, (2, true)),
        ("POST", "", 1, raced, (1, false)),
        ("POST", "", 1, refused, (2, true)),
        ("POST", "body", 1, refused, (1, false)),
        ("GET", "", 1, reset, (1, false)),
    ];
    for (at, (method, body, times, fail, expected)) in rows.into_iter().enumerate() {
        let body = if body.is_empty() {
            Body::empty()
        } else {
            Body::full(body)
        };
        assert_eq!(tries(method, body, times, fail).await, expected, "row {at}");
    }
}

#[tokio::test]
async fn what_the_servers_proxy_could_hand_to_nobody_is_sent_again() {
    let rows = [
        ("GET", 502, "E106 connect-failed", 2),
        ("DELETE", 504, "E107 connect-timeout", 2),
        // It may have been processed.
        ("GET", 502, "E117 upstream-reset", 1),
        ("GET", 504, "E115 response-timeout", 1),
        ("GET", 502, "E1060", 1),
        ("GET", 502, "", 1),
        ("GET", 200, "E106 connect-failed", 1),
    ];
    for (method, status, said, expected) in rows {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let below = service_fn(move |_: Attempt| {
            let mut response = Response::new(Body::empty());
            if counted.fetch_add(1, Relaxed) == 0 {
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                let said = HeaderValue::from_static(said);
                response.headers_mut().insert("weft-error", said);
            }
            async move { Ok::<_, Error>(response) }
        });
        let mut stack = layer(Budget::new(Default::default())).0.layer(below);
        let answer = stack.call(request(method, "", "").into()).await.unwrap();
        assert_eq!(calls.load(Relaxed), expected, "{status} {said}");
        let expected = if expected == 2 { 200 } else { status };
        assert_eq!(answer.status().as_u16(), expected, "{status} {said}");
    }
}

fn policy(attempts: u32) -> settings::Retry {
    settings::Retry {
        attempts,
        statuses: vec![(500, 503)],
        grpc: 1 << 14,
        methods: Vec::new(),
        backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
    }
}

fn terms(retry: settings::Retry, per_try: Option<Duration>) -> Option<Arc<Terms>> {
    let requests = RequestSettings {
        retry: Some(retry),
        timeouts: Timeouts {
            per_try,
            ..Timeouts::default()
        },
        ..RequestSettings::default()
    };
    let settings = ServiceSettings {
        requests,
        ..ServiceSettings::default()
    };
    let any = Request::new(Body::empty());
    ServiceTerms::new(&settings).of(&settings, &any).cloned()
}

/// An answer, by its status; gRPC codes in the head or in the trailers.
#[derive(Debug, Clone, Copy)]
enum Say {
    Status(u16),
    Head(u8),
    Trailers(u8),
    /// A message, and then the code: it has begun.
    Message(u8),
    /// The head, and nothing for long.
    HeadOnly,
    Reset,
}

fn say(what: Say) -> Result<Response, Error> {
    let grpc = |code: u8, body| {
        let mut response = Response::new(body);
        let fields = response.headers_mut();
        fields.insert("content-type", HeaderValue::from_static(GRPC));
        if code < 255 {
            fields.insert("grpc-status", HeaderValue::from(u16::from(code)));
        }
        Ok(response)
    };
    let trailers = |code: u8| {
        let mut fields = http::HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from(u16::from(code)));
        Ok(Frame::trailers(fields))
    };
    match what {
        Say::Status(status) => {
            let mut response = Response::new(Body::full("answer"));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
        Say::Head(code) => grpc(code, Body::empty()),
        Say::Trailers(code) => grpc(255, Body::frames([trailers(code)])),
        Say::Message(code) => {
            let message = Ok(Frame::data(Bytes::from_static(b"message")));
            grpc(255, Body::frames([message, trailers(code)]))
        }
        Say::HeadOnly => grpc(255, Body::frames_then_nothing([])),
        Say::Reset => Err(Error::new(ErrorKind::UpstreamReset)),
    }
}

/// Answers in this order; the last one for ever. Tells what was read of each body.
struct Sent {
    bodies: Arc<Mutex<Vec<String>>>,
    metrics: Arc<Metrics>,
    answer: Result<Response, Error>,
    took: Duration,
}

async fn send(answers: Vec<Say>, retry: settings::Retry, request: Request) -> Sent {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let read = bodies.clone();
    let below = service_fn(move |attempt: Attempt| {
        let (read, answers) = (read.clone(), answers.clone());
        async move {
            let body = attempt.request.into_body().collect().await?.to_bytes();
            let call = read.lock().len().min(answers.len() - 1);
            read.lock()
                .push(String::from_utf8_lossy(&body).into_owned());
            say(answers[call])
        }
    });
    let (layer, metrics) = layer(Budget::new(Default::default()));
    let mut outgoing = Outgoing::from(request);
    outgoing.terms = terms(retry, None);
    let began = Instant::now();
    let answer = layer.layer(below).call(outgoing).await;
    Sent {
        bodies,
        metrics,
        answer,
        took: began.elapsed(),
    }
}

fn request(method: &str, kind: &str, body: &'static str) -> Request {
    http::Request::builder()
        .method(method)
        .header("content-type", kind)
        .body(if body.is_empty() {
            Body::empty()
        } else {
            Body::full(body)
        })
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_that_the_policy_names_are_asked_for_again() {
    use Say::{Head, HeadOnly, Message, Reset, Status, Trailers};
    for (method, kind, answers, expected) in [
        ("GET", "", vec![Status(503), Status(200)], 2),
        ("GET", "", vec![Status(503)], 3),
        ("GET", "", vec![Status(504)], 1),
        ("GET", "", vec![Reset, Status(200)], 2),
        ("POST", "", vec![Status(503)], 1),
        ("POST", "", vec![Reset], 1),
        ("PUT", "", vec![Status(500), Status(200)], 2),
        ("POST", GRPC, vec![Head(14), Head(0)], 2),
        ("POST", GRPC, vec![Head(13)], 1),
        ("POST", GRPC, vec![Trailers(14), Trailers(0)], 2),
        ("POST", GRPC, vec![Message(14)], 1),
        ("POST", GRPC, vec![HeadOnly], 1),
        ("POST", GRPC, vec![Reset, Head(0)], 2),
        ("POST", GRPC, vec![Status(503)], 1),
    ] {
        let text = format!("{method} {kind} {answers:?}");
        let sent = send(answers, policy(2), request(method, kind, "asked")).await;
        let bodies = sent.bodies.lock();
        assert_eq!(bodies.len(), expected, "{text}");
        assert!(bodies.iter().all(|body| body == "asked"), "{text}");
    }
}

#[tokio::test]
async fn what_was_looked_at_is_not_lost() {
    for (answer, expected) in [(Say::Message(14), "message"), (Say::Trailers(0), "")] {
        let sent = send(vec![answer], policy(2), request("POST", GRPC, "")).await;
        let all = sent.answer.unwrap().into_body().collect().await.unwrap();
        assert!(all.trailers().unwrap().contains_key("grpc-status"));
        assert_eq!(all.to_bytes(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn waits_double_and_are_shortened_at_random() {
    let sent = send(vec![Say::Status(503)], policy(3), request("GET", "", "")).await;
    assert_eq!(sent.bodies.lock().len(), 4);
    assert_eq!(sent.answer.unwrap().status(), 503);
    let took = sent.took.as_millis();
    assert!((350..=703).contains(&took), "{took} ms");
    assert_eq!(counted(&sent.metrics, "tried"), 3);
    assert_eq!(counted(&sent.metrics, "attempts"), 1);
    for done in [0, 1, 5, 40] {
        let whole = Duration::from_millis(100 << done.min(10)).min(Duration::from_secs(1));
        let wait = judge::backoff(&policy(1), done);
        assert!(whole / 2 <= wait && wait <= whole, "{done}: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_the_limit_passes_once() {
    const HALF: usize = crate::http::replay::MOST_KEPT / 2 + 1;
    let half = || Ok(Frame::data(Bytes::from(vec![b'x'; HALF])));
    let mut long = request("PUT", "", "");
    *long.body_mut() = Body::frames([half(), half()]);
    let sent = send(vec![Say::Status(503)], policy(2), long).await;
    assert_eq!(sent.bodies.lock().len(), 1);
    assert_eq!(sent.bodies.lock()[0].len(), 2 * HALF);
    assert_eq!(counted(&sent.metrics, "not_replayable"), 1);
}

#[tokio::test(start_paused = true)]
async fn no_try_begins_that_cannot_end_in_time() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = calls.clone();
    let below = service_fn(move |_: Attempt| {
        counting.fetch_add(1, Relaxed);
        std::future::ready(say(Say::Status(503)))
    });
    let (layer, metrics) = layer(Budget::new(Default::default()));
    let mut outgoing = Outgoing::from(request("GET", "", ""));
    outgoing.terms = terms(policy(9), None);
    outgoing.whole = Some(Instant::now() + Duration::from_millis(250));
    let began = Instant::now();
    let answer = layer.layer(below).call(outgoing).await;
    assert_eq!(answer.unwrap().status(), 503);
    assert!(began.elapsed() < Duration::from_millis(250));
    assert!((2..=3).contains(&calls.load(Relaxed)));
    assert_eq!(counted(&metrics, "late"), 1);
}

#[tokio::test(start_paused = true)]
async fn each_try_has_its_own_time() {
    let limits = Arc::new(Mutex::new(Vec::new()));
    let seen = limits.clone();
    let below = service_fn(move |attempt: Attempt| {
        seen.lock().push(attempt.head.unwrap());
        std::future::ready(say(Say::Status(503)))
    });
    let (layer, _) = layer(Budget::new(Default::default()));
    let mut outgoing = Outgoing::from(request("GET", "", ""));
    outgoing.terms = terms(policy(2), Some(Duration::from_secs(1)));
    let most = Instant::now() + Duration::from_millis(1060);
    outgoing.head = Some((most, ErrorKind::ResponseTimeout));
    drop(layer.layer(below).call(outgoing).await);
    let limits = limits.lock();
    assert_eq!(limits[0].1, ErrorKind::TryTimeout);
    assert_eq!(*limits.last().unwrap(), (most, ErrorKind::ResponseTimeout));
}

/// A service that only fails, asked at random times by requests that may be retried five times.
#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_budget_bounds_the_tries() {
    let mut random = fastrand::Rng::with_seed(11);
    for (percent, min_per_second) in [(20, 10), (0, 10), (20, 0), (100, 1), (0, 0)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counting = calls.clone();
        let below = service_fn(move |_: Attempt| {
            counting.fetch_add(1, Relaxed);
            std::future::ready(say(Say::Status(503)))
        });
        let budget = Budget::new(settings::Budget {
            percent,
            min_per_second,
        });
        let mut stack = layer(budget).0.layer(below);
        let began = Instant::now();
        let mut retry = policy(5);
        retry.backoff = Duration::from_millis(1);
        let terms = terms(retry, None);
        for requests in 1..=2000_u32 {
            tokio::time::advance(Duration::from_millis(random.u64(0..10))).await;
            let mut outgoing = Outgoing::from(request("GET", "", ""));
            outgoing.terms = terms.clone();
            drop(stack.call(outgoing).await);
            let seconds = began.elapsed().as_secs_f64();
            let most = f64::from(requests) * (1.0 + f64::from(percent) / 100.0)
                + f64::from(min_per_second) * (seconds + 1.0);
            let tries = calls.load(Relaxed);
            assert!(tries as f64 <= most + 1e-6, "{tries} tries of {most}");
        }
        println!(
            "budget {percent} % + {min_per_second}/s: 2000 requests, {} tries in {:.1} s",
            calls.load(Relaxed),
            began.elapsed().as_secs_f64()
        );
    }
}
