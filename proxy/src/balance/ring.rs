//! Equal keys, equal endpoints: a ring of points, each endpoint at many of them, and a key goes to the next point. When an
//! endpoint comes or goes only its own keys move. Points depend on addresses alone, so that every proxy finds the same.

use super::endpoint::Endpoint;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Points of an endpoint of weight 1, as long as they are not too many in all.
const POINTS: u64 = 128;
/// Most points, besides one for each endpoint.
const MOST_POINTS: u64 = 64 * 1024;

/// The points, in order, and the index of the endpoint at each.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    pub(super) fn new(members: &[Arc<Endpoint>]) -> Self {
        let weights = members.iter().map(|at| u64::from(at.spec.weight.max(1)));
        let sum: u64 = weights.sum::<u64>().saturating_mul(POINTS);
        // By halves, so that the points of the others stay where they are when one comes or goes.
        let halves = (0..).find(|n| sum >> n <= MOST_POINTS).unwrap_or(0);
        let mut points = Vec::new();
        for (index, member) in (0u32..).zip(members) {
            let own = (u64::from(member.spec.weight.max(1)) * POINTS) >> halves;
            let seed = address_key(member.spec.address);
            points.extend((0..own.max(1)).map(|n| (mix(seed.wrapping_add(n)), index)));
        }
        points.sort_unstable();
        Self(points)
    }

    /// Indexes in the order in which they are asked for a key; repeats itself, and ends after one round.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let at = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at(at);
        after
            .iter()
            .chain(before)
            .map(|(_, index)| usize::try_from(*index).unwrap_or(0))
    }
}

/// The key of some bytes: FNV-1a, mixed. The same in every proxy and every version.
pub fn key_of(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The key of a client's address.
pub fn key_of_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => key_of(&ip.octets()),
        IpAddr::V6(ip) => key_of(&ip.octets()),
    }
}

pub(super) fn address_key(address: SocketAddr) -> u64 {
    mix(key_of_ip(address.ip()).wrapping_add(u64::from(address.port())))
}

/// splitmix64: every bit of the result depends on every bit given.
pub(super) fn mix(key: u64) -> u64 {
    let z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
