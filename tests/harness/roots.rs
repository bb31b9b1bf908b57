//! Replaces the root of a mesh step by step, and makes certificates to show from outside.

use crate::{Mesh, eventually, program};
use anyhow::{Context, ensure};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use weft_control::ca::Ca;
use weft_control::state::StateDir;
use weft_proxy_api::identity::SpiffeId;

/// The three steps, each after every proxy has what the one before asks for.
pub fn replace(mesh: &Mesh) -> anyhow::Result<()> {
    let state = mesh.state().join("control");
    let before = told(mesh)?;
    rotate(&state, "begin")?;
    everybody(mesh, "has both roots", &before, told)?;
    let before = renewed(mesh)?;
    rotate(&state, "switch")?;
    everybody(mesh, "has a certificate of the new root", &before, renewed)?;
    let before = told(mesh)?;
    rotate(&state, "finish")?;
    everybody(mesh, "trusts the new root only", &before, told)
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

/// What is made for whoever shows it from outside the mesh.
pub struct Certificate<'a> {
    /// Who signs it.
    pub ca: &'a Ca,
    /// Account in the namespace `default`.
    pub account: &'a str,
    /// When its time begins.
    pub from: SystemTime,
    /// How long it lasts.
    pub ttl: Duration,
}

impl Certificate<'_> {
    /// Leaf, key and issuer, in files that `openssl` reads.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
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
pub fn certificate(state: &Path, folder: &Path, name: &str) -> anyhow::Result<()> {
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
pub fn shake(mesh: &Mesh, folder: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let pod = mesh.pod("web")?;
    let ip = pod.ips.first().context("no address")?;
    let folder = folder.display();
    let shown = name.map_or_else(String::new, |name| {
        format!(
            "-certform DER -keyform DER -cert {folder}/{name}.leaf -key {folder}/{name}.key -cert_chain {folder}/{name}.issuer"
        )
    });
    let command = format!(
        "echo | timeout 60 openssl s_client -connect {ip}:8080 -tls1_3 -alpn weft-http/1 {shown} 2>&1"
    );
    let output = mesh.node(&["sh", "-c", &command])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("CONNECTED"), "{said}");
    Ok(())
}
