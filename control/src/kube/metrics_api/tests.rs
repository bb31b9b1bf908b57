#![allow(clippy::unwrap_used)]
use super::asked::{Asked, Traffic};
use super::{GROUP, Reports, documents, figures, handle, select};
use crate::traffic::Report;
use crate::traffic::rows::tests::story;
use crate::traffic::rows::{Kind, Query, stat};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const BASE: &str = "/apis/metrics.smi-spec.io/v1alpha1";

fn read(path: &str) -> Result<Asked, u16> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Asked::read(&Method::GET, path, query).map_err(|refusal| refusal.code.as_u16())
}

fn traffic(path: &str) -> Traffic {
    match read(&format!("{BASE}{path}")) {
        Ok(Asked::Traffic(traffic)) => traffic,
        other => panic!("{path}: {other:?}"),
    }
}

fn document(path: &str) -> Result<Value, u16> {
    let said = documents::document(&traffic(path), &story(), "2026-11-21T15:00:00Z");
    said.map_err(|refusal| refusal.code.as_u16())
}

/// Of each item: its object, what it is an edge of, successes and failures.
fn seen(path: &str) -> Vec<String> {
    let document = document(path).unwrap();
    let items = match &document["items"] {
        Value::Array(items) => items.clone(),
        _ => vec![document],
    };
    items.iter().map(line).collect()
}

fn line(item: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let edge = &item["edge"];
    let other = &edge["resource"];
    let other = format!("{}/{}", text(&other["kind"]), text(&other["name"]));
    let backend = text(&item["backend"]["name"]);
    let metric = |name: &str| {
        let all = item["metrics"].as_array().unwrap();
        text(&all.iter().find(|at| at["name"] == name).unwrap()["value"])
    };
    let words = [
        text(&item["metadata"]["name"]),
        text(&edge["direction"]),
        text(&edge["side"]),
        other,
        backend,
        metric("success_count"),
        metric("failure_count"),
    ];
    words.join(" ")
}

#[test]
fn d41_every_path_is_known_and_no_other() {
    for (path, plural, namespace, name, edges) in [
        ("/namespaces", "namespaces", None, None, false),
        ("/namespaces/shop", "namespaces", None, Some("shop"), false),
        (
            "/namespaces/shop/edges",
            "namespaces",
            None,
            Some("shop"),
            true,
        ),
        (
            "/nodes/node-1.example/",
            "nodes",
            None,
            Some("node-1.example"),
            false,
        ),
        ("/nodes/n/edges", "nodes", None, Some("n"), true),
        ("/deployments", "deployments", None, None, false),
        ("/namespaces/shop/jobs", "jobs", Some("shop"), None, false),
        (
            "/namespaces/shop/pods/edges",
            "pods",
            Some("shop"),
            Some("edges"),
            false,
        ),
        (
            "/namespaces/shop/pods/web/edges",
            "pods",
            Some("shop"),
            Some("web"),
            true,
        ),
    ] {
        let asked = traffic(path);
        let got = (
            asked.resource.plural,
            asked.namespace.as_deref(),
            asked.name.as_deref(),
        );
        assert_eq!(
            (got, asked.edges),
            ((plural, namespace, name), edges),
            "{path}"
        );
    }
    assert_eq!(read("/apis/metrics.smi-spec.io"), Ok(Asked::Group));
    assert_eq!(read(&format!("{BASE}/")), Ok(Asked::Resources("v1alpha1")));
    for path in [
        "/",
        "/apis",
        "/apis/other.io",
        "/apis/metrics.smi-spec.io/v1beta1",
        "/things",
        "/pods/web",
        "/namespaces/shop/nodes",
        "/namespaces/shop/namespaces",
        "/namespaces/shop/pods/web/edges/more",
        "/namespaces/shop/pods/web/status",
    ] {
        let whole = if path.starts_with("/apis") || path == "/" {
            path.into()
        } else {
            format!("{BASE}{path}")
        };
        assert_eq!(read(&whole), Err(404), "{path}");
    }
}

#[test]
fn d41_what_is_no_name_time_or_selector_is_refused() {
    for query in [
        "/namespaces/Shop/pods",
        "/namespaces/shop/pods/we%62",
        "/namespaces/shop/pods/-web",
        "/namespaces/shop/pods/a\"}[5m]",
        "/namespaces//pods",
        "/pods?t=",
        "/pods?t=10",
        "/pods?t=0.5s",
        "/pods?t=10m1s",
        "/pods?t=-30s",
        "/pods?labelSelector=a%20in%20(b",
        "/pods?labelSelector=%zz",
        "/pods?fieldSelector=a%3Db",
    ] {
        assert_eq!(read(&format!("{BASE}{query}")), Err(400), "{query}");
    }
    assert_eq!(read(&format!("{BASE}/pods?watch=true")), Err(405));
    let refused = Asked::read(&Method::DELETE, &format!("{BASE}/pods"), "").unwrap_err();
    assert_eq!(refused.code, StatusCode::METHOD_NOT_ALLOWED);
    let asked = traffic("/pods?t=1m30s&limit=500&watch=false&fieldSelector=");
    assert_eq!(asked.window, Duration::from_secs(90));
    assert_eq!(traffic("/pods").window, Duration::from_secs(30));
}

#[test]
fn d41_lists_have_every_object_with_or_without_traffic() {
    assert_eq!(
        seen("/namespaces/shop/deployments"),
        [
            "load from server / 0 0",
            "web-v1 from server / 90 0",
            "web-v2 from server / 5 5"
        ]
        .map(|it| it.replacen(" / ", " /  ", 1))
    );
    assert_eq!(seen("/namespaces"), ["shop from server /  95 5"]);
    assert_eq!(seen("/nodes"), ["node-1 from server /  95 5"]);
    assert_eq!(seen("/nodes/node-1"), ["node-1 from server /  95 5"]);
    assert_eq!(
        seen("/namespaces/shop/pods/web-3"),
        ["web-3 from server /  0 0"]
    );
    assert_eq!(
        seen("/services"),
        [
            "web from client /  95 5",
            "web-v1 from client /  0 0",
            "web-v2 from client /  0 0"
        ]
    );
    assert_eq!(
        seen("/namespaces/shop/trafficsplits/web"),
        [
            "web from client / web-v1 90 0",
            "web from client / web-v2 5 5"
        ]
    );
    assert_eq!(seen("/namespaces/other/deployments"), [""; 0]);
    for path in [
        "/namespaces/other",
        "/namespaces/shop/deployments/web",
        "/namespaces/shop/trafficsplits/x/edges",
    ] {
        assert_eq!(document(path), Err(404), "{path}");
    }
}

#[test]
fn the_figures_are_those_of_stat() {
    let plain = |kind: Kind, name: Option<&str>| {
        let mut query = Query::all(kind);
        query.resource.name = name.map(str::to_owned);
        let rows = stat(&story(), &query).unwrap().into_iter();
        let of = |row: crate::traffic::rows::Row| (row.sum.counts.success, row.sum.counts.failure);
        rows.map(of).collect::<Vec<_>>()
    };
    for (path, kind, name) in [
        ("/pods", Kind::Pod, None),
        ("/services", Kind::Service, None),
        ("/trafficsplits", Kind::Split, None),
        ("/deployments", Kind::Workload, Some("deploy/")),
    ] {
        let ours = seen(path).into_iter().map(|line| {
            let numbers: Vec<u64> = line
                .rsplit(' ')
                .take(2)
                .map(|it| it.parse().unwrap())
                .collect();
            (numbers[1], numbers[0])
        });
        assert_eq!(ours.collect::<Vec<_>>(), plain(kind, name), "{path}");
    }
}

#[test]
fn d41_edges_say_the_other_end_and_who_saw_it() {
    assert_eq!(
        seen("/namespaces/shop/deployments/load/edges"),
        [
            "load to client Deployment/web-v1  90 0",
            "load to client Deployment/web-v2  5 5"
        ]
    );
    assert_eq!(
        seen("/namespaces/shop/deployments/web-v2/edges"),
        ["web-v2 from client Deployment/load  5 5"]
    );
    assert_eq!(
        seen("/namespaces/shop/pods/web-2/edges"),
        ["web-2 from server ServiceAccount/load  5 5"]
    );
    assert_eq!(
        seen("/namespaces/shop/services/web/edges"),
        ["web from client Deployment/load  95 5"]
    );
    assert_eq!(
        seen("/namespaces/shop/trafficsplits/web/edges"),
        [
            "web from client Deployment/load web-v1 90 0",
            "web from client Deployment/load web-v2 5 5"
        ]
    );
    assert_eq!(
        seen("/namespaces/shop/edges"),
        [
            "shop from client Namespace/shop  95 5",
            "shop to client Namespace/shop  95 5"
        ]
    );
}

#[test]
fn d41_selectors_leave_out_items_and_no_figures() {
    assert_eq!(
        seen("/namespaces/shop/deployments?labelSelector=app%3Dweb"),
        ["web-v1 from server /  90 0", "web-v2 from server /  5 5"]
    );
    assert_eq!(
        seen("/namespaces/shop/pods?labelSelector=app+notin+%28web%29"),
        ["load-1 from server /  0 0"]
    );
    let selected = document("/pods?labelSelector=app%3Dload,tier!%3Ddb,!old,env").unwrap();
    let expected = json!({
        "matchLabels": {"app": "load"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["db"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "env", "operator": "Exists"},
        ],
    });
    assert_eq!(selected["selector"], expected);
    assert_eq!(selected["items"], json!([]));
}

#[test]
fn selectors_are_those_of_kubectl() {
    let labels: BTreeMap<String, String> =
        [("app".into(), "web".into()), ("e/f".into(), String::new())].into();
    for (text, fits) in [
        ("", true),
        ("app=web", true),
        ("app == web, e/f=", true),
        ("app!=web", false),
        ("x!=y", true),
        ("app in (a, web),e/f", true),
        ("app notin (web)", false),
        ("!app", false),
        ("!x", true),
    ] {
        assert_eq!(select::read(text).unwrap().matches(&labels), fits, "{text}");
    }
    for text in [
        "=a",
        "a in",
        "a in b",
        "a (b)",
        "a in (b))",
        "a in ((b)",
        "a>1",
        "a b",
        "!",
    ] {
        assert!(select::read(text).is_err(), "{text}");
    }
    assert!(select::read(&"a,".repeat(4096)).is_err());
}

#[test]
fn d41_one_object_is_whole() {
    let object = document("/namespaces/shop/deployments/web-v2?t=1m").unwrap();
    let path = format!("{BASE}/namespaces/shop/deployments/web-v2");
    let metric =
        |name: &str, unit: &str, value: &str| json!({"name": name, "unit": unit, "value": value});
    let latency = object["metrics"][0]["value"].as_str().unwrap().to_owned();
    assert_ne!(latency, "0");
    let expected = json!({
        "kind": "TrafficMetrics", "apiVersion": format!("{GROUP}/v1alpha1"),
        "metadata": {
            "name": "web-v2", "namespace": "shop", "selfLink": path,
            "creationTimestamp": "2026-11-21T15:00:00Z",
        },
        "timestamp": "2026-11-21T15:00:00Z", "window": "1m0s",
        "resource": {"kind": "Deployment", "namespace": "shop", "name": "web-v2"},
        "edge": {"direction": "from", "side": "server", "resource": {}},
        "metrics": [
            metric("p99_response_latency", "ms", &latency),
            object["metrics"][1], object["metrics"][2],
            metric("success_count", "", "5"), metric("failure_count", "", "5"),
        ],
    });
    assert_eq!(object, expected);
    let list = document("/namespaces/shop/deployments").unwrap();
    assert_eq!(
        list["resource"],
        json!({"kind": "Deployment", "namespace": "shop"})
    );
    assert_eq!(list["kind"], "TrafficMetricsList");
    let split = document("/namespaces/shop/trafficsplits/web").unwrap();
    assert_eq!(
        split["items"][0]["backend"],
        json!({"apex": "web", "name": "web-v1", "weight": 3})
    );
}

#[test]
fn quantities_and_times_are_written_as_go_writes_them() {
    for (thousandths, text) in [
        (0, "0"),
        (1, "1m"),
        (296_875, "296875m"),
        (5_000, "5"),
        (1_500_000, "1500"),
        (12_000_000, "12k"),
        (1_000_000_000, "1M"),
    ] {
        assert_eq!(figures::quantity(thousandths), text);
    }
    for (text, ms, written) in [
        ("30s", 30_000, "30s"),
        ("1.5s", 1_500, "1.5s"),
        ("90s", 90_000, "1m30s"),
        ("10m", 600_000, "10m0s"),
        ("1h", 3_600_000, "1h0m0s"),
        ("1m2000ms", 62_000, "1m2s"),
    ] {
        let time = figures::duration(text).unwrap();
        assert_eq!(
            (time, figures::go(time).as_str()),
            (Duration::from_millis(ms), written)
        );
    }
    for text in [
        "",
        "s",
        "1",
        "1d",
        "1s1",
        "..s",
        "1e3s",
        " 1s",
        "99999999999999999999h",
    ] {
        assert_eq!(figures::duration(text), None, "{text}");
    }
}

struct Fixed;

impl Reports for Fixed {
    async fn report(&self, _window: Duration) -> Report {
        story()
    }
}

#[tokio::test]
async fn discovery_and_failures_are_documents_too() {
    let ask = async |path: &str| handle(&Fixed, &Method::GET, &path.parse().unwrap()).await;
    let (code, group) = ask("/apis/metrics.smi-spec.io").await;
    assert_eq!((code, &group["kind"]), (StatusCode::OK, &json!("APIGroup")));
    assert_eq!(group["preferredVersion"]["version"], "v1alpha1");
    let (_, resources) = ask("/apis/metrics.smi-spec.io/v1alpha2").await;
    let pods = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "pods");
    let expected = json!({
        "name": "pods", "singularName": "", "namespaced": true, "kind": "TrafficMetrics",
        "verbs": ["get", "list"],
    });
    assert_eq!(pods, Some(&expected));
    let (code, status) = ask(&format!("{BASE}/namespaces/shop/pods/nobody")).await;
    assert_eq!(
        (code, &status["kind"]),
        (StatusCode::NOT_FOUND, &json!("Status"))
    );
    assert_eq!(
        status["message"],
        "pods.metrics.smi-spec.io \"nobody\" not found"
    );
    let (code, one) = ask(&format!("{BASE}/namespaces/shop/pods/web-1")).await;
    assert_eq!(
        (code, &one["kind"]),
        (StatusCode::OK, &json!("TrafficMetrics"))
    );
}
