//! Changes become plans; what nobody uses goes.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::balance::Outcome;
use crate::policy::OutboundPlan;
use weft_proxy_api::policy::outbound::{Backend, Outbound, Route, Service};
use weft_proxy_api::policy::{Protocol, ServicePort};

fn target(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn service(name: &str) -> Outbound {
    let name = ServicePort {
        namespace: "shop".into(),
        name: name.into(),
        port: 80,
    };
    let backend = Backend {
        endpoints: name.to_string(),
        name: name.clone(),
        weight: 1,
    };
    let route = Route {
        object: None,
        matches: Vec::new(),
        backends: vec![backend],
    };
    Outbound::Service(Service {
        name,
        protocol: Protocol::Detect,
        routes: vec![route],
        settings: Box::default(),
    })
}

fn cache() -> (Arc<Shared>, Cache) {
    let shared = Arc::new(Shared::new(Metrics::new("shop")));
    let cache = Cache {
        idle: 0,
        ..Cache::new(shared.clone(), Place::default())
    };
    (shared, cache)
}

#[test]
fn destinations_of_one_service_share_their_endpoints() {
    let (shared, mut cache) = cache();
    let (Found::New(one), Found::New(two)) = (shared.find(target(1)), shared.find(target(2)))
    else {
        panic!()
    };
    assert!(matches!(shared.find(target(1)), Found::Known(_)));
    let wanted = cache.apply(Change::Outbound(target(1), service("web"), 7));
    assert_eq!(wanted, [Resource::Endpoints("shop/web:80".into())]);
    assert_eq!(
        cache.apply(Change::Outbound(target(2), service("web"), 8)),
        []
    );
    assert_eq!((one.version(), two.version()), (7, 8));
    let set = |at: &Destination| match &**at.plan() {
        OutboundPlan::Service(plan) => plan.routes[0].backends[0].endpoints.clone(),
        _ => panic!(),
    };
    assert!(Arc::ptr_eq(&set(&one), &set(&two)));
}

#[test]
fn what_is_used_stays_and_what_is_not_goes_with_its_endpoints() {
    let (shared, mut cache) = cache();
    let Found::New(held) = shared.find(target(1)) else {
        panic!()
    };
    cache.apply(Change::Outbound(target(1), service("web"), 7));
    assert_eq!(cache.sweep(), [], "someone holds it");
    drop(held);
    let gone = cache.sweep();
    assert_eq!(
        gone,
        [
            Resource::Outbound(target(1)),
            Resource::Endpoints("shop/web:80".into())
        ]
    );
    assert!(matches!(shared.find(target(1)), Found::New(_)));
}

#[test]
fn a_change_of_plan_lets_go_of_the_old_endpoints_only() {
    let (shared, mut cache) = cache();
    let Found::New(_held) = shared.find(target(1)) else {
        panic!()
    };
    cache.apply(Change::Outbound(target(1), service("web"), 7));
    cache.apply(Change::Outbound(target(1), service("other"), 8));
    assert_eq!(cache.sweep(), [Resource::Endpoints("shop/web:80".into())]);
}

/// Service `web`, which sends everything to the endpoints of `other`.
fn split(consecutive: u32) -> Outbound {
    let (Outbound::Service(mut web), Outbound::Service(other)) = (service("web"), service("other"))
    else {
        panic!()
    };
    web.routes = other.routes;
    web.settings.ejection.consecutive = consecutive;
    Outbound::Service(web)
}

#[test]
fn services_that_share_endpoints_judge_them_apart_and_ask_for_them_once() {
    let (shared, mut cache) = cache();
    let (Found::New(one), Found::New(two)) = (shared.find(target(1)), shared.find(target(2)))
    else {
        panic!()
    };
    let asked = [Resource::Endpoints("shop/other:80".into())];
    assert_eq!(
        cache.apply(Change::Outbound(target(1), service("other"), 7)),
        asked
    );
    let spec = weft_proxy_api::policy::outbound::Endpoint {
        address: target(8080),
        identity: None,
        namespace: "shop".into(),
        pod: "other-1".into(),
        workload: "deploy/other".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Detect,
    };
    cache.apply(Change::Endpoints("shop/other:80".into(), vec![spec]));
    assert_eq!(
        cache.apply(Change::Outbound(target(2), split(3), 8)),
        [],
        "they are known already"
    );
    let set = |at: &Destination| match &**at.plan() {
        OutboundPlan::Service(plan) => plan.routes[0].backends[0].endpoints.clone(),
        _ => panic!(),
    };
    let (own, through) = (set(&one), set(&two));
    assert!(!Arc::ptr_eq(&own, &through) && through.is_known() && through.len() == 1);
    cache.apply(Change::Outbound(target(2), split(5), 9));
    assert!(
        Arc::ptr_eq(&set(&two), &through),
        "a change of settings keeps what is known"
    );
    let ejected = || {
        let text = shared.metrics.render();
        let line = |line: &&str| line.starts_with("weft_backend_endpoints_ejected{");
        let line = text.lines().find(line).unwrap().to_owned();
        line.split(' ').next_back().unwrap().to_owned()
    };
    let aside = |set: &EndpointSet| {
        let aside = weft_proxy_api::policy::settings::Ejection {
            consecutive: 1,
            min_healthy_percent: 0,
            ..Default::default()
        };
        set.configure(&Default::default(), aside);
        let pick = set.pick(now(), Default::default()).ok().unwrap();
        pick.in_flight.done(Outcome::Failure, Duration::ZERO);
    };
    aside(&own);
    assert_eq!(ejected(), "1");
    aside(&through);
    assert_eq!(
        ejected(),
        "2",
        "each judges by itself, and both are counted"
    );
    cache.apply(Change::Endpoints("shop/other:80".into(), Vec::new()));
    assert_eq!(ejected(), "0");
    assert!(own.is_empty() && through.is_empty(), "both are told");
    drop((own, through));
    drop(one);
    assert_eq!(
        cache.sweep(),
        [Resource::Outbound(target(1))],
        "the other one still needs them"
    );
    drop(two);
    assert_eq!(
        cache.sweep(),
        [Resource::Outbound(target(2)), asked[0].clone()]
    );
}

#[test]
fn among_many_destinations_what_is_not_used_is_forgotten_sooner() {
    let (shared, mut cache) = cache();
    cache.idle = 60_000_000_000;
    let mut forgotten_of = |count: usize| {
        for n in 0..count {
            shared.find(SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 80)));
        }
        cache.sweep_at(now() + cache.idle / 2).len()
    };
    assert_eq!(forgotten_of(MANY - 1), 0);
    assert_eq!(forgotten_of(MANY), MANY);
}

#[test]
fn there_is_a_most() {
    let (shared, _) = cache();
    for n in 0..MOST_DESTINATIONS {
        shared.find(SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80)));
    }
    assert!(matches!(shared.find(target(9)), Found::Full));
}

#[test]
fn the_inbound_plan_names_the_workload() {
    let (shared, mut cache) = cache();
    let inbound = weft_proxy_api::policy::inbound::Inbound {
        workload: "deploy/web".into(),
        access: weft_proxy_api::policy::Access::Strict,
        ports: Vec::new(),
        allow: Vec::new(),
        probes: Vec::new(),
        rate_limits: Vec::new(),
        access_from: String::new(),
        explain_denials: false,
        metrics: Default::default(),
    };
    assert!(
        shared.inbound.load().is_none(),
        "nothing is allowed before policy says so"
    );
    cache.apply(Change::Inbound(inbound, 3));
    assert_eq!(shared.inbound.load_full().unwrap().version, 3);
    shared.metrics.inbound_edge(None).request();
    assert!(shared.metrics.render().contains("workload=\"deploy/web\""));
}

#[test]
fn endpoints_are_counted_one_by_one_only_where_the_tier_asks_for_it() {
    let (shared, mut cache) = cache();
    let Found::New(one) = shared.find(target(1)) else {
        panic!()
    };
    cache.apply(Change::Outbound(target(1), service("web"), 7));
    let endpoint = weft_proxy_api::policy::outbound::Endpoint {
        address: target(9),
        identity: None,
        namespace: "shop".into(),
        pod: "web-1".into(),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Detect,
    };
    let all = vec![endpoint];
    cache.apply(Change::Endpoints("shop/web:80".into(), all));
    let OutboundPlan::Service(plan) = &**one.plan() else {
        panic!()
    };
    let set = plan.routes[0].backends[0].endpoints.clone();
    let mut seen = Vec::new();
    for tier in MetricsTier::ALL {
        shared.metrics.set_tier(tier);
        cache.count_by(tier);
        drop(set.pick(now(), Default::default()).unwrap());
        let text = shared.metrics.render();
        let cancelled = r#"pod="web-1",result="cancelled"} 1"#;
        seen.push(text.contains(cancelled));
    }
    assert_eq!(seen, [false, false, true]);
}
