//! What becomes of a watch when the server does what servers do: forgets, refuses, cuts off, and answers with nothing.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::manifest::ObjectKey;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;

/// What the server says to one question about Services.
enum Answer {
    /// These names, at this version.
    List(u64, &'static [&'static str]),
    /// The same, and there is more.
    Page(u64, &'static [&'static str]),
    /// A refusal.
    Status(u16),
    /// Events of a watch, and then it ends.
    Watch(Vec<Value>),
    /// Bytes that are no answer.
    Junk,
    /// Nothing, on a connection that stays open.
    Silence,
}

/// A server that answers questions about Services as it is told, and knows nothing else.
#[derive(Default)]
struct Server {
    answers: Mutex<VecDeque<Answer>>,
    /// What was asked: `list`, `page`, `watch 7`.
    asked: Mutex<Vec<String>>,
}

type Answered = Response<BoxBody<Bytes, Infallible>>;

impl Server {
    fn answer(&self, request: &Request<Body>) -> Answered {
        let query = request.uri().query().unwrap_or_default();
        let watches = query.contains("watch=true");
        if request.uri().path() != "/api/v1/services" {
            return match (watches, request.uri().path().starts_with("/apis/")) {
                (true, _) => silent(),
                (false, true) if !request.uri().path().contains("discovery") => status(404),
                (false, _) => list(1, &[], None),
            };
        }
        let part = |name: &str| {
            let mut parts = query.split('&');
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let asked = match (watches, part("continue")) {
            (true, _) => format!("watch {}", part("resourceVersion").unwrap_or("?")),
            (false, Some(_)) => "page".to_owned(),
            (false, None) => "list".to_owned(),
        };
        self.asked.lock().push(asked);
        match self.answers.lock().pop_front() {
            None | Some(Answer::Silence) => silent(),
            Some(Answer::List(version, names)) => list(version, names, None),
            Some(Answer::Page(version, names)) => list(version, names, Some("more")),
            Some(Answer::Status(code)) => status(code),
            Some(Answer::Junk) => whole(200, "<html>"),
            Some(Answer::Watch(events)) => {
                let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                whole(200, lines)
            }
        }
    }
}

fn whole(code: u16, text: impl Into<Bytes>) -> Answered {
    let body = Full::new(text.into()).boxed();
    Response::builder().status(code).body(body).unwrap()
}

/// A watch on which nothing ever happens.
fn silent() -> Answered {
    let never = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
    Response::new(BodyExt::boxed(StreamBody::new(never)))
}

fn status(code: u16) -> Answered {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": "No",
        "metadata": {},
    });
    whole(code, status.to_string())
}

fn list(version: u64, names: &[&str], more: Option<&str>) -> Answered {
    let items: Vec<Value> = names.iter().map(|name| service(name, version)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
    let list =
        json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items});
    whole(200, list.to_string())
}

fn service(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": version.to_string()},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    })
}

fn event(type_: &str, object: &Value) -> Value {
    json!({"type": type_, "object": object})
}

fn gone() -> Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version", "metadata": {}});
    event("ERROR", &status)
}

fn bookmark(version: u64) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    event(
        "BOOKMARK",
        &json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata}),
    )
}

/// Longer than a watch may be silent before it is taken for dead; the last one is asked once more at most.
const QUIET: Duration = Duration::from_secs(100);

/// What is known of Services once the server has said everything, and what it was asked on the way.
async fn story(answers: Vec<Answer>) -> (BTreeSet<String>, Vec<String>) {
    let server = Arc::new(Server::default());
    server.answers.lock().extend(answers);
    let answering = server.clone();
    let service = tower::service_fn(move |request| {
        let answer = answering.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let (tx, mut events) = mpsc::channel(16);
    let _source = watch(
        Client::new(service, "default"),
        Groups::Current,
        tx,
        Arc::default(),
    );
    let mut known = BTreeSet::new();
    let mut lost = 0;
    // The clock stands still while anything is to do: after so long without a word everything was said.
    while let Ok(Some(batch)) = tokio::time::timeout(QUIET, events.recv()).await {
        for event in batch {
            match event {
                Event::Apply(loaded) => drop(known.insert(loaded.key.name)),
                Event::Delete(ObjectKey { name, .. }) => {
                    lost += 1;
                    assert!(known.remove(&name), "{name} was not known");
                }
                Event::Problems { problems, .. } => panic!("{problems:?}"),
                Event::Synced => drop(known.insert("(synced)".into())),
                Event::Reached(_) | Event::ApplyLegacy(_) | Event::DeleteLegacy(_) => {}
            }
        }
    }
    assert!(lost <= 1, "never more than what is gone");
    let asked = server.asked.lock().clone();
    (known, asked)
}

/// What it is about, what the server answers, what is known then, and what it was asked.
type Told = (
    &'static str,
    Vec<Answer>,
    &'static [&'static str],
    &'static [&'static str],
);

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_whatever_the_server_does() {
    use Answer::{Junk, List, Page, Silence, Status, Watch};
    let b = || service("b", 12);
    let table: Vec<Told> = vec![
        (
            "a place that is forgotten when the watch begins",
            vec![List(10, &["a", "b"]), Status(410), List(20, &["b", "c"])],
            &["b", "c"],
            &["list", "watch 10", "list", "watch 20"],
        ),
        (
            "a place that is forgotten in the middle of a watch",
            vec![
                List(10, &["a"]),
                Watch(vec![event("ADDED", &b()), gone()]),
                List(20, &["b"]),
            ],
            &["b"],
            &["list", "watch 10", "list", "watch 20"],
        ),
        (
            "a list that is forgotten between its pages begins anew, and nothing is lost meanwhile",
            vec![
                List(10, &["a", "b"]),
                Status(410),
                Page(20, &["a"]),
                Status(410),
                List(30, &["a", "b"]),
            ],
            &["a", "b"],
            &["list", "watch 10", "list", "page", "list", "watch 30"],
        ),
        (
            "too many requests, no service: asked again, and the watch goes on where it was",
            vec![
                Status(429),
                Status(503),
                Junk,
                List(10, &["a"]),
                Status(429),
                Status(503),
                Watch(vec![event("ADDED", &b())]),
            ],
            &["a", "b"],
            &[
                "list", "list", "list", "list", "watch 10", "watch 10", "watch 10", "watch 12",
            ],
        ),
        (
            "a watch that ends is asked for again where the last bookmark was",
            vec![List(10, &["a"]), Watch(vec![bookmark(50)]), Watch(vec![])],
            &["a"],
            &["list", "watch 10", "watch 50", "watch 50"],
        ),
        (
            "a list that is empty once takes nothing away",
            vec![
                List(10, &["a", "b"]),
                Status(410),
                List(20, &[]),
                Watch(vec![gone()]),
                List(30, &["a", "b"]),
            ],
            &["a", "b"],
            &["list", "watch 10", "list", "watch 20", "list", "watch 30"],
        ),
        (
            "a connection that says nothing more is given up, and the watch goes on where it was",
            vec![List(10, &["a"]), Silence, Watch(vec![event("ADDED", &b())])],
            &["a", "b"],
            &["list", "watch 10", "watch 10", "watch 12"],
        ),
        (
            "one that has been deleted is gone at once",
            vec![List(10, &["a", "b"]), Watch(vec![event("DELETED", &b())])],
            &["a"],
            &["list", "watch 10", "watch 12"],
        ),
    ];
    for (what, answers, known, asked) in table {
        let (is, was_asked) = story(answers).await;
        let expected: BTreeSet<String> = known
            .iter()
            .chain(&["(synced)"])
            .map(|name| (*name).to_owned())
            .collect();
        // The last watch says nothing either.
        let (last, again) = (asked.last(), was_asked.get(asked.len()));
        assert!(
            again.is_none_or(|again| Some(&again.as_str()) == last),
            "{what}: {was_asked:?}"
        );
        assert_eq!(
            was_asked[..asked.len().min(was_asked.len())],
            *asked,
            "{what}"
        );
        assert_eq!(is, expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_asked_for_less_and_less() {
    // Not there, forgotten at once, out of service: each is answered by asking again.
    for code in [404, 410, 503] {
        let begun = Instant::now();
        let failures = (0..20).map(|_| Answer::Status(code));
        let answers = failures.chain([Answer::List(10, &["a"])]).collect();
        let (known, asked) = story(answers).await;
        assert!(known.contains("a"), "{code}: {known:?}");
        let lists = asked.iter().filter(|it| *it == "list").count();
        assert_eq!(lists, 21, "{code}");
        // Twenty of the shortest pauses are 4 seconds.
        assert!(begun.elapsed() > QUIET + Duration::from_secs(20), "{code}");
    }
}

#[tokio::test]
async fn nothing_of_a_long_burst_is_lost() {
    let all = (0..2 * BATCH + 1).map(|_| Ok(watcher::Event::<DynamicObject>::Init));
    let mut stream = futures_util::stream::iter(all);
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(Burst::next(&mut stream).await.events.len());
    }
    assert_eq!(told, [BATCH, BATCH, 1, 0]);
}

#[test]
fn a_list_that_waits_for_our_webhook_is_known_by_its_words() {
    let failed = |message: &str| {
        let status = json!({"status": "Failure", "code": 500, "reason": "InternalError", "message": message});
        let status = Box::new(serde_json::from_value(status).unwrap());
        lacks_converter(&watcher::Error::InitialListFailed(kube::Error::Api(status)))
    };
    assert!(failed(
        "conversion webhook for split.smi-spec.io/v1alpha2, Kind=TrafficSplit failed: Post \"https://weft-control\": \
         no endpoints available for service \"weft-control\""
    ));
    assert!(!failed("etcdserver: request timed out"));
}
