//! A scrape is read by a strict parser of the text format, as Prometheus would.
#![allow(clippy::unwrap_used)]

use super::super::bundle::Code;
use super::super::format::Format;
use super::super::labels::{ConnectionLabels, EdgeLabels, Group, OTHER, Side};
use super::super::registry::Metrics;
use crate::connection::Direction;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use weft_proxy_api::policy::MetricsTier;

type Labels = BTreeMap<String, String>;

/// Samples by name; panics on anything Prometheus would refuse.
fn parse(text: &str) -> HashMap<String, Vec<(Labels, f64)>> {
    assert!(text.ends_with('\n'));
    let (mut kinds, mut seen, mut all) = (
        HashMap::new(),
        HashSet::new(),
        HashMap::<String, Vec<_>>::new(),
    );
    let mut current = String::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} has two groups"
            );
            name.clone_into(&mut current);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series.to_owned()), "{series} twice");
            let (name, labels) = split(series);
            let suffixes: &[&str] = if kinds[&current] == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            assert!(
                suffixes
                    .iter()
                    .any(|suffix| name == format!("{current}{suffix}")),
                "{name} under {current}"
            );
            all.entry(name)
                .or_default()
                .push((labels, value.parse().unwrap()));
        }
    }
    all
}

fn split(series: &str) -> (String, Labels) {
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), Labels::new());
    };
    let (mut labels, mut rest) = (Labels::new(), rest.strip_suffix('}').unwrap());
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("escape {c}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(
            labels.insert(label.to_owned(), value).is_none(),
            "{label} twice"
        );
        rest = after[end + 1..]
            .strip_prefix(',')
            .unwrap_or(&after[end + 1..]);
    }
    (name.to_owned(), labels)
}

fn outbound(route: &str, workload: &str) -> EdgeLabels {
    EdgeLabels {
        direction: Direction::Outbound,
        peer: Group::new("shop", workload, true),
        service: "shop/web:80".into(),
        backend: "shop/web-v2:80".into(),
        route: route.into(),
    }
}

fn value(
    all: &HashMap<String, Vec<(Labels, f64)>>,
    name: &str,
    labels: &[(&str, &str)],
) -> Vec<f64> {
    let fits = |at: &Labels| {
        labels
            .iter()
            .all(|(label, value)| at.get(*label).is_some_and(|v| v == value))
    };
    all.get(name)
        .into_iter()
        .flatten()
        .filter(|(at, _)| fits(at))
        .map(|(_, value)| *value)
        .collect()
}

#[test]
fn an_empty_registry_is_well_formed() {
    let all = parse(&Metrics::new("shop").render());
    assert_eq!(value(&all, "weft_build_info", &[]), [1.0]);
    assert!(value(&all, "process_resident_memory_bytes", &[])[0] > 0.0);
    assert_eq!(value(&all, "weft_control_connected", &[]), [0.0]);
}

#[test]
fn a_scrape_holds_what_was_counted() {
    let metrics = Metrics::new("shop");
    metrics.set_workload("deploy/front");
    let edge = metrics.edge(outbound("", "deploy/web"));
    edge.request();
    edge.answered(Code::Http(503), Duration::from_millis(2));
    let all = parse(&metrics.render());
    let labels = [
        ("workload", "deploy/front"),
        ("peer_workload", "deploy/web"),
        ("tls", "true"),
    ];
    assert_eq!(value(&all, "weft_requests_total", &labels), [1.0]);
    assert_eq!(
        value(
            &all,
            "weft_responses_total",
            &[("classification", "failure"), ("status", "503")]
        ),
        [1.0]
    );
    assert_eq!(
        value(
            &all,
            "weft_response_latency_seconds_bucket",
            &[("le", "0.001")]
        ),
        [0.0]
    );
    assert_eq!(
        value(
            &all,
            "weft_response_latency_seconds_bucket",
            &[("le", "0.0025")]
        ),
        [1.0]
    );
    assert_eq!(
        value(
            &all,
            "weft_response_latency_seconds_bucket",
            &[("le", "+Inf")]
        ),
        [1.0]
    );
    assert_eq!(
        value(&all, "weft_response_latency_seconds_sum", &[]),
        [0.002]
    );
}

#[test]
fn labels_are_escaped() {
    let metrics = Metrics::new("shop");
    metrics.edge(outbound("a\"b\\c\nd", "deploy/web")).request();
    let all = parse(&metrics.render());
    assert_eq!(
        value(&all, "weft_requests_total", &[("route", "a\"b\\c\nd")]),
        [1.0]
    );
}

#[test]
fn flagger_finds_linkerd_s_names() {
    let metrics = Metrics::new("shop");
    metrics.set_workload("deploy/web");
    let edge = metrics.inbound_edge(None);
    edge.answered(Code::Http(200), Duration::from_millis(7));
    edge.answered(Code::Http(500), Duration::from_millis(7));
    let all = parse(&metrics.render());
    let target = [
        ("namespace", "shop"),
        ("deployment", "web"),
        ("direction", "inbound"),
    ];
    let total: f64 = value(&all, "response_total", &target).iter().sum();
    let good: f64 = value(
        &all,
        "response_total",
        &[&target[..], &[("classification", "success")]].concat(),
    )
    .iter()
    .sum();
    assert_eq!((good, total), (1.0, 2.0));
    let le = |le| {
        value(
            &all,
            "response_latency_ms_bucket",
            &[&target[..], &[("le", le)]].concat(),
        )
    };
    assert_eq!((le("5"), le("10")), (vec![0.0], vec![2.0]));
}

#[test]
fn aliases_add_up_series_that_their_labels_cannot_tell_apart() {
    let metrics = Metrics::new("shop");
    for route in ["", "TrafficSplit shop/web"] {
        metrics.edge(outbound(route, "deploy/web")).request();
    }
    for protocol in ["http1", "http2"] {
        let peer = Group::new("shop", "deploy/web", true);
        let labels = ConnectionLabels {
            direction: Direction::Outbound,
            side: Side::Dst,
            peer,
            no_tls: "",
            protocol,
        };
        metrics.connection(labels).opened();
    }
    let all = parse(&metrics.render());
    assert_eq!(value(&all, "weft_requests_total", &[]), [1.0, 1.0]);
    assert_eq!(
        value(
            &all,
            "request_total",
            &[("dst_service", "web-v2"), ("dst_deployment", "web")]
        ),
        [2.0]
    );
    assert_eq!(
        value(
            &all,
            "tcp_open_connections",
            &[("tls", "true"), ("peer", "dst")]
        ),
        [2.0]
    );
    metrics.set_aliases(false);
    assert!(!parse(&metrics.render()).contains_key("request_total"));
}

#[test]
fn too_many_series_become_one_and_are_counted() {
    let metrics = Metrics::with_cap("shop", 3);
    for n in 0..10 {
        metrics
            .edge(outbound("", &format!("deploy/w{n}")))
            .request();
    }
    let all = parse(&metrics.render());
    assert_eq!(all["weft_requests_total"].len(), 4);
    assert_eq!(
        value(
            &all,
            "weft_requests_total",
            &[("peer_workload", OTHER), ("direction", "outbound")]
        ),
        [7.0]
    );
    assert_eq!(
        value(&all, "weft_metrics_dropped_total", &[("family", "edges")]),
        [7.0]
    );
}

#[test]
fn counting_from_many_threads_loses_nothing() {
    let metrics = Metrics::new("shop");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let edge: Arc<_> = metrics.edge(outbound("", "deploy/web"));
            scope.spawn(move || {
                (0..10_000).for_each(|_| edge.answered(Code::Grpc(0), Duration::from_micros(300)))
            });
        }
    });
    let all = parse(&metrics.render());
    assert_eq!(
        value(&all, "weft_responses_total", &[("grpc_status", "0")]),
        [40_000.0]
    );
}

#[test]
fn openmetrics_says_the_same_under_its_own_rules() {
    let metrics = Metrics::new("shop");
    let plain = parse(&metrics.render());
    let text = metrics.render_as(Format::OpenMetrics);
    let body = text.strip_suffix("# EOF\n").unwrap();
    assert!(!body.contains("# EOF"));
    let (mut family, mut kind, mut names) = ("", "", HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split_once(' ').unwrap().0;
            assert!(names.insert(family), "{family} has two groups");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.strip_prefix(family).unwrap().trim();
            assert!(kind != "counter" || !family.ends_with("_total"), "{line}");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (of, unit) = rest.split_once(' ').unwrap();
            assert!(of == family && of.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (name, _) = split(line.rsplit_once(' ').unwrap().0);
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_bucket", "_sum", "_count"],
            };
            let fits = |suffix: &&str| name == format!("{family}{suffix}");
            assert!(suffixes.iter().any(fits), "{line}");
            assert!(plain.contains_key(&name), "{line}");
        }
    }
    assert!(body.contains("# UNIT weft_response_latency_seconds seconds"));
    assert!(!body.contains("# UNIT response_latency_ms"));
}

#[test]
fn the_tier_decides_what_is_said_and_loses_nothing() {
    let metrics = Metrics::new("shop");
    for (route, times) in [("", 1), ("TrafficSplit shop/web", 2)] {
        let edge = metrics.edge(outbound(route, "deploy/web"));
        for _ in 0..times {
            edge.request();
            edge.answered(Code::Http(200), Duration::from_millis(2));
        }
    }
    let backend = metrics.backend("shop/web:80");
    let endpoint = backend.endpoint("shop", "web-1").unwrap();
    endpoint.started();
    endpoint.ended(0, Some(Duration::from_millis(2)));
    let seen = |tier| {
        metrics.set_tier(tier);
        let all = parse(&metrics.render());
        let count = |name: &str| value(&all, name, &[("backend", "shop/web-v2:80")]);
        let result = [("pod", "web-1"), ("result", "success")];
        (
            count("weft_requests_total"),
            count("weft_response_latency_seconds_count"),
            value(&all, "weft_responses_total", &[("status", "200")]),
            value(&all, "weft_endpoint_requests_total", &result),
        )
    };
    let (one, two) = (vec![3.0], vec![1.0, 2.0]);
    let edges = (one.clone(), one.clone(), one, vec![]);
    assert_eq!(seen(MetricsTier::Edges), edges);
    let routes = (two.clone(), two.clone(), two.clone(), vec![]);
    assert_eq!(seen(MetricsTier::Routes), routes);
    let endpoints = (two.clone(), two.clone(), two, vec![1.0]);
    assert_eq!(seen(MetricsTier::Endpoints), endpoints);
}
