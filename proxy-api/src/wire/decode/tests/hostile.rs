//! Messages made to do harm: they end in an error, never in a panic or in memory without bound.

use super::*;

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
