//! Which address a pod or a Service gets. Addresses are not given out again soon, so that nobody talks to a stranger.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::options::Rung;

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

/// Where a node's addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Networks of its own behind a bridge.
    Bridge,
    /// The machine's loopback network, which it shares with everybody.
    ///
    /// ```text
    ///  127.42.x.y    a pod, as everybody calls it: its proxy's inbound listeners, or an unmeshed application itself
    ///  127.41.x.y    the application of a meshed pod
    ///  127.43.x.y    a Service
    ///  127.128.0.0/9 a Service as one meshed pod calls it: its proxy's outbound listener (13 bits Service, 10 bits pod)
    /// ```
    Loopback,
}

impl Space {
    /// Of a node on that rung.
    pub(crate) fn of(rung: Rung) -> Self {
        match rung {
            Rung::User | Rung::Root => Space::Bridge,
            Rung::Loopback => Space::Loopback,
        }
    }

    fn first_byte(self) -> u8 {
        match self {
            Space::Bridge => 10,
            Space::Loopback => 127,
        }
    }

    /// The node itself.
    pub(crate) fn node(self) -> Ipv4Addr {
        let [_, rest @ ..] = NODE_V4.octets();
        Ipv4Addr::new(self.first_byte(), rest[0], rest[1], rest[2])
    }

    /// Numbers for pods.
    pub(crate) fn pods(self) -> Numbers {
        match self {
            Space::Bridge => Numbers::up_to(u16::MAX - 1),
            Space::Loopback => Numbers::up_to(FIRST + (1 << POD_BITS) - 1),
        }
    }

    /// Numbers for Services.
    pub(crate) fn services(self) -> Numbers {
        match self {
            Space::Bridge => Numbers::up_to(u16::MAX - 1),
            Space::Loopback => Numbers::up_to((1 << SERVICE_BITS) - 1),
        }
    }

    /// Addresses of the pod with that number.
    pub(crate) fn pod(self, number: u16) -> PodAddresses {
        let [high, low] = number.to_be_bytes();
        PodAddresses {
            v4: Ipv4Addr::new(self.first_byte(), 42, high, low),
            v6: Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, number),
        }
    }

    /// Address of the Service with that number. The loopback network has one family.
    pub(crate) fn service(self, number: u16, v6: bool) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        if v6 && self == Space::Bridge {
            Ipv6Addr::new(0xfd43, 0, 0, 0, 0, 0, 0, number).into()
        } else {
            Ipv4Addr::new(self.first_byte(), 43, high, low).into()
        }
    }
}

/// Bits that tell pods apart in the address of an outbound listener.
const POD_BITS: u16 = 10;
/// Bits that tell Services apart there.
const SERVICE_BITS: u16 = 13;

/// Loopback: where the application of a meshed pod listens.
pub(crate) fn application(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 41, high, low)
}

/// Loopback: where the proxy of a pod listens for what its application says to a Service.
pub(crate) fn outbound(pod: u16, service: u16) -> Ipv4Addr {
    let place = (u32::from(service) << POD_BITS) | u32::from(pod.saturating_sub(FIRST));
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 128, 0, 0).to_bits() | place)
}

/// Both addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodAddresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Numbers in use, by who uses them, handed out round.
#[derive(Debug)]
pub(crate) struct Numbers {
    last: u16,
    next: u16,
    used: HashMap<u16, String>,
}

impl Numbers {
    fn up_to(last: u16) -> Self {
        Self {
            last,
            next: FIRST,
            used: HashMap::new(),
        }
    }

    /// A number nobody uses; `None` when all are taken.
    pub(crate) fn take(&mut self, owner: &str) -> Option<u16> {
        for _ in FIRST..=self.last {
            let number = self.next;
            self.next = if number == self.last {
                FIRST
            } else {
                number + 1
            };
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
        number <= self.last && self.used.entry(number).or_insert_with(|| owner.to_owned()) == owner
    }

    /// Is it that owner's?
    pub(crate) fn is_of(&self, number: u16, owner: &str) -> bool {
        self.used.get(&number).is_some_and(|by| by == owner)
    }

    /// Give back everything of owners that are there no more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.used.retain(|_, by| is_there(by));
    }

    /// Give back everything of that owner.
    pub(crate) fn release(&mut self, owner: &str) {
        self.used.retain(|_, by| by != owner);
    }
}

/// The number of an address in the Services' network, of either space: a manifest that names one works in both.
pub(crate) fn service_number(ip: IpAddr) -> Option<u16> {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [10 | 127, 43, high, low] => Some(u16::from_be_bytes([high, low])),
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
        let mut numbers = Space::Bridge.pods();
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
        numbers.keep(|owner| owner != "d");
        assert!(numbers.reserve(300, "e"), "whoever named it is gone");
    }

    #[test]
    fn numbers_end() {
        let mut numbers = Space::Bridge.pods();
        let given = std::iter::from_fn(|| numbers.take("x")).count();
        assert!(given > 64_000 && numbers.take("y").is_none());
        numbers.release("x");
        assert!(numbers.take("y").is_some());
    }

    #[test]
    fn addresses_of_numbers() {
        let space = Space::Bridge;
        assert_eq!(space.pod(257).v4, Ipv4Addr::new(10, 42, 1, 1));
        assert_eq!(space.pod(257).v6.to_string(), "fd42::101");
        assert_eq!(space.service(513, false).to_string(), "10.43.2.1");
        assert_eq!(service_number("10.43.2.1".parse().unwrap()), Some(513));
        assert_eq!(service_number("fd43::201".parse().unwrap()), Some(513));
        assert_eq!(service_number("10.42.2.1".parse().unwrap()), None);
    }

    #[test]
    fn on_loopback_every_pair_of_pod_and_service_has_an_address() {
        let space = Space::Loopback;
        let all = |mut numbers: Numbers| -> Vec<u16> {
            std::iter::from_fn(|| numbers.take("x")).collect()
        };
        let (pods, services) = (all(space.pods()), all(space.services()));
        assert!(pods.len() >= 1000 && services.len() > 7000);
        let mut seen = std::collections::HashSet::new();
        for pod in [pods[0], pods[1], pods[pods.len() - 1]] {
            for service in &services {
                let address = outbound(pod, *service);
                assert!(address.is_loopback() && address.octets()[1] >= 128);
                assert!(seen.insert(address), "{address} is given twice");
            }
        }
        assert_eq!(space.pod(257).v4, Ipv4Addr::new(127, 42, 1, 1));
        assert_eq!(space.node(), Ipv4Addr::new(127, 42, 0, 1));
        assert_eq!(application(257), Ipv4Addr::new(127, 41, 1, 1));
        assert_eq!(space.service(513, true).to_string(), "127.43.2.1");
        assert!(!space.services().reserve(9000, "x"));
    }
}
