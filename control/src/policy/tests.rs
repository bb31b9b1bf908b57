#![allow(clippy::unwrap_used)]

mod mistakes;

use super::fields::{self, Form};
use super::{Breaker, Fallback, Limit, MatchRef, ServicePolicy, schema};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::{Object, Severity, parse};
use serde_json::{Value, json};
use std::time::Duration;
use weft_proxy_api::policy::settings::{
    Balancer, BalancerPolicy, Budget, Ejection, Fault, HashKey, RequestSettings, Retry, Timeouts,
};

const MS: Duration = Duration::from_millis(1);

/// Every field, but for those that exclude each other.
fn full() -> Value {
    json!({
        "service": "web", "port": 80,
        "timeouts": { "request": "1m30s", "response": "2s", "perTry": "250ms", "idle": "1h" },
        "retries": {
            "attempts": 3, "statuses": [503, "5xx", "500-504"], "grpcCodes": ["unavailable", 8, "DATA_LOSS"],
            "methods": ["GET", "PURGE"], "backoff": { "min": "10ms", "max": "0.1s" },
        },
        "retryBudget": { "percent": 30, "minPerSecond": 0 },
        "ejection": {
            "consecutiveFailures": 3, "successPercent": 90, "window": "5s", "minRequests": 7,
            "minTime": "2s", "maxTime": "30s", "minHealthyPercent": 60,
        },
        "breaker": {
            "connections": 100, "pending": 50, "requests": 200, "fallback": { "service": "static", "port": 81 },
        },
        "balancer": {
            "policy": "ringHash", "hashOn": { "header": "X-User" }, "subset": 10, "slowStart": "30s",
            "preferZone": true, "failoverZones": ["b", "c"],
        },
        "rateLimit": {
            "requests": 1000, "per": "1m", "burst": 50, "perClient": { "requests": 10, "per": "2s", "burst": 5 },
        },
        "fault": {
            "abort": { "percent": 0.5, "status": 500, "grpcCode": "aborted" },
            "delay": { "percent": 10, "duration": "100ms" },
        },
        "mode": "audit",
    })
}

fn conditional() -> Value {
    json!({
        "service": "web",
        "matches": [{ "kind": "HTTPRouteGroup", "name": "api", "matches": ["reads"] }],
        "timeouts": { "request": "1s" },
    })
}

/// The policy, and every problem as `field: message`.
fn read(spec: &Value) -> (Option<ServicePolicy>, Vec<String>) {
    let manifest = json!({
        "apiVersion": "weft.mesh/v1alpha1", "kind": "ServicePolicy", "metadata": { "name": "p" }, "spec": spec,
    });
    let (loaded, problems) = parse("p.yaml", &manifest.to_string());
    let policy = loaded.into_iter().find_map(|loaded| match loaded.object {
        Object::ServicePolicy(policy) => Some((*policy).clone()),
        _ => None,
    });
    for problem in &problems {
        assert_eq!(&*problem.origin.file, "p.yaml");
        assert_eq!(problem.object.as_deref(), Some("ServicePolicy default/p"));
    }
    let shown = problems
        .into_iter()
        .map(|p| format!("{}: {}", p.field.unwrap_or_default(), p.message));
    (policy, shown.collect())
}

fn sound(spec: &Value) -> ServicePolicy {
    let (policy, problems) = read(spec);
    assert_eq!(problems, [""; 0]);
    policy.unwrap()
}

#[test]
fn every_field_is_read() {
    let expected = ServicePolicy {
        metadata: ObjectMeta {
            name: "p".into(),
            namespace: "default".into(),
            ..ObjectMeta::default()
        },
        service: "web".into(),
        port: Some(80),
        matches: None,
        requests: Some(RequestSettings {
            timeouts: Timeouts {
                request: Some(90_000 * MS),
                response: Some(2_000 * MS),
                per_try: Some(250 * MS),
                idle: Some(3_600_000 * MS),
            },
            retry: Some(Retry {
                attempts: 3,
                statuses: vec![(503, 503), (500, 599), (500, 504)],
                grpc: 1 << 14 | 1 << 8 | 1 << 15,
                methods: vec!["GET".into(), "PURGE".into()],
                backoff: 10 * MS,
                max_backoff: 100 * MS,
            }),
            fault: Fault {
                abort_ppm: 5_000,
                status: 500,
                grpc: Some(10),
                delay_ppm: 100_000,
                delay: 100 * MS,
            },
        }),
        budget: Some(Budget {
            percent: 30,
            min_per_second: 0,
        }),
        ejection: Some(Ejection {
            consecutive: 3,
            success_percent: 90,
            window: 5_000 * MS,
            min_requests: 7,
            min_time: 2_000 * MS,
            max_time: 30_000 * MS,
            min_healthy_percent: 60,
        }),
        breaker: Some(Breaker {
            connections: Some(100),
            pending: Some(50),
            requests: Some(200),
            fallback: Some(Fallback {
                service: "static".into(),
                port: Some(81),
            }),
        }),
        balancer: Some(Balancer {
            policy: BalancerPolicy::RingHash(HashKey::Header("x-user".into())),
            subset: 10,
            slow_start: 30_000 * MS,
            prefer_zone: true,
            failover_zones: vec!["b".into(), "c".into()],
        }),
        limits: vec![
            Limit {
                requests: 1000,
                per: 60_000 * MS,
                burst: 50,
                per_client: false,
            },
            Limit {
                requests: 10,
                per: 2_000 * MS,
                burst: 5,
                per_client: true,
            },
        ],
        audit: true,
    };
    assert_eq!(sound(&full()), expected);
    let matches = sound(&conditional()).matches.unwrap();
    let (group, names) = ("api".into(), vec!["reads".into()]);
    assert_eq!(matches, [MatchRef { group, names }]);
}

#[test]
fn what_is_absent_has_the_default_of_the_table() {
    let policy = sound(&json!({
        "service": "web", "retries": {}, "retryBudget": {}, "ejection": {}, "balancer": {},
        "rateLimit": { "requests": 5 }, "fault": { "abort": {} },
    }));
    let requests = policy.requests.unwrap();
    let retry = requests.retry.unwrap();
    assert_eq!((retry.attempts, retry.grpc), (1, 1 << 14));
    assert_eq!(retry.statuses, [(502, 504)]);
    assert_eq!((retry.backoff, retry.max_backoff), (25 * MS, 250 * MS));
    assert_eq!(requests.timeouts, Timeouts::default());
    assert_eq!(
        (requests.fault.abort_ppm, requests.fault.status),
        (1_000_000, 503)
    );
    assert_eq!(policy.budget, Some(Budget::default()));
    assert_eq!(policy.ejection, Some(Ejection::default()));
    assert_eq!(policy.balancer, Some(Balancer::default()));
    assert_eq!(
        policy.limits,
        [Limit {
            requests: 5,
            per: 1000 * MS,
            burst: 5,
            per_client: false
        }]
    );
    assert!(!policy.audit);
    let only_codes = json!({ "service": "web", "retries": { "grpcCodes": [14] } });
    assert_eq!(
        sound(&only_codes).requests.unwrap().retry.unwrap().statuses,
        []
    );
}

/// The place of a field in a spec; lists have one entry.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace("[]", "/0").replace('.', "/"))
}

/// A spec that has the field: with matches, or without.
fn spec_with(path: &str) -> Value {
    match path.starts_with("matches") {
        true => conditional(),
        false => full(),
    }
}

fn shown(path: &str) -> String {
    format!("spec.{}", path.replace("[]", "[0]"))
}

/// Whatever is in the table is looked at: a truth value or a map says nothing sensible anywhere.
#[test]
fn every_field_of_the_table_is_looked_at() {
    for row in fields::ALL {
        let (parent, name) = row.split();
        let mut spec = spec_with(row.path);
        let place = match parent {
            "" => &mut spec,
            _ => spec.pointer_mut(&pointer(parent)).unwrap(),
        };
        place[name] = match row.form {
            Form::Map | Form::Maps | Form::Names | Form::Statuses | Form::Codes => json!("x"),
            _ => json!({ "x": 1 }),
        };
        let (policy, problems) = read(&spec);
        let field = format!("{}: ", shown(row.path));
        assert!(policy.is_none(), "{field}");
        assert!(
            problems.iter().any(|p| p.starts_with(&field)),
            "{field}{problems:?}"
        );
    }
}

#[test]
fn a_field_that_nobody_knows_is_refused_by_name_wherever_it_is() {
    let maps = fields::ALL.iter().filter_map(|row| match row.form {
        Form::Map => Some(row.path.to_owned()),
        Form::Maps => Some(format!("{}[]", row.path)),
        _ => None,
    });
    for path in maps.chain([String::new()]) {
        let mut spec = spec_with(&path);
        let place = match path.as_str() {
            "" => &mut spec,
            path => spec.pointer_mut(&pointer(path)).unwrap(),
        };
        place["timeout"] = json!("1s");
        let (policy, problems) = read(&spec);
        let field = shown(format!("{path}.timeout").trim_start_matches('.'));
        let expected = format!("{field}: is not a known field");
        assert!(policy.is_none(), "{field}");
        assert!(
            problems.iter().any(|p| p.starts_with(&expected)),
            "{field}: {problems:?}"
        );
    }
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_table() {
    fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{name}");
            found.push(path.clone());
            assert!(inner["description"].is_string(), "{path}");
            leaves(inner, &path, found);
            leaves(&inner["items"], &format!("{path}[]"), found);
        }
    }
    let definition = schema::definition();
    let version = &definition["spec"]["versions"][0];
    let mut found = Vec::new();
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    leaves(spec, "", &mut found);
    let mut wanted: Vec<_> = fields::ALL.iter().map(|row| row.path.to_owned()).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(definition["metadata"]["name"], "servicepolicies.weft.mesh");
    assert_eq!(definition["spec"]["names"]["shortNames"], json!(["sp"]));
}

/// What the API server asks of a schema: every node has a type (or is a number or a text), and lists say of what.
#[test]
fn the_schema_is_structural() {
    fn check(schema: &Value) {
        let either = schema["x-kubernetes-int-or-string"] == json!(true);
        assert!(schema["type"].is_string() != either, "{schema}");
        if schema["type"] == "array" {
            check(&schema["items"]);
        }
        schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .for_each(|(_, inner)| check(inner));
    }
    check(&schema::definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
}

/// The example in the README is one that works.
#[test]
fn the_example_of_the_readme_is_sound() {
    let readme = include_str!("../../../README.md");
    let examples = readme.split("```yaml\n").skip(1);
    let example = examples
        .filter_map(|rest| rest.split("```").next())
        .find(|text| text.contains("kind: ServicePolicy"))
        .unwrap();
    let (loaded, problems) = parse("README.md", example);
    assert!(problems.is_empty(), "{problems:?}");
    assert!(matches!(&loaded[..], [_, _]), "{loaded:?}");
}
