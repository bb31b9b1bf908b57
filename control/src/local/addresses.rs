//! Which address a pod or a Service gets. Addresses are not given out again soon, so that nobody talks to a stranger.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address of the node on its bridge.
pub(crate) const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
/// The same, IPv6.
pub(crate) const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, 1);
/// Bits of the pods' network.
pub(crate) const POD_BITS_V4: u8 = 16;
/// The same, IPv6.
pub(crate) const POD_BITS_V6: u8 = 64;
/// First address of the Services' network.
pub(crate) const SERVICES_V4: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 0);
/// Bits of the Services' network.
pub(crate) const SERVICE_BITS_V4: u8 = 16;
/// First address of the Services' network, IPv6.
pub(crate) const SERVICES_V6: Ipv6Addr = Ipv6Addr::new(0xfd43, 0, 0, 0, 0, 0, 0, 0);
/// Bits of the Services' network, IPv6.
pub(crate) const SERVICE_BITS_V6: u8 = 112;

const FIRST: u16 = 256;
const LAST: u16 = u16::MAX - 1;

/// Both addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodAddresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Numbers in use, by who uses them, handed out round.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u16,
    used: HashMap<u16, String>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            next: FIRST,
            used: HashMap::new(),
        }
    }
}

impl Numbers {
    /// A number nobody uses; `None` when all 65,000 are taken.
    pub(crate) fn take(&mut self, owner: &str) -> Option<u16> {
        for _ in FIRST..=LAST {
            let number = self.next;
            self.next = if number == LAST { FIRST } else { number + 1 };
            // x.y.z.0 and x.y.z.255 are legal here, but surprise people and some tools.
            if matches!(number & 0xff, 0 | 0xff) || self.used.contains_key(&number) {
                continue;
            }
            self.used.insert(number, owner.to_owned());
            return Some(number);
        }
        None
    }

    /// Take this very number, for a Service that names its address.
    pub(crate) fn reserve(&mut self, number: u16, owner: &str) -> bool {
        self.used.entry(number).or_insert_with(|| owner.to_owned()) == owner
    }

    /// Give back everything of that owner.
    pub(crate) fn release(&mut self, owner: &str) {
        self.used.retain(|_, by| by != owner);
    }
}

/// Addresses of the pod with that number.
pub(crate) fn pod(number: u16) -> PodAddresses {
    let [high, low] = number.to_be_bytes();
    PodAddresses {
        v4: Ipv4Addr::new(10, 42, high, low),
        v6: Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, number),
    }
}

/// Addresses of the Service with that number.
pub(crate) fn service(number: u16, v6: bool) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if v6 {
        Ipv6Addr::new(0xfd43, 0, 0, 0, 0, 0, 0, number).into()
    } else {
        Ipv4Addr::new(10, 43, high, low).into()
    }
}

/// The number of an address in the Services' network.
pub(crate) fn service_number(ip: IpAddr) -> Option<u16> {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [10, 43, high, low] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        },
        IpAddr::V6(ip) => {
            (ip.segments()[..7] == SERVICES_V6.segments()[..7]).then(|| ip.segments()[7])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_go_round_and_skip_what_is_taken() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.take("a"), Some(257));
        assert_eq!(numbers.take("b"), Some(258));
        numbers.release("a");
        assert_eq!(
            numbers.take("c"),
            Some(259),
            "a freed address is not the next one given"
        );
        assert!(numbers.reserve(300, "d"));
        assert!(numbers.reserve(300, "d"));
        assert!(!numbers.reserve(300, "e"));
    }

    #[test]
    fn numbers_end() {
        let mut numbers = Numbers::default();
        let given = std::iter::from_fn(|| numbers.take("x")).count();
        assert!(given > 64_000 && numbers.take("y").is_none());
        numbers.release("x");
        assert!(numbers.take("y").is_some());
    }

    #[test]
    fn addresses_of_numbers() {
        assert_eq!(pod(257).v4, Ipv4Addr::new(10, 42, 1, 1));
        assert_eq!(pod(257).v6.to_string(), "fd42::101");
        assert_eq!(service(513, false).to_string(), "10.43.2.1");
        assert_eq!(service_number("10.43.2.1".parse().unwrap()), Some(513));
        assert_eq!(service_number("fd43::201".parse().unwrap()), Some(513));
        assert_eq!(service_number("10.42.2.1".parse().unwrap()), None);
    }
}
