//! What is asked of the API server, and what is made of its answers.
#![allow(clippy::unwrap_used)]
use super::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Observers whose API server gives these answers, and the subjects it was asked about.
fn observers(known: bool, allowed: bool) -> (Observers, Arc<Mutex<Vec<Value>>>) {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let list = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let list = list.clone();
        async move {
            let answer = match request.uri().path().contains("tokenreviews") {
                true => json!({"spec": {}, "status": {
                    "authenticated": known,
                    "user": {"username": "ann", "groups": ["ops"], "extra": {"a": ["b"]}},
                }}),
                false => {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let sent: Value = serde_json::from_slice(&body).unwrap();
                    list.lock().push(sent["spec"].clone());
                    json!({"spec": {}, "status": {"allowed": allowed}})
                }
            };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(Response::new(body))
        }
    });
    (Observers::new(Client::new(service, "default")), asked)
}

#[tokio::test]
async fn a_token_may_what_its_user_may() {
    let (gate, asked) = observers(true, true);
    let tap = Right::Tap("shop".into());
    assert_eq!(gate.admit("t", &tap, HERE).await, Ok("ann".into()));
    let expected = json!({
        "user": "ann", "groups": ["ops"], "extra": {"a": ["b"]},
        "resourceAttributes": {
            "group": "weft.mesh", "resource": "pods", "subresource": "tap", "verb": "watch", "namespace": "shop",
        },
    });
    assert_eq!(*asked.lock(), [expected]);
    // Remembered, for this right alone.
    assert_eq!(gate.admit("t", &tap, HERE).await, Ok("ann".into()));
    assert_eq!(asked.lock().len(), 1);
    assert_eq!(
        gate.admit("t", &Right::Figures, HERE).await,
        Ok("ann".into())
    );
    let last = asked.lock()[1]["resourceAttributes"].clone();
    assert_eq!(
        (&last["verb"], &last["resource"], &last["namespace"]),
        (&json!("get"), &json!("traffic"), &Value::Null)
    );
}

#[tokio::test]
async fn who_is_unknown_or_may_not_is_told_so() {
    let (gate, asked) = observers(false, true);
    let refused = gate.admit("t", &Right::Figures, HERE).await;
    assert_eq!(refused, Err(Refusal::Unknown));
    assert!(asked.lock().is_empty());
    let (gate, _) = observers(true, false);
    let refused = gate.admit("t", &Right::Metrics(String::new()), HERE).await;
    let text = "ann may not update pods/metrics of weft.mesh in all namespaces";
    assert_eq!(refused, Err(Refusal::Forbidden(text.into())));
    let long = "x".repeat(MAX_TOKEN + 1);
    assert_eq!(
        gate.admit(&long, &Right::Figures, HERE).await,
        Err(Refusal::Unknown)
    );
    let (gate, asked) = observers(true, true);
    let nowhere = gate.admit("t", &Right::Tap("n".repeat(64)), HERE).await;
    assert!(
        matches!(&nowhere, Err(Refusal::Forbidden(why)) if why.contains("63")),
        "{nowhere:?}"
    );
    assert!(asked.lock().is_empty());
    let somewhere = gate.admit("t", &Right::Tap("n".repeat(63)), HERE).await;
    assert_eq!(somewhere, Ok("ann".into()));
}

#[tokio::test]
async fn who_asks_in_vain_uses_up_what_its_own_address_may_ask() {
    let (gate, _) = observers(false, true);
    let mut refusals = Vec::new();
    for n in 0..RATE.burst {
        let right = Right::Figures;
        refusals.push(gate.admit(&n.to_string(), &right, HERE).await.unwrap_err());
    }
    let unknown = refusals.iter().filter(|it| **it == Refusal::Unknown);
    assert_eq!(unknown.count(), OF_ADDRESS.burst as usize);
    let other = Ipv4Addr::new(10, 0, 0, 2).into();
    let refused = gate.admit("t", &Right::Figures, other).await;
    assert_eq!(refused, Err(Refusal::Unknown), "it was asked about");
}
