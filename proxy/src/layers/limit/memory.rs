//! Is the memory that we may have nearly used up? Then new connections and requests are refused rather than everything
//! lost: a process that takes more than its cgroup allows is killed. Looked at for connections, and for requests when many
//! are under way; a thousand times a second at most.
//!
//! Thousands of requests may be let in before the first of them has taken what it needs, so those that came lately count
//! with what they will.

use crate::metrics::Flights;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Of a hundred parts of the limit; the rest is for what is under way already, and for the kernel's buffers.
const ENOUGH: u64 = 75;
/// How old what is known of the use, and of the limit, may be.
const USE_HOLDS: Duration = Duration::from_millis(1);
const LIMIT_HOLDS: Duration = Duration::from_secs(1);
/// Memory of one request that waits for its answer, bytes: two thirds of it were measured.
const REQUEST: u64 = 12 << 10;
/// Requests that are older than this have taken what they need; at most twice as long they count nevertheless.
const SETTLES: Duration = Duration::from_millis(500);
/// As much is no limit: the kernel says "none" by a number near 2^63.
const NONE: u64 = 1 << 60;

/// What one worker knows of the memory of the whole process.
#[derive(Debug)]
pub struct Memory {
    begin: Instant,
    /// Nanoseconds since `begin` until which what is known holds.
    limit_until: AtomicU64,
    use_until: AtomicU64,
    limit: AtomicU64,
    short: AtomicBool,
    read: Read,
    /// Requests under way, of all workers.
    flights: Vec<Arc<Flights>>,
    settled: Settled,
}

/// Requests under way that have what they need: no more than there were some time ago, and at any time since.
#[derive(Debug, Default)]
struct Settled {
    until: AtomicU64,
    before: AtomicUsize,
    latest: AtomicUsize,
}

impl Settled {
    /// Of `total` that there are now, those that came lately.
    fn young(&self, total: usize, now: Duration) -> usize {
        let latest = self.latest.fetch_min(total, Relaxed).min(total);
        let before = self.before.fetch_min(total, Relaxed).min(total);
        if has_passed(&self.until, now, SETTLES) {
            self.before.store(latest, Relaxed);
            self.latest.store(total, Relaxed);
        }
        total - before
    }
}

/// What reads the limit and the use, in bytes.
#[derive(Debug, Clone, Copy)]
struct Read {
    limit: fn() -> Option<u64>,
    used: fn() -> Option<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::watching(Vec::new())
    }
}

impl Memory {
    /// Counts requests under way with what they will need.
    pub fn watching(flights: Vec<Arc<Flights>>) -> Self {
        let read = Read { limit, used };
        Self {
            flights,
            ..Self::reading(read)
        }
    }

    fn reading(read: Read) -> Self {
        Self {
            begin: Instant::now(),
            limit_until: AtomicU64::new(0),
            use_until: AtomicU64::new(0),
            limit: AtomicU64::new(NONE),
            short: AtomicBool::new(false),
            read,
            flights: Vec::new(),
            settled: Settled::default(),
        }
    }

    /// Should nothing more be begun?
    pub fn is_short(&self) -> bool {
        self.is_short_at(self.begin.elapsed())
    }

    fn is_short_at(&self, now: Duration) -> bool {
        if has_passed(&self.limit_until, now, LIMIT_HOLDS) {
            let limit = (self.read.limit)().unwrap_or(NONE);
            self.limit.store(limit, Relaxed);
        }
        let limit = self.limit.load(Relaxed);
        if limit >= NONE {
            return false;
        }
        if has_passed(&self.use_until, now, USE_HOLDS) {
            let total = self.flights.iter().map(|flights| flights.total()).sum();
            let young = self.settled.young(total, now) as u64;
            let used = (self.read.used)().unwrap_or(0) + young * REQUEST;
            let short = used >= limit / 100 * ENOUGH;
            if short && !self.short.swap(short, Relaxed) {
                tracing::warn!(
                    used,
                    limit,
                    "memory is short: new connections and requests are refused"
                );
            }
            self.short.store(short, Relaxed);
        }
        self.short.load(Relaxed)
    }
}

/// True to one caller after each time `holds` is over.
fn has_passed(until: &AtomicU64, now: Duration, holds: Duration) -> bool {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let then = until.load(Relaxed);
    let next = nanos(now + holds);
    nanos(now) >= then && until.compare_exchange(then, next, Relaxed, Relaxed).is_ok()
}

/// Resident memory of this process, bytes.
fn used() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/statm").ok()?, page())
}

/// The second number of `statm` is in pages.
fn resident(statm: &str, page: u64) -> Option<u64> {
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page)
}

/// Bytes of a page: 4 KiB, but 64 on some machines of ARM.
fn page() -> u64 {
    // SAFETY: takes a number, and may be called at any time.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// What our cgroup allows, of either version.
fn limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let read = |path: String| std::fs::read_to_string(Path::new(&path)).ok();
    files(&groups).into_iter().find_map(read).and_then(|text| {
        let limit: u64 = text.trim().parse().ok()?;
        (limit < NONE).then_some(limit)
    })
}

/// Where the limit may be said: below the path of our group, or at the top, where a container sees its own group.
fn files(groups: &str) -> Vec<String> {
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_end_matches('/');
        if controllers.split(',').any(|at| at == "memory") {
            let file = |path: &str| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes");
            return Some([file(path), file("")]);
        }
        let file = |path: &str| format!("/sys/fs/cgroup{path}/memory.max");
        (controllers.is_empty()).then(|| [file(path), file("")])
    };
    groups.lines().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_both_versions() {
        for (groups, first, top) in [
            (
                "0::/kubepods/pod1\n",
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/memory.max",
            ),
            (
                "9:name=systemd:/\n4:cpu,memory:/box\n",
                "/sys/fs/cgroup/memory/box/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ),
        ] {
            assert_eq!(files(groups), [first, top], "{groups}");
        }
        assert!(files("nonsense\n").is_empty());
        assert_eq!(resident("100 25 3 0 0\n", 4096), Some(102_400));
        assert!(page().is_power_of_two());
    }

    #[test]
    fn three_quarters_are_enough() {
        let some = || Some(1000);
        for (limit, used, expected) in [
            (some as fn() -> _, (|| Some(740)) as fn() -> _, false),
            (some, || Some(800), true),
            (|| None, || Some(u64::MAX), false),
            (some, || None, false),
        ] {
            let memory = Memory::reading(Read { limit, used });
            assert_eq!(memory.is_short_at(Duration::ZERO), expected);
        }
    }

    #[test]
    fn requests_that_came_lately_count_with_what_they_will_need() {
        let settled = Settled::default();
        for (now, total, young) in [
            (0, 10, 10),
            (100, 5000, 5000),
            // At first nothing is known to have settled.
            (600, 5000, 5000),
            (1200, 5000, 4990),
            (1800, 5000, 0),
            // They end, and as many come.
            (1850, 300, 0),
            (1900, 5000, 4700),
            // Nobody looked for long.
            (90_000, 5000, 4700),
            (90_600, 5000, 4700),
            (91_200, 5000, 0),
        ] {
            let now = Duration::from_millis(now);
            assert_eq!(settled.young(total, now), young, "{now:?}");
        }
    }

    #[test]
    fn many_new_requests_make_it_short_before_they_take_it() {
        let flights = Arc::new(Flights::default());
        let counter = flights.join();
        let limit = || Some(64 << 20);
        let memory = Memory {
            flights: vec![flights],
            ..Memory::reading(Read {
                limit,
                used: || Some(24 << 20),
            })
        };
        for (ms, requests, short) in [(0, 1000, false), (10, 3000, true), (20, 1000, false)] {
            counter.store(requests, Relaxed);
            let now = Duration::from_millis(ms);
            assert_eq!(memory.is_short_at(now), short, "{requests}");
        }
    }

    #[test]
    fn what_is_known_holds_for_a_moment() {
        let until = AtomicU64::new(0);
        let hold = Duration::from_secs(1);
        let asked = [0, 500, 999, 1000, 1500].map(Duration::from_millis);
        let passed = asked.map(|now| has_passed(&until, now, hold));
        assert_eq!(passed, [true, false, false, true, false]);
    }
}
