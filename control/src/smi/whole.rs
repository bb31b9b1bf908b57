//! For tests: an object of each kind and version with every field that version knows.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

/// The fields of an object beside apiVersion, kind and metadata; it is of the namespace `shop`.
pub(crate) fn whole(kind: &str, version: &str) -> Value {
    let old = |count: u8| version[7..].parse::<u8>().unwrap() <= count;
    let mut subject = json!({"kind": "ServiceAccount", "name": "a", "namespace": "shop"});
    if !old(3) {
        subject["group"] = json!("core");
    }
    let mut item = json!({"name": "a", "pathRegex": "/", "methods": ["GET"]});
    if !old(1) {
        item["headers"] = json!([{"x": "b"}]);
    }
    match kind {
        "TrafficSplit" => {
            let mut spec = json!({"service": "a", "backends": [{"service": "b", "weight": 1}]});
            if !old(2) {
                let group =
                    json!({"kind": "HTTPRouteGroup", "name": "a", "apiGroup": "specs.smi-spec.io"});
                spec["matches"] = json!([group]);
            }
            json!({"spec": spec})
        }
        "TrafficTarget" => {
            let rules = json!([{"kind": "HTTPRouteGroup", "name": "a", "matches": ["b"]}]);
            let mut destination = subject.clone();
            destination["port"] = json!("80");
            match old(1) {
                true => json!({"destination": destination, "sources": [subject], "specs": rules}),
                false => {
                    json!({"spec": {"destination": destination, "sources": [subject], "rules": rules}})
                }
            }
        }
        "IdentityBinding" => json!({"spec": {"schemes": {
            "podLabelSelector": {"matchLabels": {"a": "b"}},
            "spiffeIdentities": ["a/ns/shop/sa/b"],
        }}}),
        "HTTPRouteGroup" if old(2) => json!({"matches": [item]}),
        "HTTPRouteGroup" => json!({"spec": {"matches": [item]}}),
        _ if old(2) => json!({}),
        _ if old(3) => json!({"spec": {}}),
        _ => json!({"spec": {"matches": {"name": "a", "ports": [80]}}}),
    }
}
