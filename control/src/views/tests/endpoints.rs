//! Endpoint sets: from pods, from Endpoints and from EndpointSlices.

use crate::views::fixtures::*;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::Endpoint;

fn show(endpoints: &[Endpoint]) -> Vec<String> {
    let show = |e: &Endpoint| {
        format!(
            "{} {}{}",
            e.address,
            e.pod,
            if e.identity.is_some() { " mtls" } else { "" }
        )
    };
    endpoints.iter().map(show).collect()
}

fn of(manifests: &[&str]) -> Vec<String> {
    show(&endpoints(&world(manifests), "default/web:80"))
}

fn web() -> String {
    service("web", "web", "10.96.0.1")
}

#[test]
fn ready_pods_that_are_selected_serve() {
    let ready = pod("a", "web", "10.0.0.1");
    let with = |name: &str, ip: &str, from: &str, to: &str| pod(name, "web", ip).replace(from, to);
    let not_ready = with(
        "b",
        "10.0.0.2",
        "status:",
        "status:\n  conditions: [{type: Ready, status: 'False'}]",
    );
    let dying = with(
        "c",
        "10.0.0.3",
        "name: c",
        "name: c\n  deletionTimestamp: 2026-01-01T00:00:00Z",
    );
    let homeless = with("d", "10.0.0.4", "  podIP: 10.0.0.4", "  phase: Pending");
    let unlike = pod("e", "db", "10.0.0.5");
    let foreign = with("f", "10.0.0.6", "namespace: default", "namespace: other");
    let ended = with("g", "10.0.0.7", "status:", "status:\n  phase: Succeeded");
    let all = [
        web(),
        ready,
        not_ready,
        dying,
        homeless,
        unlike,
        foreign,
        ended,
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(of(&all), ["10.0.0.1:8080 a mtls"]);
    let early = all[0].replace("spec: {", "spec: {publishNotReadyAddresses: true, ");
    assert_eq!(of(&[&early, all[2], all[3]]), ["10.0.0.2:8080 b mtls"]);
}

#[test]
fn a_named_port_may_differ_from_pod_to_pod() {
    let other = pod("b", "web", "10.0.0.2").replace("containerPort: 8080", "containerPort: 9090");
    let nameless = pod("c", "web", "10.0.0.3").replace("name: main", "name: different");
    assert_eq!(
        of(&[&web(), &pod("a", "web", "10.0.0.1"), &other, &nameless]),
        ["10.0.0.1:8080 a mtls", "10.0.0.2:9090 b mtls"]
    );
    for (ports, expected) in [
        ("[{port: 80}]", 80),
        ("[{port: 80, targetPort: 7}]", 7),
        ("[{port: 80, targetPort: \"7\"}]", 7),
    ] {
        let numbered = service_with("web", "web", "10.96.0.1", ports);
        assert_eq!(
            of(&[&numbered, &pod("a", "web", "10.0.0.1")]),
            [format!("10.0.0.1:{expected} a mtls")]
        );
    }
}

#[test]
fn an_identity_is_given_only_where_a_proxy_answers() {
    let a = pod("a", "web", "10.0.0.1");
    let bare = a.replace(
        "  annotations: {weft.mesh/injected-at-version: \"1\"}\n",
        "",
    );
    let skip = a.replace(
        "annotations: {",
        "annotations: {config.weft.mesh/skip-inbound-ports: \"25,8000-8080\", ",
    );
    let told = |args: &str| {
        a.replace(
            "  containers:",
            &format!("  initContainers: [{{name: weft-init, args: {args}}}]\n  containers:"),
        )
    };
    let node = a.replace("spec:", "spec:\n  hostNetwork: true");
    assert_eq!(of(&[&web(), &a]), ["10.0.0.1:8080 a mtls"]);
    for (why, manifest) in [
        ("no proxy", &bare),
        ("skipped by annotation", &skip),
        (
            "skipped by the init program",
            &told("[--skip-inbound-ports, '4191,8080']"),
        ),
        (
            "skipped by the init program",
            &told("[--skip-inbound-ports=8080]"),
        ),
        ("network of the node", &node),
    ] {
        assert_eq!(of(&[&web(), manifest]), ["10.0.0.1:8080 a"], "{why}");
    }
    assert_eq!(
        of(&[&web(), &told("[--skip-inbound-ports, '4191']")]),
        ["10.0.0.1:8080 a mtls"]
    );
    let admin = service_with("web", "web", "10.96.0.1", "[{port: 80, targetPort: 4191}]");
    assert_eq!(of(&[&admin, &a]), ["10.0.0.1:4191 a"]);
    let identity = endpoints(&world(&[&web(), &a]), "default/web:80")[0]
        .identity
        .clone();
    assert_eq!(
        identity.map(|id| id.to_string()).as_deref(),
        Some("spiffe://cluster.local/ns/default/sa/web")
    );
}

#[test]
fn endpoint_slices_go_before_endpoints_and_those_before_pods() {
    let pod = pod("a", "web", "10.0.0.1");
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: '', port: 8080}, {name: other, port: 1}]
endpoints:
- {addresses: [10.0.0.1], zone: z1, targetRef: {kind: Pod, name: a, namespace: default}}
- {addresses: [10.0.0.8], conditions: {ready: false}}
- {addresses: [10.0.0.9], conditions: {ready: true}}
---
";
    let old = "apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: default}
subsets:
- addresses: [{ip: 10.0.0.7}]
  notReadyAddresses: [{ip: 10.0.0.6}]
  ports: [{port: 9090}, {port: 53, protocol: UDP}]
---
";
    assert_eq!(
        of(&[&web(), &pod, old, slice]),
        ["10.0.0.1:8080 a mtls", "10.0.0.9:8080 "]
    );
    assert_eq!(of(&[&web(), &pod, old]), ["10.0.0.7:9090 "]);
    assert_eq!(of(&[&web(), &pod]), ["10.0.0.1:8080 a mtls"]);
    let set = endpoints(&world(&[&web(), &pod, slice]), "default/web:80");
    assert_eq!(
        (set[0].zone.as_str(), set[0].namespace.as_str()),
        ("z1", "default")
    );
    let elsewhere = slice.replace("namespace: default, labels", "namespace: other, labels");
    assert_eq!(of(&[&web(), &pod, &elsewhere]), ["10.0.0.1:8080 a mtls"]);
}

#[test]
fn a_reference_cannot_lend_an_identity_to_another_address() {
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.99], targetRef: {kind: Pod, name: a}}]
---
";
    assert_eq!(
        of(&[&web(), &pod("a", "web", "10.0.0.1"), slice]),
        ["10.0.0.99:8080 "]
    );
}

#[test]
fn the_family_is_that_of_the_service() {
    let dual = pod("a", "web", "10.0.0.1").replace(
        "  podIP: 10.0.0.1",
        "  podIP: 10.0.0.1\n  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::a'}]",
    );
    assert_eq!(
        of(&[&service("web", "web", "'fd00::1'"), &dual]),
        ["[fd00::a]:8080 a mtls"]
    );
    assert_eq!(
        of(&[&service("web", "web", "None"), &dual]),
        ["10.0.0.1:8080 a mtls"]
    );
}

#[test]
fn the_protocol_is_the_services_unless_the_pod_is_opaque() {
    let named = service_with(
        "web",
        "web",
        "10.96.0.1",
        "[{name: grpc, port: 80, targetPort: main}]",
    );
    let protocol =
        |service: &str, pod: &str| endpoints(&world(&[service, pod]), "default/web:80")[0].protocol;
    let plain = pod("a", "web", "10.0.0.1");
    let http = plain.replace("name: main", "name: http");
    let opaque = plain.replace(
        "annotations: {",
        "annotations: {config.weft.mesh/opaque-ports: \"8080\", ",
    );
    assert_eq!(protocol(&named, &plain), Protocol::Grpc);
    assert_eq!(protocol(&named, &opaque), Protocol::Opaque);
    assert_eq!(protocol(&web(), &plain), Protocol::Detect);
    assert_eq!(
        protocol(
            &web().replace("targetPort: main", "targetPort: http"),
            &http
        ),
        Protocol::Http1
    );
}

#[test]
fn a_name_that_means_nothing_is_an_empty_set() {
    let world = world(&[&web(), &pod("a", "web", "10.0.0.1")]);
    for name in [
        "",
        "web",
        "default/web",
        "default/web:",
        "default/web:81",
        "default/web:x",
        "other/web:80",
        "a/b/c:80",
    ] {
        assert!(endpoints(&world, name).is_empty(), "{name}");
    }
}

#[test]
fn a_service_without_selector_selects_nobody() {
    let bare = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec: {ports: [{port: 80}]}\n---\n";
    assert!(of(&[bare, &pod("a", "web", "10.0.0.1")]).is_empty());
}

#[test]
fn what_still_serves_while_it_ends_stands_in_when_nothing_is_ready() {
    let slice = |first: &str, second: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: '', port: 8080}}]
endpoints:
  - {{addresses: [10.0.0.1], conditions: {{{first}}}}}
  - {{addresses: [10.0.0.2], conditions: {{{second}}}}}
---
"
        )
    };
    let ending = "ready: false, serving: true, terminating: true";
    let table: &[(&str, &str, &[&str])] = &[
        (ending, "ready: true", &["10.0.0.2:8080 "]),
        (ending, "ready: false", &["10.0.0.1:8080 "]),
        (
            ending,
            "ready: false, serving: false, terminating: true",
            &["10.0.0.1:8080 "],
        ),
        ("ready: false, serving: true", "ready: false", &[]),
    ];
    for (first, second, expected) in table {
        assert_eq!(
            of(&[&web(), &slice(first, second)]),
            *expected,
            "{first} | {second}"
        );
    }
}
