//! The one loop of a node: folders, pods, questions and signals come in; the cluster is brought together after each.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::addresses::Space;
use super::children::Children;
use super::client::SOCKET;
use super::cluster::Cluster;
use super::controller::Controller;
use super::files::Applied;
use super::kubelet::End;
use super::network::Network;
use super::node::Node;
use super::options::{Options, Rung, private_dir};
use super::requests::{Desk, Verdict};
use super::server::{self, Asked};
use super::{programs, sys};
use crate::ca::Ca;
use crate::source;
use crate::state::{Secrecy, StateDir, TRUST_ANCHORS};
use weft_proxy_api::names::DEFAULT_TRUST_DOMAIN;

/// How long pods may take when the whole node goes down.
const LAST_GRACE: Duration = Duration::from_secs(6);

/// Be the node until it is told to end.
pub(crate) fn run(options: Options, rung: Rung, reason: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut supervisor = Supervisor::start(options, rung, reason).await?;
        supervisor.attend().await;
        supervisor.end().await;
        Ok(())
    })
}

struct Supervisor {
    cluster: Cluster,
    desk: Desk,
    controller: Option<tokio::task::JoinHandle<()>>,
    stop_controller: watch::Sender<bool>,
    events: mpsc::Receiver<Vec<source::Event>>,
    asked: mpsc::Receiver<Asked>,
    terminate: Signal,
    interrupt: Signal,
    lifeline: bool,
}

impl Supervisor {
    async fn start(options: Options, rung: Rung, reason: String) -> Result<Self> {
        for name in ["pods", "objects", "applied", "control", "logs"] {
            private_dir(&options.state.join(name))?;
        }
        let (terminate, interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let children = Children::start()?;
        let network = Network::set_up(Space::of(rung)).await?;
        let (tokens, trust) = authority(&options)?;
        let meshctl = options.program.clone().context("no program was named")?;
        let node = Arc::new(Node {
            rung,
            programs: programs::for_pods(&meshctl),
            meshctl,
            base_env: base_env(),
            children,
            network,
            tokens,
            configs: watch::channel(Arc::default()).0,
            services: watch::channel(Arc::default()).0,
            changed: Notify::new(),
            scratch: AtomicU64::new(0),
            options,
        });
        let listener = sys::listen_in(&node.options.state, SOCKET)
            .context("cannot listen on the node's socket")?;
        let (tx, asked) = mpsc::channel(64);
        server::serve(listener, tx)?;
        let (tx, events) = mpsc::channel(64);
        let mut dirs = node.options.dirs.clone();
        dirs.push(node.options.state.join("applied"));
        source::dir::watch(dirs, tx);
        let (stop_controller, stopped) = watch::channel(false);
        let (controller, task) = match node.options.control {
            true => {
                let (controller, task) = Controller::start(node.clone(), stopped);
                (Some(controller), Some(task))
            }
            false => (None, None),
        };
        let applied = Applied::new(node.options.state.join("applied"));
        let lifeline = !node.options.detach;
        say_ready();
        Ok(Self {
            cluster: Cluster::new(node, trust),
            desk: Desk::new(controller, applied, reason),
            controller: task,
            stop_controller,
            events,
            asked,
            terminate,
            interrupt,
            lifeline,
        })
    }

    async fn attend(&mut self) {
        let node = self.cluster.node.clone();
        let mut tick = interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut line = self.lifeline.then(lifeline);
        loop {
            tokio::select! {
                Some(events) = self.events.recv() => self.cluster.take(events),
                () = node.changed.notified() => {}
                Some(asked) = self.asked.recv() => {
                    if self.desk.answer(asked, &mut self.cluster) == Verdict::End {
                        return;
                    }
                }
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = cut(&mut line) => return,
                _ = tick.tick() => {}
            }
            self.cluster.reconcile().await;
            self.desk.settle(&mut self.cluster);
        }
    }

    /// Pods first, all together; then the controller. What is left ends with the namespace.
    async fn end(&mut self) {
        let node = self.cluster.node.clone();
        let deadline = Instant::now() + LAST_GRACE;
        for entry in self.cluster.pods.values_mut() {
            entry.delete(End::Quickly);
        }
        for entry in self.cluster.pods.values_mut() {
            let _ = timeout_at(deadline, entry.handle.state.wait_for(|state| state.gone)).await;
        }
        self.stop_controller.send_replace(true);
        if let Some(task) = self.controller.take() {
            let _ = timeout_at(deadline, task).await;
        }
        drop(node);
        self.desk.farewell();
        // The last answers are on their way.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Keys and roots are made before the controller starts, so that pods need not wait for it.
fn authority(options: &Options) -> Result<(Option<StateDir>, Option<String>)> {
    if !options.control {
        return Ok((None, None));
    }
    let state = StateDir::open(options.state.join("control"))?;
    let domain = options
        .control_env
        .iter()
        .find(|(name, _)| name == weft_proxy_api::names::control_env::TRUST_DOMAIN)
        .map_or(DEFAULT_TRUST_DOMAIN, |(_, value)| value);
    Ca::open_or_create(&state, domain)?;
    let trust = state.read(TRUST_ANCHORS, Secrecy::Public)?;
    Ok((Some(state), trust))
}

/// What programs expect of any environment; nothing that could be a secret of the caller's.
fn base_env() -> Vec<(String, String)> {
    let wanted = |name: &str| {
        matches!(
            name,
            "PATH"
                | "HOME"
                | "LANG"
                | "TZ"
                | "USER"
                | "LOGNAME"
                | "PYENV_ROOT"
                | "VIRTUAL_ENV"
                | "JAVA_HOME"
                | "GOROOT"
        ) || name.starts_with("LC_")
    };
    std::env::vars().filter(|(name, _)| wanted(name)).collect()
}

/// Tell whoever waits, then let go of the pipe.
fn say_ready() {
    println!("ready");
    let _ = std::io::stdout().flush();
    if let Ok(null) = fs::File::options().write(true).open(Path::new("/dev/null")) {
        let null: std::os::fd::OwnedFd = null.into();
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

/// Our stdin: a pipe that ends when the caller does.
fn lifeline() -> Option<tokio::net::unix::pipe::Receiver> {
    let stdin = nix::unistd::dup(std::io::stdin()).ok()?;
    tokio::net::unix::pipe::Receiver::from_owned_fd(stdin).ok()
}

async fn cut(line: &mut Option<Option<tokio::net::unix::pipe::Receiver>>) {
    match line {
        Some(Some(pipe)) => {
            let mut byte = [0; 1];
            while matches!(pipe.read(&mut byte).await, Ok(1..)) {}
        }
        _ => std::future::pending().await,
    }
}
