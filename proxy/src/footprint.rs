//! Memory that is resident and of no more use.
//!
//! Most of what an idle proxy holds is its own code, mapped in large pieces around every instruction that ran once, at the
//! start. Once that is over it is let go; what is still needed comes back from the page cache at the first use.
//!
//! What connections leave behind when they end or rest is free, but the allocator gives it back to the system only at its
//! next work, which on an idle thread may never come. So it is asked to, by each worker.

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// How often a worker whose connections left memory behind gives it back.
const EVERY: Duration = Duration::from_secs(2);

/// Makes the allocator give free memory of this thread back; whoever chooses the allocator says how.
pub static COLLECT: OnceLock<fn()> = OnceLock::new();

thread_local! {
    static LEFT: Cell<bool> = const { Cell::new(false) };
}

/// A connection of this thread has ended, or rests.
pub fn left_behind() {
    LEFT.set(true);
}

/// Gives back what connections of this thread leave behind, as long as it is polled.
pub async fn give_back() {
    loop {
        tokio::time::sleep(EVERY).await;
        if LEFT.take()
            && let Some(collect) = COLLECT.get()
        {
            collect();
        }
    }
}

/// Lets go of the resident pages of our code and constants.
pub fn forget_start() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, length) in unwritten(&maps, &program.to_string_lossy()) {
        // SAFETY: a private mapping of a file that nobody has written to: its pages read the same when they come back.
        let done = unsafe { libc::madvise(start as *mut _, length, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of the mappings of `program` that hold what is in the file and nothing else: its code, and its first
/// segment. The other read-only ones were written to by the loader before they became that.
fn unwritten(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let mapping = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2)?;
        let first = u64::from_str_radix(offset, 16).ok()? == 0;
        let wanted = rights == "r-xp" || (rights == "r--p" && first);
        let (from, to) = range.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let length = usize::from_str_radix(to, 16).ok()?.checked_sub(from)?;
        (wanted && path == program).then_some((from, length))
    };
    maps.lines().filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    const MAPS: &str = "\
55d0c0000000-55d0c0010000 r--p 00000000 fe:00 1234                       /usr/bin/weft-proxy
55d0c0010000-55d0c0040000 r-xp 00010000 fe:00 1234                       /usr/bin/weft-proxy
55d0c0040000-55d0c0050000 r--p 00040000 fe:00 1234                       /usr/bin/weft-proxy
55d0c0050000-55d0c0051000 rw-p 00050000 fe:00 1234                       /usr/bin/weft-proxy
55d0c0051000-55d0c0052000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000010000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00030000-7ffd00031000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn only_what_the_loader_left_alone_is_let_go() {
        let found = unwritten(MAPS, "/usr/bin/weft-proxy");
        assert_eq!(
            found,
            [(0x55d0_c000_0000, 0x10000), (0x55d0_c001_0000, 0x30000)]
        );
        assert_eq!(unwritten("nonsense\n\n", "/usr/bin/weft-proxy"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_behind_is_given_back_once() {
        static TIMES: AtomicUsize = AtomicUsize::new(0);
        COLLECT.get_or_init(|| || _ = TIMES.fetch_add(1, Relaxed));
        left_behind();
        let looks = tokio::time::timeout(5 * EVERY, give_back());
        assert!(looks.await.is_err());
        assert_eq!(TIMES.load(Relaxed), 1);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        forget_start().unwrap();
        let mut sorted = vec![3, 1, 2];
        sorted.sort_unstable();
        assert_eq!(format!("{sorted:?}"), "[1, 2, 3]");
    }
}
