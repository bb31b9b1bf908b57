//! What connections are described by: TCPRoute and UDPRoute.

use super::*;

#[test]
fn tcp_routes() {
    for any in ["{}", "{matches: {}}", "{matches: {ports: []}}", "null"] {
        assert_eq!(tcp(accepted(&tcp_text(any))).ports, Ports::Any);
    }
    let only = tcp(accepted(&tcp_text(
        "{matches: {name: a, ports: [80, 443]}}",
    )));
    assert_eq!(only.ports, Ports::Only(vec![80, 443]));
    for wrong in ["0", "65536", "'80'", "1.5", "null"] {
        refused(
            &tcp_text(&format!("{{matches: {{ports: [{wrong}]}}}}")),
            "spec.matches.ports[0]",
            "must be a port",
        );
    }
    refused(
        &tcp_text("{matches: [{ports: [80]}]}"),
        "spec.matches",
        "must be a map",
    );
    refused(
        &tcp_text("{matches: {ports: 80}}"),
        "spec.matches.ports",
        "must be a list",
    );
    refused(&tcp_text("[80]"), "spec", "must be a map");
}

#[test]
fn d35_ports_where_a_version_has_none_are_refused() {
    for (version, spec) in [
        ("v1alpha1", ""),
        ("v1alpha2", ""),
        ("v1alpha2", "spec: {}\n"),
        ("v1alpha3", "spec: {}\n"),
    ] {
        let head = head(&format!("specs.smi-spec.io/{version}"), "TCPRoute");
        assert_eq!(tcp(accepted(&format!("{head}{spec}"))).ports, Ports::Any);
        let ports = format!("{head}spec: {{matches: {{ports: [80]}}}}\n");
        refused(&ports, "spec.matches", "since v1alpha4");
        refused(
            &format!("{head}matches: {{ports: [80]}}\n"),
            "matches",
            "not a known field",
        );
    }
}

#[test]
fn d09_udp_routes() {
    let head = head("specs.smi-spec.io/v1alpha4", "UDPRoute");
    let ports = |spec: &str| match accepted(&format!("{head}spec: {spec}\n")) {
        Object::UdpRoute(route) => route.ports.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ports("{matches: {ports: []}}"), Ports::Any);
    assert_eq!(
        ports("{matches: {ports: [989, 990]}}"),
        Ports::Only(vec![989, 990])
    );
    refused(
        &format!("{head}spec: {{matches: {{ports: [0]}}}}\n"),
        "spec.matches.ports[0]",
        "must be a port",
    );
    refused(
        &format!("{head}spec: {{matches: {{port: 1}}}}\n"),
        "spec.matches.port",
        "not a known field",
    );
    refused(
        &head.replace("v1alpha4", "v1alpha3"),
        "apiVersion",
        "supported: specs.smi-spec.io/v1alpha4",
    );
}
