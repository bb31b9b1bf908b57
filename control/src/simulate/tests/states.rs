//! What files leave out, states that follow each other, lists of requests, datagrams, and the text.

use super::*;
use crate::simulate::question::read_list;
use crate::simulate::text;
use serde_json::json;

#[test]
fn what_files_leave_out_is_assumed_and_said() {
    let alone = "apiVersion: v1\nkind: Service\nmetadata: {name: lone}\nspec: {ports: [{port: 80, targetPort: main}]}\n";
    let answer = ask(&strict(&[alone]), "default/client", "lone:80", "GET /");
    assert_eq!(answer.decision.verdict, Verdict::Deny);
    assert!(
        answer.assumed[0].contains("a pod of the service account default/default is assumed"),
        "{answer:#?}"
    );

    let out = "apiVersion: v1\nkind: Service\nmetadata: {name: out}\nspec: {type: ExternalName, externalName: example.com}\n";
    let answer = ask(&strict(&[out]), "default/client", "out:80", "GET /");
    assert_eq!(answer.decision.verdict, Verdict::Passthrough);

    let headless = WEB.replace("spec: {selector", "spec: {clusterIP: None, selector");
    let answer = ask(
        &strict(&[&headless, ROUTES, TARGET]),
        "default/client",
        "web:8080",
        "GET /public",
    );
    assert_eq!(answer.decision.verdict, Verdict::Allow);
    assert!(why(&answer, "Service default/web").contains("headless"));

    let none = WEB.replace("spec:\n  selector", "spec:\n  replicas: 0\n  selector");
    let answer = ask(&strict(&[&none]), "default/client", "web:80", "GET /");
    assert_eq!(answer.decision.code.as_deref(), Some("E104 no-endpoints"));

    let outside = WEB.replace("inject: enabled", "inject: disabled");
    let answer = ask(&strict(&[&outside]), "default/client", "web:80", "GET /");
    assert_eq!(answer.decision.decided_by.rule.as_deref(), Some("no proxy"));
    let answer = ask(
        &strict(&[
            &outside,
            &TARGET.replace("name: client", "name: web"),
            ROUTES,
        ]),
        "pod default/web",
        "web:80",
        "GET /",
    );
    assert_eq!(answer.from, None);
}

#[test]
fn what_is_assumed_of_one_namespace_is_not_taken_for_another() {
    let alone = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: {namespace}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let open = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: {config.weft.mesh/access: permissive}}\n---\n";
    let simulation = strict(&[open, &alone("a"), &alone("b")]);
    for (to, verdict) in [("db.a:80", Verdict::Allow), ("db.b:80", Verdict::Deny)] {
        let answer = ask(&simulation, "default/client", to, "GET /");
        assert_eq!(answer.decision.verdict, verdict, "{to}");
    }
}

#[test]
fn modes_decide_who_decides() {
    let audit = ask(
        &simulation(Access::Audit, &[WEB]),
        "default/client",
        "web:80",
        "GET /",
    );
    assert_eq!(
        (audit.decision.verdict, audit.decision.audit),
        (Verdict::Allow, true)
    );
    let open = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.weft.mesh/access: permissive}}\n---\n";
    let answer = ask(&strict(&[open, WEB]), "unmeshed", "web:80", "GET /");
    assert_eq!(answer.decision.verdict, Verdict::Allow);
    assert_eq!(
        answer.decision.decided_by.object.as_deref(),
        Some("Namespace default")
    );
}

#[test]
fn states_follow_each_other_as_in_the_controller() {
    let mut files = Files::new(vec![]);
    let verdict = |files: &Files| {
        let mesh = Mesh {
            access: Access::Strict,
            ..Mesh::default()
        };
        ask(
            &Simulation::new(files, mesh),
            "default/client",
            "web:80",
            "GET /public",
        )
        .decision
        .verdict
    };
    let all = [WEB, ROUTES, TARGET].concat();
    for (state, expected) in [
        ([WEB, ROUTES].concat(), Verdict::Deny),
        (all.clone(), Verdict::Allow),
        // D37: what cannot be read leaves the last valid state in force
        (
            all.replace(
                "kind: HTTPRouteGroup, name: api",
                "kind: Nonsense, name: api",
            ),
            Verdict::Allow,
        ),
        ("{".to_owned(), Verdict::Allow),
        ([WEB, ROUTES].concat(), Verdict::Deny),
    ] {
        files.next(vec![file(&state)]);
        assert_eq!(verdict(&files), expected, "{state}");
    }
}

#[test]
fn one_bad_request_of_a_list_is_an_error_of_its_own() {
    let list = json!([
        {"from": "default/client", "to": "web.default:80", "path": "/public", "headers": {"x-a": ["1", "2"]}},
        {"from": "default/client", "to": "web.default"},
        {"from": "default/client", "unmeshed": true, "to": "web:80"},
        {"from": "default/client", "to": "web:80", "methode": "GET"},
        {"from-pod": "a/b", "to_pod": "a/b:80", "protocol": "tcp"},
        7,
    ]);
    let list = read_list(&list.to_string()).unwrap();
    let ok: Vec<bool> = list.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, false, true, false]);
    assert!(list[3].as_ref().unwrap_err().contains("methode"));
    assert!(read_list("{}").is_err());
}

#[test]
fn the_text_says_it_in_lines() {
    let simulation = strict(&[WEB, ROUTES, TARGET]);
    let answer = ask(&simulation, "default/client", "web:80", "POST /x");
    assert_eq!(
        text::render(&answer),
        "DENY 403 (E111 denied): a TrafficTarget lists the caller, but none of its rules describes this request
  request      POST /x, from spiffe://cluster.local/ns/default/sa/client to Service default/web:80
  decided by   mesh (access strict: what nothing allows is denied)
  backend      100.0000 % to default/web:80 (weight 1, 1 endpoint)
  not applied  TrafficTarget default/t: HTTPRouteGroup default/api, match read: the method is not GET or HEAD; HTTPRouteGroup default/api, match beta: there is no header x-beta
  would allow  a match for POST /x in an HTTPRouteGroup that TrafficTarget default/t names
"
    );
}

#[test]
fn datagrams_are_judged_by_udp_routes_alone() {
    let dns = "
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {selector: {app: web}, ports: [{port: 53, protocol: UDP, targetPort: 5353}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: UDPRoute
metadata: {name: dns}
spec: {matches: {ports: [53]}}
---
";
    let udp = TARGET.replace("HTTPRouteGroup, name: api", "UDPRoute, name: dns");
    let simulation = strict(&[WEB, ROUTES, dns, &udp]);
    let allowed = ask(&simulation, "default/client", "dns:53", "udp");
    assert_eq!(allowed.decision.verdict, Verdict::Allow, "{allowed:#?}");
    assert_eq!(
        allowed.decision.decided_by.rule.as_deref(),
        Some("UDPRoute default/dns")
    );
    for (from, to, expected) in [
        ("default/other", "dns:53", Verdict::Deny),
        ("default/client", "dns:54", Verdict::Refuse),
        ("default/client", "pod default/web:5353", Verdict::Allow),
        ("default/client", "pod default/web:5354", Verdict::Deny),
    ] {
        assert_eq!(
            ask(&simulation, from, to, "udp").decision.verdict,
            expected,
            "{from} {to}"
        );
    }
    let tcp = ask(&simulation, "default/client", "web:80", "tcp");
    assert_eq!(why(&tcp, "TrafficTarget default/t"), "it is about UDP only");
}
