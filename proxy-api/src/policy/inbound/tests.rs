//! Tables of callers and requests against permissions.
#![allow(clippy::unwrap_used)]

use super::super::matching::TextMatch;
use super::*;

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "default", account).unwrap()
}

fn rule(object: &str, account: &str, ports: Ports, traffic: Traffic) -> Allow {
    let sources = vec![Source {
        identity: id(account),
        addresses: None,
    }];
    Allow {
        object: object.into(),
        sources,
        ports,
        traffic,
    }
}

fn get(path: &str) -> Traffic {
    Traffic::Http(vec![HttpMatch {
        object: "HTTPRouteGroup default/api".into(),
        name: "m".into(),
        path: Some(TextMatch::regex_prefix(path).unwrap()),
        methods: vec!["GET".into()],
        headers: vec![],
    }])
}

fn policy(allow: Vec<Allow>) -> Inbound {
    Inbound {
        workload: "deploy/web".into(),
        access: Access::Strict,
        ports: vec![],
        allow,
        probes: vec![],
        rate_limits: vec![],
        access_from: String::new(),
        explain_denials: false,
        metrics: Default::default(),
    }
}

fn with_probes(mut policy: Inbound) -> Inbound {
    policy.probes = vec![
        Probe {
            port: 8080,
            path: Some("/healthz".into()),
        },
        Probe {
            port: 9000,
            path: None,
        },
    ];
    policy
}

const HERE: &str = "10.0.0.1";

fn request(
    policy: &Inbound,
    account: Option<&str>,
    port: u16,
    method: &str,
    path: &str,
) -> Verdict {
    let identity = account.map(id);
    let caller = Caller {
        identity: identity.as_ref(),
        address: HERE.parse().unwrap(),
    };
    let headers = http::HeaderMap::new();
    let request = RequestView {
        method,
        path,
        host: "web",
        headers: &headers,
    };
    match policy.judge_request(caller, port, &request) {
        Verdict::Allow(AllowedBy::Request { rule, .. }) => rule_of(rule),
        verdict => verdict,
    }
}

fn connection(policy: &Inbound, account: Option<&str>, port: u16) -> ConnectionVerdict {
    let identity = account.map(id);
    let caller = Caller {
        identity: identity.as_ref(),
        address: HERE.parse().unwrap(),
    };
    policy.judge_connection(caller, port)
}

fn rule_of(index: usize) -> Verdict {
    Verdict::Allow(AllowedBy::Rule(index))
}

#[test]
fn d08_port_and_request_must_both_fit() {
    let policy = policy(vec![rule("t", "a", Ports::Only(vec![8080]), get("/api"))]);
    assert_eq!(
        request(&policy, Some("a"), 8080, "GET", "/api/x"),
        rule_of(0)
    );
    assert_eq!(
        request(&policy, Some("a"), 8081, "GET", "/api/x"),
        Verdict::Deny(DenyReason::NotASource)
    );
    assert_eq!(
        request(&policy, Some("a"), 8080, "PUT", "/api/x"),
        Verdict::Deny(DenyReason::NoMatchingRoute)
    );
    assert_eq!(
        request(&policy, Some("b"), 8080, "GET", "/api/x"),
        Verdict::Deny(DenyReason::NotASource)
    );
    assert_eq!(
        request(&policy, None, 8080, "GET", "/api/x"),
        Verdict::Deny(DenyReason::NoIdentity)
    );
}

#[test]
fn d08_http_rules_deny_what_is_not_http_and_any_admits_it() {
    let http = policy(vec![rule("t", "a", Ports::Any, get("/"))]);
    assert_eq!(connection(&http, Some("a"), 1), ConnectionVerdict::HttpOnly);
    let any = policy(vec![rule("t", "a", Ports::Only(vec![1]), Traffic::Any)]);
    assert_eq!(
        connection(&any, Some("a"), 1),
        ConnectionVerdict::Allow(AllowedBy::Rule(0))
    );
    assert_eq!(
        connection(&any, Some("a"), 2),
        ConnectionVerdict::Deny(DenyReason::NotASource)
    );
    assert_eq!(
        connection(&any, None, 1),
        ConnectionVerdict::Deny(DenyReason::NoIdentity)
    );
    // a TCP rule admits HTTP as well
    assert_eq!(request(&any, Some("a"), 1, "PUT", "/x"), rule_of(0));
    // both kinds: bytes pass by the second rule
    let both = policy(vec![
        rule("h", "a", Ports::Any, get("/")),
        rule("t", "a", Ports::Any, Traffic::Any),
    ]);
    assert_eq!(
        connection(&both, Some("a"), 1),
        ConnectionVerdict::Allow(AllowedBy::Rule(1))
    );
}

#[test]
fn d07_an_empty_list_allows_nothing() {
    let nobody = Allow {
        sources: vec![],
        ..rule("t", "a", Ports::Any, Traffic::Any)
    };
    for allow in [
        rule("t", "a", Ports::Any, Traffic::Http(vec![])),
        rule("t", "a", Ports::Only(vec![]), Traffic::Any),
        nobody,
    ] {
        let policy = policy(vec![allow]);
        assert!(matches!(
            request(&policy, Some("a"), 80, "GET", "/"),
            Verdict::Deny(_)
        ));
        assert!(!matches!(
            connection(&policy, Some("a"), 80),
            ConnectionVerdict::Allow(_)
        ));
    }
}

#[test]
fn d12_strict_without_permissions_accepts_nothing_and_permissive_everything() {
    let mut policy = policy(vec![]);
    assert_eq!(
        request(&policy, Some("a"), 80, "GET", "/"),
        Verdict::Deny(DenyReason::NotASource)
    );
    policy.access = Access::Permissive;
    for account in [None, Some("a")] {
        assert_eq!(
            request(&policy, account, 80, "GET", "/"),
            Verdict::Allow(AllowedBy::Permissive)
        );
        assert_eq!(
            connection(&policy, account, 80),
            ConnectionVerdict::Allow(AllowedBy::Permissive)
        );
    }
}

#[test]
fn audit_says_what_strict_would_deny() {
    let mut policy = policy(vec![rule("t", "a", Ports::Any, get("/api"))]);
    policy.access = Access::Audit;
    assert_eq!(request(&policy, Some("a"), 80, "GET", "/api"), rule_of(0));
    assert_eq!(
        request(&policy, Some("a"), 80, "GET", "/x"),
        Verdict::Audit(DenyReason::NoMatchingRoute)
    );
    assert_eq!(
        connection(&policy, Some("a"), 80),
        ConnectionVerdict::Audit(DenyReason::NotHttp)
    );
    assert_eq!(
        connection(&policy, Some("b"), 80),
        ConnectionVerdict::Audit(DenyReason::NotASource)
    );
    assert_eq!(
        connection(&policy, None, 80),
        ConnectionVerdict::Audit(DenyReason::NoIdentity)
    );
}

#[test]
fn d12_a_health_probe_needs_no_identity() {
    let policy = with_probes(policy(vec![]));
    let probe = Verdict::Allow(AllowedBy::Probe);
    let denied = Verdict::Deny(DenyReason::NoIdentity);
    for (port, method, path, expected) in [
        (8080, "GET", "/healthz", probe),
        (8080, "HEAD", "/healthz", probe),
        (8080, "POST", "/healthz", denied),
        (8080, "GET", "/healthz/", denied),
        (8080, "GET", "/healthz/x", denied),
        (8080, "GET", "/", denied),
        (8081, "GET", "/healthz", denied),
        (9000, "GET", "/healthz", denied),
    ] {
        assert_eq!(
            request(&policy, None, port, method, path),
            expected,
            "{method} {port}{path}"
        );
    }
    assert_eq!(connection(&policy, None, 8080), ConnectionVerdict::HttpOnly);
    assert_eq!(
        connection(&policy, None, 9000),
        ConnectionVerdict::Deny(DenyReason::NoIdentity)
    );
}

#[test]
fn d14_a_source_may_be_bound_to_addresses() {
    let mut allow = rule("t", "a", Ports::Any, Traffic::Any);
    for (addresses, allowed) in [
        (None, true),
        (Some(vec![HERE]), true),
        (Some(vec!["10.0.0.2", HERE]), true),
        (Some(vec!["10.0.0.2"]), false),
        (Some(vec![]), false),
    ] {
        allow.sources[0].addresses =
            addresses.map(|list| list.iter().map(|a| a.parse().unwrap()).collect());
        let verdict = request(&policy(vec![allow.clone()]), Some("a"), 80, "GET", "/");
        assert_eq!(
            verdict == rule_of(0),
            allowed,
            "{:?}",
            allow.sources[0].addresses
        );
    }
}

#[test]
fn d14_an_identity_is_no_pattern() {
    let policy = policy(vec![rule("t", "web", Ports::Any, Traffic::Any)]);
    for account in ["web2", "we", "x.web", "wxb"] {
        assert_eq!(
            request(&policy, Some(account), 80, "GET", "/"),
            Verdict::Deny(DenyReason::NotASource)
        );
    }
    let other = SpiffeId::new("other.local", "default", "web").unwrap();
    let caller = Caller {
        identity: Some(&other),
        address: HERE.parse().unwrap(),
    };
    assert_eq!(
        policy.judge_connection(caller, 80),
        ConnectionVerdict::Deny(DenyReason::NotASource)
    );
}

#[test]
fn d16_permissions_add_up_and_never_mix() {
    let policy = policy(vec![
        rule("one", "a", Ports::Only(vec![80]), get("/a")),
        rule("two", "b", Ports::Only(vec![80]), get("/b")),
        rule("three", "a", Ports::Only(vec![81]), get("/c")),
    ]);
    assert_eq!(request(&policy, Some("a"), 80, "GET", "/a"), rule_of(0));
    assert_eq!(request(&policy, Some("b"), 80, "GET", "/b"), rule_of(1));
    assert_eq!(request(&policy, Some("a"), 81, "GET", "/c"), rule_of(2));
    for (account, port, path) in [
        ("a", 80, "/b"),
        ("b", 80, "/a"),
        ("a", 80, "/c"),
        ("b", 81, "/c"),
    ] {
        assert!(
            matches!(
                request(&policy, Some(account), port, "GET", path),
                Verdict::Deny(_)
            ),
            "{account} {path}"
        );
    }
}

#[test]
fn malformed_http_never_passes_as_opaque_where_rules_look_into_http() {
    let policy = with_probes(policy(vec![
        rule("h", "a", Ports::Only(vec![80]), get("/")),
        rule("t", "a", Ports::Only(vec![81]), Traffic::Any),
    ]));
    for (account, port, expected) in [
        (Some("a"), 80, ConnectionVerdict::HttpOnly),
        (Some("a"), 81, ConnectionVerdict::Allow(AllowedBy::Rule(1))),
        (
            Some("a"),
            82,
            ConnectionVerdict::Deny(DenyReason::NotASource),
        ),
        (
            Some("b"),
            80,
            ConnectionVerdict::Deny(DenyReason::NotASource),
        ),
        (None, 80, ConnectionVerdict::Deny(DenyReason::NoIdentity)),
        // An HTTP probe needs no permission, and opens its port to nothing but HTTP.
        (Some("a"), 8080, ConnectionVerdict::HttpOnly),
        (None, 8080, ConnectionVerdict::HttpOnly),
        (None, 9000, ConnectionVerdict::Deny(DenyReason::NoIdentity)),
    ] {
        let verdict = connection(&policy, account, port);
        assert_eq!(verdict, expected, "{account:?} {port}");
    }
}

#[test]
fn a_verdict_has_words() {
    let mut policy = policy(vec![rule(
        "TrafficTarget default/web",
        "a",
        Ports::Any,
        Traffic::Any,
    )]);
    assert_eq!(policy.by(AllowedBy::Rule(0)), "TrafficTarget default/web");
    assert_eq!(policy.by(AllowedBy::Rule(7)), "unknown");
    assert_eq!(policy.by(AllowedBy::Permissive), "permissive");
    assert_eq!(policy.by(AllowedBy::Probe), "probe");
    policy.ports = vec![(80, Protocol::Http1)];
    assert_eq!(
        (policy.protocol(80), policy.protocol(81)),
        (Protocol::Http1, Protocol::Detect)
    );
    let labels: Vec<_> = DenyReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    assert_eq!(
        labels,
        [
            "no_identity",
            "not_a_source",
            "no_matching_route",
            "not_http"
        ]
    );
    assert!(
        DenyReason::ALL
            .iter()
            .all(|reason| !reason.explain().is_empty())
    );
}

#[test]
fn d12_a_grpc_health_probe_is_a_post() {
    let mut policy = policy(vec![]);
    policy.probes = vec![Probe {
        port: 9000,
        path: Some(GRPC_HEALTH.into()),
    }];
    let allowed = Verdict::Allow(AllowedBy::Probe);
    assert_eq!(request(&policy, None, 9000, "POST", GRPC_HEALTH), allowed);
    let denied = Verdict::Deny(DenyReason::NoIdentity);
    let other = "/grpc.health.v1.Health/Watch";
    assert_eq!(request(&policy, None, 9000, "POST", other), denied);
}

#[test]
fn the_description_that_allowed_a_request_is_known() {
    let Traffic::Http(mut matches) = get("/a") else {
        return;
    };
    if let Traffic::Http(more) = get("/b") {
        matches.extend(more);
    }
    let policy = policy(vec![rule("t", "a", Ports::Any, Traffic::Http(matches))]);
    let by = |request| AllowedBy::Request { rule: 0, request };
    let second = policy.route(by(1)).unwrap();
    assert!(matches!(&second.path, Some(path) if path.fits("/b")));
    assert_eq!(policy.by(by(1)), "t");
    assert_eq!(policy.route(by(2)), None, "of another policy");
    assert_eq!(policy.route(AllowedBy::Rule(0)), None);
}

#[test]
fn a_refusal_names_rule_identity_and_object_and_what_would_allow_it() {
    let target = "TrafficTarget default/web";
    let mut policy = policy(vec![rule(
        target,
        "front",
        Ports::Only(vec![80]),
        get("/a"),
    )]);
    let words = |policy: &Inbound, account: Option<&str>, port, reason| {
        let identity = account.map(id);
        let caller = Caller {
            identity: identity.as_ref(),
            address: HERE.parse().unwrap(),
        };
        policy.denial(caller, port, reason).to_string()
    };
    for (account, port, reason, expected) in [
        (
            None,
            80,
            DenyReason::NoIdentity,
            "reason=no_identity; rule=none; identity=none; access=strict by the mesh; port=80; needs=a call through a proxy \
             of the mesh, and a TrafficTarget that names it",
        ),
        (
            Some("front"),
            81,
            DenyReason::NotASource,
            "reason=not_a_source; rule=none; identity=spiffe://cluster.local/ns/default/sa/front; access=strict by the mesh; \
             port=81; needs=a TrafficTarget for this workload and port with source ServiceAccount default/front",
        ),
        (
            Some("front"),
            80,
            DenyReason::NoMatchingRoute,
            "reason=no_matching_route; rule=TrafficTarget default/web; identity=spiffe://cluster.local/ns/default/sa/front; \
             access=strict by the mesh; port=80; needs=a rule of TrafficTarget default/web whose HTTPRouteGroup describes this \
             request",
        ),
        (
            Some("front"),
            80,
            DenyReason::NotHttp,
            "reason=not_http; rule=TrafficTarget default/web; identity=spiffe://cluster.local/ns/default/sa/front; \
             access=strict by the mesh; port=80; needs=a TrafficTarget with only a TCPRoute beside TrafficTarget default/web",
        ),
    ] {
        assert_eq!(words(&policy, account, port, reason), expected);
    }
    policy.access_from = "Namespace default".into();
    let by = words(&policy, None, 80, DenyReason::NoIdentity);
    assert!(by.contains("access=strict by Namespace default; "), "{by}");
}
