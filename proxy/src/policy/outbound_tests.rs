//! Plans are what the policy says, with everything bound.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeMap;
use weft_proxy_api::policy::matching::{HttpMatch, TextMatch};
use weft_proxy_api::policy::{Protocol, ServicePort};

fn name(name: &str) -> ServicePort {
    ServicePort {
        namespace: "shop".into(),
        name: name.into(),
        port: 80,
    }
}

fn backend(to: &str, weight: u64) -> outbound::Backend {
    outbound::Backend {
        name: name(to),
        weight,
        endpoints: format!("shop/{to}:80"),
    }
}

fn endpoint(n: u8, workload: &str) -> outbound::Endpoint {
    outbound::Endpoint {
        address: SocketAddr::from(([10, 0, 0, n], 8080)),
        identity: None,
        namespace: "shop".into(),
        pod: format!("pod-{n}"),
        workload: workload.into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Detect,
    }
}

fn service(routes: Vec<outbound::Route>) -> Outbound {
    Outbound::Service(outbound::Service {
        name: name("web"),
        protocol: Protocol::Http1,
        routes,
        settings: Box::default(),
    })
}

fn split(weights: [u64; 2]) -> outbound::Route {
    let backends = vec![backend("web-v1", weights[0]), backend("web-v2", weights[1])];
    outbound::Route {
        object: Some("TrafficSplit shop/web".into()),
        matches: Vec::new(),
        backends,
    }
}

struct World {
    metrics: Arc<Metrics>,
    sets: BTreeMap<String, Arc<EndpointSet>>,
}

impl World {
    fn new() -> Self {
        Self {
            metrics: Metrics::new("shop"),
            sets: BTreeMap::new(),
        }
    }

    fn compile(&mut self, outbound: Outbound) -> OutboundPlan {
        let Self { metrics, sets } = self;
        let mut find = |set: &WantedSet<'_>| {
            let name = set.name;
            sets.entry(name.to_owned())
                .or_insert_with(|| EndpointSet::new(name, metrics.backend(name)))
                .clone()
        };
        Compiler {
            metrics,
            sets: &mut find,
        }
        .compile(outbound)
    }

    fn service(&mut self, routes: Vec<outbound::Route>) -> Arc<ServicePlan> {
        match self.compile(service(routes)) {
            OutboundPlan::Service(plan) => plan,
            _ => panic!("not a service"),
        }
    }
}

#[test]
fn weights_decide_between_backends() {
    let plan = World::new().service(vec![split([90, 10])]);
    let mut v2 = 0;
    for _ in 0..10_000 {
        v2 += u32::from(plan.route_bytes(None).choose().unwrap().backend.name.name == "web-v2");
    }
    // Six standard deviations of a binomial.
    assert!((820..1180).contains(&v2), "{v2}");
    let plan = World::new().service(vec![split([0, 3])]);
    assert!(
        (0..100).all(|_| plan.route_bytes(None).choose().unwrap().backend.name.name == "web-v2")
    );
}

#[test]
fn no_weight_is_no_choice() {
    let mut world = World::new();
    assert!(
        world
            .service(vec![split([0, 0])])
            .route_bytes(None)
            .choose()
            .is_none()
    );
    let alone = outbound::Route {
        object: None,
        matches: Vec::new(),
        backends: vec![backend("web", 0)],
    };
    assert!(
        world
            .service(vec![alone])
            .route_bytes(None)
            .choose()
            .is_none()
    );
    let none = outbound::Route {
        object: None,
        matches: Vec::new(),
        backends: Vec::new(),
    };
    assert!(
        world
            .service(vec![none])
            .route_bytes(None)
            .choose()
            .is_none()
    );
}

#[test]
fn a_request_takes_the_first_route_that_fits_and_bytes_the_one_without_matches() {
    let path = TextMatch::regex_prefix("/beta").unwrap();
    let beta = HttpMatch {
        object: "HTTPRouteGroup shop/web".into(),
        name: "beta".into(),
        path: Some(path),
        methods: Vec::new(),
        headers: Vec::new(),
    };
    let only_v2 = outbound::Route {
        matches: vec![beta],
        ..split([0, 1])
    };
    let plan = World::new().service(vec![only_v2, split([1, 0])]);
    let headers = http::HeaderMap::new();
    for (path, expected) in [("/beta/x", "web-v2"), ("/", "web-v1")] {
        let request = RequestView {
            method: "GET",
            path,
            host: "web",
            headers: &headers,
        };
        assert_eq!(
            plan.route_http(&request)
                .choose()
                .unwrap()
                .backend
                .name
                .name,
            expected
        );
    }
    assert_eq!(
        plan.route_bytes(None).choose().unwrap().backend.name.name,
        "web-v1"
    );
}

#[test]
fn endpoint_sets_are_shared_and_edges_are_told_apart_by_workload() {
    let mut world = World::new();
    let (one, two) = (
        world.service(vec![split([1, 1])]),
        world.service(vec![split([1, 1])]),
    );
    let at = |plan: &ServicePlan| plan.routes[0].backends[0].clone();
    assert!(Arc::ptr_eq(&at(&one).endpoints, &at(&two).endpoints));
    let (blue, green) = (
        Endpoint::new(endpoint(1, "deploy/blue")),
        Endpoint::new(endpoint(2, "deploy/green")),
    );
    assert!(
        Arc::ptr_eq(&at(&one).edge(&blue), &at(&two).edge(&blue)),
        "a new version goes on counting"
    );
    assert!(!Arc::ptr_eq(&at(&one).edge(&blue), &at(&one).edge(&green)));
    for n in 0..100 {
        at(&one).edge(&Endpoint::new(endpoint(n, &format!("deploy/w{n}"))));
    }
    assert!(at(&one).edges.known.load().len() <= EDGES_AT_HAND);
}

#[tokio::test]
async fn a_destination_is_refused_until_it_is_known() {
    let destination = Destination::new(SocketAddr::from(([10, 0, 0, 1], 80)));
    assert!(matches!(**destination.plan(), OutboundPlan::Unknown));
    let plan = World::new().compile(Outbound::PassThrough);
    let (version, ()) = tokio::join!(destination.changed(0), async { destination.put(plan, 5) });
    assert_eq!(version, 5);
    assert!(matches!(**destination.plan(), OutboundPlan::PassThrough(_)));
}

#[test]
fn a_pod_called_by_its_address_is_let_go_with_its_plan() {
    let plan = World::new().compile(Outbound::Endpoint(endpoint(1, "deploy/web")));
    let OutboundPlan::Endpoint(plan) = plan else {
        panic!("not an endpoint")
    };
    let endpoint = plan.endpoint.clone();
    assert!(!endpoint.is_gone());
    drop(plan);
    assert!(endpoint.is_gone());
}
