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
    is_among(&mut KNOWN.lock(), ip, read)
}

/// Is it among the addresses known, or among those that `read` finds now?
fn is_among(
    known: &mut Option<Known>,
    ip: IpAddr,
    read: impl FnOnce() -> Option<Vec<IpAddr>>,
) -> bool {
    if let Some(known) = known {
        let (found, age) = (known.addresses.contains(&ip), known.read.elapsed());
        if age < if found { OLD } else { FRESH } {
            return found;
        }
    }
    // Where the kernel cannot be asked, as no descriptor is left to ask with, what it said last still holds.
    if let Some(addresses) = read() {
        let read = Instant::now();
        *known = Some(Known { addresses, read });
    }
    known
        .as_ref()
        .is_some_and(|known| known.addresses.contains(&ip))
}

/// As the kernel says now; `None`: it cannot be asked.
fn read() -> Option<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or(address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    Some(addresses.filter_map(ip).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_said_last_holds_where_the_kernel_cannot_be_asked() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (own, other) = (ip("10.0.0.5"), ip("10.0.0.6"));
        let mut known = None;
        assert!(!is_among(&mut known, own, || None));
        assert!(is_among(&mut known, own, || Some(vec![own])));
        let long_ago = Instant::now().checked_sub(OLD).unwrap();
        known.as_mut().unwrap().read = long_ago;
        assert!(is_among(&mut known, own, || None));
        assert!(!is_among(&mut known, other, || None));
        assert!(!is_among(&mut known, own, || Some(vec![other])));
    }

    #[test]
    fn loopback_is_ours_and_documentation_is_not() {
        for _ in 0..2 {
            assert!(is_own("127.0.0.1".parse().unwrap()));
            assert!(!is_own("192.0.2.1".parse().unwrap()));
        }
    }
}
