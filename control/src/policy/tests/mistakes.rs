//! What is wrong is named by its field.

use super::*;

#[test]
fn each_mistake_is_named_by_its_field() {
    let web = |more: Value| {
        let mut spec = json!({ "service": "web" });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    for (spec, expected) in [
        (json!({}), "spec.service: is missing"),
        (
            json!({ "service": "other.ns" }),
            "spec.service: \"other.ns\" is not the name of a Service",
        ),
        (
            web(json!({ "port": 0 })),
            "spec.port: must be a whole number from 1 to 65535, not the number 0",
        ),
        (
            web(json!({ "matches": [] })),
            "spec.matches: must have at least one entry, or be left out",
        ),
        (
            web(json!({ "matches": [{ "kind": "HTTPRouteGroup", "name": "a", "matches": [] }] })),
            "spec.matches[0].matches: must have at least one name, or be left out",
        ),
        (
            web(json!({ "matches": [{ "kind": "TCPRoute", "name": "a" }] })),
            "spec.matches[0].kind: must be HTTPRouteGroup, not the text \"TCPRoute\"",
        ),
        (
            web(json!({ "timeouts": { "request": 5 } })),
            "spec.timeouts.request: must be a time such as 250ms or 1m30s, not the number 5",
        ),
        (
            web(json!({ "timeouts": { "request": "0s" } })),
            "spec.timeouts.request: must be from 1ms to 86400s, not the text \"0s\"",
        ),
        (
            web(json!({ "timeouts": { "request": "25h" } })),
            "spec.timeouts.request: must be from 1ms to 86400s",
        ),
        (
            web(json!({ "timeouts": { "idle": "1.5us" } })),
            "spec.timeouts.idle: must be whole milliseconds",
        ),
        (
            web(json!({ "retries": { "attempts": 11 } })),
            "spec.retries.attempts: must be a whole number from 1 to 10",
        ),
        (
            web(json!({ "retries": { "statuses": ["6xx"] } })),
            "spec.retries.statuses[0]: must be a status",
        ),
        (
            web(json!({ "retries": { "statuses": [100] } })),
            "spec.retries.statuses[0]: must be a status",
        ),
        (
            web(json!({ "retries": { "statuses": ["504-500"] } })),
            "spec.retries.statuses[0]: must be a status",
        ),
        (
            web(json!({ "retries": { "grpcCodes": ["ok"] } })),
            "spec.retries.grpcCodes[0]: must be a gRPC code",
        ),
        (
            web(json!({ "retries": { "grpcCodes": [0] } })),
            "spec.retries.grpcCodes[0]: must be a gRPC code",
        ),
        (
            web(json!({ "retries": { "methods": ["get"] } })),
            "spec.retries.methods[0]: must be a method in capitals",
        ),
        (
            web(json!({ "retries": { "backoff": { "min": "1s", "max": "10ms" } } })),
            "spec.retries.backoff.max: must not be less than min",
        ),
        (
            web(json!({ "retryBudget": { "percent": -1 } })),
            "spec.retryBudget.percent: must be a whole number from 0 to 1000",
        ),
        (
            web(json!({ "ejection": { "maxTime": "10ms" } })),
            "spec.ejection.maxTime: must not be less than minTime",
        ),
        (
            web(json!({ "ejection": { "window": "10ms" } })),
            "spec.ejection.window: must be from 1s to 600s",
        ),
        (
            web(json!({ "breaker": { "fallback": { "service": "web" } } })),
            "spec.breaker.fallback.service: must be another Service",
        ),
        (
            web(json!({ "breaker": { "requests": 0 } })),
            "spec.breaker.requests: must be a whole number from 1",
        ),
        (
            web(json!({ "balancer": { "policy": "random" } })),
            "spec.balancer.policy: must be ewma or leastRequest",
        ),
        (
            web(json!({ "balancer": { "policy": "ringHash" } })),
            "spec.balancer.hashOn: is missing: ringHash needs a key",
        ),
        (
            web(json!({ "balancer": { "hashOn": { "source": true } } })),
            "spec.balancer.hashOn: belongs to the policy ringHash only",
        ),
        (
            web(
                json!({ "balancer": { "policy": "ringHash", "hashOn": { "source": true, "cookie": "a" } } }),
            ),
            "spec.balancer.hashOn: must have exactly one of",
        ),
        (
            web(json!({ "balancer": { "policy": "ringHash", "hashOn": { "header": "a b" } } })),
            "spec.balancer.hashOn.header: must be the name",
        ),
        (
            web(json!({ "rateLimit": {} })),
            "spec.rateLimit.requests: is missing",
        ),
        (
            web(json!({ "rateLimit": { "burst": 3, "perClient": { "requests": 1 } } })),
            "spec.rateLimit.burst: says nothing without",
        ),
        (
            web(json!({ "rateLimit": { "requests": 1, "per": "2h" } })),
            "spec.rateLimit.per: must be from 1ms to 3600s",
        ),
        (
            web(json!({ "fault": {} })),
            "spec.fault: must have abort, delay or both",
        ),
        (
            web(json!({ "fault": { "abort": { "percent": 101 } } })),
            "spec.fault.abort.percent: must be a number from 0 to 100",
        ),
        (
            web(json!({ "fault": { "abort": { "percent": 0.00001 } } })),
            "spec.fault.abort.percent: must be a number from 0 to 100",
        ),
        (
            web(json!({ "fault": { "delay": { "percent": 1 } } })),
            "spec.fault.delay.duration: is missing",
        ),
        (
            web(json!({ "mode": "off" })),
            "spec.mode: must be enforce or audit",
        ),
    ] {
        let (policy, problems) = read(&spec);
        assert!(policy.is_none(), "{spec}");
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected}\n{problems:?}"
        );
    }
}

#[test]
fn what_is_about_the_whole_service_is_refused_beside_matches() {
    for name in fields::WHOLE {
        let mut spec = conditional();
        spec[name] = full()[name].clone();
        let (policy, problems) = read(&spec);
        assert!(policy.is_none());
        let expected = format!("spec.{name}: is about the Service as a whole");
        assert!(
            problems.iter().any(|p| p.starts_with(&expected)),
            "{problems:?}"
        );
    }
}

#[test]
fn other_kinds_and_versions_of_the_group_are_refused() {
    for (version, kind, expected) in [
        ("v1", "ServicePolicy", "is not a supported version"),
        ("v1alpha1", "Policy", "is not a kind of weft.mesh"),
    ] {
        let manifest = json!({
            "apiVersion": format!("weft.mesh/{version}"), "kind": kind, "metadata": { "name": "p" },
            "spec": { "service": "web" },
        });
        let (loaded, problems) = parse("p.yaml", &manifest.to_string());
        assert!(loaded.is_empty());
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].severity, Severity::Error);
        assert!(problems[0].message.contains(expected), "{problems:?}");
    }
}
