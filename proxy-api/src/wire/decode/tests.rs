//! There and back for every body; what is shared with the tests of broken messages.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::identity::SpiffeId;
use crate::policy::inbound::{Allow, Inbound, Ports, Probe, Source, Traffic};
use crate::policy::matching::{HeaderMatch, HttpMatch, TextMatch};
use crate::policy::outbound::{Backend, Endpoint, Outbound, Route, Service};
use crate::policy::settings::{BalancerPolicy, HashKey};
use crate::policy::{Access, ServicePort};
use crate::wire::encode;
use prost::Message;

mod hostile;
mod malformed;
mod settings;

fn http_match(path: Option<TextMatch>) -> HttpMatch {
    HttpMatch {
        object: "HTTPRouteGroup default/api".into(),
        name: "metrics".into(),
        path,
        methods: vec!["GET".into(), "HEAD".into()],
        headers: vec![
            HeaderMatch {
                name: "x-a".into(),
                value: TextMatch::regex_full("a+").unwrap(),
            },
            HeaderMatch {
                name: "host".into(),
                value: TextMatch::Exact("web".into()),
            },
        ],
    }
}

fn inbound() -> Inbound {
    let id = |account| SpiffeId::new("cluster.local", "default", account).unwrap();
    let allow = |ports, traffic, addresses| Allow {
        object: "TrafficTarget default/web".into(),
        sources: vec![Source {
            identity: id("front"),
            addresses,
        }],
        ports,
        traffic,
    };
    let requests = vec![
        http_match(None),
        http_match(Some(TextMatch::Prefix(String::new()))),
        http_match(Some(TextMatch::regex_prefix("/v[12]/").unwrap())),
    ];
    let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    Inbound {
        workload: "deploy/web".into(),
        access: Access::Audit,
        ports: vec![
            (80, Protocol::Http1),
            (5432, Protocol::Opaque),
            (50051, Protocol::Grpc),
        ],
        allow: vec![
            allow(Ports::Any, Traffic::Any, None),
            allow(
                Ports::Only(vec![80, 81]),
                Traffic::Http(requests),
                Some(addresses),
            ),
            allow(Ports::Only(vec![]), Traffic::Http(vec![]), Some(vec![])),
        ],
        probes: vec![
            Probe {
                port: 80,
                path: Some("/healthz".into()),
            },
            Probe {
                port: 81,
                path: None,
            },
        ],
        rate_limits: vec![],
        access_from: String::new(),
        explain_denials: false,
        metrics: Default::default(),
    }
}

fn endpoint(address: &str, meshed: bool) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        identity: meshed.then(|| SpiffeId::new("cluster.local", "default", "web").unwrap()),
        namespace: "default".into(),
        pod: "web-1".into(),
        workload: "deploy/web".into(),
        zone: if meshed { "a".into() } else { String::new() },
        weight: 3,
        protocol: Protocol::Http2,
    }
}

fn service() -> Service {
    let name = |name: &str| ServicePort {
        namespace: "default".into(),
        name: name.into(),
        port: 80,
    };
    let backend = |to: &str, weight| Backend {
        name: name(to),
        weight,
        endpoints: format!("default/{to}:80"),
    };
    let split = Route {
        object: Some("TrafficSplit default/web".into()),
        matches: vec![http_match(None)],
        backends: vec![backend("v1", u64::MAX), backend("v2", 0)],
    };
    let own = Route {
        object: None,
        matches: vec![],
        backends: vec![backend("web", 1)],
    };
    Service {
        name: name("web"),
        protocol: Protocol::Detect,
        routes: vec![split, own],
        settings: Box::default(),
    }
}

fn bodies() -> Vec<Body> {
    vec![
        Body::Unchanged,
        Body::Inbound(inbound()),
        Body::Outbound(Outbound::Service(service())),
        Body::Outbound(Outbound::Endpoint(endpoint("10.0.0.9:80", true))),
        Body::Outbound(Outbound::PassThrough),
        Body::Outbound(Outbound::Refused {
            reason: "no such port".into(),
        }),
        Body::Endpoints(vec![]),
        Body::Endpoints(vec![
            endpoint("10.0.0.9:80", true),
            endpoint("[fd00::9]:80", false),
        ]),
        Body::Delta {
            base: 7,
            upsert: vec![endpoint("10.0.0.9:80", false)],
            remove: vec![
                "10.0.0.8:80".parse().unwrap(),
                "[fd00::9]:80".parse().unwrap(),
            ],
        },
        Body::Trust(Trust {
            roots: vec![vec![1, 2], vec![3]],
            domain: "cluster.local".into(),
        }),
        settings::service_with(settings::settings(BalancerPolicy::RingHash(
            HashKey::Source,
        ))),
        Body::Inbound(settings::limited()),
    ]
}

fn items() -> Vec<Item> {
    let item = |(id, body)| Item {
        id,
        version: u64::from(id) + 1,
        body,
    };
    (0..).zip(bodies()).map(item).collect()
}

#[test]
fn every_body_survives_the_wire() {
    let bytes = encode::response(&items()).encode_to_vec();
    let message = pb::SyncResponse::decode(bytes.as_slice()).unwrap();
    let decoded: Vec<Item> = response(&message).into_iter().map(Result::unwrap).collect();
    assert_eq!(decoded, items());
}

#[test]
fn strings_travel_once() {
    let message = encode::response(&items());
    let unique: HashSet<_> = message.strings.iter().collect();
    assert_eq!(unique.len(), message.strings.len());
}

#[test]
fn every_resource_survives_the_wire() {
    for wanted in [
        Resource::Inbound,
        Resource::Trust,
        Resource::Endpoints("default/web:80".into()),
        Resource::Outbound("10.0.0.1:80".parse().unwrap()),
        Resource::Outbound("[fd00::1]:65535".parse().unwrap()),
    ] {
        assert_eq!(super::resource(&encode::resource(&wanted)), Ok(wanted));
    }
}

/// The numbers are written down: another build or another process must compute the same.
#[test]
fn a_version_is_of_the_content_alone() {
    let versions: Vec<u64> = bodies().iter().map(encode::version).collect();
    let unique: HashSet<_> = versions.iter().filter(|version| **version != 0).collect();
    assert_eq!(
        unique.len(),
        bodies().len() - 2,
        "only `unchanged` and `delta` have none"
    );
    assert_eq!(
        versions,
        bodies().iter().map(encode::version).collect::<Vec<_>>()
    );
    assert_eq!(encode::version(&Body::Endpoints(vec![])), EMPTY_SET);
    assert_eq!(encode::version(&Body::Inbound(inbound())), INBOUND);
}

const EMPTY_SET: u64 = 11347999130399048223;

const INBOUND: u64 = 3214517544292912413;

/// Breaks one field of a message that is otherwise sound, and returns the error.
fn broken(body: Body, break_it: impl FnOnce(&mut pb::SyncResponse)) -> String {
    let mut message = encode::response(&[Item {
        id: 5,
        version: 9,
        body,
    }]);
    break_it(&mut message);
    let bad = response(&message).remove(0).unwrap_err();
    assert_eq!(bad.id, 5);
    bad.error.to_string()
}
