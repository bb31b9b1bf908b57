//! ServicePolicies: which one holds, what a Service and its pods are told, and nothing where there is none.

use crate::manifest::Object;
use crate::views::fixtures::*;
use crate::views::world::World;
use crate::views::{ViewKey, compute};
use std::collections::HashSet;
use std::time::Duration;
use weft_proxy_api::policy::settings::ServiceSettings;
use weft_proxy_api::wire::encode;

/// A ServicePolicy of `default`.
fn policy(name: &str, spec: &str) -> String {
    aged(name, "", spec)
}

fn aged(name: &str, created: &str, spec: &str) -> String {
    let created = match created {
        "" => String::new(),
        time => format!(", creationTimestamp: \"{time}\""),
    };
    format!(
        "apiVersion: weft.mesh/v1alpha1
kind: ServicePolicy
metadata: {{name: {name}, namespace: default{created}}}
spec: {spec}
---
"
    )
}

const PORTS: &str =
    "[{name: http, port: 80, targetPort: main}, {name: admin, port: 81, targetPort: 9000}]";

fn with(objects: &[String]) -> World {
    let base = [
        pod("web-1", "web", "10.1.0.1"),
        service_with("web", "web", "10.96.0.1", PORTS),
        service("static", "static", "10.96.0.2"),
        group(
            "api",
            "[{name: reads, methods: [GET]}, {name: writes, methods: [POST]}]",
        ),
    ];
    let all: Vec<&str> = base.iter().chain(objects).map(String::as_str).collect();
    world(&all)
}

fn settings(world: &World, port: u16) -> ServiceSettings {
    *routed(world, &format!("10.96.0.1:{port}")).settings
}

fn holds(world: &World, port: u16) -> String {
    let object = settings(world, port).object.unwrap_or_default();
    object.replace("ServicePolicy default/", "")
}

fn found(world: &World) -> Vec<String> {
    let problems = problems(world).into_iter();
    problems
        .map(|p| format!("{}: {}", p.field.unwrap_or_default(), p.message))
        .collect()
}

#[test]
fn without_a_policy_everything_is_as_it_was() {
    let plain = with(&[]);
    let spec = "{service: web, timeouts: {request: 1s}, balancer: {policy: roundRobin}, rateLimit: {requests: 5}}";
    let mut world = with(&[policy("p", spec)]);
    let keys = [
        ViewKey::Outbound("10.96.0.1:80".parse().unwrap()),
        ViewKey::Inbound(crate::pod_ref::PodRef::new("default", "web-1")),
    ];
    let version = |world: &World, key: &ViewKey| encode::version(&compute(world, key).0);
    let mut touched = HashSet::new();
    for key in &keys {
        assert_ne!(version(&world, key), version(&plain, key), "{key:?}");
    }
    let policies: Vec<_> = world
        .objects()
        .filter(|loaded| matches!(loaded.object, Object::ServicePolicy(_)))
        .map(|loaded| loaded.key.clone())
        .collect();
    let asked: Vec<_> = keys.iter().map(|key| compute(&world, key).1).collect();
    policies
        .iter()
        .for_each(|key| world.delete(key, &mut touched));
    for (key, asked) in keys.iter().zip(asked) {
        assert_eq!(version(&world, key), version(&plain, key), "{key:?}");
        assert!(!asked.is_disjoint(&touched), "{key:?} is computed anew");
    }
}

#[test]
fn a_policy_reaches_every_port_or_the_one_it_names() {
    let world = with(&[policy(
        "p",
        "{service: web, port: 81, timeouts: {request: 1s}}",
    )]);
    assert_eq!(
        (holds(&world, 80).as_str(), holds(&world, 81).as_str()),
        ("", "p")
    );
    let second = Some(Duration::from_secs(1));
    assert_eq!(settings(&world, 81).requests.timeouts.request, second);
    let world = with(&[policy("p", "{service: web, timeouts: {request: 1s}}")]);
    assert_eq!(
        (holds(&world, 80).as_str(), holds(&world, 81).as_str()),
        ("p", "p")
    );
}

#[test]
fn of_two_without_matches_one_holds_and_the_other_is_a_finding() {
    let spec = "{service: web, timeouts: {request: 1s}}";
    let old = aged("z", "2026-01-01T00:00:00Z", spec);
    let young = aged("a", "2026-02-01T00:00:00Z", spec);
    let world = with(&[old.clone(), young]);
    assert_eq!(holds(&world, 80), "z");
    let said = found(&world);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(
        said[0],
        "spec.service: ServicePolicy default/z holds for port 80: this one does nothing there"
    );
    // The one that names the port goes first, whatever its age.
    let named = aged(
        "named",
        "2026-03-01T00:00:00Z",
        "{service: web, port: 80, timeouts: {request: 2s}}",
    );
    let world = with(&[old, named]);
    assert_eq!(
        (holds(&world, 80).as_str(), holds(&world, 81).as_str()),
        ("named", "z")
    );
}

#[test]
fn those_with_matches_come_in_order_of_age() {
    let spec = |name: &str| {
        format!(
            "{{service: web, matches: [{{kind: HTTPRouteGroup, name: api, matches: [{name}]}}], timeouts: {{request: 1s}}}}"
        )
    };
    let world = with(&[
        aged("b", "2026-02-01T00:00:00Z", &spec("reads")),
        aged("c", "2026-01-01T00:00:00Z", &spec("writes")),
        policy("a", &spec("reads")),
    ]);
    let rules = settings(&world, 80).rules;
    let shown: Vec<_> = rules
        .iter()
        .map(|rule| (rule.object.as_str(), rule.matches[0].name.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("ServicePolicy default/c", "writes"),
            ("ServicePolicy default/b", "reads"),
            ("ServicePolicy default/a", "reads"),
        ]
    );
    assert_eq!(settings(&world, 80).object, None);
}

#[test]
fn what_leads_nowhere_covers_less_and_is_a_finding() {
    let matches = |name: &str| format!("matches: [{{kind: HTTPRouteGroup, {name}}}]");
    for (spec, expected) in [
        (
            "{service: gone, timeouts: {request: 1s}}".to_owned(),
            "spec.service: there is no Service default/gone",
        ),
        (
            "{service: web, port: 82, timeouts: {request: 1s}}".to_owned(),
            "spec.port: the Service has no TCP port 82",
        ),
        (
            format!(
                "{{service: web, {}, timeouts: {{request: 1s}}}}",
                matches("name: gone")
            ),
            "spec.matches[0].name: there is no HTTPRouteGroup default/gone",
        ),
        (
            format!(
                "{{service: web, {}, rateLimit: {{requests: 1}}}}",
                matches("name: api, matches: [gone]")
            ),
            "spec.matches[0].matches: HTTPRouteGroup default/api has no match \"gone\"",
        ),
        (
            "{service: web, port: 80, breaker: {fallback: {service: gone}}}".to_owned(),
            "spec.breaker.fallback: there is no other Service default/gone with port 80",
        ),
    ] {
        let world = with(&[policy("p", &spec)]);
        let said = found(&world);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        let settings = settings(&world, 80);
        assert_eq!(settings.rules, [], "{spec}");
        assert_eq!(settings.requests, Default::default(), "{spec}");
        assert_eq!(settings.breaker, Default::default(), "{spec}");
        assert_eq!(inbound(&world, "web-1").rate_limits, [], "{spec}");
    }
}

#[test]
fn a_fallback_is_a_service_with_the_port_that_was_called() {
    let spec = "{service: web, port: 80, breaker: {requests: 5, fallback: {service: static}}}";
    let breaker = settings(&with(&[policy("p", spec)]), 80).breaker;
    assert_eq!(breaker.requests, Some(5));
    assert_eq!(breaker.fallback.unwrap().endpoints, "default/static:80");
}

#[test]
fn rate_limits_go_to_the_pods_by_their_own_ports() {
    let world = with(&[
        policy(
            "all",
            "{service: web, rateLimit: {requests: 5, perClient: {requests: 1}}}",
        ),
        policy(
            "some",
            "{service: web, port: 81, matches: [{kind: HTTPRouteGroup, name: api}], rateLimit: {requests: 7}}",
        ),
    ]);
    let limits = inbound(&world, "web-1").rate_limits;
    let shown: Vec<_> = limits
        .iter()
        .map(|l| (l.requests, l.ports.clone(), l.matches.len(), l.per_client))
        .collect();
    assert_eq!(
        shown,
        [
            (5, vec![8080, 9000], 0, false),
            (1, vec![8080, 9000], 0, true),
            (7, vec![9000], 2, false),
        ]
    );
    // A limit alone says nothing about how requests are treated.
    assert_eq!(settings(&world, 81).rules, []);
}

#[test]
fn in_audit_mode_only_limits_are_counted() {
    let spec = "{service: web, mode: audit, timeouts: {request: 1s}, rateLimit: {requests: 5}}";
    let young = aged(
        "young",
        "2026-02-01T00:00:00Z",
        "{service: web, timeouts: {request: 2s}}",
    );
    let world = with(&[aged("p", "2026-01-01T00:00:00Z", spec), young]);
    assert_eq!(holds(&world, 80), "young", "it does not stand in the way");
    let limits = inbound(&world, "web-1").rate_limits;
    assert!(matches!(&limits[..], [limit] if limit.audit), "{limits:?}");
    assert_eq!(found(&world), [""; 0]);
}
