//! The breaker of a Service and its fallback as the whole outbound chain has them, over loopback.
#![allow(clippy::unwrap_used)]

use super::tests::{application_of, backend, endpoint, send, service, settled, shared};
use super::*;
use crate::balance::{EndpointSet, Limits, Place};
use crate::http::{Body, Request, Response};
use crate::policy::outbound::{Compiler, WantedSet};
use std::net::SocketAddr;
use tokio::sync::Notify;
use tower::service_fn;
use weft_proxy_api::policy::ServicePort;
use weft_proxy_api::policy::settings::{Breaker, Fallback};

const OPEN: &str = "E133 breaker-open";

/// An application that answers with its name; where `hold` is given, when that is notified.
async fn named(name: &'static str, hold: Option<(Arc<Notify>, Arc<Notify>)>) -> SocketAddr {
    let answer = move |_: Request| {
        let hold = hold.clone();
        async move {
            if let Some((asked, release)) = hold {
                asked.notify_one();
                release.notified().await;
            }
            Ok(Response::new(Body::full(name)))
        }
    };
    application_of(HttpService::new(service_fn(answer))).await
}

fn with_fallback(breaker: Breaker) -> Breaker {
    let name = ServicePort {
        namespace: "shop".into(),
        name: "static".into(),
        port: 80,
    };
    let endpoints = name.to_string();
    Breaker {
        fallback: Some(Fallback { name, endpoints }),
        ..breaker
    }
}

/// A stack in front of `web` and, where the breaker names it, `static`.
fn stack(
    shared: &Arc<Shared>,
    breaker: &Breaker,
    web: &[SocketAddr],
    fallback: &[SocketAddr],
) -> HttpService {
    let to = Destination::new("10.96.0.1:80".parse().unwrap());
    let mut sets = |wanted: &WantedSet<'_>| {
        let counts = shared.metrics.backend(wanted.name);
        let limits = Limits::new(shared.metrics.backend(wanted.service));
        if let Some(settings) = wanted.settings {
            limits.configure(&settings.breaker);
        }
        let set = EndpointSet::placed(wanted.name, counts, Place::default(), limits);
        let at = match wanted.name {
            "shop/web:80" => web,
            _ => fallback,
        };
        set.update(at.iter().copied().map(endpoint).collect());
        set
    };
    let policy = settled(service(vec![backend("web", 1)]), |settings| {
        settings.breaker = breaker.clone();
    });
    let compiler = Compiler {
        metrics: &shared.metrics,
        sets: &mut sets,
    };
    to.put({ compiler }.compile(policy), 1);
    outbound(shared, &to)
}

fn count(shared: &Shared, metric: &str) -> f64 {
    let text = shared.metrics.render();
    let lines = text.lines().filter(|line| {
        line.starts_with(&format!("{metric}{{")) && line.contains("backend=\"shop/web:80\"")
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[tokio::test]
async fn beyond_a_limit_requests_fail_at_once_or_go_to_the_fallback() {
    let (requests, connections) = (
        Breaker {
            requests: Some(1),
            ..Breaker::default()
        },
        Breaker {
            connections: Some(1),
            ..Breaker::default()
        },
    );
    for breaker in [requests, connections] {
        for has_fallback in [false, true] {
            let shared = shared();
            let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let web = named("web", Some((asked.clone(), release.clone()))).await;
            let other = named("static", None).await;
            let breaker = match has_fallback {
                true => with_fallback(breaker.clone()),
                false => breaker.clone(),
            };
            let stack = stack(&shared, &breaker, &[web], &[other]);
            let first = tokio::spawn({
                let stack = stack.clone();
                async move { send(&stack).await }
            });
            asked.notified().await;
            let (status, error, body) = send(&stack).await;
            match has_fallback {
                true => assert_eq!(
                    (status, &*error, &*body),
                    (200, "", "static"),
                    "{breaker:?}"
                ),
                false => assert_eq!((status, &*error), (503, OPEN), "{breaker:?}"),
            }
            assert_eq!(count(&shared, "weft_backend_breaker_refused_total"), 1.0);
            assert_eq!(
                count(&shared, "weft_backend_fallbacks_total"),
                f64::from(u8::from(has_fallback))
            );
            release.notify_one();
            assert_eq!(first.await.unwrap().2, "web");
            // What has ended makes room again.
            release.notify_one();
            assert_eq!(send(&stack).await.2, "web", "{breaker:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_only_kept_is_no_reason_to_refuse_a_request() {
    let breaker = Breaker {
        connections: Some(1),
        ..Breaker::default()
    };
    let shared = shared();
    let web = [named("one", None).await, named("two", None).await];
    let stack = stack(&shared, &breaker, &web, &[]);
    let mut answers = Vec::new();
    for _ in 0..4 {
        let (status, _, body) = send(&stack).await;
        assert_eq!(status, 200);
        answers.push(body);
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers, ["one", "two"]);
    assert_eq!(count(&shared, "weft_backend_breaker_refused_total"), 0.0);
}

#[tokio::test]
async fn without_any_endpoint_the_fallback_answers_and_else_it_is_said_what_is_missing() {
    let shared = shared();
    let other = named("static", None).await;
    let breaker = with_fallback(Breaker::default());
    assert_eq!(
        send(&stack(&shared, &breaker, &[], &[other])).await.2,
        "static"
    );
    let (status, error, _) = send(&stack(&shared, &breaker, &[], &[])).await;
    assert_eq!((status, &*error), (503, "E104 no-endpoints"));
    let good = named("web", None).await;
    let both = stack(&shared, &breaker, &[good], &[other]);
    assert_eq!(send(&both).await.2, "web", "only while it is needed");
}
