//! One clear error for each malformed field, with its path.

use super::*;

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
