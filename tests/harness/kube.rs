//! A real Kubernetes API server with its etcd, on loopback, for one case. Nothing else of Kubernetes runs: no
//! controller manager makes EndpointSlices or service accounts, and a pod is what somebody wrote.
//!
//! ```no_run
//! use harness::kube::Kube;
//! # fn main() -> anyhow::Result<()> {
//! let kube = Kube::up()?;
//! kube.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: web, namespace: default }\n")?;
//! assert!(kube.kubectl(&["get", "serviceaccount", "web", "-o", "name"])?.contains("web"));
//! # Ok(()) }
//! ```
//!
//! RBAC, admission webhooks and aggregation are on. A Service of type `ExternalName` that points to `localhost` is how an
//! APIService or a webhook reaches a program of the test.

mod certs;
mod mirror;

pub use mirror::mirror;

use crate::eventually;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who issues the tokens of service accounts.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Programs are started again with other ports when somebody else was faster to take one.
const ATTEMPTS: usize = 3;

/// What can be chosen about a server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Words before every program, e.g. of a command that enters a namespace.
    pub prefix: Vec<String>,
    /// Reach webhooks and aggregated servers at the addresses of their EndpointSlices, not at the address of the Service.
    pub endpoint_routing: bool,
    /// Where Services get their addresses; empty: `10.96.0.0/16`.
    pub service_range: String,
    /// More arguments of the API server.
    pub arguments: Vec<String>,
}

/// A running API server. Gone with its etcd and its files when dropped.
pub struct Kube {
    options: Options,
    programs: PathBuf,
    ports: Ports,
    folder: tempfile::TempDir,
    etcd: Process,
    api: Mutex<Option<Process>>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    peers: u16,
}

/// A child that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why cases with an API server cannot run here; `None` if they can.
pub fn missing() -> Option<String> {
    programs().err().map(|error| format!("{error:#}"))
}

/// Where the programs are.
fn programs() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube/assets");
    let output = Command::new(script).stdin(Stdio::null()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok(text(&output.stdout).into())
}

impl Kube {
    /// Starts a server and waits until it is ready.
    pub fn up() -> anyhow::Result<Self> {
        Self::up_with(Options::default())
    }

    /// The same, with other options.
    pub fn up_with(options: Options) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::start(options.clone()) {
                Ok(kube) => return Ok(kube),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    fn start(options: Options) -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("weft-kube-").tempdir()?;
        let ports = Ports::free()?;
        certs::write(folder.path(), ports.api)?;
        let etcd = start_etcd(&options, &programs, folder.path(), ports)?;
        let kube = Self {
            options,
            programs,
            ports,
            folder,
            etcd,
            api: Mutex::new(None),
        };
        kube.start_api()?;
        // What the controller manager would make; without it no pod is accepted. A server that is ready makes its namespace.
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: default, namespace: default }\n";
        eventually("there is the namespace default", || {
            kube.apply(account).map(drop)
        })?;
        Ok(kube)
    }

    /// Starts the API server (again) on the same address and waits until it is ready.
    pub fn start_api(&self) -> anyhow::Result<()> {
        let process = self.spawn("kube-apiserver", &self.api_arguments())?;
        *self.api.lock().expect("no panic under the lock") = Some(process);
        let runs = eventually("the API server is ready", || {
            if self.has_ended() {
                return Ok(false);
            }
            let answer = self.kubectl(&["get", "--raw", "/readyz"])?;
            ensure!(answer.trim() == "ok", "{answer}");
            Ok(true)
        });
        // Somebody took its port, perhaps: that needs no patience.
        let runs = runs.and_then(|runs| {
            ensure!(runs, "the API server has ended");
            Ok(())
        });
        runs.with_context(|| self.last_words())
    }

    fn has_ended(&self) -> bool {
        let mut api = self.api.lock().expect("no panic under the lock");
        let ended = |process: &mut Process| matches!(process.0.try_wait(), Ok(Some(_)));
        api.as_mut().is_some_and(ended)
    }

    /// Kills the API server; its objects stay in etcd.
    pub fn kill_api(&self) {
        drop(self.api.lock().expect("no panic under the lock").take());
    }

    /// Process of the API server, if it runs.
    pub fn api_pid(&self) -> Option<u32> {
        let api = self.api.lock().expect("no panic under the lock");
        api.as_ref().map(|process| process.0.id())
    }

    /// Process of etcd.
    pub fn etcd_pid(&self) -> u32 {
        self.etcd.0.id()
    }

    /// Asks etcd itself, past the API server: `/v3/kv/compaction` and others of its gateway, where keys are in Base64.
    pub fn etcd(&self, path: &str, question: &Value) -> anyhow::Result<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.ports.etcd);
        let output = in_place(&self.options, OsStr::new("curl"))
            .args(["--silent", "--fail-with-body", "--max-time", "10", "--data"])
            .arg(question.to_string())
            .arg(url)
            .output()
            .context("cannot run curl")?;
        ensure!(output.status.success(), "etcd: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    /// File with the kubeconfig of somebody who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path(certs::KUBECONFIG)
    }

    /// Folder for files of the case; gone with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a kubeconfig with the token of a service account, and gives its path: what RBAC allows the account is all
    /// it can do.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.kubectl(&["create", "token", account, "-n", namespace])?;
        let path = self.path(&format!("{namespace}-{account}.kubeconfig"));
        let text = certs::kubeconfig(
            &self.url(),
            &self.path(certs::CA),
            &format!("{{ token: {} }}", token.trim()),
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// A token of a service account for these audiences, bound to a pod if one is named.
    pub fn token(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        pod: Option<&str>,
    ) -> anyhow::Result<String> {
        let mut words = vec![
            "create",
            "token",
            account,
            "-n",
            namespace,
            "--audience",
            audience,
        ];
        if let Some(pod) = pod {
            words.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
        }
        Ok(self.kubectl(&words)?.trim().to_owned())
    }

    /// Runs `kubectl` as somebody who may do everything; its output, or an error with what it said.
    pub fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(words, "")
    }

    /// The same, with a text on standard input.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.command("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--cache-dir".as_ref(), self.path("cache").as_os_str()])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        let input = input.to_owned();
        // Written aside: kubectl may answer before it has read everything.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let _ = writer.join();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                words.join(" "),
                text(&output.stderr).trim()
            );
        }
        Ok(text(&output.stdout))
    }

    /// `kubectl apply` of these manifests.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests)
    }

    /// An object as JSON.
    pub fn get(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut command = vec!["get", "-o", "json"];
        command.extend(words);
        Ok(serde_json::from_str(&self.kubectl(&command)?)?)
    }

    /// Replaces the status of an object, as the kubelet and other controllers do.
    pub fn set_status(&self, words: &[&str], status: &Value) -> anyhow::Result<String> {
        let patch = serde_json::json!({ "status": status }).to_string();
        let mut command = vec![
            "patch",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        command.extend(words);
        self.kubectl(&command)
    }

    /// What the API server and etcd said last, for errors.
    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        format!("{}\n{}", tail("etcd.log"), tail("kube-apiserver.log"))
    }

    fn api_arguments(&self) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        let range = match self.options.service_range.as_str() {
            "" => "10.96.0.0/16",
            range => range,
        };
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--secure-port={}", self.ports.api),
            "--bind-address=127.0.0.1".into(),
            // Nobody is told this address; it must only not be loopback.
            "--advertise-address=192.0.2.1".into(),
            "--endpoint-reconciler-type=none".into(),
            format!("--cert-dir={}", self.folder.path().display()),
            format!("--tls-cert-file={}", file(certs::SERVER.cert)),
            format!("--tls-private-key-file={}", file(certs::SERVER.key)),
            format!("--client-ca-file={}", file(certs::CA)),
            "--authorization-mode=RBAC".into(),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", file(certs::ACCOUNTS.cert)),
            format!(
                "--service-account-signing-key-file={}",
                file(certs::ACCOUNTS.key)
            ),
            format!("--service-cluster-ip-range={range}"),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
            format!("--requestheader-client-ca-file={}", file(certs::FRONT_CA)),
            format!("--requestheader-allowed-names={}", certs::FRONT_NAME),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={}", file(certs::FRONT.cert)),
            format!("--proxy-client-key-file={}", file(certs::FRONT.key)),
            format!(
                "--enable-aggregator-routing={}",
                self.options.endpoint_routing
            ),
        ];
        arguments.extend(self.options.arguments.iter().cloned());
        arguments
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        command(&self.options, &self.programs, program)
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> anyhow::Result<Process> {
        spawn(
            self.command(program),
            program,
            arguments,
            self.folder.path(),
        )
    }
}

impl Ports {
    fn free() -> anyhow::Result<Self> {
        let [api, etcd, peers]: [u16; 3] = free_ports()?;
        Ok(Self { api, etcd, peers })
    }
}

/// Ports of loopback that were free a moment ago, below those that the kernel gives to whoever asks for any: nobody takes
/// them by chance before they are used.
pub fn free_ports<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    const FIRST: u16 = 20_000;
    const MANY: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        // Programs that run at the same time begin at different places.
        let mut candidates = (0..MANY).map(|_| {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            let at = std::process::id().wrapping_mul(97).wrapping_add(turn);
            FIRST + u16::try_from(at % MANY).unwrap_or(0)
        });
        *port = candidates.find(is_free).context("no port is free")?;
    }
    Ok(ports)
}

fn start_etcd(
    options: &Options,
    programs: &Path,
    folder: &Path,
    ports: Ports,
) -> anyhow::Result<Process> {
    let (clients, peers) = (
        format!("http://127.0.0.1:{}", ports.etcd),
        format!("http://127.0.0.1:{}", ports.peers),
    );
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // It lives for one case: nothing has to survive a crash of the machine.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ];
    spawn(
        command(options, programs, "etcd"),
        "etcd",
        &arguments,
        folder,
    )
}

fn command(options: &Options, programs: &Path, program: &str) -> Command {
    in_place(options, programs.join(program).as_os_str())
}

/// A command where the API server runs.
fn in_place(options: &Options, program: &OsStr) -> Command {
    let mut words = options.prefix.iter().map(OsStr::new).chain([program]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn spawn(
    mut command: Command,
    program: &str,
    arguments: &[String],
    folder: &Path,
) -> anyhow::Result<Process> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join(format!("{program}.log")))?;
    let child = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(Process(child))
}
