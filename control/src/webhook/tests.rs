//! What the API server sends, as tables: injection, refusals, and bytes that mean nothing.
#![allow(clippy::unwrap_used)]

use super::inject::{Asked, Namespace, answer, is_excluded};
use super::review::{Request, Review};
use super::server::Answer;
use super::validate;
use super::{Client, Index, MAX_CONVERSION, Shared, StateDir, Webhook};
use crate::ca::Ca;
use crate::inject::Settings;
use crate::manifest::k8s::Labels;
use crate::serve::identity::Enrolled;
use crate::smi::convert::convert;
use crate::token::TokenKey;
use crate::views::Mesh;
use futures_util::FutureExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use weft_proxy_api::names::keys::SMI_PRESERVED;

fn request(operation: &str, resource: &str, object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "namespace": "shop", "operation": operation,
            "resource": {"group": "", "version": "v1", "resource": resource}, "object": object,
        },
    })
}

fn read(review: &Value) -> Review {
    Review::read(review.to_string().as_bytes()).unwrap()
}

fn response(answer: &Answer) -> Value {
    let review: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review["response"]["uid"], "u-1");
    review["response"].clone()
}

fn pod(annotations: Value) -> Value {
    json!({
        "metadata": {"name": "web", "annotations": annotations},
        "spec": {"containers": [{"name": "app"}]},
    })
}

fn namespace(annotations: &[(&str, &str)]) -> Namespace {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Namespace {
        labels: Labels::new(),
        annotations: annotations.iter().map(owned).collect(),
    }
}

fn injected(review: &Value, namespace: &Namespace, asked: Asked) -> Value {
    let settings = Settings::default();
    let answer = read(review).answer(|it| answer(it, namespace, asked, &settings));
    response(&answer)
}

#[test]
fn pods_are_injected_where_they_or_their_namespace_say_so() {
    let on = json!({"weft.mesh/inject": "enabled"});
    let off = json!({"weft.mesh/inject": "disabled"});
    let enabled = namespace(&[("weft.mesh/inject", "enabled")]);
    let table = [
        (json!({}), namespace(&[]), Asked::ByAnnotation, false),
        (on.clone(), namespace(&[]), Asked::ByAnnotation, true),
        (json!({}), namespace(&[]), Asked::ByLabel, true),
        (json!({}), enabled.clone(), Asked::ByAnnotation, true),
        (off.clone(), enabled, Asked::ByLabel, false),
        (off, namespace(&[]), Asked::ByAnnotation, false),
        (
            json!({"weft.mesh/injected-at-version": "0"}),
            namespace(&[]),
            Asked::ByLabel,
            false,
        ),
    ];
    for (annotations, namespace, asked, expected) in table {
        let review = request("CREATE", "pods", pod(annotations.clone()));
        let response = injected(&review, &namespace, asked);
        assert_eq!(response["allowed"], true);
        assert_eq!(
            response["patch"].is_string(),
            expected,
            "{annotations} {asked:?}"
        );
        assert_eq!(response["patchType"] == "JSONPatch", expected);
    }
    for review in [
        request("UPDATE", "pods", pod(on.clone())),
        request("CREATE", "services", pod(on)),
    ] {
        let response = injected(&review, &namespace(&[]), Asked::ByLabel);
        assert_eq!(response, json!({"uid": "u-1", "allowed": true}));
    }
}

#[test]
fn what_a_namespace_configures_counts_for_its_pods() {
    let configured = namespace(&[
        ("config.weft.mesh/proxy-log-level", "debug"),
        ("config.weft.mesh/access", "strict"),
        ("other", "x"),
    ]);
    let request = |annotations| -> Request {
        serde_json::from_value(request("CREATE", "pods", pod(annotations))["request"].clone())
            .unwrap()
    };
    let settings = Settings::default();
    let of = |annotations| {
        let response = answer(
            &request(annotations),
            &configured,
            Asked::ByLabel,
            &settings,
        );
        format!("{response:?}")
    };
    assert!(of(json!({})).contains("debug"));
    assert!(
        !of(json!({})).contains("strict"),
        "the controller reads it where it is"
    );
    assert!(of(json!({"config.weft.mesh/proxy-log-level": "warn"})).contains("warn"));
    let broken = namespace(&[("config.weft.mesh/opaque-ports", "many")]);
    let refused = answer(&request(json!({})), &broken, Asked::ByLabel, &settings);
    assert!(!refused.is_allowed());
}

#[test]
fn a_pod_that_cannot_be_injected_is_refused_with_the_field() {
    let annotations = json!({"config.weft.mesh/opaque-ports": "many"});
    let review = request("CREATE", "pods", pod(annotations));
    let response = injected(&review, &namespace(&[]), Asked::ByLabel);
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(
        response["status"]["details"]["causes"][0]["field"],
        "metadata.annotations[config.weft.mesh/opaque-ports]"
    );
    assert!(response.get("patch").is_none());
    let mut host = pod(json!({}));
    host["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "istio-proxy"}));
    let response = injected(
        &request("CREATE", "pods", host),
        &namespace(&[]),
        Asked::ByLabel,
    );
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("weft: not injected")
    );
}

#[test]
fn the_clusters_own_namespaces_are_left_alone() {
    assert!(is_excluded("kube-system", "weft-system") && is_excluded("mine", "mine"));
    assert!(!is_excluded("default", "weft-system"));
}

fn split(weight: Value) -> Value {
    json!({
        "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "backends": [{"service": "web-v1", "weight": weight}]},
    })
}

fn validated(operation: &str, object: Value, old: Value) -> Value {
    let mut review = request(operation, "trafficsplits", object);
    review["request"]["oldObject"] = old;
    response(&read(&review).answer(validate::answer))
}

#[test]
fn an_object_that_cannot_be_honoured_is_refused_with_the_field() {
    let response = validated("CREATE", split(json!(-1)), Value::Null);
    assert_eq!(response["allowed"], false, "{response}");
    let cause = &response["status"]["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.backends[0].weight");
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.backends[0].weight: "),
        "{message}"
    );
    assert_eq!(
        validated("CREATE", split(json!(1)), Value::Null)["allowed"],
        true
    );
    assert_eq!(
        validated("UPDATE", split(json!(-1)), split(json!(1)))["allowed"],
        false
    );
}

/// A canary tool of an old version changes weights of a split whose condition it is not shown.
#[test]
fn what_a_version_cannot_show_does_not_keep_its_clients_from_writing() {
    let mut stored = split(json!(1));
    stored["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    let shown = convert(stored, "split.smi-spec.io/v1alpha2").unwrap();
    let edit = |weight: Value| {
        let mut edited = shown.clone();
        edited["spec"]["backends"][0]["weight"] = weight;
        edited
    };
    assert_eq!(
        validated("UPDATE", edit(json!(7)), shown.clone())["allowed"],
        true
    );
    for (mut wrong, field) in [
        (edit(json!(-7)), "spec.backends[0].weight"),
        (edit(json!(7)), "metadata.annotations"),
    ] {
        if field.starts_with("metadata") {
            wrong["metadata"]["annotations"][SMI_PRESERVED] = json!("{");
        }
        let response = validated("UPDATE", wrong, shown.clone());
        let cause = &response["status"]["details"]["causes"][0];
        assert_eq!(response["allowed"], false, "{response}");
        assert!(
            cause["field"].as_str().unwrap().starts_with(field),
            "{cause}"
        );
    }
}

#[test]
fn what_was_stored_before_can_still_be_let_go() {
    let bad = split(json!(-1));
    let mut unfinished = bad.clone();
    unfinished["metadata"]["finalizers"] = json!(["x"]);
    assert_eq!(
        validated("UPDATE", bad.clone(), unfinished)["allowed"],
        true
    );
    let mut going = split(json!(-2));
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(validated("UPDATE", going, bad.clone())["allowed"], true);
    assert_eq!(validated("DELETE", Value::Null, bad)["allowed"], true);
}

#[test]
fn any_bytes_get_a_refusal_that_can_be_read() {
    let deep = "[".repeat(100_000);
    let other = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"});
    let answer_only = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
    let texts = [
        "",
        "{",
        "null",
        "3",
        &deep,
        &other.to_string(),
        &answer_only.to_string(),
    ];
    for text in texts {
        let error = Review::read(text.as_bytes()).unwrap_err();
        let answer = Answer::refused(&error.to_string());
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.code.as_u16(), &status["code"]),
            (400, &json!(400)),
            "{text:.40}"
        );
    }
    // Odd objects within a good envelope are answered within one.
    for object in [
        json!(3),
        json!([]),
        json!({"metadata": 3}),
        json!({"spec": {"containers": {}}}),
    ] {
        for operation in ["CREATE", "UPDATE", "x"] {
            let review = request(operation, "pods", object.clone());
            response(&read(&review).answer(validate::answer));
            injected(&review, &namespace(&[]), Asked::ByLabel);
        }
    }
}

/// A webhook whose API server answers nothing but this.
fn webhook(code: u16) -> (Arc<Webhook>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let ca = Arc::new(Ca::open_or_create(&state, "cluster.local").unwrap());
    let (tokens, enrolled) = (
        TokenKey::open_or_create(&state).unwrap(),
        Enrolled::open(state.clone()).unwrap(),
    );
    let index = Arc::new(Index::new(Mesh::default(), []));
    let shared = Shared::new(index.clone(), ca, tokens, enrolled, Duration::from_secs(60));
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let reason = if code == 404 {
            "NotFound"
        } else {
            "ServiceUnavailable"
        };
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
        let body = Body::from(status.to_string().into_bytes());
        let answer = http::Response::builder().status(code).body(body).unwrap();
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let client = Client::new(service, "default");
    let own = "weft-system".to_owned();
    let webhook = Webhook::new(index, shared, client, state, Settings::default(), own);
    (Arc::new(webhook), dir)
}

#[tokio::test]
async fn a_namespace_that_cannot_be_read_may_have_asked_for_injection() {
    let (away, _dir) = webhook(503);
    let (there, _dir) = webhook(404);
    for (webhook, namespace, code, outcome) in [
        (&away, "shop", 500, "failed"),
        (&away, "kube-system", 200, "passed"),
        (&away, "weft-system", 200, "passed"),
        (&there, "shop", 200, "passed"),
    ] {
        let mut review = request("CREATE", "pods", pod(json!({})));
        review["request"]["namespace"] = namespace.into();
        let body = review.to_string().into_bytes();
        let answer = webhook.clone().inject(body, Asked::ByAnnotation).await;
        let is = (answer.code.as_u16(), answer.outcome);
        assert_eq!(is, (code, outcome), "{namespace}");
    }
}

#[tokio::test]
async fn long_bodies_are_worked_on_one_after_the_other() {
    let (webhook, _dir) = webhook(404);
    let long = vec![b' '; MAX_CONVERSION];
    let turn = webhook.turn(&long).await;
    let mut next = Box::pin(webhook.turn(b"{}"));
    assert!(next.as_mut().now_or_never().is_none(), "it has to wait");
    drop(turn);
    let next = next.await;
    assert!(next.is_some());
    let mut long = Box::pin(webhook.turn(&long));
    assert!(long.as_mut().now_or_never().is_none(), "not beside another");
    drop(next);
    assert!(long.await.is_some());
}
