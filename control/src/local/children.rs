//! Every process below the supervisor. It also buries orphans, as PID 1 of its namespace or by asking the kernel for
//! them; therefore all waiting happens in this one place.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// All children. Used on the supervisor's one thread only: nothing can be reaped between `spawn` and its entry here.
#[derive(Clone, Default)]
pub(crate) struct Children {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<i32>>>>,
}

/// A running child, the leader of its own process group.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) exit: oneshot::Receiver<i32>,
}

impl Child {
    /// Exit code; 128 + signal where a signal ended it.
    pub(crate) async fn wait(&mut self) -> i32 {
        (&mut self.exit).await.unwrap_or(255)
    }

    /// Signal it and everything it started in its group.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_group(self.pid, signal);
    }
}

/// Signal a process group.
pub(crate) fn signal_group(pid: i32, signal: Signal) {
    let _ = killpg(Pid::from_raw(pid), signal);
}

/// Signal one process.
pub(crate) fn signal_process(pid: i32, signal: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::try_from(signal)?)?;
    Ok(())
}

impl Children {
    /// Start the reaper.
    pub(crate) fn start() -> Result<Self> {
        let children = Self::default();
        let mut dead = signal(SignalKind::child())?;
        let reaper = children.clone();
        tokio::spawn(async move {
            while dead.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(children)
    }

    /// Start a program in a session of its own.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<(Child, std::process::Child)> {
        use std::os::unix::process::CommandExt;
        // SAFETY: both are single system calls and touch no memory of ours. A node that is killed takes its children
        // along; where it is PID 1 of its namespace the kernel sees to that by itself.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().cast_signed();
        let (tell, exit) = oneshot::channel();
        self.waiting.lock().insert(pid, tell);
        Ok((Child { pid, exit }, child))
    }

    /// Run a program on some input and wait for it; an error carries what it printed.
    pub(crate) async fn run(&self, command: &mut Command, input: &[u8]) -> Result<()> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let (mut child, mut pipes) = self.spawn(command)?;
        let (Some(stdin), Some(stderr)) = (pipes.stdin.take(), pipes.stderr.take()) else {
            anyhow::bail!("no pipes to {name}");
        };
        let mut stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
        let stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
        let mut said = String::new();
        let feed = async {
            use tokio::io::AsyncWriteExt;
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let mut limited = stderr.take(64 * 1024);
        let (_, _, code) = tokio::join!(feed, limited.read_to_string(&mut said), child.wait());
        anyhow::ensure!(code == 0, "{name} failed ({code}): {}", said.trim());
        Ok(())
    }

    fn reap(&self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(tell) = self.waiting.lock().remove(&pid.as_raw()) {
                let _ = tell.send(code);
            }
        }
    }
}
