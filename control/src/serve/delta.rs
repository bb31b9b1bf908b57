//! The difference between two endpoint sets, as little as it can be told.

use std::collections::HashMap;
use std::net::SocketAddr;
use weft_proxy_api::policy::outbound::Endpoint;
use weft_proxy_api::wire::Body;

/// What turns `old` (of version `base`) into `new`; `None` where the whole set is not larger.
pub fn between(base: u64, old: &[Endpoint], new: &[Endpoint]) -> Option<Body> {
    let mut gone: HashMap<SocketAddr, &Endpoint> = old
        .iter()
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    let upsert: Vec<Endpoint> = new
        .iter()
        .filter(|endpoint| gone.remove(&endpoint.address) != Some(*endpoint))
        .cloned()
        .collect();
    let mut remove: Vec<SocketAddr> = gone.into_keys().collect();
    remove.sort_unstable();
    (upsert.len() + remove.len() < new.len()).then_some(Body::Delta {
        base,
        upsert,
        remove,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weft_proxy_api::policy::Protocol;

    fn endpoint(last: u8, weight: u32) -> Endpoint {
        Endpoint {
            address: ([10, 0, 0, last], 80).into(),
            identity: None,
            namespace: "default".into(),
            pod: format!("web-{last}"),
            workload: "deploy/web".into(),
            zone: String::new(),
            weight,
            protocol: Protocol::Detect,
        }
    }

    fn set(members: &[(u8, u32)]) -> Vec<Endpoint> {
        members
            .iter()
            .map(|(last, weight)| endpoint(*last, *weight))
            .collect()
    }

    #[test]
    fn tells_what_came_changed_and_went() {
        let old = set(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        let new = set(&[(1, 1), (2, 9), (4, 1), (5, 1), (6, 1), (7, 1)]);
        let expected = Body::Delta {
            base: 7,
            upsert: set(&[(2, 9), (5, 1), (6, 1), (7, 1)]),
            remove: vec![([10, 0, 0, 3], 80).into()],
        };
        assert_eq!(between(7, &old, &new), Some(expected));
    }

    #[test]
    fn a_delta_as_large_as_the_set_is_none() {
        for (old, new) in [
            (set(&[]), set(&[(1, 1)])),
            (set(&[(1, 1)]), set(&[])),
            (set(&[(1, 1), (2, 1)]), set(&[(1, 2), (2, 2)])),
            (set(&[(1, 1), (2, 1), (3, 1)]), set(&[(1, 1)])),
        ] {
            assert_eq!(between(7, &old, &new), None, "{old:?} -> {new:?}");
        }
    }
}
