//! Timeouts, retries, faults and budgets as the whole outbound chain has them, over loopback.
#![allow(clippy::unwrap_used)]

use super::tests::{application_of, backend, destination, send, service, settled, shared};
use super::*;
use crate::http::{Body, Request, Response};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tower::service_fn;
use weft_proxy_api::policy::settings::{self, Fault, MILLION, Retry, ServiceSettings, Timeouts};

/// An application that answers with this status; and how often it was asked.
async fn answering(status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move |_: Request| {
        count.fetch_add(1, Relaxed);
        let mut response = Response::new(Body::full("answer"));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        std::future::ready(Ok(response))
    };
    let at = application_of(HttpService::new(service_fn(answer))).await;
    (at, asked)
}

/// An application that never answers.
async fn silent() -> SocketAddr {
    let never = |_: Request| std::future::pending();
    application_of(HttpService::new(service_fn(never))).await
}

fn retry(attempts: u32) -> Retry {
    Retry {
        attempts,
        statuses: vec![(500, 599)],
        grpc: 0,
        methods: Vec::new(),
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(1),
    }
}

/// A stack in front of these endpoints.
fn stack(
    shared: &Arc<Shared>,
    at: &[SocketAddr],
    change: impl FnOnce(&mut ServiceSettings),
) -> HttpService {
    let policy = settled(service(vec![backend("web", 1)]), change);
    outbound(shared, &destination(shared, policy, Some(at)))
}

fn retries(shared: &Shared, result: &'static str) -> u64 {
    let service = "shop/web:80";
    let counter = shared.metrics.retries(Direction::Outbound, service, result);
    counter.get()
}

#[tokio::test]
async fn with_one_endpoint_of_five_failing_no_client_sees_it() {
    let shared = shared();
    let mut endpoints = vec![answering(500).await];
    for _ in 0..4 {
        endpoints.push(answering(200).await);
    }
    let at: Vec<_> = endpoints.iter().map(|(at, _)| *at).collect();
    let stack = stack(&shared, &at, |settings| {
        settings.requests.retry = Some(retry(2));
    });
    let mut good = 0;
    for _ in 0..2000 {
        good += usize::from(send(&stack).await.0 == 200);
    }
    let failed = endpoints[0].1.load(Relaxed);
    println!("one of five failing: {good} of 2000 good, {failed} sent to the failing one");
    assert!(good >= 1998, "{good}");
}

#[tokio::test]
async fn with_all_endpoints_failing_tries_stay_within_the_budget() {
    let began = std::time::Instant::now();
    let shared = shared();
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push(answering(500).await);
    }
    let at: Vec<_> = endpoints.iter().map(|(at, _)| *at).collect();
    let stack = stack(&shared, &at, |settings| {
        settings.requests.retry = Some(retry(3));
    });
    for _ in 0..1000 {
        assert_eq!(send(&stack).await.0, 500);
    }
    let seconds = began.elapsed().as_secs_f64();
    let tries: usize = endpoints.iter().map(|(_, asked)| asked.load(Relaxed)).sum();
    let most = 1200.0 + 10.0 * (seconds + 1.0);
    println!(
        "all five failing: 1000 requests, {tries} tries (at most {most:.0}) in {seconds:.1} s"
    );
    assert!(tries as f64 <= most);
    assert!(retries(&shared, "budget") > 0);
    assert_eq!(retries(&shared, "tried"), tries as u64 - 1000);
}

#[tokio::test]
async fn each_limit_of_time_has_its_own_error() {
    let limit = Some(Duration::from_millis(30));
    let none = Timeouts::default();
    for (timeouts, error, kind) in [
        (
            Timeouts {
                request: limit,
                ..none
            },
            "E116 request-timeout",
            "request",
        ),
        (
            Timeouts {
                response: limit,
                ..none
            },
            "E115 response-timeout",
            "response",
        ),
        (
            Timeouts {
                per_try: limit,
                ..none
            },
            "E131 try-timeout",
            "try",
        ),
        (
            Timeouts {
                idle: limit,
                ..none
            },
            "E132 idle-timeout",
            "idle",
        ),
    ] {
        let shared = shared();
        let stack = stack(&shared, &[silent().await], |settings| {
            settings.requests.timeouts = timeouts;
        });
        let answer = send(&stack).await;
        assert_eq!((answer.0, answer.1.as_str()), (504, error));
        let count = shared.metrics.timeouts(Direction::Outbound, kind).get();
        assert_eq!(count, 1, "{kind}");
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_goes_elsewhere() {
    let shared = shared();
    let (alive, _) = answering(200).await;
    let stack = stack(&shared, &[silent().await, alive], |settings| {
        settings.requests.retry = Some(retry(1));
        // Long beside an answer over loopback, on a busy machine as well; waited out about once.
        settings.requests.timeouts.per_try = Some(Duration::from_secs(1));
    });
    for _ in 0..10 {
        assert_eq!(send(&stack).await.0, 200);
    }
    assert!(retries(&shared, "succeeded") >= 1);
}

#[tokio::test]
async fn what_fails_on_purpose_says_so_and_reaches_nobody() {
    let shared = shared();
    let (at, asked) = answering(200).await;
    let fault = Fault {
        abort_ppm: MILLION,
        status: 503,
        ..Fault::default()
    };
    let plain = stack(&shared, &[at], |settings| settings.requests.fault = fault);
    let answer = send(&plain).await;
    assert_eq!((answer.0, answer.1.as_str()), (503, "E129 fault-injected"));
    assert_eq!(asked.load(Relaxed), 0);
    assert_eq!(shared.metrics.faults("shop/web:80", "abort").get(), 1);
    // A policy that names the status meets it as it would meet a real one.
    let retried = stack(&shared, &[at], |settings| {
        settings.requests.retry = Some(retry(2));
        settings.requests.fault = fault;
        settings.budget = settings::Budget::default();
    });
    assert_eq!(send(&retried).await.1, "E129 fault-injected");
    assert_eq!(shared.metrics.faults("shop/web:80", "abort").get(), 4);
}

#[tokio::test]
async fn a_delay_on_purpose_counts_against_the_limits() {
    let shared = shared();
    let (at, asked) = answering(200).await;
    let fault = Fault {
        delay_ppm: MILLION,
        delay: Duration::from_secs(60),
        ..Fault::default()
    };
    let stack = stack(&shared, &[at], |settings| {
        settings.requests.fault = fault;
        settings.requests.timeouts.request = Some(Duration::from_millis(20));
    });
    assert_eq!(send(&stack).await.1, "E116 request-timeout");
    assert_eq!(asked.load(Relaxed), 0);
    assert_eq!(shared.metrics.faults("shop/web:80", "delay").get(), 1);
}
