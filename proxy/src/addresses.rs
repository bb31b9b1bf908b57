//! The addresses of this pod, as the kernel says, remembered for a moment: they are asked for at every connection and
//! hardly ever change.

use parking_lot::Mutex;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An answer "not ours" is asked again after this time, as addresses may come late.
const FRESH: Duration = Duration::from_secs(1);
/// An answer "ours" is believed this long.
const OLD: Duration = Duration::from_secs(10);

/// What was read, and when.
struct Known {
    addresses: Vec<IpAddr>,
    read: Instant,
}

/// A fact about the network namespace the process is in, so there is one for the process.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Is it an address of this pod?
pub fn is_own(ip: IpAddr) -> bool {
    let mut known = KNOWN.lock();
    if let Some(known) = &*known {
        let (found, age) = (known.addresses.contains(&ip), known.read.elapsed());
        if age < if found { OLD } else { FRESH } {
            return found;
        }
    }
    let read = Known {
        addresses: read(),
        read: Instant::now(),
    };
    known.insert(read).addresses.contains(&ip)
}

fn read() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or(address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    addresses.filter_map(ip).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_is_ours_and_documentation_is_not() {
        for _ in 0..2 {
            assert!(is_own("127.0.0.1".parse().unwrap()));
            assert!(!is_own("192.0.2.1".parse().unwrap()));
        }
    }
}
