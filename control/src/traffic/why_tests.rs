#![allow(clippy::unwrap_used)]
use super::*;
use crate::traffic::Counts;
use crate::traffic::inventory::PodFacts;
use crate::traffic::report::EdgeReport;
use crate::traffic::table::{Backend, EdgeKey};
use weft_proxy_api::latency::{BOUNDS_US, BUCKETS};

/// `load` → `web` → `front` → `colour`; each answers within so many milliseconds.
fn story(web: u64, front: u64, colour: u64) -> Report {
    let mut pods = ["load", "web", "front", "colour"].map(pod);
    call(&mut pods, (0, 1), "pages/page", web, 100);
    call(&mut pods, (1, 2), "pages/cell", front, 100);
    call(&mut pods, (2, 3), "colours/pick", colour, 100);
    Report {
        pods: pods.into(),
        services: ["web", "front", "colour"]
            .map(|at| format!("loom/{at}"))
            .into(),
        ..Report::default()
    }
}

fn pod(name: &str) -> PodReport {
    PodReport {
        facts: PodFacts {
            namespace: "loom".into(),
            name: format!("{name}-1"),
            workload: format!("deploy/{name}"),
            service_account: name.into(),
            meshed: false,
            services: vec![name.into()],
            ..PodFacts::default()
        },
        seconds: 10.0,
        ..PodReport::default()
    }
}

fn call(pods: &mut [PodReport], (from, to): (usize, usize), route: &str, ms: u64, requests: u64) {
    let mut latency = vec![0; BUCKETS];
    let bucket = BOUNDS_US.iter().position(|bound| ms * 1000 <= *bound);
    latency[bucket.unwrap()] = requests;
    let counts = Counts {
        requests,
        success: requests,
        latency,
        ..Counts::default()
    };
    let (caller, called) = (pods[from].facts.clone(), pods[to].facts.clone());
    let (group, name) = route.split_once('/').unwrap();
    pods[from].edges.push(EdgeReport {
        key: EdgeKey {
            direction: Direction::Outbound,
            peer_namespace: "loom".into(),
            peer_workload: called.workload,
            service: format!("loom/{}:80", called.service_account),
            mutual_tls: true,
            ..EdgeKey::default()
        },
        counts: counts.clone(),
    });
    pods[to].edges.push(EdgeReport {
        key: EdgeKey {
            direction: Direction::Inbound,
            peer_namespace: "loom".into(),
            peer_workload: format!("sa/{}", caller.service_account),
            route: format!("HTTPRouteGroup loom/{group} {name}"),
            mutual_tls: true,
            ..EdgeKey::default()
        },
        counts,
    });
}

fn said(report: &Report) -> String {
    why(report, "loom", "web").unwrap().sentences.join("\n")
}

#[test]
fn a_slow_dependency_is_named_with_its_caller_and_route() {
    let report = story(400, 400, 400);
    let why = why(&report, "loom", "web").unwrap();
    let steps: Vec<_> = why
        .chain
        .iter()
        .map(|at| at.dependency.workload.as_str())
        .collect();
    assert_eq!(steps, ["deploy/front", "deploy/colour"]);
    let text = why.sentences.join("\n");
    let expected = "\
web gets 10.0 requests a second, sent by deploy/load (100.0 %); 100.0 % succeed.
It is slow: 95 in 100 answers take up to 488 ms.
deploy/web waits 488 ms for deploy/front; deploy/front waits 488 ms for deploy/colour.
The slow dependency is deploy/colour of the service colour, called by deploy/front, on the route colours/pick: it takes 488 ms.";
    assert_eq!(text, expected);
}

#[test]
fn who_is_slow_by_itself_is_told_so() {
    let text = said(&story(400, 4, 4));
    assert!(text.contains("the time is spent in web itself"), "{text}");
    let text = said(&story(4, 4, 4));
    assert!(text.contains("It is quick"), "{text}");
    let text = said(&story(400, 400, 4));
    assert!(
        text.contains("The slow dependency is deploy/front"),
        "{text}"
    );
}

#[test]
fn a_circle_of_callers_ends() {
    let mut report = story(400, 400, 400);
    call(&mut report.pods, (3, 1), "pages/page", 400, 100);
    assert_eq!(why(&report, "loom", "web").unwrap().chain.len(), 2);
}

#[test]
fn failures_denials_retries_and_breakers_have_their_sentences() {
    let mut report = story(4, 4, 4);
    let edge = &mut report.pods[1].edges[0].counts;
    (edge.success, edge.failure) = (90, 10);
    edge.answers.insert("503".parse().unwrap(), 10);
    edge.denied_by.insert("not_a_source".into(), 3);
    report.pods[2].edges[0].counts.requests = 150;
    let backend = Backend {
        endpoints: 4,
        ejected: 1,
        ..Backend::default()
    };
    report.pods[1]
        .backends
        .insert("loom/front:80".into(), backend);
    let text = said(&report);
    for part in [
        "10 answers failed (10 × 503), most on the route pages/page.",
        "sa/load of loom was denied 3 times (not a source).",
        "deploy/web sent 100 requests to deploy/front, where 150 arrived: retries make it 1.5 times as many.",
        "Of loom/front:80, 1 of 4 endpoints are set aside by the breakers of one proxy.",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
}

#[test]
fn who_shares_an_account_is_not_said_to_try_again() {
    let mut report = story(4, 4, 4);
    report.pods[2].edges[0].counts.requests = 150;
    assert!(said(&report).contains("retries"));
    let mut other = pod("batch");
    other.facts.service_account = "web".into();
    report.pods.push(other);
    assert!(!said(&report).contains("retries"), "{}", said(&report));
}

#[test]
fn callers_and_dependencies_of_another_namespace_are_not_taken_for_our_own() {
    let mut report = story(4, 4, 4);
    let mut other = report.pods[0].clone();
    other.facts.namespace = "far".into();
    report.pods.push(other);
    let mut abroad = report.pods[1].edges[1].clone();
    abroad.key.service = "far/front:80".into();
    report.pods[1].edges.push(abroad);
    let why = why(&report, "loom", "web").unwrap();
    let names = |legs: &[Leg]| -> Vec<String> { legs.iter().map(|at| at.name.clone()).collect() };
    assert_eq!(names(&why.callers), ["deploy/load", "far/deploy/load"]);
    let mut called = names(&why.dependencies);
    called.sort();
    assert_eq!(called, ["far/front", "front"]);
}

#[test]
fn a_service_that_is_not_there_is_not_explained() {
    assert_eq!(why(&story(4, 4, 4), "loom", "nothing"), None);
    assert_eq!(why(&story(4, 4, 4), "other", "web"), None);
}
