//! What a `ServicePolicy` asks for: there and back, nothing where nobody asked, and one clear error for each bad number.

use super::*;
use crate::policy::settings::{
    Balancer, BalancerPolicy, Breaker, Budget, Ejection, Fallback, Fault, HashKey, RateLimit,
    RequestRule, RequestSettings, Retry, ServiceSettings, Timeouts,
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn requests() -> RequestSettings {
    RequestSettings {
        timeouts: Timeouts {
            request: Some(3000 * MS),
            response: Some(2000 * MS),
            per_try: Some(250 * MS),
            idle: Some(60_000 * MS),
        },
        retry: Some(Retry {
            attempts: 2,
            statuses: vec![(503, 503), (500, 504)],
            grpc: 1 << 14 | 1 << 16 | 1 << 1,
            methods: vec!["GET".into(), "PURGE".into()],
            backoff: 25 * MS,
            max_backoff: 250 * MS,
        }),
        fault: Fault {
            abort_ppm: 5_000,
            status: 503,
            grpc: Some(14),
            delay_ppm: 1_000_000,
            delay: 100 * MS,
        },
    }
}

/// Everything that can be asked for, each with another value than its default.
pub(super) fn settings(policy: BalancerPolicy) -> ServiceSettings {
    ServiceSettings {
        object: Some("ServicePolicy default/web".into()),
        balancer: Balancer {
            policy,
            subset: 0,
            slow_start: 30_000 * MS,
            prefer_zone: true,
            failover_zones: vec!["b".into(), "c".into()],
        },
        ejection: Ejection {
            consecutive: 0,
            success_percent: 0,
            window: 5000 * MS,
            min_requests: 1,
            min_time: MS,
            max_time: MS,
            min_healthy_percent: 0,
        },
        breaker: Breaker {
            connections: Some(1),
            pending: Some(2),
            requests: Some(3),
            fallback: Some(Fallback {
                name: ServicePort {
                    namespace: "default".into(),
                    name: "static".into(),
                    port: 81,
                },
                endpoints: "default/static:81".into(),
            }),
        },
        budget: Budget {
            percent: 0,
            min_per_second: 0,
        },
        requests: requests(),
        rules: vec![RequestRule {
            object: "ServicePolicy default/web-reads".into(),
            matches: vec![http_match(None)],
            settings: RequestSettings::default(),
        }],
    }
}

pub(super) fn service_with(settings: ServiceSettings) -> Body {
    Body::Outbound(Outbound::Service(Service {
        settings: Box::new(settings),
        ..service()
    }))
}

pub(super) fn limited() -> Inbound {
    let limit = |per_client| RateLimit {
        object: "ServicePolicy default/web".into(),
        ports: vec![80, 81],
        matches: vec![http_match(None)],
        requests: 100,
        per: 1000 * MS,
        burst: 20,
        per_client,
        audit: !per_client,
    };
    Inbound {
        rate_limits: vec![limit(true), limit(false)],
        access_from: "Namespace default".into(),
        explain_denials: true,
        metrics: crate::policy::MetricsTier::Endpoints,
        ..inbound()
    }
}

#[test]
fn all_that_can_be_asked_for_survives_the_wire() {
    let keys = [
        HashKey::Header("x-user".into()),
        HashKey::Cookie("session".into()),
        HashKey::Source,
    ];
    let policies = keys.into_iter().map(BalancerPolicy::RingHash).chain([
        BalancerPolicy::Ewma,
        BalancerPolicy::LeastRequest,
        BalancerPolicy::RoundRobin,
    ]);
    let bodies = policies
        .map(|policy| service_with(settings(policy)))
        .chain([Body::Inbound(limited())]);
    for body in bodies {
        let item = Item {
            id: 1,
            version: 1,
            body,
        };
        let bytes = encode::response(std::slice::from_ref(&item)).encode_to_vec();
        let message = pb::SyncResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(response(&message), [Ok(item)]);
    }
}

#[test]
fn what_nobody_asked_for_does_not_travel() {
    let with = encode::response(&[Item {
        id: 1,
        version: 1,
        body: service_with(ServiceSettings::default()),
    }]);
    let Some(pb::item::Body::Outbound(outbound)) = &with.items[0].body else {
        panic!("{with:?}");
    };
    let Some(pb::outbound::Kind::Service(service)) = &outbound.kind else {
        panic!("{with:?}");
    };
    assert_eq!(service.settings, None);
}

#[test]
fn a_time_never_becomes_none_on_the_way() {
    let mut asked = settings(BalancerPolicy::Ewma);
    asked.requests.timeouts.request = Some(Duration::from_nanos(1));
    let message = encode::response(&[Item {
        id: 1,
        version: 1,
        body: service_with(asked),
    }]);
    let Ok(Item {
        body: Body::Outbound(Outbound::Service(service)),
        ..
    }) = response(&message).remove(0)
    else {
        panic!("{message:?}");
    };
    assert_eq!(service.settings.requests.timeouts.request, Some(MS));
}

fn pb_settings(message: &mut pb::SyncResponse) -> &mut pb::ServiceSettings {
    match message.items[0].body.as_mut().unwrap() {
        pb::item::Body::Outbound(pb::Outbound {
            kind: Some(pb::outbound::Kind::Service(service)),
        }) => service.settings.as_mut().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn requests_of(settings: &mut pb::ServiceSettings) -> &mut pb::RequestSettings {
    settings.requests.as_mut().unwrap()
}

fn retry_of(settings: &mut pb::ServiceSettings) -> &mut pb::Retry {
    requests_of(settings).retry.as_mut().unwrap()
}

fn fault_of(settings: &mut pb::ServiceSettings) -> &mut pb::Fault {
    requests_of(settings).fault.as_mut().unwrap()
}

fn balancer_of(settings: &mut pb::ServiceSettings) -> &mut pb::Balancer {
    settings.balancer.as_mut().unwrap()
}

fn ejection_of(settings: &mut pb::ServiceSettings) -> &mut pb::Ejection {
    settings.ejection.as_mut().unwrap()
}

#[test]
fn a_setting_out_of_bounds_is_named_by_its_field() {
    type Break = fn(&mut pb::ServiceSettings);
    let table: [(Break, &str); 24] = [
        (
            |s| requests_of(s).timeouts.as_mut().unwrap().idle_ms = u32::MAX,
            "requests.timeouts.idle_ms: 4294967295 is not from 1 to 86400000",
        ),
        (
            |s| retry_of(s).attempts = 0,
            "requests.retry.attempts: 0 is not from 1 to 10",
        ),
        (
            |s| retry_of(s).statuses[1].from = 99,
            "requests.retry.statuses[1].from: 99 is not from 200 to 599",
        ),
        (
            |s| retry_of(s).statuses[1].from = 505,
            "requests.retry.statuses[1].to: less than from",
        ),
        (
            |s| retry_of(s).statuses = vec![pb::StatusRange { from: 500, to: 500 }; 33],
            "requests.retry.statuses: 33 entries; at most 32 are accepted",
        ),
        (
            |s| retry_of(s).grpc_codes = 1,
            "requests.retry.grpc_codes: holds what is no gRPC failure",
        ),
        (
            |s| retry_of(s).grpc_codes = 1 << 17,
            "requests.retry.grpc_codes: holds what is no gRPC failure",
        ),
        (
            |s| retry_of(s).method_refs[0] = 1,
            "requests.retry.method_refs[0]: not a method",
        ),
        (
            |s| retry_of(s).max_backoff_ms = 24,
            "requests.retry.max_backoff_ms: less than backoff_ms",
        ),
        (
            |s| fault_of(s).abort_ppm = 1_000_001,
            "requests.fault.abort_ppm: 1000001 is not from 0 to 1000000",
        ),
        (
            |s| fault_of(s).status = 0,
            "requests.fault.status: 0 is not from 200 to 599",
        ),
        (
            |s| fault_of(s).grpc_code = 17,
            "requests.fault.grpc_code: 17 is not from 1 to 16",
        ),
        (
            |s| fault_of(s).delay_ms = 0,
            "requests.fault.delay_ms: 0 is not from 1 to 86400000",
        ),
        (
            |s| balancer_of(s).policy = 9,
            "balancer.policy: 9 is not a way to balance",
        ),
        (
            |s| balancer_of(s).policy = 0,
            "balancer.hash_key: belongs to ring hash only",
        ),
        (
            |s| balancer_of(s).hash_key = None,
            "balancer.hash_key: missing",
        ),
        (
            |s| balancer_of(s).hash_key = Some(pb::HashKey { kind: None }),
            "balancer.hash_key.kind: missing",
        ),
        (
            |s| balancer_of(s).failover_zone_refs = vec![1; 33],
            "balancer.failover_zone_refs: 33 entries; at most 32 are accepted",
        ),
        (
            |s| ejection_of(s).success_percent = 101,
            "ejection.success_percent: 101 is not from 0 to 100",
        ),
        (
            |s| ejection_of(s).window_ms = 0,
            "ejection.window_ms: 0 is not from 1000 to 600000",
        ),
        (
            |s| ejection_of(s).min_time_ms = 2,
            "ejection.max_time_ms: less than min_time_ms",
        ),
        (
            |s| s.breaker.as_mut().unwrap().fallback.as_mut().unwrap().port = 0,
            "breaker.fallback.port: 0 is not a port",
        ),
        (|s| s.rules[0].matches.clear(), "rules[0].matches: missing"),
        (
            |s| s.budget.as_mut().unwrap().percent = 1_001,
            "budget.percent: 1001 is not from 0 to 1000",
        ),
    ];
    for (break_it, expected) in table {
        let body = service_with(settings(BalancerPolicy::RingHash(HashKey::Source)));
        let error = broken(body, |message| {
            message.strings[0] = "no method".into();
            break_it(pb_settings(message));
        });
        assert_eq!(
            error,
            format!("items[0].outbound.service.settings.{expected}")
        );
    }
}

#[test]
fn a_hash_key_must_be_a_name() {
    use pb::hash_key::Kind;
    for (kind, expected) in [
        (Kind::HeaderRef(1), "header_ref: not the name of a header"),
        (Kind::CookieRef(1), "cookie_ref: not the name of a cookie"),
        (Kind::CookieRef(0), "cookie_ref: missing"),
    ] {
        let body = service_with(settings(BalancerPolicy::RingHash(HashKey::Source)));
        let error = broken(body, |message| {
            message.strings[0] = "a b".into();
            balancer_of(pb_settings(message)).hash_key = Some(pb::HashKey { kind: Some(kind) });
        });
        assert!(
            error.starts_with(&format!(
                "items[0].outbound.service.settings.balancer.hash_key.{expected}"
            )),
            "{error}"
        );
    }
}

#[test]
fn a_rate_limit_out_of_bounds_is_named_by_its_field() {
    type Break = fn(&mut pb::Inbound);
    let table: [(Break, &str); 6] = [
        (
            |i| i.rate_limits[1].requests = 0,
            "rate_limits[1].requests: 0 is not from 1 to 1000000",
        ),
        (
            |i| i.rate_limits[1].per_ms = 0,
            "rate_limits[1].per_ms: 0 is not from 1 to 3600000",
        ),
        (
            |i| i.rate_limits[1].burst = 1_000_001,
            "rate_limits[1].burst: 1000001 is not from 1 to 1000000",
        ),
        (
            |i| i.rate_limits[1].ports[0] = 0,
            "rate_limits[1].ports[0]: 0 is not a port",
        ),
        (
            |i| i.rate_limits[1].object_ref = 0,
            "rate_limits[1].object_ref: missing",
        ),
        (
            |i| i.rate_limits = vec![i.rate_limits[0].clone(); 257],
            "rate_limits: 257 entries; at most 256 are accepted",
        ),
    ];
    for (break_it, expected) in table {
        let error = broken(Body::Inbound(limited()), |message| {
            match message.items[0].body.as_mut().unwrap() {
                pb::item::Body::Inbound(inbound) => break_it(inbound),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(error, format!("items[0].inbound.{expected}"));
    }
}
