//! What all pods of a node share, and what is known of each.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::sync::{Notify, watch};

use super::addresses::Space;
use super::children::{Child, Children};
use super::enter::Enter;
use super::loopback::{Place, Targets};
use super::network::Network;
use super::options::{Options, Rung};
use super::roles;
use super::spec::Configs;
use super::wire::ContainerInfo;
use crate::manifest::k8s::{ObjectMeta, Service};
use crate::state::StateDir;

/// What all pods of a node share.
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) rung: Rung,
    pub(crate) meshctl: PathBuf,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) base_env: Vec<(String, String)>,
    pub(crate) children: Children,
    pub(crate) network: Network,
    pub(crate) tokens: Option<StateDir>,
    pub(crate) configs: watch::Sender<Arc<Configs>>,
    /// Services with their addresses; what proxies listen for where nothing is redirected.
    pub(crate) services: watch::Sender<Arc<Vec<Service>>>,
    /// Something about a pod is different.
    pub(crate) changed: Notify,
    pub(crate) scratch: AtomicU64,
}

impl Node {
    /// Become a program inside a pod.
    pub(crate) fn enter(
        &self,
        enter: &Enter,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Result<Child> {
        let number = self.scratch.fetch_add(1, Ordering::Relaxed);
        let file = self
            .options
            .state
            .join("pods")
            .join(format!("enter-{number}"));
        fs::write(&file, serde_json::to_vec(enter)?)?;
        let mut command = Command::new(&self.meshctl);
        command
            .arg(roles::ENTER)
            .arg(&file)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        Ok(self.children.spawn(&mut command)?.0)
    }

    /// Where its addresses come from.
    pub(crate) fn space(&self) -> Space {
        Space::of(self.rung)
    }

    /// A pod's own folder: by uid, so that a successor of the same name never meets its remains.
    pub(crate) fn pod_dir(&self, meta: &ObjectMeta) -> PathBuf {
        self.options
            .state
            .join("pods")
            .join(meta.uid.as_deref().unwrap_or(&meta.name))
    }

    /// Where a pod is, on the rung without namespaces.
    pub(crate) fn place(&self, meta: &ObjectMeta, number: u16) -> Option<Place> {
        (self.rung == Rung::Loopback).then(|| Place {
            bin: self
                .meshctl
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default(),
            dir: self.pod_dir(meta),
            number,
            services: self.services.borrow().clone(),
            lowest: super::sys::lowest_port(),
        })
    }

    /// Where the output of a container goes.
    pub(crate) fn log_file(&self, pod: &ObjectMeta, container: &str) -> Result<PathBuf> {
        let dir = self.log_dir(pod);
        fs::create_dir_all(&dir)?;
        Ok(dir.join(format!("{container}.log")))
    }

    /// The folder of a pod's outputs.
    pub(crate) fn log_dir(&self, pod: &ObjectMeta) -> PathBuf {
        self.options
            .state
            .join("logs")
            .join(format!("{}_{}", pod.namespace, pod.name))
    }
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodState {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) home: Option<Home>,
    /// What its proxy listens for, once it was started without redirection.
    pub(crate) targets: Option<Targets>,
    pub(crate) containers: Vec<ContainerInfo>,
    pub(crate) phase: Phase,
    pub(crate) message: Option<String>,
    /// Nothing is left of it.
    pub(crate) gone: bool,
}

/// Where the processes of a pod are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In namespaces, held by this process.
    Namespaces(i32),
    /// Beside everybody else.
    Machine,
}

impl Home {
    /// The process whose namespaces to join, if there are any: one of the pod's rather than their holder.
    pub(crate) fn join(self, one_of_the_pods: Option<i32>) -> Option<i32> {
        match self {
            Home::Namespaces(holder) => Some(one_of_the_pods.unwrap_or(holder)),
            Home::Machine => None,
        }
    }
}

/// As Kubernetes has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

impl PodState {
    /// Every container that should be ready is.
    pub(crate) fn ready(&self) -> bool {
        self.phase == Phase::Running
            && self
                .containers
                .iter()
                .all(|c| c.ready || (c.init && !c.sidecar))
    }
}
