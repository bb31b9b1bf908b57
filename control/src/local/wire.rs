//! What crosses the node's Unix socket: one JSON line asked, one answered, descriptors beside it where needed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A question to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Request {
    Status,
    Pods,
    Services,
    /// Keep these manifests; `name` names the file they are kept in.
    Apply {
        name: String,
        text: String,
    },
    /// Forget applied manifests: a whole file by name, or one object.
    DeleteFile {
        name: String,
    },
    DeleteObject {
        kind: String,
        namespace: String,
        name: String,
    },
    Restart {
        kind: String,
        namespace: String,
        name: String,
    },
    /// Answered when every pod is ready, or with an error after that time.
    Wait {
        seconds: u64,
    },
    /// Three descriptors travel beside it: stdin, stdout, stderr. Answered with the exit code.
    Exec {
        namespace: String,
        pod: String,
        container: Option<String>,
        command: Vec<String>,
        env: Vec<(String, String)>,
    },
    /// A connected socket travels back.
    Dial {
        namespace: String,
        pod: Option<String>,
        to: SocketAddr,
    },
    LogFile {
        namespace: String,
        pod: String,
        container: Option<String>,
    },
    /// Signal the controller; with `start`, start it if it is not running.
    Control {
        signal: Option<i32>,
        start: bool,
    },
    Down,
}

/// The supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Ok(serde_json::Value),
    Error(String),
}

/// The node as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Rung the node stands on.
    pub rung: super::Rung,
    /// Why this one.
    pub rung_reason: String,
    /// Where the controller answers, from inside the node.
    pub control_addr: SocketAddr,
    /// Process of the controller, if it runs (number inside the sandbox).
    pub control_pid: Option<i32>,
    /// How often it was started.
    pub control_starts: u32,
    /// State folder.
    pub state: std::path::PathBuf,
    /// What is wrong with the manifests at the moment.
    pub problems: Vec<String>,
}

/// A pod as `get pods` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Deployment web`, or nothing for a bare pod.
    pub owner: Option<String>,
    /// `Running`, `Init:0/1`, `CrashLoopBackOff`, …
    pub status: String,
    /// Why, where that is not plain.
    pub message: Option<String>,
    /// All containers ready.
    pub ready: bool,
    /// Completed for good.
    pub finished: bool,
    /// On its way out.
    pub deleting: bool,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Service account.
    pub service_account: String,
    /// Has a proxy.
    pub meshed: bool,
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Containers, sidecars included.
    pub containers: Vec<ContainerInfo>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInfo {
    /// Name.
    pub name: String,
    /// Runs before the others, or beside them as a sidecar.
    pub init: bool,
    /// Sidecar (an init container that stays).
    pub sidecar: bool,
    /// Passed its startup probe.
    pub started: bool,
    /// Passed its readiness probe.
    pub ready: bool,
    /// `Waiting`, `Running`, `Terminated`.
    pub state: String,
    /// Reason for the state.
    pub reason: Option<String>,
    /// Last exit code.
    pub exit_code: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Process inside the sandbox.
    pub pid: Option<i32>,
}

/// A Service as `get services` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Addresses; empty when headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<PortInfo>,
    /// Ready endpoints, `ip:port`, of the first port.
    pub endpoints: Vec<SocketAddr>,
}

/// A port of a Service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortInfo {
    /// Name, may be empty.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Port of the Service.
    pub port: u16,
}
