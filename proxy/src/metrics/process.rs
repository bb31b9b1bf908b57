//! What the kernel says about this process, read at scrape time.

/// Figures of the process; `None` where the kernel does not say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let status = text("/proc/self/status");
        Self {
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            open_fds: std::fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|dir| u64::try_from(dir.count()).ok()),
            max_fds: field(&text("/proc/self/limits"), "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`, whose tick is 1/100 s on every Linux. The command before it is in
/// parentheses and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<u32>);
    Some((f64::from(times.next()?.ok()?) + f64::from(times.next()?.ok()?)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tx\nVmRSS:\t   1234 kB\nThreads:\t7\n";
        assert_eq!(
            (
                field(status, "VmRSS:"),
                field(status, "Threads:"),
                field(status, "No:")
            ),
            (Some(1234), Some(7), None)
        );
        assert_eq!(
            field(
                "Max open files            1024                 4096                 files\n",
                "Max open files"
            ),
            Some(1024)
        );
    }

    #[test]
    fn a_command_with_parentheses_does_not_confuse_the_times() {
        let stat = "1 (a) b) (c) S 0 0 0 0 -1 0 0 0 0 0 150 50 0 0 20 0 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("junk"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let process = Process::read();
        assert!(
            process.resident_bytes > Some(0)
                && process.open_fds > Some(0)
                && process.threads > Some(0)
        );
    }
}
