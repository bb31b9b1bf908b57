//! How much fits in one message. A proxy takes 4 MiB and no more, so a large endpoint set travels as its first part and
//! deltas that complete it; what cannot be parted and is too large is not sent at all, and told.

use super::View;
use prost::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use weft_proxy_api::policy::outbound::Endpoint;
use weft_proxy_api::wire::{Body, Item, encode};

/// A message that has reached this size takes no more items.
pub const FULL: usize = 1 << 20;
/// Endpoints in one item. With what was in the message before, and the error of [`size`], well below 4 MiB.
const MAX_PART: usize = 2 << 20;
/// Any other item.
pub const MAX_ITEM: usize = 2 << 20;
/// An endpoint without its texts, or an address that is gone: at most this.
const ENDPOINT: usize = 80;

/// As much of the way to `view` as one item may hold: what to send, and what a proxy holds that has taken it over.
/// `from` is what it holds now, for a body that is a delta.
pub fn bounded(from: Option<&View>, view: &Arc<View>, body: Body) -> (Body, Arc<View>) {
    if size(&body) <= MAX_PART {
        return (body, view.clone());
    }
    match (body, from.map(|from| &from.body)) {
        (Body::Endpoints(mut all), _) => {
            all.truncate(fitting(&all, MAX_PART).max(1));
            let body = Body::Endpoints(all);
            (body.clone(), version_of(body))
        }
        (
            Body::Delta {
                base,
                mut upsert,
                mut remove,
            },
            Some(Body::Endpoints(old)),
        ) => {
            upsert.truncate(fitting(&upsert, MAX_PART / 2));
            remove.truncate(MAX_PART / 2 / ENDPOINT);
            let holds = version_of(Body::Endpoints(apply(old, &upsert, &remove)));
            let body = Body::Delta {
                base,
                upsert,
                remove,
            };
            (body, holds)
        }
        (body, _) => (body, view.clone()),
    }
}

/// What a body takes in a message: of endpoints a little more than that, of everything else the exact number.
pub fn size(body: &Body) -> usize {
    match body {
        Body::Unchanged => ENDPOINT,
        Body::Endpoints(all) => all.iter().map(endpoint).sum(),
        Body::Delta { upsert, remove, .. } => {
            upsert.iter().map(endpoint).sum::<usize>() + remove.len() * ENDPOINT
        }
        other => {
            let item = Item {
                id: 0,
                version: 0,
                body: other.clone(),
            };
            encode::response(&[item]).encoded_len()
        }
    }
}

fn endpoint(endpoint: &Endpoint) -> usize {
    let identity = endpoint.identity.as_ref();
    let identity = identity.map_or(0, |identity| identity.as_str().len());
    let Endpoint {
        namespace,
        pod,
        workload,
        zone,
        ..
    } = endpoint;
    ENDPOINT + identity + namespace.len() + pod.len() + workload.len() + zone.len()
}

fn fitting(endpoints: &[Endpoint], limit: usize) -> usize {
    let sizes = endpoints.iter().map(endpoint);
    let sums = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= limit).count()
}

fn apply(old: &[Endpoint], upsert: &[Endpoint], remove: &[SocketAddr]) -> Vec<Endpoint> {
    let all = old.iter().chain(upsert);
    let mut all: BTreeMap<SocketAddr, &Endpoint> = all.map(|one| (one.address, one)).collect();
    for address in remove {
        all.remove(address);
    }
    all.into_values().cloned().collect()
}

fn version_of(body: Body) -> Arc<View> {
    Arc::new(View {
        version: encode::version(&body),
        body,
    })
}
