//! Status: written by one replica, for the reader of `kubectl get`, and by another when that one dies.

use super::{define_smi, identity};
use anyhow::{Context, Result, ensure};
use harness::eventually;
use harness::kube::Kube;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use weft_control::kube::rbac::STATUS_LEASE;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// A controller as an installation runs it; killed when dropped.
pub(super) struct Replica(Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Replica {
    /// Asks it to end, and waits until it has.
    fn end(mut self) -> Result<()> {
        let pid = self.0.id().to_string();
        let said = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(said.success(), "cannot end {pid}");
        let status = self.0.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

pub(super) fn replica(kubeconfig: &Path, log: &Path) -> Result<Replica> {
    let log = std::fs::File::create(log)?;
    let anywhere = "127.0.0.1:0";
    let child = Command::new(harness::program("weft-control")?)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--listen", anywhere, "--admin-addr", anywhere])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot run weft-control")?;
    Ok(Replica(child))
}

const SPLIT: &str = r#"
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: { name: web }
spec: { service: web, backends: [{ service: web, weight: 1 }] }
"#;

const UDP: &str = r#"
apiVersion: specs.smi-spec.io/v1alpha4
kind: UDPRoute
metadata: { name: dns }
spec: { matches: { ports: [53] } }
"#;

fn condition(object: &Value, name: &str) -> Option<(String, String, i64)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == name)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((
        text("status"),
        text("message"),
        found["observedGeneration"].as_i64()?,
    ))
}

fn becomes(kube: &Kube, name: &str, status: &str, part: &str) -> Result<()> {
    becomes_of(kube, &["trafficsplit", "web"], name, status, part)
}

fn becomes_of(kube: &Kube, object: &[&str], name: &str, status: &str, part: &str) -> Result<()> {
    eventually(&format!("{name} is {status}, {part:?}"), || {
        let object = kube.get(object)?;
        let generation = object["metadata"]["generation"].as_i64();
        let (is, message, observed) = condition(&object, name).context("no condition")?;
        ensure!(is == status && message.contains(part), "{is} {message}");
        ensure!(Some(observed) == generation, "of generation {observed}");
        Ok(())
    })
}

/// What the status says of the ports of the root, and of which generation.
fn ports(kube: &Kube, expected: &str) -> Result<()> {
    let expected: Value = serde_json::from_str(expected)?;
    eventually("the weights that are in force are told", || {
        let object = kube.get(&["trafficsplit", "web"])?;
        let (status, generation) = (&object["status"], &object["metadata"]["generation"]);
        ensure!(status["ports"] == expected, "{status:#}");
        ensure!(status["observedGeneration"] == *generation, "{status:#}");
        Ok(())
    })
}

fn holder(kube: &Kube) -> Result<String> {
    let lease = kube.get(&["lease", STATUS_LEASE, "-n", SYSTEM_NAMESPACE])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    ensure!(!holder.is_empty(), "nobody holds the Lease");
    Ok(holder.to_owned())
}

pub(super) fn told() -> Result<()> {
    let kube = Kube::up()?;
    identity::account(&kube)?;
    define_smi(&kube)?;
    let kubeconfig = kube.kubeconfig_of(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)?;
    let log = |name: &str| kube.folder().join(name);
    let first = replica(&kubeconfig, &log("one.log"))?;
    let leader = eventually("somebody writes status", || holder(&kube))?;
    let second = replica(&kubeconfig, &log("two.log"))?;

    eventually("the kinds are served", || {
        kube.apply(&format!("{SPLIT}---{UDP}")).map(drop)
    })?;
    becomes(&kube, "Accepted", "True", "")?;
    becomes(
        &kube,
        "ResolvedRefs",
        "False",
        "there is no Service default/web",
    )?;
    becomes(&kube, "Programmed", "Unknown", "no proxy")?;
    let datagrams = ["udproute", "dns"];
    becomes_of(&kube, &datagrams, "Accepted", "True", "")?;
    becomes_of(&kube, &datagrams, "Programmed", "False", "carry no UDP")?;
    kube.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { ports: [{ port: 80 }] }\n",
    )?;
    becomes(&kube, "ResolvedRefs", "True", "")?;
    ports(
        &kube,
        r#"[{"backends":[{"service":"web","weight":1}],"excluded":[],"port":80}]"#,
    )?;
    kube.apply(&SPLIT.replace("weight: 1", "weight: many"))?;
    becomes(&kube, "Accepted", "False", "spec.backends[0].weight")?;
    eventually("an Event says why", || {
        let events = kube.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
        ensure!(events.contains("spec.backends[0].weight"), "{events}");
        Ok(())
    })?;
    let version = || -> Result<Value> {
        Ok(kube.get(&["trafficsplit", "web"])?["metadata"]["resourceVersion"].clone())
    };
    let before = version()?;

    drop(first);
    let next = eventually("the other replica takes over", || {
        let now = holder(&kube)?;
        ensure!(now != leader, "still {now}");
        Ok(now)
    })?;
    ensure!(version()? == before, "a new writer repeats nothing");
    kube.apply(SPLIT)?;
    becomes(&kube, "Accepted", "True", "").with_context(|| {
        format!(
            "{next}: {}",
            std::fs::read_to_string(log("two.log")).unwrap_or_default()
        )
    })?;
    second.end()?;
    let held = holder(&kube);
    ensure!(held.is_err(), "the Lease is given back: {held:?}");
    Ok(())
}
