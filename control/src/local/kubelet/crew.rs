//! Everything that runs for a pod, and how it is ended: by role, and whatever went into the background.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Shared;
use crate::local::children::{self, Child};
use crate::local::container::{self, Role};
use crate::local::loopback;
use crate::local::node::Home;
use crate::manifest::workload::Container;

/// Everything that runs for a pod.
#[derive(Default)]
pub(super) struct Crew {
    pub(super) pause: Option<(Child, pipe::Sender)>,
    pub(super) members: Vec<(Role, watch::Sender<Option<Duration>>, JoinHandle<i32>)>,
    pub(super) refresh: Option<JoinHandle<()>>,
}

impl Crew {
    pub(super) fn hire(
        &mut self,
        pod: &Arc<Shared>,
        index: usize,
        container: Container,
        role: Role,
    ) {
        let (stop, stopped) = watch::channel(None);
        let task = tokio::spawn(container::keep(
            pod.clone(),
            index,
            container,
            role,
            stopped,
        ));
        self.members.push((role, stop, task));
    }

    /// End all of one role together, and wait.
    pub(super) async fn stop(&mut self, role: Role, grace: Duration) {
        for (_, stop, _) in self.members.iter().filter(|(r, ..)| *r == role) {
            stop.send_replace(Some(grace));
        }
        for (_, _, task) in self.members.iter_mut().filter(|(r, ..)| *r == role) {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
        self.members.retain(|(r, ..)| *r != role);
    }

    /// Let the namespaces go.
    pub(super) fn close(&mut self) {
        if let Some((child, _)) = self.pause.take() {
            child.signal(Signal::SIGKILL);
        }
        if let Some(task) = self.refresh.take() {
            task.abort();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whatever still runs in the pod: things that went into the background.
pub(super) fn sweep(pod: &Shared) {
    let uid = pod.pod.metadata.uid.clone().unwrap_or_default();
    let (pause, mark) = match pod.home() {
        Ok(Home::Namespaces(pause)) => (pause, fs::read_link(format!("/proc/{pause}/ns/net"))),
        // Everybody shares one network namespace here: only its mark tells a process of the pod.
        Ok(Home::Machine) if !uid.is_empty() => {
            return sweep_marked(&format!("{}={uid}", loopback::POD_UID));
        }
        _ => return,
    };
    let Ok(own) = mark else { return };
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for (pid, process) in numbered(processes) {
        if pid != pause && fs::read_link(process.join("ns/net")).is_ok_and(|net| net == own) {
            let _ = children::signal_process(pid, Signal::SIGKILL as i32);
        }
    }
}

fn sweep_marked(mark: &str) {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for (pid, process) in numbered(processes) {
        let env = fs::read(process.join("environ")).unwrap_or_default();
        if env
            .split(|byte| *byte == 0)
            .any(|var| var == mark.as_bytes())
        {
            let _ = children::signal_process(pid, Signal::SIGKILL as i32);
        }
    }
}

fn numbered(processes: fs::ReadDir) -> impl Iterator<Item = (i32, PathBuf)> {
    processes.flatten().filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        Some((pid, process.path()))
    })
}
