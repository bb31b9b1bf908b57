//! Questions and answers, as tables; the manifests are as short as users write them.
#![allow(clippy::unwrap_used)]

mod policies;
mod states;
mod streams;

use super::answer::{Answer, Verdict};
use super::files::File;
use super::question::Written;

use super::{Files, Simulation};
use crate::views::Mesh;
use serde_json::Value;
use weft_proxy_api::policy::Access;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}, {name: bytes, port: 9000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {weft.mesh/inject: enabled}}
    spec: {serviceAccountName: web, containers: [{name: app}]}
---
";

const ROUTES: &str = "
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: api}
spec:
  matches:
  - {name: read, pathRegex: /public, methods: [GET, HEAD]}
  - {name: beta, headers: [{x-beta: 'yes'}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: bytes}
spec: {matches: {ports: [9000]}}
---
";

const TARGET: &str = "
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: t}
spec:
  destination: {kind: ServiceAccount, name: web}
  sources: [{kind: ServiceAccount, name: client}]
  rules: [{kind: HTTPRouteGroup, name: api}]
---
";

const SPLIT: &str = "
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s}
spec: {service: web, backends: [{service: v1, weight: 2}, {service: v2, weight: 1}, {service: v3, weight: 5}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1}
spec: {selector: {app: web, v: '1'}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2}
spec: {selector: {app: web, v: '2'}, ports: [{port: 80}]}
---
";

fn file(text: &str) -> File {
    File {
        id: "state".into(),
        shown: "a.yaml".into(),
        text: text.into(),
    }
}

fn simulation(access: Access, manifests: &[&str]) -> Simulation {
    let files = Files::new(vec![file(&manifests.concat())]);
    let problems: Vec<String> = files.problems().map(ToString::to_string).collect();
    assert_eq!(problems, [""; 0]);
    let mesh = Mesh {
        access,
        ..Mesh::default()
    };
    Simulation::new(&files, mesh)
}

fn strict(manifests: &[&str]) -> Simulation {
    simulation(Access::Strict, manifests)
}

/// `GET /path`, `h2 GET /path`, `tcp`, with headers after it as `name=value`.
fn written(from: &str, to: &str, request: &str) -> Written {
    let mut written = Written {
        to: Some(to.to_owned()),
        ..Written::default()
    };
    match from.split_once(' ') {
        Some(("pod", pod)) => written.from_pod = Some(pod.to_owned()),
        _ if from == "unmeshed" => written.unmeshed = true,
        _ if from.starts_with("spiffe:") => written.from_spiffe = Some(from.to_owned()),
        _ => written.from = Some(from.to_owned()),
    }
    if let Some(pod) = to.strip_prefix("pod ") {
        (written.to, written.to_pod) = (None, Some(pod.to_owned()));
    }
    let mut words: Vec<&str> = request.split(' ').collect();
    if ["h2", "grpc", "tcp", "udp"].contains(&words[0]) {
        written.protocol = Some(words.remove(0).to_owned());
    }
    let (headers, words): (Vec<&str>, Vec<&str>) = words
        .iter()
        .partition(|it| it.contains('=') && !it.starts_with('/'));
    written.method = words.first().map(|it| (*it).to_owned());
    written.path = words.get(1).map(|it| (*it).to_owned());
    let header = |it: &&str| Value::from(it.replacen('=', ":", 1));
    written.headers = headers.iter().map(header).collect();
    written
}

fn ask(simulation: &Simulation, from: &str, to: &str, request: &str) -> Answer {
    simulation.ask(&written(from, to, request).meant().unwrap())
}

fn why(answer: &Answer, object: &str) -> String {
    let found = answer.not_applied.iter().find(|it| it.object == object);
    found.map(|it| it.why.clone()).unwrap_or_default()
}

#[test]
fn strict_access_is_judged_as_the_proxy_judges() {
    use Verdict::*;
    let simulation = strict(&[WEB, ROUTES, TARGET]);
    for (from, to, request, verdict, status) in [
        (
            "default/client",
            "web.default:80",
            "GET /public/a",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "web:80",
            "GET /public?x=1",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "web.default.svc.cluster.local:80",
            "h2 HEAD /public",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "web.default:80",
            "POST /public",
            Deny,
            Some(403),
        ),
        (
            "default/client",
            "web.default:80",
            "GET /private",
            Deny,
            Some(403),
        ),
        (
            "default/client",
            "web.default:80",
            "GET /public/%2e%2e/private",
            Deny,
            Some(403),
        ),
        (
            "default/client",
            "web.default:80",
            "POST /private x-beta=yes",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "web.default:80",
            "POST /private X-Beta=yes!",
            Deny,
            Some(403),
        ),
        (
            "default/client",
            "web.default:80",
            "GET /%2f",
            Refuse,
            Some(400),
        ),
        (
            "default/client",
            "web.default:80",
            "CONNECT /",
            Refuse,
            Some(501),
        ),
        (
            "default/client",
            "web.default:81",
            "GET /public",
            Refuse,
            Some(403),
        ),
        (
            "default/client",
            "web.default:http",
            "GET /public",
            Refuse,
            None,
        ),
        (
            "default/client",
            "nobody.default:80",
            "GET /public",
            Refuse,
            None,
        ),
        ("default/client", "web.default:80", "tcp", Deny, None),
        (
            "default/other",
            "web.default:80",
            "GET /public",
            Deny,
            Some(403),
        ),
        (
            "other/client",
            "web.default:80",
            "GET /public",
            Deny,
            Some(403),
        ),
        ("unmeshed", "web.default:80", "GET /public", Deny, Some(403)),
        (
            "spiffe://cluster.local/ns/default/sa/client",
            "web:80",
            "GET /public",
            Allow,
            Some(200),
        ),
        (
            "spiffe://else.where/ns/default/sa/client",
            "web:80",
            "GET /public",
            Deny,
            Some(403),
        ),
        (
            "spiffe://cluster.local/client",
            "web:80",
            "GET /public",
            Deny,
            None,
        ),
        (
            "default/client",
            "pod default/web-0:8080",
            "GET /public",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "pod default/web:8080",
            "GET /public",
            Allow,
            Some(200),
        ),
        (
            "default/client",
            "pod default/gone:8080",
            "GET /public",
            Refuse,
            None,
        ),
    ] {
        let answer = ask(&simulation, from, to, request);
        let seen = (answer.decision.verdict, answer.decision.status);
        assert_eq!(
            seen,
            (verdict, status),
            "{from} {to} {request}: {answer:#?}"
        );
    }
}

#[test]
fn an_answer_says_what_decided_and_what_did_not() {
    let second = TARGET
        .replace("name: t}", "name: u}")
        .replace("name: client", "name: other");
    let simulation = strict(&[WEB, ROUTES, TARGET, &second]);
    let answer = ask(&simulation, "default/client", "web:80", "GET /public");
    let by = answer.decision.decided_by.clone();
    assert_eq!(by.object.as_deref(), Some("TrafficTarget default/t"));
    assert_eq!(
        by.rule.as_deref(),
        Some("HTTPRouteGroup default/api, match read")
    );
    assert_eq!(
        why(&answer, "TrafficTarget default/u"),
        "default/client is not among its sources (default/other)"
    );

    let answer = ask(&simulation, "default/client", "web:80", "POST /x");
    assert_eq!(answer.decision.denied.as_deref(), Some("no_matching_route"));
    assert_eq!(answer.decision.code.as_deref(), Some("E111 denied"));
    assert_eq!(answer.decision.decided_by.object.as_deref(), Some("mesh"));
    assert_eq!(
        why(&answer, "TrafficTarget default/t"),
        "HTTPRouteGroup default/api, match read: the method is not GET or HEAD; \
         HTTPRouteGroup default/api, match beta: there is no header x-beta"
    );
    assert_eq!(
        answer.would_allow,
        ["a match for POST /x in an HTTPRouteGroup that TrafficTarget default/t names"]
    );

    let answer = ask(&simulation, "default/third", "web:80", "GET /public");
    assert_eq!(
        answer.would_allow,
        [
            "ServiceAccount default/third among the sources of TrafficTarget default/t",
            "ServiceAccount default/third among the sources of TrafficTarget default/u"
        ]
    );
}

#[test]
fn bytes_are_judged_by_connection() {
    let tcp = TARGET.replace("HTTPRouteGroup, name: api", "TCPRoute, name: bytes");
    let simulation = strict(&[WEB, ROUTES, &tcp]);
    let allowed = ask(&simulation, "default/client", "web:bytes", "tcp");
    assert_eq!(
        (allowed.decision.verdict, allowed.decision.status),
        (Verdict::Allow, None)
    );
    assert_eq!(
        allowed.decision.decided_by.rule.as_deref(),
        Some("TCPRoute default/bytes")
    );
    // D08: nothing but a TCPRoute admits HTTP as well
    let http = ask(&simulation, "default/client", "web:9000", "GET /");
    assert_eq!(http.decision.verdict, Verdict::Allow);
    let other = ask(&simulation, "default/client", "web:80", "tcp");
    assert_eq!(other.decision.verdict, Verdict::Deny);
    assert_eq!(
        why(&other, "TrafficTarget default/t"),
        "it opens port 9000 of the pod, not 8080"
    );

    let http_only = strict(&[WEB, ROUTES, TARGET]);
    let bytes = ask(&http_only, "default/client", "web:9000", "tcp");
    assert_eq!(bytes.decision.denied.as_deref(), Some("not_http"));
}

#[test]
fn shares_are_those_of_the_split_the_proxy_has() {
    let simulation = simulation(Access::Permissive, &[WEB, ROUTES, SPLIT]);
    let answer = ask(&simulation, "default/client", "web:80", "GET /");
    let shares: Vec<_> = answer
        .backends
        .iter()
        .map(|it| (it.service.as_str(), it.share))
        .collect();
    assert_eq!(shares, [("v1", 66.6667), ("v2", 33.3333)]);
    assert_eq!(
        answer.route.as_ref().unwrap().object.as_deref(),
        Some("TrafficSplit default/s")
    );
    assert_eq!(
        why(&answer, "Service default/v3"),
        "there is no such Service: the other backends share its part"
    );
    assert_eq!(answer.assumed.len(), 4, "{:?}", answer.assumed);

    let plain = ask(&simulation, "unmeshed", "web:80", "GET /");
    assert_eq!(plain.backends[0].service, "web");
    assert_eq!(
        why(&plain, "TrafficSplit default/s"),
        "the caller has no proxy that would split"
    );
    let other_port = ask(&simulation, "default/client", "web:9000", "tcp");
    assert_eq!(other_port.decision.verdict, Verdict::Refuse);
    assert!(
        other_port
            .decision
            .reason
            .contains("no backend exists on this port")
    );
}

#[test]
fn conditions_of_splits_are_explained() {
    let conditional = SPLIT.replace("name: s}", "name: a}").replace(
        "weight: 5}]",
        "weight: 5}], matches: [{kind: HTTPRouteGroup, name: api}]",
    );
    let simulation = simulation(Access::Permissive, &[WEB, ROUTES, &conditional]);
    let fits = ask(&simulation, "default/client", "web:80", "GET /public");
    assert_eq!(
        fits.route.unwrap().rule.as_deref(),
        Some("HTTPRouteGroup default/api, match read")
    );
    let other = ask(&simulation, "default/client", "web:80", "GET /x");
    assert_eq!(other.route, None);
    assert_eq!(other.backends[0].service, "web");
    assert!(why(&other, "TrafficSplit default/a").contains("the path does not start with /public"));
    let bytes = ask(&simulation, "default/client", "web:80", "tcp");
    assert_eq!(
        why(&bytes, "TrafficSplit default/a"),
        "it is for certain HTTP requests, and this is not HTTP"
    );
}

#[test]
fn backends_that_decide_differently_are_told_apart() {
    let split = SPLIT.replace(", {service: v3, weight: 5}", "");
    let pods = "
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web, v: '1'}}
spec: {serviceAccountName: web, containers: [{name: app}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web, v: '2'}}
spec: {serviceAccountName: canary, containers: [{name: app}]}
---
";
    let simulation = strict(&[WEB, ROUTES, TARGET, &split, pods]);
    let answer = ask(&simulation, "default/client", "web:80", "GET /public");
    assert_eq!(answer.decision.verdict, Verdict::Mixed);
    let verdicts: Vec<_> = answer
        .backends
        .iter()
        .map(|it| it.decision.as_ref().unwrap().verdict)
        .collect();
    assert_eq!(verdicts, [Verdict::Allow, Verdict::Deny]);
    let codes = answer
        .backends
        .iter()
        .map(|it| it.decision.as_ref()?.grpc_status);
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [None, None],
        "gRPC was not spoken"
    );
}
