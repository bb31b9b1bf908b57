//! The faults, and how each is made and undone.

mod attack;
mod control;
mod endpoints;
mod machine;

use crate::figures::Figures;
use crate::promise::Promise;
use anyhow::{Context, ensure};
use harness::{Access, Exec, Mesh, PodInfo, echo};

/// One row of the matrix.
pub(crate) struct Row {
    /// As the command line names it.
    pub(crate) name: &'static str,
    /// What goes wrong.
    pub(crate) fault: &'static str,
    /// What should be seen.
    pub(crate) promises: &'static [Promise],
    pub(crate) manifests: fn() -> Vec<String>,
    pub(crate) access: Access,
    /// Settings of the controller.
    pub(crate) control_env: &'static [(&'static str, &'static str)],
    /// Whom the load calls, and what it asks for (see the role `load`).
    pub(crate) to: &'static str,
    pub(crate) path: &'static str,
    /// Requests per second: before and after, and during the fault.
    pub(crate) rate: [u64; 2],
    pub(crate) connections: u64,
    /// Seconds the fault lasts.
    pub(crate) short: u64,
    /// The same with `--full`.
    pub(crate) full: u64,
    /// Seconds of load after it.
    pub(crate) after: u64,
    /// May the client's proxy be asked for its metrics meanwhile?
    pub(crate) watched: bool,
    pub(crate) prepare: fn(&Mesh) -> anyhow::Result<()>,
    /// Is told how many seconds the fault lasts.
    pub(crate) inject: fn(&Mesh, u64) -> anyhow::Result<()>,
    pub(crate) heal: fn(&Mesh) -> anyhow::Result<()>,
    /// What else is told, by how much it grew from the beginning to the end.
    pub(crate) look: fn(&Mesh) -> anyhow::Result<Look>,
}

/// Names and values.
pub(crate) type Look = Vec<(&'static str, f64)>;

const RATE: u64 = if cfg!(debug_assertions) { 100 } else { 300 };

const ROW: Row = Row {
    name: "",
    fault: "",
    promises: &[],
    manifests: || vec![echo("web", 3), echo("client", 1)],
    access: Access::Permissive,
    control_env: &[],
    to: "web:8080",
    path: "/",
    rate: [RATE, RATE],
    connections: 16,
    short: 10,
    full: 60,
    after: 10,
    watched: true,
    prepare: |_| Ok(()),
    inject: |_, _| Ok(()),
    heal: |_| Ok(()),
    look: |_| Ok(Vec::new()),
};

/// All of them, in the order of the matrix.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    let groups = [control::ROWS, endpoints::ROWS, machine::ROWS, attack::ROWS];
    groups.into_iter().flatten()
}

impl Row {
    /// The promises that these figures do not keep.
    pub(crate) fn broken(&self, figures: &Figures) -> Vec<Promise> {
        let promises = self.promises.iter().copied();
        promises.filter(|at| !at.is_kept(figures)).collect()
    }

    /// Is more asked of it than it can do?
    pub(crate) fn overloaded(&self) -> bool {
        let told = |at: &Promise| matches!(at, Promise::Goodput(_) | Promise::Refused(_));
        self.promises.iter().any(told)
    }
}

/// Always the same pod, so that what was stopped is what is continued.
fn victim(mesh: &Mesh, workload: &str) -> anyhow::Result<PodInfo> {
    let mut pods = mesh.pods(workload)?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods.into_iter().next().context("no pod")
}

fn kill(mesh: &Mesh, workload: &str, container: &str, signal: &str) -> anyhow::Result<()> {
    let pid = pid(mesh, workload, container)?;
    node(mesh, &format!("kill -{signal} {pid}")).map(drop)
}

fn pid(mesh: &Mesh, workload: &str, container: &str) -> anyhow::Result<String> {
    let pod = victim(mesh, workload)?;
    let found = pod.containers.iter().find(|found| found.name == container);
    let pid = found.and_then(|found| found.pid);
    Ok(pid.context("the container does not run")?.to_string())
}

/// Runs a line of shell beside the pods; an error if it fails.
fn node(mesh: &Mesh, line: &str) -> anyhow::Result<String> {
    let done = mesh.node(&["sh", "-c", line])?;
    ensure!(done.code == 0, "{line}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The same in a pod.
fn inside(mesh: &Mesh, pod: &PodInfo, line: &str) -> anyhow::Result<String> {
    let done = mesh
        .client()
        .output(&Exec::new(&pod.name, ["sh", "-c", line]))?;
    ensure!(done.code == 0, "{line}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Lets a role of this program run in the client's pod. It ends by itself.
fn background(mesh: &Mesh, role: &[&str]) -> anyhow::Result<()> {
    let this = std::env::current_exe()?.display().to_string();
    let command = [&[this.as_str(), "role"], role].concat();
    let exec = Exec::new(&mesh.pod("client")?.name, command);
    let client = mesh.client().clone();
    std::thread::spawn(move || match client.output(&exec) {
        Ok(done) => eprint!("{}", String::from_utf8_lossy(&done.stdout)),
        Err(error) => eprintln!("{error:#}"),
    });
    Ok(())
}

fn sum(mesh: &Mesh, workload: &str, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    let pods = mesh.pods(workload)?;
    let one = |pod: &PodInfo| anyhow::Ok(mesh.metrics_of(pod)?.sum(name, labels));
    pods.iter().map(one).sum()
}

fn ejections(mesh: &Mesh) -> anyhow::Result<Look> {
    let all = sum(mesh, "client", "weft_backend_ejections_total", &[])?;
    Ok(vec![("ejections", all)])
}
