//! The policy of a pod: access mode, declared ports, probes, labels.

use crate::pod_ref::PodRef;
use crate::views::fixtures::*;
use crate::views::{pod as pods, world::Reader};
use weft_proxy_api::policy::inbound::{GRPC_HEALTH, Probe};
use weft_proxy_api::policy::{Access, Protocol};

fn annotated(name: &str, annotation: &str) -> String {
    let mine = format!("annotations: {{{annotation}, weft.mesh/injected-at-version");
    pod(name, "web", "10.0.0.1").replace("annotations: {weft.mesh/injected-at-version", &mine)
}

fn namespace(annotation: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: {{{annotation}}}}}\n---\n"
    )
}

#[test]
fn d12_the_pod_speaks_before_its_namespace_and_that_before_the_mesh() {
    let plain = pod("web-1", "web", "10.0.0.1");
    let audit = annotated("web-1", "config.weft.mesh/access: audit");
    let permissive = namespace("config.weft.mesh/access: permissive");
    assert_eq!(inbound(&world(&[&plain]), "web-1").access, Access::Strict);
    assert_eq!(
        inbound(&world(&[&plain, &permissive]), "web-1").access,
        Access::Permissive
    );
    assert_eq!(
        inbound(&world(&[&audit, &permissive]), "web-1").access,
        Access::Audit
    );
    assert_eq!(
        inbound(&world(&[&permissive]), "no-such-pod").access,
        Access::Strict
    );
}

/// Its proxy may outlive the object by a while, and must not open meanwhile.
#[test]
fn d12_a_pod_that_is_gone_is_as_closed_as_its_namespace() {
    for (word, access) in [
        ("strict", Access::Strict),
        ("stict", Access::Strict),
        ("audit", Access::Permissive),
    ] {
        let mesh = world(&[&namespace(&format!("config.weft.mesh/access: {word}"))]);
        let mesh = mesh.with_access(Access::Permissive);
        assert_eq!(inbound(&mesh, "no-such-pod").access, access, "{word}");
    }
}

#[test]
fn d12_a_mode_that_cannot_be_read_is_strict() {
    let typo = annotated("web-1", "config.weft.mesh/access: premissive");
    let permissive = namespace("config.weft.mesh/access: permissive");
    assert_eq!(
        inbound(&world(&[&typo, &permissive]), "web-1").access,
        Access::Strict
    );
}

#[test]
fn ports_are_declared_by_name_protocol_and_annotation() {
    let plain = pod("web-1", "web", "10.0.0.1");
    let ports = "[{name: http-a, port: 1}, {name: grpc, port: 2}, {name: tcp-x, port: 3}, {name: httpbin, port: 4},
        {name: http-b, port: 5, appProtocol: kubernetes.io/h2c}, {name: http-udp, port: 6, protocol: UDP},
        {name: http-c, port: 7, targetPort: main}, {name: http-d, port: 9, targetPort: nowhere}, {name: https, port: 10}]";
    let world = world(&[&plain, &service_with("web", "web", "10.96.0.1", ports)]);
    let expected = [
        (1, Protocol::Http1),
        (2, Protocol::Grpc),
        (3, Protocol::Opaque),
        (5, Protocol::Http2),
        (10, Protocol::Tls),
        (8080, Protocol::Http1),
    ];
    assert_eq!(inbound(&world, "web-1").ports, expected);
}

#[test]
fn what_is_called_opaque_is_opaque() {
    let service = service_with(
        "web",
        "web",
        "10.96.0.1",
        "[{name: http, port: 80, targetPort: main}]",
    );
    let on_service = service.replace(
        "namespace: default}",
        "namespace: default, annotations: {config.weft.mesh/opaque-ports: \"80\"}}",
    );
    let on_pod = annotated(
        "web-1",
        "config.weft.mesh/opaque-ports: \"8080, 9000-9002\"",
    );
    let plain = pod("web-1", "web", "10.0.0.1");
    let on_namespace = namespace("config.weft.mesh/opaque-ports: \"8080\"");
    assert_eq!(
        inbound(&world(&[&plain, &service]), "web-1").ports,
        [(8080, Protocol::Http1)]
    );
    assert_eq!(
        inbound(&world(&[&plain, &on_service]), "web-1").ports,
        [(8080, Protocol::Opaque)]
    );
    assert_eq!(
        inbound(&world(&[&plain, &service, &on_namespace]), "web-1").ports,
        [(8080, Protocol::Opaque)]
    );
    let ports: Vec<u16> = inbound(&world(&[&on_pod, &service]), "web-1")
        .ports
        .iter()
        .map(|(port, _)| *port)
        .collect();
    assert_eq!(ports, [8080, 9000, 9001, 9002]);
    assert_eq!(
        inbound(&world(&[&on_pod, &service]), "web-1").protocol(8080),
        Protocol::Opaque
    );
}

#[test]
fn a_container_port_may_say_what_it_speaks() {
    let named = pod("web-1", "web", "10.0.0.1").replace("name: main,", "name: http,");
    assert_eq!(
        inbound(&world(&[&named]), "web-1").ports,
        [(8080, Protocol::Http1)]
    );
}

#[test]
fn d12_probes_come_from_the_containers_of_the_application() {
    let containers = "
  - name: app
    ports: [{name: main, containerPort: 8080}]
    livenessProbe: {httpGet: {path: '/live/../healthz?full=1', port: main}}
    readinessProbe: {tcpSocket: {port: 9000}}
    startupProbe: {grpc: {port: 9001}}
  - name: second
    livenessProbe: {httpGet: {port: 8081}}
    readinessProbe: {httpGet: {path: /tls, port: 8443, scheme: HTTPS}}
    startupProbe: {httpGet: {path: /x, port: main}}
  - name: third
    livenessProbe: {exec: {command: [ls]}}
    readinessProbe: {httpGet: {path: /other, port: 8082, host: example.com}}
  - name: weft-proxy
    readinessProbe: {httpGet: {path: /ready, port: 4191}}
";
    let text = pod("web-1", "web", "10.0.0.1");
    let (head, rest) = text.split_once("  - name: app").unwrap();
    let (_, tail) = rest.split_once("status:").unwrap();
    let world = world(&[&format!("{}{containers}status:{tail}", head.trim_end())]);
    let http = |port, path: &str| Probe {
        port,
        path: Some(path.into()),
    };
    let expected = [
        http(8080, "/healthz"),
        http(8081, "/"),
        Probe {
            port: 9000,
            path: None,
        },
        http(9001, GRPC_HEALTH),
    ];
    assert_eq!(inbound(&world, "web-1").probes, expected);
    assert!(may(&world, "web-1", "", 8080, "GET /healthz"));
    assert!(!may(&world, "web-1", "", 8080, "GET /"));
}

#[test]
fn a_workload_is_labelled_by_its_owner() {
    let owned = |kind: &str, name: &str, labels: &str| {
        let owner = format!(
            "name: web-1\n  ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, uid: u}}]"
        );
        pod("web-1", "web", "10.0.0.1")
            .replace("name: web-1", &owner)
            .replace("app: web", &format!("app: web{labels}"))
    };
    for (manifest, expected) in [
        (owned("ReplicaSet", "web-7d4b9c6f5", ""), "deploy/web"),
        (
            owned("ReplicaSet", "web-ui-abc12", ", pod-template-hash: abc12"),
            "deploy/web-ui",
        ),
        (
            owned("ReplicaSet", "my-application", ""),
            "rs/my-application",
        ),
        (owned("StatefulSet", "db", ""), "sts/db"),
        (owned("DaemonSet", "agent", ""), "ds/agent"),
        (owned("Job", "once", ""), "job/once"),
        (pod("web-1", "web", "10.0.0.1"), "web-1"),
    ] {
        assert_eq!(inbound(&world(&[&manifest]), "web-1").workload, expected);
    }
}

#[test]
fn a_pod_is_meshed_when_injected_or_enrolled() {
    let bare = |extra: &str| {
        pod("web-1", "web", "10.0.0.1").replace(
            "  annotations: {weft.mesh/injected-at-version: \"1\"}\n",
            "",
        ) + extra
    };
    let meshed = |manifest: &str| {
        pods::info(&world(&[manifest]), &PodRef::new("default", "web-1"))
            .unwrap()
            .meshed
    };
    assert!(!meshed(&bare("")));
    assert!(meshed(&pod("web-1", "web", "10.0.0.1")));
    let native = "  initContainers: [{name: weft-proxy, restartPolicy: Always}]\n  containers:";
    assert!(meshed(&bare("").replace("  containers:", native)));
    assert!(meshed(&bare("").replace(
        "  containers:",
        "  containers:\n  - name: weft-proxy"
    )));
    let mut world = world(&[&bare("")]);
    assert!(!world.enroll(&PodRef::new("default", "web-1")).is_empty());
    let info = pods::info(&world, &PodRef::new("default", "web-1")).unwrap();
    assert!(info.meshed && info.service_account == "web");
    assert_eq!(pods::info(&world, &PodRef::new("default", "web-2")), None);
}

#[test]
fn a_view_remembers_what_it_asked_even_if_it_was_not_there() {
    let world = world(&[]);
    let reader = Reader::new(&world);
    assert!(reader.service("default", "web").is_none());
    assert_eq!(reader.into_topics().len(), 1);
}
