//! How many connections each address may have, so that one pod cannot take the places of all the others.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// Connections open now, by address.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// So many for each address.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from `address`, if it has one left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut all = self.taken.lock();
        let taken = all.entry(address).or_default();
        if *taken >= self.most {
            return None;
        }
        *taken += 1;
        Some(Place {
            places: self.clone(),
            address,
        })
    }
}

impl Place {
    /// Where the connection comes from.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.taken.lock();
        if let Entry::Occupied(mut taken) = all.entry(self.address) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_use_up_anothers_places() {
        let (places, greedy, other) = (Places::new(3), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held: Vec<Place> = (0..5).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(held.len(), 3);
        assert!(places.take(other).is_some());
        held.pop();
        assert!(places.take(greedy).is_some());
        held.clear();
        assert!(places.taken.lock().is_empty(), "nothing is kept");
    }
}
