//! What connections to an endpoint turned out to carry, so that bulk gets a connection of its own.
//!
//! A stream saves its handshake (some 0.5 ms of CPU at both ends, resumed) and costs more for each byte (some 0.4 s for
//! a GB: frames, windows, a hop between tasks). They are even at about a megabyte. Nobody can tell beforehand, but one
//! connection to an endpoint is like the next.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Bytes, both ways together, from which on a connection would have been better off by itself.
const BULKY: u64 = 1024 * 1024;
/// Connections in a row that stay below it until tunnels are used again.
const FORGET: u8 = 8;

/// What was seen of one endpoint.
#[derive(Debug, Default)]
pub struct Sizes(AtomicU8);

/// Sees one connection grow and end.
#[derive(Debug)]
pub struct Size {
    of: std::sync::Arc<Sizes>,
    bytes: AtomicU64,
}

impl Sizes {
    /// Is the next connection likely to carry much?
    pub fn expects_bulk(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

impl Size {
    /// Of a connection that begins.
    pub fn new(of: std::sync::Arc<Sizes>) -> Self {
        Self {
            of,
            bytes: AtomicU64::new(0),
        }
    }

    /// So many bytes more.
    pub fn add(&self, bytes: u64) {
        let before = self.bytes.load(Relaxed);
        self.bytes.store(before + bytes, Relaxed);
        if before < BULKY && before + bytes >= BULKY {
            self.of.0.store(FORGET, Relaxed);
        }
    }
}

impl Drop for Size {
    fn drop(&mut self) {
        if self.bytes.load(Relaxed) < BULKY {
            let less = |seen: u8| seen.checked_sub(1);
            let _ = self.of.0.fetch_update(Relaxed, Relaxed, less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn bulk_is_expected_after_bulk_and_forgotten_after_small_ones() {
        let sizes = Arc::new(Sizes::default());
        let carry = |bytes: u64| {
            let size = Size::new(sizes.clone());
            (0..bytes / 1000).for_each(|_| size.add(1000));
            sizes.expects_bulk()
        };
        assert!(!carry(BULKY / 2), "small ones say nothing");
        assert!(carry(2 * BULKY), "seen while it is still open");
        for _ in 0..FORGET {
            assert!(sizes.expects_bulk());
            carry(1000);
        }
        assert!(!sizes.expects_bulk());
    }
}
