//! Roots are replaced while everybody goes on calling.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{Access, Exec, Mesh, echo, eventually, program};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use weft_control::ca::Ca;
use weft_control::state::StateDir;
use weft_proxy_api::identity::SpiffeId;

pub(crate) const CASES: &[Case] = &[(
    "roots_are_replaced_without_a_failed_request",
    &["curl", "openssl"],
    replaced,
)];

fn replaced() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 2), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let state = mesh.state().join("control");
    let scratch = tempfile::tempdir()?;
    certificate(&state, scratch.path(), "old")?;
    let load = Load::start(&mesh)?;

    let before = told(&mesh)?;
    rotate(&state, "begin")?;
    everybody(&mesh, "has both roots", &before, told)?;
    let before = renewed(&mesh)?;
    rotate(&state, "switch")?;
    everybody(&mesh, "has a certificate of the new root", &before, renewed)?;
    let before = told(&mesh)?;
    rotate(&state, "finish")?;
    everybody(&mesh, "trusts the new root only", &before, told)?;
    certificate(&state, scratch.path(), "new")?;

    let (asked, failed) = load.stop()?;
    ensure!(asked >= 20 && failed == 0, "{failed} of {asked} failed");
    let refused = || -> anyhow::Result<f64> {
        Ok(mesh
            .metrics("web")?
            .sum("weft_policy_denied_total", &[("reason", "tls_unknown_ca")]))
    };
    ensure!(refused()? == 0.0, "nobody was refused meanwhile");
    shake(&mesh, scratch.path(), Some("new"))?;
    ensure!(refused()? == 0.0, "the new root's certificate is taken");
    shake(&mesh, scratch.path(), Some("old"))?;
    eventually("the old root's certificate is refused", || {
        ensure!(refused()? >= 1.0);
        Ok(())
    })?;
    let first = mesh.pod("client")?.name;
    mesh.client().restart("Deployment", "default", "client")?;
    eventually("a pod of today begins with the new root", || {
        ensure!(mesh.pods("client")?.iter().all(|pod| pod.name != first));
        Ok(())
    })?;
    mesh.answers("client", "http://web:8080/", 200)
}

/// One step of `meshctl ca rotate`.
fn rotate(state: &Path, step: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program("meshctl")?);
    let output = command
        .args(["ca", "rotate", "--state"])
        .arg(state)
        .arg(step)
        .output()?;
    ensure!(output.status.success(), "{step}: {output:?}");
    Ok(())
}

/// A count of every proxy, by pod.
type Counts = Vec<(String, f64)>;

fn counts(mesh: &Mesh, metric: &str, label: (&str, &str)) -> anyhow::Result<Counts> {
    let mut pods = mesh.pods("web")?;
    pods.extend(mesh.pods("client")?);
    pods.iter()
        .map(|pod| {
            let count = mesh.metrics_of(pod)?.sum(metric, &[label]);
            Ok((pod.name.clone(), count))
        })
        .collect()
}

/// How often each proxy was told the roots.
fn told(mesh: &Mesh) -> anyhow::Result<Counts> {
    counts(mesh, "weft_control_updates_total", ("resource", "trust"))
}

/// How often each proxy got a certificate.
fn renewed(mesh: &Mesh) -> anyhow::Result<Counts> {
    counts(mesh, "weft_identity_renewals_total", ("result", "ok"))
}

fn everybody(
    mesh: &Mesh,
    what: &str,
    before: &Counts,
    count: fn(&Mesh) -> anyhow::Result<Counts>,
) -> anyhow::Result<()> {
    eventually(&format!("every proxy {what}"), || {
        let now = count(mesh)?;
        let more = before.iter().zip(&now).all(|(old, new)| new.1 > old.1);
        ensure!(more, "{before:?} then {now:?}");
        Ok(())
    })
}

/// One request after the other, each on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU32; 2]>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Load {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let (stop, counts): (Arc<AtomicBool>, Arc<[AtomicU32; 2]>) = Default::default();
        let (client, pod) = (mesh.client().clone(), mesh.pod("client")?.name);
        let (ends, counted) = (stop.clone(), counts.clone());
        let thread = std::thread::spawn(move || {
            let url = "http://web:8080/";
            let command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url];
            while !ends.load(Ordering::Relaxed) {
                let answer = client.output(&Exec::new(&pod, command))?;
                counted[0].fetch_add(1, Ordering::Relaxed);
                if answer.stdout != b"200" {
                    counted[1].fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            counts,
            thread,
        })
    }

    /// How many were asked, and how many of them failed.
    fn stop(self) -> anyhow::Result<(u32, u32)> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.ok().context("the load panicked")??;
        let [asked, failed] = &*self.counts;
        Ok((
            asked.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed),
        ))
    }
}

/// What is made for whoever shows it from outside the mesh.
pub(crate) struct Certificate<'a> {
    /// Who signs it.
    pub(crate) ca: &'a Ca,
    /// Account in the namespace `default`.
    pub(crate) account: &'a str,
    /// When its time begins.
    pub(crate) from: SystemTime,
    /// How long it lasts.
    pub(crate) ttl: Duration,
}

impl Certificate<'_> {
    /// Leaf, key and issuer, in files that `openssl` reads.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let id = SpiffeId::new("cluster.local", "default", self.account)?;
        let (leaf, key) = self.ca.issue_own(&id, self.ttl, self.from)?;
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        std::fs::write(file("leaf"), &leaf.chain[0])?;
        std::fs::write(file("key"), key.secret_der())?;
        std::fs::write(file("der"), &leaf.chain[1])?;
        let mut pem = Command::new("openssl");
        let pem = pem.args(["x509", "-inform", "der", "-in"]).arg(file("der"));
        let done = pem.arg("-out").arg(file("issuer")).output()?;
        ensure!(done.status.success(), "{done:?}");
        Ok(())
    }
}

/// A certificate of the client's identity, signed by the authority as it is now.
fn certificate(state: &Path, folder: &Path, name: &str) -> anyhow::Result<()> {
    let ca = Ca::open_or_create(&StateDir::open(state)?, "cluster.local")?;
    let of_client = Certificate {
        ca: &ca,
        account: "client",
        from: SystemTime::now(),
        ttl: Duration::from_secs(3600),
    };
    of_client.write(folder, name)
}

/// A handshake with the proxy of `web` from outside the mesh, with one of the certificates or none.
pub(crate) fn shake(mesh: &Mesh, folder: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let pod = mesh.pod("web")?;
    let ip = pod.ips.first().context("no address")?;
    let folder = folder.display();
    let shown = name.map_or_else(String::new, |name| {
        format!(
            "-certform DER -keyform DER -cert {folder}/{name}.leaf -key {folder}/{name}.key -cert_chain {folder}/{name}.issuer"
        )
    });
    let command = format!(
        "echo | timeout 10 openssl s_client -connect {ip}:8080 -tls1_3 -alpn weft-http/1 {shown} 2>&1"
    );
    let output = mesh.node(&["sh", "-c", &command])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("CONNECTED"), "{said}");
    Ok(())
}
