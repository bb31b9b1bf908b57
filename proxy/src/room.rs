//! How many connections the process takes at once. Beyond that the next one is closed at once: to those who are served
//! that is kinder than to run out of descriptors, or to be ended by the kernel for memory. And how that shows where it
//! happens nevertheless.
//!
//! A client that says nothing needs no permission for that, so one address may fill half of the room with connections
//! that have not shown yet who they are and what they want; the rest is for others.

use crate::balance;
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Descriptors that are not for connections: listeners, the controller, admin, files.
const OTHER_FILES: u64 = 64;
/// Descriptors of one connection: its own, and the one to the other side.
const FILES: u64 = 2;
/// Memory of a proxy that is busy with few connections, bytes.
const OTHER_MEMORY: u64 = 24 << 20;
/// Memory of one connection and what it waits for, bytes: idle ones take two thirds of it.
const MEMORY: u64 = 32 << 10;
/// Fewer are no use to anybody.
const LEAST: u64 = 64;
/// Counts of clients that are still to say who they are; addresses that share one also share what they may have. A power
/// of two.
const COUNTS: usize = 1024;
/// Where the kernel tells the memory limit of our group: version 2, version 1.
const MEMORY_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// Why there is no place.
pub const ALL_TAKEN: &str = "as many connections are open as the proxy takes";

/// No descriptors or memory left, as opposed to one connection that failed.
pub fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Room for a number of connections.
#[derive(Debug)]
pub struct Room {
    most: usize,
    taken: AtomicUsize,
    unproven: Box<[AtomicU32]>,
    /// So that nobody can choose with whom to share a count.
    seed: u64,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Room>);

/// A connection whose client has not shown yet who it is, until it is dropped.
#[derive(Debug)]
pub struct Unproven(Arc<Room>, usize);

impl Room {
    /// For this many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
            unproven: (0..COUNTS).map(|_| AtomicU32::new(0)).collect(),
            seed: fastrand::u64(..),
        })
    }

    /// For as many as `set` says; 0: as many as descriptors and memory allow.
    pub fn from_setting(set: usize) -> Arc<Self> {
        if set > 0 {
            return Self::new(set);
        }
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let memory = MEMORY_LIMITS
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
        Self::new(derived(files, memory))
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Takes a place; `None`: there is none left.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone());
        // Dropping the place gives back what was too much.
        (self.taken.fetch_add(1, Relaxed) < self.most).then_some(place)
    }

    /// Lets a client in that is to show who it is; `None`: too many of its address are about to.
    pub fn greet(self: &Arc<Self>, client: IpAddr) -> Option<Unproven> {
        let at = self.count_of(client);
        let unproven = Unproven(self.clone(), at);
        let before = self.unproven[at].fetch_add(1, Relaxed) as usize;
        (before < self.most.div_ceil(2)).then_some(unproven)
    }

    fn count_of(&self, client: IpAddr) -> usize {
        let mixed = balance::key_of_ip(client) ^ self.seed;
        // The upper bits of a product depend on all bits of its factors.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % COUNTS
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.unproven[self.1].fetch_sub(1, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// Connections that fit into this many descriptors and this much memory; `None`: memory is not limited.
fn derived(files: u64, memory: Option<u64>) -> usize {
    let by_files = files.saturating_sub(OTHER_FILES) / FILES;
    let by_memory = memory.map_or(u64::MAX, |all| all.saturating_sub(OTHER_MEMORY) / MEMORY);
    let most = by_files.min(by_memory).max(LEAST);
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn descriptors_and_memory_decide() {
        let mib = |n: u64| Some(n << 20);
        let rows = [
            (1024, None, 480),
            (1 << 20, mib(64), 1280),
            (1 << 20, mib(128), 3328),
            (1024, mib(1024), 480),
            (10, None, 64),
            (1 << 20, mib(16), 64),
        ];
        for (files, memory, expected) in rows {
            assert_eq!(derived(files, memory), expected, "{files} {memory:?}");
        }
    }

    #[test]
    fn silent_clients_of_one_address_leave_room_for_others() {
        let room = Room::new(8);
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let elsewhere = |n: &u8| room.count_of(address(*n)) != room.count_of(address(1));
        let other = address((2..=255).find(elsewhere).unwrap());
        let mut silent: Vec<_> = (0..4).map(|_| room.greet(address(1)).unwrap()).collect();
        assert!(room.greet(address(1)).is_none());
        let _other = room.greet(other).unwrap();
        silent.pop();
        assert!(room.greet(address(1)).is_some(), "one has shown who it is");
    }

    #[test]
    fn a_place_is_given_back() {
        let room = Room::new(2);
        let (first, _second) = (room.take().unwrap(), room.take().unwrap());
        assert!(room.take().is_none() && room.take().is_none());
        drop(first);
        assert!(room.take().is_some());
    }
}
