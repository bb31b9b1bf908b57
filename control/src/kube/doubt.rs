//! How much an address may ask an API server in vain: what one pod makes up must not use up what all the others may ask.
//!
//! A question is charged to its address before it is asked, and given back once the token turns out to be good, or where
//! nothing was asked. So an address never has more questions under way than it may ask in vain.

use crate::serve::rate::{Limiter, Rate};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Addresses remembered. Where there are more, the others share what one may ask.
const MOST: usize = 4_096;
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What each address has asked in vain lately.
pub(super) struct Doubt(Mutex<Limiter<IpAddr>>);

/// One question. When this is dropped it is given back, unless it `stands`.
pub(super) struct Charge<'a> {
    doubt: &'a Doubt,
    address: IpAddr,
    /// It was asked, and nothing good is known of it.
    pub(super) stands: bool,
}

impl Doubt {
    /// Each address may ask so much in vain.
    pub(super) fn new(rate: Rate) -> Self {
        Self(Mutex::new(Limiter::new(rate)))
    }

    /// Charges one question; `None`: this address has asked too much in vain.
    pub(super) fn charge(&self, address: IpAddr, now: Instant) -> Option<Charge<'_>> {
        let mut known = self.0.lock();
        let is_new = !known.knows(&address);
        if is_new && known.len() >= MOST {
            known.forget(now);
        }
        let address = match is_new && known.len() >= MOST {
            true => OTHERS,
            false => address,
        };
        known.check(address, now).ok().map(|()| Charge {
            doubt: self,
            address,
            stands: false,
        })
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if !self.stands {
            let mut known = self.doubt.0.lock();
            known.give_back(&self.address, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    const RATE: Rate = Rate {
        burst: 128,
        interval: Duration::from_secs(1),
    };

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    /// How many questions of this address are taken, none of them any good.
    fn taken(doubt: &Doubt, address: IpAddr, now: Instant) -> usize {
        let charges = std::iter::from_fn(|| doubt.charge(address, now));
        charges.map(|mut charge| charge.stands = true).count()
    }

    #[test]
    fn an_address_uses_up_only_what_it_may_ask() {
        let (doubt, now) = (Doubt::new(RATE), Instant::now());
        assert_eq!(taken(&doubt, address(1), now), RATE.burst as usize);
        assert_eq!(taken(&doubt, address(1), now), 0);
        assert_eq!(taken(&doubt, address(2), now), RATE.burst as usize);
        let later = now + RATE.interval * 3;
        assert_eq!(taken(&doubt, address(1), later), 3, "it decays");
    }

    #[test]
    fn what_was_good_or_never_asked_costs_nothing() {
        let (doubt, now) = (Doubt::new(RATE), Instant::now());
        let held: Vec<_> = (0..RATE.burst)
            .map(|_| doubt.charge(address(1), now).unwrap())
            .collect();
        assert!(doubt.charge(address(1), now).is_none(), "all are under way");
        drop(held);
        assert!(doubt.0.lock().is_empty());
    }

    #[test]
    fn addresses_remembered_are_bounded_and_the_rest_share() {
        let (doubt, now) = (Doubt::new(RATE), Instant::now());
        for n in 0..2 * MOST as u32 {
            if let Some(mut charge) = doubt.charge(address(n), now) {
                charge.stands = true;
            }
        }
        assert_eq!(doubt.0.lock().len(), MOST + 1);
        assert!(
            doubt.charge(address(1), now).is_some(),
            "who is known is not of the rest"
        );
        let later = now + RATE.interval * RATE.burst;
        let new = address(20 * MOST as u32);
        assert_eq!(taken(&doubt, new, later), RATE.burst as usize);
        assert_eq!(
            doubt.0.lock().len(),
            1,
            "those that owe nothing are forgotten"
        );
    }
}
