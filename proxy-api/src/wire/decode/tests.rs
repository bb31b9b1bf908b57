//! There and back for every body, one clear error for each malformed field, and no panic on junk.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::identity::SpiffeId;
use crate::policy::inbound::{Allow, Inbound, Ports, Probe, Source, Traffic};
use crate::policy::matching::{HeaderMatch, HttpMatch, TextMatch};
use crate::policy::outbound::{Backend, Endpoint, Outbound, Route, Service};
use crate::policy::{Access, ServicePort};
use crate::wire::encode;
use prost::Message;

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
const INBOUND: u64 = 7924844410407955623;

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

fn pb_inbound(message: &mut pb::SyncResponse) -> &mut pb::Inbound {
    match message.items[0].body.as_mut().unwrap() {
        pb::item::Body::Inbound(inbound) => inbound,
        other => panic!("{other:?}"),
    }
}

fn pb_service(message: &mut pb::SyncResponse) -> &mut pb::Service {
    match message.items[0].body.as_mut().unwrap() {
        pb::item::Body::Outbound(pb::Outbound {
            kind: Some(pb::outbound::Kind::Service(service)),
        }) => service,
        other => panic!("{other:?}"),
    }
}

fn pb_endpoints(message: &mut pb::SyncResponse) -> &mut Vec<pb::Endpoint> {
    match message.items[0].body.as_mut().unwrap() {
        pb::item::Body::Endpoints(set) => &mut set.endpoints,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_malformed_policy_is_named_by_its_field() {
    type Break = fn(&mut pb::Inbound);
    let table: [(Break, &str); 15] = [
        (|i| i.workload_ref = 0, "workload_ref: missing"),
        (|i| i.access = 0, "access: 0 is not a mode of access"),
        (|i| i.access = 99, "access: 99 is not a mode of access"),
        (
            |i| i.ports[1].port = 70_000,
            "ports[1].port: 70000 is not a port",
        ),
        (
            |i| i.ports[1].protocol = 99,
            "ports[1].protocol: 99 is not a protocol",
        ),
        (
            |i| i.allow[1].ports[1] = 0,
            "allow[1].ports[1]: 0 is not a port",
        ),
        (
            |i| i.allow[1].any_port = true,
            "allow[1].ports: not empty although any_port is true",
        ),
        (
            |i| i.allow[1].http_only = false,
            "allow[1].requests: not empty although http_only is false",
        ),
        (
            |i| i.allow[1].sources[0].identity_ref = 0,
            "allow[1].sources[0].identity_ref: missing",
        ),
        (
            |i| i.allow[1].sources[0].addresses[0] = vec![1, 2],
            "allow[1].sources[0].addresses[0]: an address has 4 or 16 bytes, not 2",
        ),
        (
            |i| i.allow[1].sources[0].any_address = true,
            "allow[1].sources[0].addresses: not empty although any_address is true",
        ),
        (
            |i| {
                i.allow[1].requests[2].path = Some(pb::TextMatch {
                    kind: 0,
                    text_ref: 1,
                })
            },
            "allow[1].requests[2].path.kind: 0 is not a kind of match",
        ),
        (
            |i| i.allow[1].requests[2].headers[0].value = None,
            "allow[1].requests[2].headers[0].value: missing",
        ),
        (
            |i| i.allow[1].requests[2].method_refs[1] = 0,
            "allow[1].requests[2].method_refs[1]: missing",
        ),
        (
            |i| i.probes[0].path_ref = 999,
            "probes[0].path_ref: reference 999 of 14 strings",
        ),
    ];
    for (break_it, expected) in table {
        let error = broken(Body::Inbound(inbound()), |message| {
            break_it(pb_inbound(message))
        });
        assert_eq!(error, format!("items[0].inbound.{expected}"));
    }
}

#[test]
fn a_hostile_string_is_refused_where_it_is_used() {
    let set = |from: &'static str, to: String| {
        broken(Body::Inbound(inbound()), move |message| {
            let index = message
                .strings
                .iter()
                .position(|text| text == from)
                .unwrap();
            message.strings[index] = to;
        })
    };
    for (from, to, expected) in [
        (
            "/v[12]/",
            "/a)|(?:.*".to_owned(),
            "allow[1].requests[2].path.text_ref: not a regular expression",
        ),
        (
            "x-a",
            "X-A".to_owned(),
            "allow[1].requests[0].headers[0].name_ref: not the name",
        ),
        (
            "deploy/web",
            "x".repeat(9000),
            "workload_ref: 9000 bytes of text",
        ),
        (
            "spiffe://cluster.local/ns/default/sa/front",
            "front".to_owned(),
            "allow[0].sources[0].identity_ref: \"front\" is not",
        ),
    ] {
        let error = set(from, to);
        assert!(
            error.starts_with(&format!("items[0].inbound.{expected}")),
            "{error}"
        );
    }
}

#[test]
fn a_malformed_service_or_set_is_named_by_its_field() {
    type Break = fn(&mut pb::Service);
    let table: [(Break, &str); 4] = [
        (|s| s.routes.clear(), "routes: missing"),
        (
            |s| drop(s.routes.pop()),
            "routes[0].matches: the last route must fit everything",
        ),
        (
            |s| s.routes[0].backends[1].endpoints_ref = 0,
            "routes[0].backends[1].endpoints_ref: missing",
        ),
        (|s| s.port = 0, "port: 0 is not a port"),
    ];
    for (break_it, expected) in table {
        let body = Body::Outbound(Outbound::Service(service()));
        let error = broken(body, |message| break_it(pb_service(message)));
        assert_eq!(error, format!("items[0].outbound.service.{expected}"));
    }
    let set = || Body::Endpoints(vec![endpoint("10.0.0.9:80", true)]);
    let error = broken(set(), |message| pb_endpoints(message)[0].address = None);
    assert_eq!(error, "items[0].endpoints.endpoints[0].address: missing");
    let error = broken(set(), |message| {
        let twin = pb_endpoints(message)[0].clone();
        pb_endpoints(message).push(twin);
    });
    assert_eq!(
        error,
        "items[0].endpoints.endpoints[1].address: the same address twice"
    );
    assert_eq!(
        broken(set(), |message| message.items[0].body = None),
        "items[0].body: missing"
    );
    assert_eq!(
        broken(set(), |message| message.items[0].version = 0),
        "items[0].version: 0 is no version"
    );
}

#[test]
fn one_malformed_item_leaves_the_others_unharmed() {
    let mut message = encode::response(&items());
    message.items[1].body = None;
    let decoded = response(&message);
    assert_eq!(decoded.iter().filter(|item| item.is_err()).count(), 1);
    let bad = decoded[1].as_ref().unwrap_err();
    assert_eq!(
        (bad.id, bad.version, bad.error.field.as_str()),
        (1, 2, "items[1].body")
    );
}

#[test]
fn a_small_message_cannot_unfold_without_bound() {
    let text = "m".repeat(8000);
    let http_match = pb::HttpMatch {
        object_ref: 1,
        name_ref: 1,
        method_refs: vec![1; 10_000],
        ..Default::default()
    };
    let allow = pb::Allow {
        object_ref: 1,
        http_only: true,
        requests: vec![http_match],
        ..Default::default()
    };
    let body = pb::item::Body::Inbound(pb::Inbound {
        workload_ref: 1,
        access: 1,
        allow: vec![allow],
        ..Default::default()
    });
    let item = pb::Item {
        id: 1,
        version: 1,
        body: Some(body),
    };
    let bad = response(&pb::SyncResponse {
        strings: vec![text],
        items: vec![item],
    })
    .remove(0)
    .unwrap_err();
    assert_eq!(bad.error.reason, "the response unfolds to too much text");
}

#[test]
fn junk_never_panics() {
    let sound = encode::response(&items()).encode_to_vec();
    for length in 0..sound.len() {
        decode_all(&sound[..length]);
    }
    let mut random = Random(1);
    for _ in 0..20_000 {
        let mut bytes = sound.clone();
        for _ in 0..=random.below(8) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        decode_all(&bytes);
    }
    for _ in 0..5_000 {
        let length = random.below(200);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        decode_all(&bytes);
    }
}

fn decode_all(bytes: &[u8]) {
    if let Ok(message) = pb::SyncResponse::decode(bytes) {
        for item in response(&message).into_iter().flatten() {
            encode::version(&item.body);
        }
    }
    if let Ok(message) = pb::Resource::decode(bytes) {
        let _ = resource(&message);
    }
}

/// xorshift: fixed, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
