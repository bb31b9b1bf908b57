#![allow(clippy::unwrap_used)]
use super::super::remembered::REMEMBERED;
use super::*;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn status() -> Value {
    json!({
        "authenticated": true,
        "audiences": [TOKEN_AUDIENCE],
        "user": {
            "username": "system:serviceaccount:shop:web",
            "extra": {POD_NAME: ["web-1"], POD_UID: ["u1"]},
        },
    })
}

fn judged(status: &Value) -> Verdict {
    judge(serde_json::from_value(status.clone()).unwrap())
}

#[test]
fn only_a_token_for_us_that_is_bound_to_a_pod_proves_anything() {
    let proven = judged(&status()).unwrap();
    assert_eq!(proven.pod, PodRef::new("shop", "web-1"));
    assert_eq!(
        (proven.account.as_str(), proven.uid.as_deref()),
        ("web", Some("u1"))
    );
    let table = [
        ("/authenticated", json!(false), TokenError::Unknown),
        ("/authenticated", json!(null), TokenError::Unknown),
        ("/audiences", json!([]), TokenError::Audience),
        (
            "/audiences",
            json!(["https://kubernetes.default.svc"]),
            TokenError::Audience,
        ),
        ("/user/username", json!("admin"), TokenError::Subject),
        (
            "/user/username",
            json!("system:serviceaccount:shop"),
            TokenError::Subject,
        ),
        ("/user/extra", json!({}), TokenError::Unbound),
        (
            "/user/extra",
            json!({POD_NAME: ["web-1"]}),
            TokenError::Unbound,
        ),
        (
            "/user/extra",
            json!({POD_NAME: ["a", "b"], POD_UID: ["u"]}),
            TokenError::Unbound,
        ),
        (
            "/user/extra",
            json!({POD_NAME: [""], POD_UID: ["u"]}),
            TokenError::Unbound,
        ),
    ];
    for (place, value, expected) in table {
        let mut changed = status();
        *changed.pointer_mut(place).unwrap() = value.clone();
        assert_eq!(judged(&changed), Err(expected), "{place} {value}");
    }
    assert_eq!(judged(&json!({})), Err(TokenError::Unknown));
}

/// A reviewer whose API server gives this answer, and how often it was asked.
fn reviewer(code: u16, answer: Value) -> (Reviewer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        let body = Body::from(answer.to_string().into_bytes());
        let response = Response::builder().status(code).body(body).unwrap();
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    (Reviewer::new(Client::new(service, "default")), asked)
}

fn review() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status()})
}

#[tokio::test]
async fn an_answer_is_remembered_for_a_moment() {
    let (reviewer, asked) = reviewer(201, review());
    for _ in 0..3 {
        assert!(reviewer.verify("one", HERE).await.is_ok());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(reviewer.verify("two", HERE).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let key = fingerprint("one");
    assert!(
        reviewer
            .remembered
            .recall(&key, Instant::now() + REMEMBERED)
            .is_none()
    );
}

#[tokio::test]
async fn a_server_that_cannot_answer_is_no_verdict() {
    let failure = json!({"kind": "Status", "status": "Failure", "code": 503, "message": "away"});
    let (reviewer, asked) = reviewer(503, failure);
    for times in 1..=2 {
        assert_eq!(reviewer.verify("one", HERE).await, Err(TokenError::Review));
        assert_eq!(asked.load(Ordering::SeqCst), times);
    }
}

#[tokio::test]
async fn made_up_tokens_cost_the_server_only_so_much() {
    let (reviewer, asked) = reviewer(201, review());
    assert_eq!(
        reviewer.verify(&"x".repeat(MAX_TOKEN + 1), HERE).await,
        Err(TokenError::TooLong)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let mut busy = 0;
    for n in 0..2000 {
        let verdict = reviewer.verify(&n.to_string(), HERE).await;
        busy += usize::from(verdict == Err(TokenError::Busy));
    }
    assert_eq!(asked.load(Ordering::SeqCst) + busy, 2000);
    assert!(busy > 0);
}

#[tokio::test]
async fn one_address_with_made_up_tokens_does_not_keep_others_from_being_asked_about() {
    let refused = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": {}});
    let (reviewer, asked) = reviewer(201, refused);
    let count = |verdicts: &[Verdict], error| {
        let verdicts = verdicts.iter();
        verdicts.filter(|it| **it == Err(error)).count()
    };
    let mut verdicts = Vec::new();
    for n in 0..1000 {
        verdicts.push(reviewer.verify(&n.to_string(), HERE).await);
    }
    let unknown = count(&verdicts, TokenError::Unknown);
    assert_eq!(unknown, asked.load(Ordering::SeqCst));
    assert_eq!(unknown + count(&verdicts, TokenError::Doubted), 1000);
    // What is left of the rate of all is for the others.
    let other = Ipv4Addr::new(10, 0, 0, 2).into();
    let verdict = reviewer.verify("another", other).await;
    assert_eq!(verdict, Err(TokenError::Unknown));
    // What is remembered costs nothing, wherever it comes from.
    let known = reviewer.verify("another", HERE).await;
    assert_eq!(known, Err(TokenError::Unknown));
}
