//! What is said aloud: each suspicious state, and silence where nothing is wrong.

use crate::views::fixtures::*;

fn found(manifests: &[&str]) -> Vec<String> {
    let show =
        |p: crate::manifest::Problem| format!("{}: {}", p.field.unwrap_or_default(), p.message);
    problems(&world(manifests)).into_iter().map(show).collect()
}

#[test]
fn a_sound_world_is_silent() {
    let rules = "[{kind: HTTPRouteGroup, name: api, matches: [m]}, {kind: TCPRoute, name: a}]";
    let target = target("t", &["default/x"], rules);
    let split = split(
        "s",
        "{service: web, backends: [{service: web, weight: 1}], matches: [{kind: HTTPRouteGroup, name: api}]}",
    );
    let ports = "[{name: web, port: 80}, {name: dns, port: 53, protocol: UDP}]";
    let all = [
        service_with("web", "web", "10.96.0.1", ports),
        group("api", "[{name: m}]"),
        tcp("a", "[80]"),
        target,
        split,
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(found(&all), [""; 0]);
}

#[test]
fn what_leads_nowhere_is_a_finding() {
    let web = service("web", "web", "10.96.0.1");
    let v2 = service_with("v2", "v2", "10.96.0.2", "[{port: 81}]");
    let to = |backends: &str| split("s", &format!("{{service: web, backends: {backends}}}"));
    for (manifests, expected) in [
        (
            vec![to("[{service: v1, weight: 1}]")],
            "spec.service: there is no Service default/web",
        ),
        (
            vec![web.clone(), to("[{service: v1, weight: 1}]")],
            "spec.backends[0].service: there is no Service default/v1",
        ),
        (
            vec![web.clone(), to("[{service: web, weight: 0}]")],
            "spec.backends: every weight is 0",
        ),
        (
            vec![
                web.clone(),
                v2,
                to("[{service: web, weight: 1}, {service: v2, weight: 1}]"),
            ],
            "spec.backends[1].service: it has no port 80",
        ),
        (
            vec![
                web.clone(),
                to("[{service: web, weight: 1}]"),
                to("[{service: web, weight: 1}]").replace("name: s,", "name: r,"),
            ],
            "spec.service: the older TrafficSplit r has the same root",
        ),
        (
            vec![target("t", &["a/b"], "[{kind: HTTPRouteGroup, name: g}]")],
            "spec.rules[0]: there is no HTTPRouteGroup default/g",
        ),
        (
            vec![target("t", &["a/b"], "[{kind: TCPRoute, name: g}]")],
            "spec.rules[0]: there is no TCPRoute default/g",
        ),
        (
            vec![
                group("g", "[{name: m}]"),
                target(
                    "t",
                    &["a/b"],
                    "[{kind: HTTPRouteGroup, name: g, matches: [x]}]",
                ),
            ],
            "spec.rules[0].matches: HTTPRouteGroup default/g has no match \"x\"",
        ),
        (
            vec![pod("a", "web", "10.0.0.1").replace(
                "annotations: {",
                "annotations: {config.weft.mesh/access: sloppy, ",
            )],
            "metadata.annotations[config.weft.mesh/access]: \"sloppy\" is not strict",
        ),
    ] {
        let manifests: Vec<&str> = manifests.iter().map(String::as_str).collect();
        let found = found(&manifests);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
}

#[test]
fn d12_an_https_probe_is_a_finding_where_it_is_refused() {
    let with = |scheme: &str| {
        let probe = format!(
            "    ports: [{{name: main, containerPort: 8080}}]
    livenessProbe: {{httpGet: {{port: main, scheme: {scheme}}}}}
"
        );
        let ports = "    ports: [{name: main, containerPort: 8080}]\n";
        pod("web-1", "web", "10.0.0.1").replace(ports, &probe)
    };
    let https = with("HTTPS");
    let told = found(&[&https]);
    let start = "spec.containers[app].livenessProbe.httpGet.scheme: strict access refuses";
    assert!(told.len() == 1 && told[0].starts_with(start), "{told:?}");
    let marked = |mark: &str| https.replace("annotations: {", &format!("annotations: {{{mark}, "));
    for silent in [
        with("HTTP"),
        marked("config.weft.mesh/access: permissive"),
        marked("config.weft.mesh/skip-inbound-ports: '8080'"),
        https.replace("weft.mesh/injected-at-version", "other"),
    ] {
        assert_eq!(found(&[&silent]), [""; 0], "{silent}");
    }
}
