//! Who may call: D06 to D16.

use crate::views::fixtures::*;
use weft_proxy_api::policy::inbound::Traffic;

const ALL: &str =
    "[{name: get, pathRegex: /api, methods: [GET]}, {name: put, pathRegex: /api, methods: [PUT]}]";
const HTTP: &str = "[{kind: HTTPRouteGroup, name: api}]";

fn with(objects: &[String]) -> crate::views::world::World {
    let pod = pod("web-1", "web", "10.0.0.1");
    let service = service("web", "web", "10.96.0.1");
    let mut all = vec![pod.as_str(), service.as_str()];
    all.extend(objects.iter().map(String::as_str));
    world(&all)
}

#[test]
fn d06_absent_or_empty_matches_are_all() {
    for rules in [HTTP, "[{kind: HTTPRouteGroup, name: api, matches: []}]"] {
        let world = with(&[group("api", ALL), target("t", &["default/front"], rules)]);
        assert!(may(&world, "web-1", "default/front", 8080, "GET /api"));
        assert!(may(&world, "web-1", "default/front", 8080, "PUT /api"));
        assert!(!may(&world, "web-1", "default/front", 8080, "DELETE /api"));
    }
}

#[test]
fn d06_an_unknown_match_contributes_nothing() {
    let rule = |matches: &str| format!("[{{kind: HTTPRouteGroup, name: api, matches: {matches}}}]");
    let world = with(&[
        group("api", ALL),
        target("t", &["default/front"], &rule("[get, typo]")),
    ]);
    assert!(may(&world, "web-1", "default/front", 8080, "GET /api"));
    assert!(!may(&world, "web-1", "default/front", 8080, "PUT /api"));
    let world = with(&[
        group("api", ALL),
        target("t", &["default/front"], &rule("[typo]")),
    ]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
}

#[test]
fn d06_what_is_named_many_times_is_there_once() {
    let many = |rule: &str| format!("[{}]", [rule; 1_000].join(", "));
    let whole = "{kind: HTTPRouteGroup, name: api}";
    let get = "{kind: HTTPRouteGroup, name: api, matches: [get]}";
    let put = "{kind: HTTPRouteGroup, name: api, matches: [put, put]}";
    for (rules, requests) in [
        (many(whole), 2),
        (many(get), 1),
        (format!("[{get}, {put}]"), 2),
        (format!("[{get}, {whole}, {put}]"), 2),
    ] {
        let sources = ["default/front"; 1_000];
        let world = with(&[group("api", ALL), target("t", &sources, &rules)]);
        let allow = inbound(&world, "web-1").allow;
        assert_eq!((allow.len(), allow[0].sources.len()), (1, 1));
        match &allow[0].traffic {
            Traffic::Http(all) => assert_eq!(all.len(), requests, "{rules:.200}"),
            Traffic::Any => panic!("{rules:.200}"),
        }
        assert!(may(&world, "web-1", "default/front", 8080, "GET /api"));
    }
}

#[test]
fn d05_a_group_without_matches_allows_nothing() {
    let world = with(&[group("api", "[]"), target("t", &["default/front"], HTTP)]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /"));
}

#[test]
fn d07_missing_group_allows_nothing() {
    let rules = "[{kind: TCPRoute, name: port}, {kind: HTTPRouteGroup, name: api}]";
    let all = [
        tcp("port", "[8080]"),
        group("api", ALL),
        target("t", &["default/front"], rules),
    ];
    let world = with(&all);
    assert!(may(&world, "web-1", "default/front", 8080, "GET /api"));
    let world = with(&[all[0].clone(), all[2].clone()]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
    assert!(
        !may_connect(&world, "web-1", "default/front", 8080),
        "the TCPRoute must not stand alone"
    );
}

#[test]
fn d07_missing_route_allows_nothing() {
    let rules = "[{kind: TCPRoute, name: port}, {kind: HTTPRouteGroup, name: api}]";
    let world = with(&[group("api", ALL), target("t", &["default/front"], rules)]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
    let world = with(&[target(
        "t",
        &["default/front"],
        "[{kind: TCPRoute, name: port}]",
    )]);
    assert!(!may_connect(&world, "web-1", "default/front", 8080));
}

#[test]
fn d08_a_route_and_a_group_must_both_fit() {
    let rules = "[{kind: TCPRoute, name: port}, {kind: HTTPRouteGroup, name: api}]";
    let world = with(&[
        tcp("port", "[8080]"),
        group("api", ALL),
        target("t", &["default/front"], rules),
    ]);
    assert!(may(&world, "web-1", "default/front", 8080, "GET /api"));
    assert!(!may(&world, "web-1", "default/front", 8081, "GET /api"));
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /x"));
    assert!(!may_connect(&world, "web-1", "default/front", 8080));
}

#[test]
fn d08_routes_alone_admit_any_traffic_on_the_union_of_their_ports() {
    let rules = "[{kind: TCPRoute, name: a}, {kind: TCPRoute, name: b}]";
    let world = with(&[
        tcp("a", "[8080]"),
        tcp("b", "[9000]"),
        target("t", &["default/front"], rules),
    ]);
    for port in [8080, 9000] {
        assert!(may_connect(&world, "web-1", "default/front", port));
        assert!(may(&world, "web-1", "default/front", port, "PATCH /any"));
    }
    assert!(!may_connect(&world, "web-1", "default/front", 8081));
    // a route without ports is every port
    let world = with(&[
        tcp("a", "[]"),
        target("t", &["default/front"], "[{kind: TCPRoute, name: a}]"),
    ]);
    assert!(may_connect(&world, "web-1", "default/front", 1));
}

#[test]
fn d09_a_udp_route_is_never_combined() {
    let world = with(&[target(
        "t",
        &["default/front"],
        "[{kind: UDPRoute, name: u}]",
    )]);
    assert!(!may_connect(&world, "web-1", "default/front", 8080));
    let rules = "[{kind: UDPRoute, name: u}, {kind: TCPRoute, name: a}]";
    let world = with(&[tcp("a", "[8080]"), target("t", &["default/front"], rules)]);
    assert!(may_connect(&world, "web-1", "default/front", 8080));
    assert!(!may_connect(&world, "web-1", "default/front", 8081));
}

#[test]
fn d10_a_port_is_the_services_first() {
    let rules = "[{kind: TCPRoute, name: a}]";
    let world = with(&[tcp("a", "[80]"), target("t", &["default/front"], rules)]);
    assert!(
        may_connect(&world, "web-1", "default/front", 8080),
        "80 of the Service is 8080 of the pod"
    );
    assert!(
        !may_connect(&world, "web-1", "default/front", 80),
        "and then not 80 of the pod"
    );
    let world = with(&[tcp("a", "[9000]"), target("t", &["default/front"], rules)]);
    assert!(
        may_connect(&world, "web-1", "default/front", 9000),
        "no Service has it: the pod's own"
    );
    // a Service has it, but the pod has no port of that name
    let other = service_with(
        "odd",
        "web",
        "10.96.0.2",
        "[{port: 9000, targetPort: nowhere}]",
    );
    let world = with(&[
        other,
        tcp("a", "[9000]"),
        target("t", &["default/front"], rules),
    ]);
    assert!(!may_connect(&world, "web-1", "default/front", 9000));
    // every Service that selects the pod counts, others do not
    let second = service_with(
        "second",
        "web",
        "10.96.0.2",
        "[{port: 80, targetPort: 7000}]",
    );
    let foreign = service_with(
        "foreign",
        "db",
        "10.96.0.3",
        "[{port: 80, targetPort: 6000}]",
    );
    let world = with(&[
        second,
        foreign,
        tcp("a", "[80]"),
        target("t", &["default/front"], rules),
    ]);
    assert!(
        may_connect(&world, "web-1", "default/front", 8080)
            && may_connect(&world, "web-1", "default/front", 7000)
    );
    assert!(!may_connect(&world, "web-1", "default/front", 6000));
}

#[test]
fn d11_destination_port_is_enforced() {
    let with_port = |port: &str| {
        target("t", &["default/front"], HTTP).replace(
            "destination: {kind: ServiceAccount, name: web}",
            &format!("destination: {{kind: ServiceAccount, name: web, port: {port}}}"),
        )
    };
    for port in ["80", "\"80\"", "8080"] {
        let world = with(&[group("api", ALL), with_port(port)]);
        assert!(
            may(&world, "web-1", "default/front", 8080, "GET /api"),
            "{port}"
        );
        assert!(
            !may(&world, "web-1", "default/front", 9000, "GET /api"),
            "{port}"
        );
    }
    // within the ports of the routes, never beside them
    let both = with_port("80").replace(HTTP, "[{kind: TCPRoute, name: a}]");
    let world = with(&[tcp("a", "[9000]"), both]);
    assert!(
        !may_connect(&world, "web-1", "default/front", 8080)
            && !may_connect(&world, "web-1", "default/front", 9000)
    );
}

#[test]
fn d12_without_a_target_nothing_is_accepted() {
    let world = with(&[]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /"));
    assert!(!may(&world, "web-1", "", 8080, "GET /"));
}

#[test]
fn d13_sources_may_be_anywhere_and_routes_are_the_targets() {
    let world = with(&[group("api", ALL), target("t", &["other/front"], HTTP)]);
    assert!(may(&world, "web-1", "other/front", 8080, "GET /api"));
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
    let elsewhere = group("api", ALL).replace("namespace: default", "namespace: other");
    let world = with(&[elsewhere, target("t", &["default/front"], HTTP)]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
    // a target of another namespace says nothing about this account
    let foreign = target("t", &["default/front"], HTTP)
        .replace("name: t, namespace: default", "name: t, namespace: other");
    let world = with(&[
        group("api", ALL),
        group("api", ALL).replace("namespace: default", "namespace: other"),
        foreign,
    ]);
    assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
}

#[test]
fn d14_a_star_is_a_wrong_name() {
    let (loaded, _) = crate::manifest::parse("t", &target("t", &["default/'*'"], HTTP));
    for loaded in loaded {
        let mut world = with(&[group("api", ALL)]);
        world.apply(loaded, &mut std::collections::HashSet::new());
        assert!(!may(&world, "web-1", "default/front", 8080, "GET /api"));
    }
}

#[test]
fn d16_targets_add_up_and_never_mix() {
    let world = with(&[
        group("a", "[{name: m, pathRegex: /a}]"),
        group("b", "[{name: m, pathRegex: /b}]"),
        target("one", &["default/x"], "[{kind: HTTPRouteGroup, name: a}]"),
        target("two", &["default/z"], "[{kind: HTTPRouteGroup, name: b}]"),
    ]);
    assert!(
        may(&world, "web-1", "default/x", 8080, "GET /a")
            && may(&world, "web-1", "default/z", 8080, "GET /b")
    );
    assert!(
        !may(&world, "web-1", "default/x", 8080, "GET /b")
            && !may(&world, "web-1", "default/z", 8080, "GET /a")
    );
    assert_eq!(
        inbound(&world, "web-1").allow[0].object,
        "TrafficTarget default/one"
    );
}
