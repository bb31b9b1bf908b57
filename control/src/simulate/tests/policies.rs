//! What ServicePolicies add to an answer, and what of it decides.

use super::*;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: weft.mesh/v1alpha1\nkind: ServicePolicy\nmetadata: {{name: {name}}}\nspec: {{service: web, {spec}}}\n"
    )
}

/// An answer under permissive access.
fn open(from: &str, request: &str, policies: &[String]) -> Answer {
    let texts: Vec<&str> = [WEB, ROUTES]
        .into_iter()
        .chain(policies.iter().map(String::as_str))
        .collect();
    ask(
        &simulation(Access::Permissive, &texts),
        from,
        "web:80",
        request,
    )
}

fn told(answer: &Answer) -> Vec<(&str, &str)> {
    answer
        .also_applies
        .iter()
        .map(|it| (it.setting.as_str(), it.value.as_str()))
        .collect()
}

#[test]
fn settings_are_told_with_the_object_that_gives_them() {
    let spec = "timeouts: {request: 2s}, retries: {attempts: 2, statuses: [503]}, rateLimit: {requests: 5, per: 1s, burst: 3}, \
                balancer: {policy: ringHash, hashOn: {header: x-user}}, breaker: {requests: 7}";
    let answer = open("default/client", "GET /", &[policy("p", spec)]);
    assert_eq!(answer.decision.verdict, Verdict::Allow);
    assert!(
        answer
            .also_applies
            .iter()
            .all(|it| it.object == "ServicePolicy default/p")
    );
    assert_eq!(
        told(&answer),
        [
            (
                "balancer",
                "equal values of the header x-user go to the same endpoint"
            ),
            ("breaker", "7 requests in flight, more fail at once (E133)"),
            (
                "rateLimit",
                "5 requests per 1s to each pod, 3 at once; more are answered with 429 (E123)"
            ),
            ("retries", "2 more tries on 503, for idempotent methods"),
            ("timeouts", "request 2s"),
        ]
    );
    // Without a proxy nobody keeps what the caller's side keeps.
    let answer = open("unmeshed", "GET /", &[policy("p", spec)]);
    assert_eq!(told(&answer).len(), 1);
    // Bytes have no requests.
    let answer = open("default/client", "tcp", &[policy("p", spec)]);
    assert_eq!(
        told(&answer).iter().map(|it| it.0).collect::<Vec<_>>(),
        ["balancer", "breaker"]
    );
}

#[test]
fn what_is_certain_decides() {
    for (spec, request, status, grpc, code) in [
        (
            "fault: {abort: {status: 418}}",
            "GET /",
            418,
            None,
            "E129 fault-injected",
        ),
        (
            "fault: {abort: {status: 429}}",
            "grpc POST /",
            429,
            Some(14),
            "E129 fault-injected",
        ),
        (
            "fault: {abort: {grpcCode: aborted}}",
            "grpc POST /",
            503,
            Some(10),
            "E129 fault-injected",
        ),
        (
            "timeouts: {request: 1s}, fault: {delay: {duration: 2s}}",
            "GET /",
            504,
            None,
            "E116 request-timeout",
        ),
        (
            "timeouts: {response: 1s}, fault: {delay: {duration: 2s}, abort: {}}",
            "GET /",
            504,
            None,
            "E115 response-timeout",
        ),
    ] {
        let answer = open("default/client", request, &[policy("p", spec)]);
        let decision = &answer.decision;
        assert_eq!(decision.verdict, Verdict::Refuse, "{spec}");
        assert_eq!(
            (decision.status, decision.grpc_status),
            (Some(status), grpc),
            "{spec}"
        );
        assert_eq!(decision.code.as_deref(), Some(code), "{spec}");
        assert_eq!(
            decision.decided_by.object.as_deref(),
            Some("ServicePolicy default/p"),
            "{spec}"
        );
    }
    for spec in [
        "fault: {abort: {percent: 99}}",
        "timeouts: {request: 3s}, fault: {delay: {duration: 2s}}",
        "fault: {abort: {}}, mode: audit",
        "port: 81, fault: {abort: {}}",
    ] {
        let answer = open("default/client", "GET /", &[policy("p", spec)]);
        assert_eq!(answer.decision.verdict, Verdict::Allow, "{spec}");
    }
    let answer = open(
        "default/client",
        "tcp",
        &[policy("p", "fault: {abort: {}}")],
    );
    assert_eq!(
        answer.decision.verdict,
        Verdict::Allow,
        "bytes are no requests"
    );
}

#[test]
fn policies_that_give_nothing_say_why() {
    let read = "matches: [{kind: HTTPRouteGroup, name: api, matches: [read]}], fault: {abort: {status: 418}}";
    let all = [
        policy("a", "timeouts: {request: 2s}"),
        policy("b", "timeouts: {request: 3s}"),
        policy("c", read),
        policy("d", "timeouts: {idle: 2s}, mode: audit"),
        policy("e", "port: 8080, timeouts: {idle: 2s}"),
    ];
    let answer = open("default/client", "GET /private", &all);
    assert_eq!(told(&answer), [("timeouts", "request 2s")]);
    for (name, part) in [
        (
            "b",
            "ServicePolicy default/a holds for this port: it is older",
        ),
        ("c", "none of its matches fits"),
        ("d", "audit"),
        ("e", "port 8080 only"),
    ] {
        let why = why(&answer, &format!("ServicePolicy default/{name}"));
        assert!(why.contains(part), "{name}: {why}");
    }
    let answer = open("default/client", "GET /public", &all);
    assert_eq!(answer.decision.status, Some(418));
    assert!(
        !answer
            .not_applied
            .iter()
            .any(|it| it.object.ends_with("/c"))
    );
}

#[test]
fn a_fallback_is_asked_where_nobody_serves() {
    let none = WEB.replace("spec:\n  selector", "spec:\n  replicas: 0\n  selector");
    let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: static}\nspec: {selector: {app: static}, ports: [{port: 80}]}\n";
    let breaker = policy("p", "breaker: {fallback: {service: static}}");
    let sim = |texts: &[&str]| simulation(Access::Permissive, texts);
    let answer = ask(&sim(&[&none, other]), "default/client", "web:80", "GET /");
    assert_eq!(answer.decision.status, Some(503));
    let answer = ask(
        &sim(&[&none, other, &breaker]),
        "default/client",
        "web:80",
        "GET /",
    );
    assert_eq!(answer.decision.status, Some(200), "{answer:#?}");
    assert_eq!(
        told(&answer),
        [("breaker", "else default/static:80 is asked")]
    );
}
