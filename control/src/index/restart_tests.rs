//! D37 where the last valid state is unknown: an object broke while no controller looked. It counts as absent and is
//! told; that must never let anybody in who was kept out.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::manifest::{Severity, parse};
use crate::smi::convert::convert;
use crate::views::fixtures::*;
use serde_json::{Value, json};

/// A controller that starts with these manifests, broken ones among them.
fn start(manifests: &[String]) -> Index {
    let index = Index::new(strict(), []);
    tell(&index, &manifests.concat());
    index
}

/// What the source says of a file.
fn tell(index: &Index, text: &str) {
    let (loaded, problems) = parse("mesh.yaml", text);
    let file = "mesh.yaml".into();
    let mut events: Vec<Event> = loaded.into_iter().map(Event::Apply).collect();
    events.push(Event::Problems { file, problems });
    index.apply(events);
}

/// The objects that errors are told of.
fn errors(index: &Index) -> Vec<String> {
    let errors = index.problems().into_iter();
    let mut objects: Vec<String> = errors
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.object.unwrap_or_default())
        .collect();
    objects.dedup();
    objects
}

fn lets_in(index: &Index, caller: &str) -> bool {
    index.read(|world| may(world, "web-1", caller, 8080, "GET /api"))
}

fn web_1() -> String {
    pod("web-1", "web", "10.0.0.1")
}

#[test]
fn d37_a_target_that_cannot_be_read_lets_nobody_in() {
    let group = group("api", "[{name: m, pathRegex: /api}]");
    let rules = "[{kind: HTTPRouteGroup, name: api}]";
    let sound = target("t", &["default/front"], rules);
    for broken in [
        sound.replace("rules: [", "rules: [7, "),
        sound.replace("name: front", "nam: front"),
        sound.replace("kind: HTTPRouteGroup", "kind: Anything"),
        sound.replace(
            "{kind: ServiceAccount, name: web}",
            "{kind: ServiceAccount}",
        ),
        sound.replace("v1alpha3", "v9"),
    ] {
        assert_ne!(broken, sound);
        let other = target("other", &["default/batch"], rules);
        let index = start(&[web_1(), group.clone(), broken.clone(), other]);
        assert_eq!(errors(&index), ["TrafficTarget default/t"], "{broken}");
        assert!(!lets_in(&index, "default/front") && !lets_in(&index, ""));
        assert!(lets_in(&index, "default/batch"), "what is sound applies");
        tell(&index, &sound);
        assert!(lets_in(&index, "default/front") && errors(&index).is_empty());
    }
}

#[test]
fn d37_a_group_that_cannot_be_read_narrows_its_targets_to_nothing() {
    let sound = group("api", "[{name: m, pathRegex: /api}]");
    let http = "{kind: HTTPRouteGroup, name: api}";
    for rules in [
        format!("[{http}]"),
        format!("[{http}, {{kind: TCPRoute, name: any}}]"),
    ] {
        let broken = sound.replace("/api", "'('");
        let target = target("t", &["default/front"], &rules);
        let index = start(&[web_1(), tcp("any", "[8080]"), target, broken]);
        assert_eq!(errors(&index), ["HTTPRouteGroup default/api"]);
        assert!(!lets_in(&index, "default/front"));
        tell(&index, &sound);
        assert!(lets_in(&index, "default/front"));
    }
}

#[test]
fn d37_a_split_that_cannot_be_read_leaves_the_roots_own_endpoints() {
    let sound = split("s", "{service: web, backends: [{service: v1, weight: 1}]}");
    let broken = sound.replace("weight: 1", "weight: -1");
    let services = [
        service("web", "web", "10.96.0.1"),
        service("v1", "v1", "10.96.0.2"),
    ]
    .concat();
    let index = start(&[services, broken]);
    assert_eq!(errors(&index), ["TrafficSplit default/s"]);
    let backends = || {
        let service = index.read(|world| routed(world, "10.96.0.1:80"));
        let names = service.routes.iter().flat_map(|route| &route.backends);
        names.map(|it| it.name.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(backends(), ["web"]);
    tell(&index, &sound);
    assert_eq!(backends(), ["v1"]);
}

/// Read as a mistake of the version that is stored, the last valid state would stay in force (D37).
#[test]
fn d15_who_empties_a_list_in_an_old_version_takes_the_access_back() {
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name});
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "api"}]);
    let stored = |sources: Value, rules: Value| {
        let written = json!({
            "apiVersion": "access.smi-spec.io/v1alpha2", "kind": "TrafficTarget",
            "metadata": {"name": "t", "namespace": "default"},
            "spec": {"destination": account("web"), "sources": sources, "rules": rules},
        });
        let stored = convert(written, "access.smi-spec.io/v1alpha4").unwrap();
        format!("{stored}\n---\n")
    };
    let sound = stored(json!([account("front")]), rules.clone());
    for emptied in [
        stored(json!([]), rules),
        stored(json!([account("front")]), json!([])),
    ] {
        let group = group("api", "[{name: m, pathRegex: /api}]");
        let index = start(&[web_1(), group, sound.clone()]);
        assert!(lets_in(&index, "default/front"));
        tell(&index, &emptied);
        assert!(errors(&index).is_empty() && !lets_in(&index, "default/front"));
    }
}
