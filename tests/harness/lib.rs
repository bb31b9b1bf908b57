//! How to write a case in ten lines:
//!
//! ```no_run
//! use harness::{Access, Mesh, echo};
//! # fn main() -> anyhow::Result<()> {
//! let mesh = Mesh::up(Access::Permissive, &[&echo("web", 2), &echo("client", 1)])?;
//! let answer = mesh.curl("client", "http://web:8080/hello", &[])?;
//! assert_eq!(answer.status, 200);
//! assert!(mesh.metrics("web")?.sum("weft_requests_total", &[("direction", "inbound")]) >= 1.0);
//! # Ok(()) }
//! ```
//!
//! A mesh is a node of the one-machine runtime: real programs, real redirection, pods as network namespaces. It is gone
//! when the value is dropped. [`role`] is what this test program becomes inside a pod.

pub mod balancing;
pub mod browser;
mod collector;
mod grpc;
pub mod hand;
mod held;
pub mod kube;
pub mod load;
pub mod manifests;
mod mixed;
mod moody;
pub mod role;
pub mod roots;
pub mod sandbox;
pub mod upgrade;
mod websocket;

pub use manifests::{
    allow_all, allow_http, allow_tcp, echo, moody, split, tcp_server, unmeshed, workload,
};
pub use weft_control::local::{Access, Client, Exec, Options, Output, PodInfo, Runtime};
pub use weft_control::scrape::Scrape;

use anyhow::{Context, anyhow, bail, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use weft_proxy_api::names::ports;

/// Longer than anything here takes on a busy machine; nothing waits this long when it works.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Names a folder with the programs to test.
pub const PROGRAMS: &str = "WEFT_TEST_PROGRAMS";

/// A running mesh.
pub struct Mesh {
    runtime: Option<Runtime>,
    client: Client,
    folder: tempfile::TempDir,
}

/// What `curl` saw.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// Headers, lower-case names, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// Exit code of `curl`.
    pub exit: i32,
}

impl Answer {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// What the echo server said it received.
    pub fn echo(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Mesh {
    /// Starts a node with these manifests and waits until every pod is ready, and known to be.
    pub fn up(access: Access, manifests: &[&str]) -> anyhow::Result<Self> {
        Self::up_with(access, manifests, |_| {})
    }

    /// The same, with other options changed.
    pub fn up_with(
        access: Access,
        manifests: &[&str],
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Self> {
        let mesh = Self::start_with(access, manifests, change)?;
        mesh.wait()?;
        Ok(mesh)
    }

    /// The same, but waits for nothing: see [`Mesh::wait`].
    pub fn start_with(
        access: Access,
        manifests: &[&str],
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-case-").tempdir()?;
        let dir = folder.path().join("manifests");
        std::fs::create_dir(&dir)?;
        for (at, text) in manifests.iter().enumerate() {
            std::fs::write(dir.join(format!("{at:02}.yaml")), text)?;
        }
        let mut options = Options {
            dirs: vec![dir],
            state: folder.path().join("state"),
            access,
            program: Some(program("meshctl")?),
            ..Options::default()
        };
        change(&mut options);
        let runtime = Runtime::up(options)?;
        let client = runtime.client().clone();
        Ok(Self {
            runtime: Some(runtime),
            client,
            folder,
        })
    }

    /// Waits until every pod is ready, and the controller has read that it is: what is asked for first is there.
    pub fn wait(&self) -> anyhow::Result<()> {
        self.client
            .wait(PATIENCE)
            .with_context(|| format!("not ready: {}", self.describe()))?;
        // Before it answers it reads what is written. What it says is another matter: some cases have proxies that are none.
        Command::new(program("meshctl")?)
            .args(["wait", "--timeout", "3s", "--state"])
            .arg(self.client.state())
            .output()
            .context("cannot run meshctl")?;
        Ok(())
    }

    /// The handle on the node.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The user's folder of manifests, watched by the mesh.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// What the node keeps; the controller's own is `control` in it.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes a manifest into the user's folder, in one step as editors do.
    pub fn apply(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let part = self.dir().join(format!(".{name}.part"));
        std::fs::write(&part, text)?;
        Ok(std::fs::rename(
            part,
            self.dir().join(format!("{name}.yaml")),
        )?)
    }

    /// Takes a manifest out of the user's folder.
    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(
            self.dir().join(format!("{name}.yaml")),
        )?)
    }

    /// Pods of a workload that are there to stay.
    pub fn pods(&self, workload: &str) -> anyhow::Result<Vec<PodInfo>> {
        let pods = self.client.pods()?.into_iter();
        Ok(pods
            .filter(|pod| !pod.deleting && pod.labels.get("app").is_some_and(|app| app == workload))
            .collect())
    }

    /// The first pod of a workload.
    pub fn pod(&self, workload: &str) -> anyhow::Result<PodInfo> {
        self.pods(workload)?
            .into_iter()
            .next()
            .ok_or_else(|| anyhow!("no pod of {workload}"))
    }

    /// Runs a command in the first pod of a workload.
    pub fn exec(&self, workload: &str, command: &[&str]) -> anyhow::Result<Output> {
        let pod = self.pod(workload)?;
        let mut exec = Exec::new(&pod.name, command.iter().copied());
        exec.namespace = pod.namespace;
        self.client.output(&exec)
    }

    /// Runs a command in the node's own namespace.
    pub fn node(&self, command: &[&str]) -> anyhow::Result<Output> {
        self.client
            .output(&Exec::new("node", command.iter().copied()))
    }

    /// The body of a GET from outside the mesh to a pod's own address.
    pub fn ask(&self, pod: &PodInfo, port: u16, path: &str) -> anyhow::Result<String> {
        let ip = pod.ips.first().context("no address")?;
        let url = format!("http://{}{path}", std::net::SocketAddr::new(*ip, port));
        let output = self.node(&["curl", "-sf", "--max-time", "30", &url])?;
        ensure!(output.code == 0, "{url}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One request by `curl` from a workload's pod.
    pub fn curl(&self, workload: &str, url: &str, options: &[&str]) -> anyhow::Result<Answer> {
        let mut command = vec![
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "30",
            "--raw",
        ];
        command.extend(options);
        command.push(url);
        let output = self.exec(workload, &command)?;
        Ok(parse_curl(&output))
    }

    /// Waits until a plain GET from a workload's pod is answered with this status.
    pub fn answers(&self, workload: &str, url: &str, status: u16) -> anyhow::Result<()> {
        eventually(&format!("{workload} gets {status} from {url}"), || {
            let answer = self.curl(workload, url, &[])?;
            ensure!(answer.status == status, "{answer:?}");
            Ok(())
        })
    }

    /// Metrics of the proxy of a workload's first pod.
    pub fn metrics(&self, workload: &str) -> anyhow::Result<Scrape> {
        self.metrics_of(&self.pod(workload)?)
    }

    /// Metrics of the proxy of a pod.
    pub fn metrics_of(&self, pod: &PodInfo) -> anyhow::Result<Scrape> {
        let ip = pod
            .ips
            .first()
            .ok_or_else(|| anyhow!("{} has no address", pod.name))?;
        Scrape::fetch(self.client.dial(None, (*ip, ports::ADMIN).into())?)
    }

    /// Output of a container of a workload's first pod so far.
    pub fn logs(&self, workload: &str, container: &str) -> anyhow::Result<String> {
        let pod = self.pod(workload)?;
        let file = self
            .client
            .log_file(&pod.namespace, &pod.name, Some(container))?;
        Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
    }

    fn describe(&self) -> String {
        let pods = self.client.pods().unwrap_or_default();
        let line = |pod: &PodInfo| {
            format!(
                "{}/{} {} {:?}",
                pod.namespace, pod.name, pod.status, pod.message
            )
        };
        let problems = self
            .client
            .status()
            .map(|status| status.problems)
            .unwrap_or_default();
        format!(
            "{:?} {problems:?}",
            pods.iter().map(line).collect::<Vec<_>>()
        )
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let _ = runtime.down();
        }
    }
}

fn parse_curl(output: &Output) -> Answer {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A 100 Continue comes as a head of its own before the answer.
    let mut rest = text.as_str();
    let mut answer = Answer {
        status: 0,
        headers: Vec::new(),
        body: String::new(),
        exit: output.code,
    };
    while rest.starts_with("HTTP/") {
        let Some((head, body)) = rest.split_once("\r\n\r\n") else {
            break;
        };
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        answer.status = status.unwrap_or(0);
        let fields = lines.filter_map(|line| line.split_once(':'));
        answer.headers = fields
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        rest = body;
        if answer.status != 100 {
            break;
        }
    }
    answer.body = rest.to_owned();
    if answer.status == 0 {
        answer.body = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    answer
}

/// Tries again until the condition gives a value; the error says what was waited for and the last reason.
pub fn eventually<T>(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > PATIENCE => bail!("{what}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A program of this workspace, found beside the running test program, or in the folder that `WEFT_TEST_PROGRAMS` names: a
/// release build measured by a test program that was not built for it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        let path = PathBuf::from(folder).join(name);
        ensure!(path.is_file(), "there is no {}", path.display());
        return Ok(path);
    }
    let this = std::env::current_exe()?;
    let folder = this.parent().context("the test program stands nowhere")?;
    // Test programs stand one folder deeper than the others.
    let folder = match folder.file_name() {
        Some(deps) if deps == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: tests/run builds it first",
        path.display()
    );
    Ok(path)
}
