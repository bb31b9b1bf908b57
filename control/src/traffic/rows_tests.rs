#![allow(clippy::unwrap_used)]
use super::*;
use crate::traffic::inventory::{PodFacts, Share, SplitFacts};
use crate::traffic::report::ConnectionReport;
use crate::traffic::table::{Connections, EdgeKey};

/// `load` calls `web` through a split over `web-v1` and `web-v2`; each side counts.
pub(crate) fn story() -> Report {
    let mut load = pod("load-1", "deploy/load", "load", &[]);
    let mut v1 = pod("web-1", "deploy/web-v1", "web", &["web", "web-v1"]);
    let mut v2 = pod("web-2", "deploy/web-v2", "web", &["web", "web-v2"]);
    let stranger = PodReport {
        facts: PodFacts {
            meshed: false,
            ..pod("web-3", "deploy/web-v2", "web", &["web"]).facts
        },
        ..PodReport::default()
    };
    for (leaf, requests, failure) in [("web-v1", 90, 0), ("web-v2", 10, 5)] {
        load.edges.push(EdgeReport {
            key: EdgeKey {
                direction: Direction::Outbound,
                peer_namespace: "shop".into(),
                peer_workload: format!("deploy/{leaf}"),
                service: "shop/web:80".into(),
                backend: format!("shop/{leaf}:80"),
                route: "TrafficSplit shop/web".into(),
                mutual_tls: true,
            },
            counts: counts(requests, failure),
        });
    }
    for (pod, requests, failure) in [(&mut v1, 90, 0), (&mut v2, 10, 5)] {
        pod.edges.push(EdgeReport {
            key: EdgeKey {
                direction: Direction::Inbound,
                peer_namespace: "shop".into(),
                peer_workload: "sa/load".into(),
                route: "HTTPRouteGroup shop/api read".into(),
                mutual_tls: true,
                ..EdgeKey::default()
            },
            counts: counts(requests, failure),
        });
    }
    Report {
        pods: vec![load, v1, v2, stranger],
        services: ["web", "web-v1", "web-v2"]
            .map(|at| format!("shop/{at}"))
            .into(),
        splits: vec![SplitFacts {
            namespace: "shop".into(),
            name: "web".into(),
            service: "web".into(),
            backends: [("web-v1", 3), ("web-v2", 1)]
                .map(|(service, weight)| Share {
                    service: service.into(),
                    weight,
                })
                .into(),
        }],
        ..Report::default()
    }
}

fn pod(name: &str, workload: &str, account: &str, services: &[&str]) -> PodReport {
    PodReport {
        facts: PodFacts {
            namespace: "shop".into(),
            name: name.into(),
            workload: workload.into(),
            service_account: account.into(),
            node: "node-1".into(),
            labels: [("app".into(), account.into())].into(),
            meshed: true,
            ready: true,
            services: services.iter().map(ToString::to_string).collect(),
            access: "strict".into(),
        },
        seconds: 10.0,
        ..PodReport::default()
    }
}

fn counts(requests: u64, failure: u64) -> Counts {
    Counts {
        requests,
        success: requests - failure,
        failure,
        latency: vec![requests],
        ..Counts::default()
    }
}

/// Name, meshed, requests, failures.
type Seen = (String, Option<(usize, usize)>, u64, u64);

fn seen(query: &Query) -> Vec<Seen> {
    let rows = stat(&story(), query).unwrap().into_iter();
    rows.map(|row| {
        let counts = &row.sum.counts;
        (row.name, row.meshed, counts.requests, counts.failure)
    })
    .collect()
}

fn query(resource: &str) -> Query {
    Query {
        resource: resource.parse().unwrap(),
        ..Query::all(Kind::Pod)
    }
}

fn row(name: &str, meshed: (usize, usize), requests: u64, failure: u64) -> Seen {
    (name.into(), Some(meshed), requests, failure)
}

#[test]
fn a_workload_is_what_was_sent_to_it() {
    let expected = [
        row("deploy/load", (1, 1), 0, 0),
        row("deploy/web-v1", (1, 1), 90, 0),
        row("deploy/web-v2", (1, 2), 10, 5),
    ];
    assert_eq!(seen(&query("deploy")), expected);
    assert_eq!(seen(&query("deploy/web-v2")), expected[2..]);
    assert_eq!(seen(&query("sts")), []);
    assert_eq!(seen(&query("ns")), [row("shop", (3, 4), 100, 5)]);
    assert_eq!(seen(&query("sa/web")), [row("web", (2, 3), 100, 5)]);
    assert_eq!(seen(&query("pod/web-1")), [row("web-1", (1, 1), 90, 0)]);
}

#[test]
fn to_and_from_are_what_the_caller_saw() {
    let to = Query {
        to: Some("svc/web".parse().unwrap()),
        ..query("deploy/load")
    };
    assert_eq!(seen(&to), [row("deploy/load", (1, 1), 100, 5)]);
    let to = Query {
        to: Some("deploy/web-v2".parse().unwrap()),
        ..query("deploy/load")
    };
    assert_eq!(seen(&to), [row("deploy/load", (1, 1), 10, 5)]);
    let from = Query {
        from: Some("deploy/load".parse().unwrap()),
        ..query("deploy/web-v1")
    };
    assert_eq!(seen(&from), [row("deploy/web-v1", (1, 1), 90, 0)]);
    let nobody = Query {
        from: Some("deploy/other".parse().unwrap()),
        ..query("svc/web")
    };
    assert_eq!(seen(&nobody), [row("web", (2, 3), 0, 0)]);
}

#[test]
fn a_split_says_what_was_wanted_and_what_was_seen() {
    let rows = stat(&story(), &query("split")).unwrap();
    let shares: Vec<_> = rows
        .iter()
        .map(|row| row.share.as_ref().unwrap())
        .map(|at| (at.leaf.as_str(), at.wanted, at.observed))
        .collect();
    let expected = [("web-v1", 0.75, Some(0.9)), ("web-v2", 0.25, Some(0.1))];
    assert_eq!(shares, expected);
}

#[test]
fn routes_and_labels_select() {
    let rows = seen(&query("route"));
    assert_eq!(rows, [("api/read".into(), None, 100, 5)]);
    let labelled = Query {
        labels: vec![("app".into(), "load".into())],
        ..query("pod")
    };
    assert_eq!(seen(&labelled), [row("load-1", (1, 1), 0, 0)]);
    let elsewhere = Query {
        namespace: Some("other".into()),
        ..query("svc")
    };
    assert_eq!(seen(&elsewhere), []);
}

#[test]
fn rates_of_proxies_add_up() {
    let rows = stat(&story(), &query("ns")).unwrap();
    assert_eq!(rows[0].sum.rps, 10.0);
    assert_eq!(rows[0].sum.counts.success_rate(), Some(0.95));
}

#[test]
fn what_cannot_be_asked_is_said() {
    assert!("deploy/".parse::<Resource>().is_err());
    assert!("thing".parse::<Resource>().unwrap_err().contains("thing"));
    let from = Query {
        from: Some("deploy/load".parse().unwrap()),
        ..query("pod")
    };
    assert!(stat(&story(), &from).is_err());
}

#[test]
fn the_largest_numbers_are_added_up_without_harm() {
    let mut report = story();
    let largest = |service: &str| Share {
        service: service.into(),
        weight: i64::MAX as u64,
    };
    report.splits[0].backends = ["web-v1", "web-v2", "web-v3"].map(largest).into();
    let open = ConnectionReport {
        counts: Connections {
            open: u64::MAX,
            ..Connections::default()
        },
        ..ConnectionReport::default()
    };
    for pod in &mut report.pods {
        pod.connections = vec![open.clone(), open.clone()];
        for edge in &mut pod.edges {
            edge.counts = Counts {
                requests: u64::MAX,
                connections: u64::MAX,
                denied_by: [("not_a_source".to_owned(), u64::MAX)].into(),
                latency: vec![u64::MAX; 3],
                ..Counts::default()
            };
        }
    }
    let splits = stat(&report, &Query::all(Kind::Split)).unwrap();
    for row in splits {
        let share = row.share.unwrap();
        assert!((share.wanted - 1.0 / 3.0).abs() < 1e-9, "{}", share.wanted);
    }
    let services = stat(&report, &Query::all(Kind::Service)).unwrap();
    assert_eq!(services[0].open_connections, Some(u64::MAX));
    crate::traffic::authz::authz(&report);
    assert!(crate::traffic::why::why(&report, "shop", "web").is_some());
}
