//! Items in, changes and answers out.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::tls::tests::TestCa;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::wire::decode::DecodeError;

fn endpoint(n: u8) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([10, 0, 0, n], 80)),
        identity: None,
        namespace: "shop".into(),
        pod: format!("web-{n}"),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Detect,
    }
}

fn set() -> Resource {
    Resource::Endpoints("shop/web:80".into())
}

fn id(message: &Message) -> u32 {
    match message {
        Message::Subscribe(at) => at.id,
        _ => panic!("{message:?} is no subscription"),
    }
}

fn take(held: &mut Held, id: u32, version: u64, body: Body) -> Effect {
    held.take(Ok(Item { id, version, body }))
}

fn addresses(effect: &Effect) -> Vec<u16> {
    match effect.change.as_ref().unwrap() {
        Change::Endpoints(_, all) => all
            .iter()
            .map(|at| u16::from(at.address.to_string().as_bytes()[7] - b'0'))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn delta(base: u64, upsert: Vec<Endpoint>, remove: &[u8]) -> Body {
    Body::Delta {
        base,
        upsert,
        remove: remove.iter().map(|n| endpoint(*n).address).collect(),
    }
}

#[test]
fn a_delta_changes_what_is_held() {
    let mut held = Held::default();
    let id = id(&held.subscribe(set()).unwrap());
    let whole = take(
        &mut held,
        id,
        1,
        Body::Endpoints(vec![endpoint(1), endpoint(2)]),
    );
    assert_eq!(addresses(&whole), [1, 2]);
    assert_eq!(whole.answers, [Message::Ack(pb::Ack { id, version: 1 })]);
    let next = take(&mut held, id, 2, delta(1, vec![endpoint(3)], &[1]));
    assert_eq!(addresses(&next), [2, 3]);
    let moved = Endpoint {
        weight: 5,
        ..endpoint(3)
    };
    let effect = take(&mut held, id, 3, delta(2, vec![moved.clone()], &[]));
    assert_eq!(
        effect.change,
        Some(Change::Endpoints(
            "shop/web:80".into(),
            vec![endpoint(2), moved]
        ))
    );
}

#[test]
fn a_delta_against_something_else_starts_over() {
    let mut held = Held::default();
    let first = id(&held.subscribe(set()).unwrap());
    take(&mut held, first, 1, Body::Endpoints(vec![endpoint(1)]));
    let effect = take(&mut held, first, 9, delta(7, vec![endpoint(2)], &[]));
    assert_eq!(effect.change, None, "the last good one stays");
    let [
        Message::Nack(_),
        Message::Unsubscribe(gone),
        Message::Subscribe(again),
    ] = &effect.answers[..]
    else {
        panic!("{:?}", effect.answers)
    };
    assert_eq!((gone.id, again.version), (first, 0));
    assert_ne!(again.id, first, "ids are unique in a stream");
    assert_eq!(
        take(&mut held, first, 10, Body::Endpoints(vec![])),
        Effect::default(),
        "too late"
    );
    assert_eq!(
        addresses(&take(
            &mut held,
            again.id,
            10,
            Body::Endpoints(vec![endpoint(4)])
        )),
        [4]
    );
}

#[test]
fn a_malformed_item_keeps_the_last_good_one() {
    let mut held = Held::default();
    let id = id(&held.subscribe(set()).unwrap());
    take(&mut held, id, 1, Body::Endpoints(vec![endpoint(1)]));
    let error = DecodeError {
        field: "items[0]".into(),
        reason: "junk".into(),
    };
    let effect = held.take(Err(BadItem {
        id,
        version: 2,
        error,
    }));
    assert!(effect.rejected && effect.change.is_none());
    for body in [
        Body::Outbound(Outbound::PassThrough),
        Body::Endpoints(vec![endpoint(1), endpoint(1)]),
    ] {
        assert!(take(&mut held, id, 2, body).rejected);
    }
    assert_eq!(
        addresses(&take(&mut held, id, 3, delta(1, vec![endpoint(2)], &[]))),
        [1, 2]
    );
}

#[test]
fn a_new_stream_names_what_is_held() {
    let mut held = Held::default();
    let id = id(&held.subscribe(set()).unwrap());
    assert!(held.subscribe(set()).is_none(), "once");
    held.subscribe(Resource::Inbound);
    take(&mut held, id, 41, Body::Endpoints(vec![endpoint(1)]));
    let versions: Vec<_> = held
        .resume()
        .map(|message| match message {
            Message::Subscribe(at) => at.version,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(versions, [41, 0]);
    let effect = take(&mut held, id, 41, Body::Unchanged);
    assert!(effect.change.is_none() && !effect.rejected);
    assert!(
        take(&mut held, id, 42, Body::Unchanged).rejected,
        "unchanged, but not what we hold"
    );
}

#[test]
fn a_trust_bundle_without_a_root_is_rejected() {
    let mut held = Held::default();
    let id = id(&held.subscribe(Resource::Trust).unwrap());
    let trust = |roots| {
        Body::Trust(Trust {
            roots,
            domain: "cluster.local".into(),
        })
    };
    for unusable in [vec![], vec![vec![1]], vec![b"root".to_vec(), vec![]]] {
        let effect = take(&mut held, id, 1, trust(unusable));
        assert!(effect.rejected && effect.change.is_none(), "{effect:?}");
    }
    let root = TestCa::new().root;
    assert!(matches!(
        take(&mut held, id, 1, trust(vec![vec![1], root])).change,
        Some(Change::Trust(_))
    ));
}

#[test]
fn what_is_unsubscribed_is_forgotten() {
    let mut held = Held::default();
    let id = id(&held.subscribe(set()).unwrap());
    assert_eq!(
        held.unsubscribe(&set()),
        Some(Message::Unsubscribe(pb::Unsubscribe { id }))
    );
    assert_eq!(held.unsubscribe(&set()), None);
    assert_eq!(
        (held.len(), take(&mut held, id, 1, Body::Endpoints(vec![]))),
        (0, Effect::default())
    );
}
