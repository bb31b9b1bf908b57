//! How many lines about refused and failed callers are written. Whoever reads the log slowly must not hold up traffic, and
//! whoever is refused a thousand times a second must not fill it; what is not said is still counted.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines in a second.
const PER_SECOND: u32 = 10;

/// So many lines in each second.
#[derive(Debug, Default)]
pub struct Lines(Mutex<Option<(Instant, u32)>>);

impl Lines {
    /// May another one be written?
    pub fn take(&self) -> bool {
        let mut second = self.0.lock();
        match &mut *second {
            Some((since, used)) if since.elapsed() < Duration::from_secs(1) => {
                *used = used.saturating_add(1);
                *used <= PER_SECOND
            }
            _ => {
                *second = Some((Instant::now(), 1));
                true
            }
        }
    }
}
