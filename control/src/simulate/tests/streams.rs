//! TLS that names its server, and streams to another protocol on HTTP/2.

use super::*;

/// A root whose port carries anything, and a split of it for one host.
const SECURE: &str = "
apiVersion: v1
kind: Service
metadata: {name: secure}
spec: {selector: {app: secure}, ports: [{name: any, port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: next}
spec: {selector: {app: next}, ports: [{name: any, port: 443}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: by-name}
spec:
  service: secure
  backends: [{service: next, weight: 1}]
  matches: [{kind: HTTPRouteGroup, name: next}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: next}
spec: {matches: [{name: next, headers: [{host: 'next\\.example'}]}]}
---
";

fn to(server: &str) -> Written {
    Written {
        sni: Some(server.to_owned()),
        ..written("default/client", "secure:443", "tcp")
    }
}

#[test]
fn tls_follows_the_split_about_the_server_it_names() {
    let by_name = simulation(Access::Permissive, &[SECURE]);
    let backend = |answer: &Answer| answer.backends[0].service.clone();
    let named = |server: &str| by_name.ask(&to(server).meant().unwrap());
    for server in ["next.example", "NEXT.example", "next.example."] {
        let answer = named(server);
        assert_eq!(backend(&answer), "next", "{answer:#?}");
        assert_eq!(answer.request, "tls to next.example");
        let rule = answer.route.unwrap().rule;
        assert_eq!(
            rule.as_deref(),
            Some("HTTPRouteGroup default/next, match next")
        );
    }
    let other = named("other.example");
    assert_eq!(backend(&other), "secure");
    assert!(
        why(&other, "TrafficSplit default/by-name").contains("fits other.example"),
        "{other:#?}"
    );
    let unnamed = ask(&by_name, "default/client", "secure:443", "tcp");
    assert_eq!(backend(&unnamed), "secure");

    // A path is nothing that TLS shows, and what is declared opaque is not looked into.
    let path = SECURE.replace(
        "{name: next, headers",
        "{name: next, pathRegex: /a, headers",
    );
    let opaque = SECURE.replace("name: any", "name: tcp");
    for manifests in [path, opaque] {
        let simulation = simulation(Access::Permissive, &[&manifests]);
        let answer = simulation.ask(&to("next.example").meant().unwrap());
        assert_eq!(backend(&answer), "secure", "{answer:#?}");
        assert_ne!(why(&answer, "TrafficSplit default/by-name"), "");
    }
}

#[test]
fn a_stream_to_another_protocol_is_judged_as_connect() {
    let routes = ROUTES.replace("methods: [GET, HEAD]", "methods: [CONNECT]");
    let simulation = strict(&[WEB, &routes, TARGET]);
    let asked = |path: &str, protocol: Option<&str>| {
        let mut asked = written("default/client", "web:80", &format!("h2 CONNECT {path}"));
        asked.connect_protocol = protocol.map(str::to_owned);
        simulation.ask(&asked.meant().unwrap())
    };
    let websocket = asked("/public/chat", Some("websocket"));
    assert_eq!(websocket.decision.verdict, Verdict::Allow, "{websocket:#?}");
    assert_eq!(websocket.request, "CONNECT /public/chat (websocket)");
    assert!(websocket.assumed[0].contains("E127"), "{websocket:#?}");
    let other = asked("/private", Some("websocket"));
    assert_eq!(other.decision.verdict, Verdict::Deny);
    // Without a protocol it is a tunnel to anywhere.
    let tunnel = asked("/public/chat", None);
    let code = tunnel.decision.code.as_deref();
    assert_eq!(code, Some("E127 unsupported-upgrade"));
}

#[test]
fn what_follows_from_a_name_or_a_protocol_is_not_contradicted() {
    let meant = |change: fn(&mut Written)| {
        let mut asked = written("default/client", "web:80", "");
        asked.method = None;
        change(&mut asked);
        asked.meant()
    };
    let plain = meant(|it| it.connect_protocol = Some("websocket".into())).unwrap();
    assert_eq!(
        (plain.protocol, plain.method.as_str()),
        (crate::simulate::question::Protocol::H2, "CONNECT")
    );
    let named = meant(|it| it.sni = Some("web.example".into())).unwrap();
    assert_eq!(named.protocol, crate::simulate::question::Protocol::Tcp);
    type Change = fn(&mut Written);
    let table: [(Change, &str); 6] = [
        (
            |it| it.sni = Some("a b".into()),
            "sni: \"a b\" is no host name",
        ),
        (
            |it| (it.sni, it.protocol) = (Some("a".into()), Some("h2".into())),
            "protocol tcp",
        ),
        (
            |it| (it.sni, it.connect_protocol) = (Some("a".into()), Some("b".into())),
            "protocol tcp",
        ),
        (
            |it| (it.connect_protocol, it.protocol) = (Some("a".into()), Some("http".into())),
            "protocol h2",
        ),
        (
            |it| (it.connect_protocol, it.method) = (Some("a".into()), Some("GET".into())),
            "only CONNECT",
        ),
        (
            |it| it.connect_protocol = Some("a b".into()),
            "is not a token",
        ),
    ];
    for (change, part) in table {
        let mistakes = meant(change).unwrap_err();
        assert!(mistakes.contains(part), "{mistakes}");
    }
    let list = r#"[{"from": "a/b", "to": "c:1", ":protocol": "websocket"}, {"from": "a/b", "to": "c:1", "sni": "d"}]"#;
    let read = crate::simulate::question::read_list(list).unwrap();
    assert!(read.iter().all(Result::is_ok), "{read:?}");
}
