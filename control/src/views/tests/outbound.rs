//! Where addresses lead: D17 to D32.

use crate::views::fixtures::*;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::{Outbound, Route};

const HTTP: &str = "[{name: beta, headers: [{x-user: beta}]}]";

fn with(objects: &[String]) -> crate::views::world::World {
    let services = [
        service("web", "web", "10.96.0.1"),
        service("v1", "v1", "10.96.0.2"),
        service("v2", "v2", "10.96.0.3"),
    ];
    let all: Vec<&str> = services.iter().chain(objects).map(String::as_str).collect();
    world(&all)
}

/// `object: backend=weight …` of a route; `own` where no object made it.
fn show(route: &Route) -> String {
    let object = route
        .object
        .as_deref()
        .map_or("own", |object| object.rsplit('/').next().unwrap());
    let backends: Vec<_> = route
        .backends
        .iter()
        .map(|b| format!(" {}={}", b.endpoints, b.weight))
        .collect();
    format!(
        "{}{object}:{}",
        if route.matches.is_empty() { "" } else { "if " },
        backends.concat()
    )
}

fn routes(world: &crate::views::world::World) -> Vec<String> {
    routed(world, "10.96.0.1:80")
        .routes
        .iter()
        .map(show)
        .collect()
}

fn halves(name: &str) -> String {
    split(
        name,
        "{service: web, backends: [{service: v1, weight: 90}, {service: v2, weight: 10}]}",
    )
}

#[test]
fn an_address_is_a_service_a_pod_or_nothing() {
    let world = with(&[pod("web-1", "web", "10.0.0.1")]);
    assert_eq!(
        routed(&world, "10.96.0.1:80").name.to_string(),
        "default/web:80"
    );
    assert!(
        matches!(outbound(&world, "10.96.0.1:81"), Outbound::Refused { reason } if reason == "Service default/web has no TCP port 81")
    );
    assert!(
        matches!(outbound(&world, "10.0.0.1:8080"), Outbound::Endpoint(e) if e.pod == "web-1" && e.identity.is_some())
    );
    assert_eq!(outbound(&world, "93.184.216.34:443"), Outbound::PassThrough);
    assert_eq!(outbound(&world, "[2001:db8::1]:443"), Outbound::PassThrough);
}

#[test]
fn an_address_used_again_belongs_to_the_living() {
    let dying = pod("a-old", "web", "10.0.0.1").replace(
        "name: a-old",
        "name: a-old\n  deletionTimestamp: 2026-01-01T00:00:00Z",
    );
    let ended = pod("b-old", "web", "10.0.0.1").replace("status:", "status:\n  phase: Succeeded");
    let node = pod("c-node", "web", "10.0.0.1").replace("spec:", "spec:\n  hostNetwork: true");
    let new = pod("d-new", "web", "10.0.0.1");
    let at = |all: &[&str]| match outbound(&world(all), "10.0.0.1:80") {
        Outbound::Endpoint(endpoint) => endpoint.pod,
        other => format!("{other:?}"),
    };
    assert_eq!(at(&[&dying, &ended, &node, &new]), "d-new");
    assert_eq!(at(&[&dying, &ended]), "a-old");
    assert_eq!(at(&[&ended, &node]), "PassThrough");
}

#[test]
fn without_a_split_the_root_is_its_own_backend() {
    assert_eq!(routes(&with(&[])), ["own: default/web:80=1"]);
}

#[test]
fn d17_weights_are_kept_as_they_are() {
    assert_eq!(
        routes(&with(&[halves("s")])),
        ["s: default/v1:80=90 default/v2:80=10"]
    );
}

#[test]
fn d19_all_weights_zero_is_nobody() {
    let zero = split("s", "{service: web, backends: [{service: v1, weight: 0}]}");
    assert_eq!(routes(&with(&[zero])), ["s: default/v1:80=0"]);
    let some = "{service: web, backends: [{service: v1, weight: 0}, {service: v2, weight: 1}]}";
    assert_eq!(
        routes(&with(&[split("s", some)])),
        ["s: default/v1:80=0 default/v2:80=1"],
        "one weight above 0 is enough"
    );
}

#[test]
fn d20_a_missing_backend_is_left_out() {
    let missing = split(
        "s",
        "{service: web, backends: [{service: v1, weight: 1}, {service: v9, weight: 9}]}",
    );
    assert_eq!(
        routes(&with(&[missing.clone(), service("v9", "v9", "10.96.0.9")])),
        ["s: default/v1:80=1 default/v9:80=9"]
    );
    assert_eq!(routes(&with(&[missing])), ["s: default/v1:80=1"]);
    let none = split("s", "{service: web, backends: [{service: v9, weight: 9}]}");
    assert_eq!(routes(&with(&[none])), ["s:"], "never the root");
}

#[test]
fn d21_a_backend_without_ready_endpoints_keeps_its_share() {
    let ready = pod("v1-1", "v1", "10.0.0.1");
    let world = with(&[halves("s"), ready.clone()]);
    assert_eq!(routes(&world), ["s: default/v1:80=90 default/v2:80=10"]);
    assert_eq!(endpoints(&world, "default/v1:80").len(), 1);
    assert!(
        endpoints(&world, "default/v2:80").is_empty(),
        "its part fails fast; it goes nowhere else"
    );
    let world = with(&[halves("s"), ready, pod("v2-1", "v2", "10.0.0.2")]);
    assert_eq!(endpoints(&world, "default/v2:80").len(), 1);
}

#[test]
fn d22_a_backend_without_the_port_is_left_out_there_only() {
    let two = |name: &str, ip: &str, ports| service_with(name, name, ip, ports);
    let world = world(&[
        &two(
            "web",
            "10.96.0.1",
            "[{name: a, port: 80}, {name: b, port: 90}]",
        ),
        &two("v1", "10.96.0.2", "[{name: other, port: 80}]"),
        &two(
            "v2",
            "10.96.0.3",
            "[{name: a, port: 80, protocol: UDP}, {name: b, port: 90}]",
        ),
        &halves("s"),
    ]);
    let of = |address| {
        routed(&world, address)
            .routes
            .iter()
            .map(show)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("10.96.0.1:80"), ["s: default/v1:80=90"]);
    assert_eq!(of("10.96.0.1:90"), ["s: default/v2:90=10"]);
}

#[test]
fn d23_the_root_as_backend_is_its_own_endpoints() {
    let own = split(
        "s",
        "{service: web, backends: [{service: web, weight: 5}, {service: v2, weight: 1}]}",
    );
    assert_eq!(
        routes(&with(&[own])),
        ["s: default/web:80=5 default/v2:80=1"]
    );
}

#[test]
fn d24_a_backend_is_never_resolved_through_its_own_split() {
    let inner = split(
        "inner",
        "{service: v1, backends: [{service: v2, weight: 1}]}",
    );
    assert_eq!(
        routes(&with(&[halves("s"), inner])),
        ["s: default/v1:80=90 default/v2:80=10"]
    );
}

#[test]
fn d24_splits_that_name_each_other_end() {
    let there = split(
        "there",
        "{service: web, backends: [{service: v1, weight: 1}]}",
    );
    let back = split(
        "back",
        "{service: v1, backends: [{service: web, weight: 1}]}",
    );
    let world = with(&[there, back]);
    assert_eq!(routes(&world), ["there: default/v1:80=1"]);
    let other = routed(&world, "10.96.0.2:80");
    assert_eq!(show(&other.routes[0]), "back: default/web:80=1");
}

#[test]
fn d25_the_oldest_unconditional_split_applies_alone() {
    let dated = |name: &str, date: &str| {
        halves(name).replace(
            "namespace: default",
            &format!("namespace: default, creationTimestamp: {date}"),
        )
    };
    let old = dated("b", "2026-01-01T00:00:00Z");
    let new = dated("a", "2026-02-01T00:00:00Z");
    let undated = halves("0a");
    let name = |all: &[String]| {
        routes(&with(all))
            .join("|")
            .split(':')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(name(&[old.clone(), new.clone(), undated.clone()]), "b");
    assert_eq!(name(&[new, undated.clone()]), "a");
    assert_eq!(name(&[undated, halves("1a")]), "0a");
}

#[test]
fn d26_a_conditional_split_goes_first_and_the_rest_goes_on() {
    let beta = split(
        "beta",
        "{service: web, backends: [{service: v2, weight: 1}], matches: [{kind: HTTPRouteGroup, name: api}]}",
    );
    let world = with(&[group("api", HTTP), beta.clone()]);
    assert_eq!(
        routes(&world),
        ["if beta: default/v2:80=1", "own: default/web:80=1"]
    );
    let world = with(&[group("api", HTTP), beta, halves("all")]);
    assert_eq!(
        routes(&world),
        [
            "if beta: default/v2:80=1",
            "all: default/v1:80=90 default/v2:80=10"
        ]
    );
    // D31: what is not HTTP follows the unconditional one
    assert_eq!(routed(&world, "10.96.0.1:80").route_tcp(), 1);
}

#[test]
fn d26_of_conditional_splits_the_oldest_that_fits_applies() {
    let conditional = |name: &str, group: &str, backend: &str, date: &str| {
        let spec = format!(
            "{{service: web, backends: [{{service: {backend}, weight: 1}}], matches: [{{kind: HTTPRouteGroup, name: {group}}}]}}"
        );
        let dated = format!("namespace: default, creationTimestamp: {date}");
        split(name, &spec).replace("namespace: default", &dated)
    };
    let world = with(&[
        group("wide", "[{name: wide, pathRegex: /x}]"),
        group("narrow", "[{name: narrow, pathRegex: /x/y}]"),
        conditional("young", "wide", "v1", "2026-02-01T00:00:00Z"),
        conditional("old", "narrow", "v2", "2026-01-01T00:00:00Z"),
    ]);
    let service = routed(&world, "10.96.0.1:80");
    let headers = http::HeaderMap::new();
    for (path, expected) in [
        ("/x/y", "if old: default/v2:80=1"),
        ("/x", "if young: default/v1:80=1"),
        ("/z", "own: default/web:80=1"),
    ] {
        let request = weft_proxy_api::policy::matching::RequestView {
            method: "GET",
            path,
            host: "web",
            headers: &headers,
        };
        assert_eq!(
            show(&service.routes[service.route_http(&request)]),
            expected
        );
    }
}

#[test]
fn d26_several_groups_are_one() {
    let both = split(
        "s",
        "{service: web, backends: [{service: v2, weight: 1}], matches: [{kind: HTTPRouteGroup, name: a}, {kind: HTTPRouteGroup, name: b}]}",
    );
    let world = with(&[
        group("a", HTTP),
        group("b", "[{name: x, pathRegex: /x}]"),
        both,
    ]);
    assert_eq!(routed(&world, "10.96.0.1:80").routes[0].matches.len(), 2);
}

#[test]
fn d27_a_split_whose_groups_are_missing_or_empty_is_inert() {
    let beta = split(
        "beta",
        "{service: web, backends: [{service: v2, weight: 1}], matches: [{kind: HTTPRouteGroup, name: api}]}",
    );
    assert_eq!(
        routes(&with(std::slice::from_ref(&beta))),
        ["own: default/web:80=1"]
    );
    assert_eq!(
        routes(&with(&[beta.clone(), group("api", "[]")])),
        ["own: default/web:80=1"]
    );
    let elsewhere = group("api", HTTP).replace("namespace: default", "namespace: other");
    assert_eq!(
        routes(&with(&[beta.clone(), elsewhere])),
        ["own: default/web:80=1"]
    );
    assert_ne!(
        routes(&with(&[beta, group("api", HTTP)])),
        ["own: default/web:80=1"],
        "with its group it applies"
    );
}

#[test]
fn d28_the_root_may_be_written_in_full() {
    for name in [
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local.",
    ] {
        let full = split(
            "s",
            &format!("{{service: {name}, backends: [{{service: v1.default, weight: 1}}]}}"),
        );
        assert_eq!(routes(&with(&[full])), ["s: default/v1:80=1"], "{name}");
    }
}

#[test]
fn d31_connections_follow_unconditional_splits_only() {
    let condition = "matches: [{kind: HTTPRouteGroup, name: api}]";
    let beta = split(
        "beta",
        &format!("{{service: web, backends: [{{service: v2, weight: 1}}], {condition}}}"),
    );
    let service = routed(&with(&[group("api", HTTP), beta.clone()]), "10.96.0.1:80");
    assert_eq!(
        show(&service.routes[service.route_tcp()]),
        "own: default/web:80=1"
    );
    let service = routed(
        &with(&[group("api", HTTP), beta, halves("all")]),
        "10.96.0.1:80",
    );
    assert_eq!(
        show(&service.routes[service.route_tcp()]),
        "all: default/v1:80=90 default/v2:80=10"
    );
}

#[test]
fn d39_an_http_route_is_not_read_and_takes_nothing_from_a_split() {
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec: {parentRefs: [{kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: v2, port: 80}]}]}
---
";
    let (loaded, problems) = crate::manifest::parse("t", route);
    assert_eq!(loaded.len(), 1);
    assert!(problems[0].message.contains("ignored"), "{problems:?}");
    let both = [halves("s"), route.to_owned()];
    assert_eq!(routes(&with(&both)), routes(&with(&both[..1])));
    assert_eq!(routes(&with(&both[1..])), ["own: default/web:80=1"]);
}

#[test]
fn d40_a_split_is_decided_first_and_the_pod_that_serves_judges() {
    let account = |name: &str, ip: &str| {
        pod(name, name, ip).replace(
            "serviceAccountName: web",
            &format!("serviceAccountName: {name}"),
        )
    };
    let open = target("t", &["default/front"], "[{kind: TCPRoute, name: any}]");
    let open = open.replace("ServiceAccount, name: web", "ServiceAccount, name: v1");
    let pods = account("v1", "10.0.0.1") + &account("v2", "10.0.0.2");
    let world = with(&[halves("s"), pods.clone(), tcp("any", "[]"), open]);
    assert!(may(&world, "v1", "default/front", 8080, "GET /"));
    assert!(!may(&world, "v2", "default/front", 8080, "GET /"));
    // Who may call whom changes nothing about where requests go.
    assert_eq!(routes(&world), routes(&with(&[halves("s"), pods])));
}

#[test]
fn d32_an_external_name_is_never_a_backend() {
    let external = service("v1", "v1", "10.96.0.9").replace(
        "clusterIP: 10.96.0.9",
        "type: ExternalName, externalName: example.com, clusterIP: 10.96.0.9",
    );
    let world = world(&[
        &service("web", "web", "10.96.0.1"),
        &external,
        &service("v2", "v2", "10.96.0.3"),
        &halves("s"),
    ]);
    assert_eq!(routes(&world), ["s: default/v2:80=10"]);
    assert_eq!(outbound(&world, "10.96.0.9:80"), Outbound::PassThrough);
    assert!(endpoints(&world, "default/v1:80").is_empty());
}

#[test]
fn a_service_says_what_its_port_speaks() {
    let grpc = service_with("web", "web", "10.96.0.1", "[{name: grpc-api, port: 80}]");
    assert_eq!(
        routed(&world(&[&grpc]), "10.96.0.1:80").protocol,
        Protocol::Grpc
    );
    assert_eq!(
        routed(&with(&[]), "10.96.0.1:80").protocol,
        Protocol::Detect
    );
}

#[test]
fn every_address_of_a_service_leads_to_it() {
    let dual = service("web", "web", "10.96.0.1").replace(
        "clusterIP: 10.96.0.1",
        "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']",
    );
    let world = world(&[&dual]);
    assert_eq!(
        routed(&world, "[fd00::1]:80").name,
        routed(&world, "10.96.0.1:80").name
    );
    assert_eq!(routed(&world, "[::ffff:10.96.0.1]:80").name.name, "web");
    let headless = service("web", "web", "None");
    assert_eq!(
        outbound(&super::super::fixtures::world(&[&headless]), "10.96.0.1:80"),
        Outbound::PassThrough
    );
}
