//! Programs we start and what the kernel says about them: CPU time, memory, descriptors.

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends with this value.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Its id, and those of its children (worker processes).
    pub(crate) fn ids(&self) -> Vec<u32> {
        let id = self.child.id();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id)
            .chain(children.split_whitespace().filter_map(|id| id.parse().ok()))
            .collect()
    }

    /// An error with its last words if it has ended.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("ended with {status}: {}", self.words()),
        }
    }

    /// The end of what it printed.
    pub(crate) fn words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for id in self.ids().into_iter().skip(1) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(id as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; the error carries what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    anyhow::ensure!(
        out.status.success(),
        "{command:?} failed: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(text)
}

/// Waits until a condition holds.
pub(crate) fn eventually(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > patience => return Err(error.context(what.to_owned())),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// CPU seconds of a process so far: all threads, by the scheduler's own clock (nanoseconds, not ticks).
pub(crate) fn cpu(id: u32) -> f64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        return 0.0;
    };
    let of = |path: PathBuf| {
        std::fs::read_to_string(path.join("schedstat"))
            .ok()?
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    };
    tasks
        .flatten()
        .filter_map(|task| of(task.path()))
        .sum::<f64>()
        / 1e9
}

/// CPU seconds of every process of our pid namespace.
pub(crate) fn cpu_ours() -> f64 {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return 0.0;
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(cpu)
        .sum()
}

/// CPU seconds the whole machine was busy so far.
pub(crate) fn cpu_machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    // user nice system (idle iowait) irq softirq steal; guest time is in user already.
    (fields.iter().take(8).sum::<f64>() - idle) / 100.0
}

/// Resident memory and its peak, KB.
pub(crate) fn memory(id: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// As many descriptors as we may have.
pub(crate) fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The limit on descriptors.
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft as usize)
}
