//! `weft-control` as a child of the node: started, watched, started again.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::addresses::Space;
use super::children::Child;
use super::logs;
use super::node::Node;
use weft_proxy_api::names::ports;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The running controller, shared with whoever asks about it.
#[derive(Clone, Default)]
pub(crate) struct Controller {
    state: Arc<Mutex<State>>,
    start: Arc<Notify>,
}

#[derive(Default)]
struct State {
    pid: Option<i32>,
    starts: u32,
    problem: Option<String>,
}

/// Where it answers.
pub(crate) fn address(space: Space) -> SocketAddr {
    SocketAddr::from((space.node(), ports::CONTROL))
}

impl Controller {
    /// Run it until `stop` is set.
    pub(crate) fn start(
        node: Arc<Node>,
        stop: watch::Receiver<bool>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let controller = Self::default();
        let task = tokio::spawn(controller.clone().keep(node, stop));
        (controller, task)
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.state.lock().pid
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.state.lock().starts
    }

    /// Why it does not run.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    /// Start it now, if it does not run.
    pub(crate) fn start_now(&self) {
        self.start.notify_one();
    }

    async fn keep(self, node: Arc<Node>, mut stop: watch::Receiver<bool>) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let began = Instant::now();
            match spawn(&node) {
                Ok(child) => {
                    self.note(&node, Some(child.pid), None);
                    let Some(code) = attend(child, &mut stop).await else {
                        return;
                    };
                    self.note(
                        &node,
                        None,
                        Some(format!(
                            "weft-control ended with {code} (meshctl local logs weft-control)"
                        )),
                    );
                }
                Err(error) => self.note(&node, None, Some(format!("weft-control: {error:#}"))),
            }
            if began.elapsed() > MAX_BACKOFF {
                backoff = FIRST_BACKOFF;
            }
            let again = node.options.restart_control;
            tokio::select! {
                () = sleep(backoff), if again => {}
                () = self.start.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn note(&self, node: &Node, pid: Option<i32>, problem: Option<String>) {
        let mut state = self.state.lock();
        state.pid = pid;
        state.starts += u32::from(pid.is_some());
        if let Some(problem) = &problem
            && node.options.verbose
        {
            eprintln!("{problem}");
        }
        state.problem = problem;
    }
}

/// Wait for its end; `None`: we ended it.
async fn attend(mut child: Child, stop: &mut watch::Receiver<bool>) -> Option<i32> {
    tokio::select! {
        code = child.wait() => return Some(code),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    child.signal(Signal::SIGTERM);
    if timeout(Duration::from_secs(2), child.wait()).await.is_err() {
        child.signal(Signal::SIGKILL);
        child.wait().await;
    }
    None
}

/// Folders in the order that counts: the user's, what was applied, and what the node itself knows best; or the API server
/// that takes their place.
fn spawn(node: &Node) -> Result<Child> {
    let options = &node.options;
    let program = node.meshctl.with_file_name("weft-control");
    let (output, writer) = std::io::pipe()?;
    let writer: OwnedFd = writer.into();
    let mut command = Command::new(program);
    let own = ["applied", "objects"].map(|name| options.state.join(name));
    match &options.kubeconfig {
        Some(kubeconfig) => drop(command.arg("--kubeconfig").arg(kubeconfig)),
        None => {
            for dir in options.dirs.iter().chain(&own) {
                command.arg("--dir").arg(dir);
            }
        }
    }
    command
        .arg("--state")
        .arg(options.state.join("control"))
        .args(["--access", options.access.name()]);
    // Where the machine's addresses are shared it takes none but its own.
    let space = node.space();
    if space == Space::Loopback {
        let admin = SocketAddr::from((space.node(), ports::CONTROL_ADMIN));
        command.args(["--listen", &address(space).to_string()]);
        command.args(["--admin-addr", &admin.to_string()]);
    }
    command.envs(
        options
            .control_env
            .iter()
            .map(|(name, value)| (name, value)),
    );
    let null: OwnedFd = File::open("/dev/null")?.into();
    command
        .stdin(Stdio::from(null))
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let (child, _) = node.children.spawn(&mut command)?;
    logs::keep(
        output.into(),
        options.state.join("logs").join("weft-control.log"),
    )?;
    Ok(child)
}
