//! The authority in its Secret: replaced with `meshctl` while two replicas serve, and both take each step up.

use super::status::{Replica, replica};
use super::{define_smi, identity};
use anyhow::{Context, Result, ensure};
use harness::eventually;
use harness::kube::Kube;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use weft_control::kube::secret::CA_SECRET;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// What a replica says when it has taken a step up.
const TAKEN: &str = "roots or issuer changed";
/// What it says of a Secret that it cannot use.
const REFUSED: &str = "is not followed";

struct Logged {
    _replica: Replica,
    log: PathBuf,
}

impl Logged {
    fn start(kube: &Kube, kubeconfig: &Path, name: &str) -> Result<Self> {
        let log = kube.folder().join(name);
        let replica = replica(kubeconfig, &log)?;
        Ok(Self {
            _replica: replica,
            log,
        })
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn says(&self, what: &str, times: usize) -> Result<()> {
        let text = self.text();
        ensure!(text.matches(what).count() == times, "{text}");
        Ok(())
    }

    /// Does what it shows to proxies belong to this root, by the judgement of `openssl`?
    fn is_under(&self, root: &Path) -> Result<bool> {
        let text = self.text();
        let address = text.split_once("serving on ").context("does not serve")?.1;
        let address = address.split(',').next().unwrap_or_default();
        let output = Command::new("openssl")
            .args(["s_client", "-connect", address, "-alpn", "h2", "-CAfile"])
            .arg(root)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("Verify return code: "), "{output:?}");
        Ok(said.contains("Verify return code: 0 "))
    }
}

/// The roots in the Secret, as a file.
fn roots(kube: &Kube, name: &str) -> Result<PathBuf> {
    let template = r#"go-template={{ index .data "trust-anchors.pem" | base64decode }}"#;
    let secret = [
        "get",
        "secret",
        CA_SECRET,
        "-n",
        SYSTEM_NAMESPACE,
        "-o",
        template,
    ];
    let path = kube.folder().join(name);
    std::fs::write(&path, kube.kubectl(&secret)?)?;
    Ok(path)
}

/// One step of `meshctl ca rotate`; what it says.
fn rotate(kube: &Kube, step: &str) -> Result<String> {
    let output = Command::new(harness::program("meshctl")?)
        .args(["ca", "rotate", step, "--kubeconfig"])
        .arg(kube.kubeconfig())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok(text(&output.stdout))
}

pub(super) fn replaced() -> Result<()> {
    let kube = Kube::up()?;
    identity::account(&kube)?;
    define_smi(&kube)?;
    let kubeconfig = kube.kubeconfig_of(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)?;
    let start = |name: &str| Logged::start(&kube, &kubeconfig, name);
    let replicas = [start("one.log")?, start("two.log")?];
    eventually("both serve", || {
        replicas.iter().try_for_each(|it| it.says("serving on", 1))
    })?;
    let both_say = |what: &str, times: usize| {
        eventually(&format!("both say {times} times: {what}"), || {
            replicas.iter().try_for_each(|it| it.says(what, times))
        })
    };
    let under = |root: &Path| -> Result<Vec<bool>> {
        replicas.iter().map(|it| it.is_under(root)).collect()
    };
    let old = roots(&kube, "old.pem")?;
    ensure!(under(&old)? == [true, true]);
    ensure!(rotate(&kube, "switch").is_err(), "no rotation was begun");

    rotate(&kube, "begin")?;
    both_say(TAKEN, 1)?;
    ensure!(under(&old)? == [true, true], "the old root signs");
    rotate(&kube, "switch")?;
    both_say(TAKEN, 2)?;
    ensure!(under(&old)? == [false, false], "the new root signs");
    rotate(&kube, "finish")?;
    both_say(TAKEN, 3)?;
    let new = roots(&kube, "new.pem")?;
    ensure!(under(&new)? == [true, true]);
    let again = rotate(&kube, "finish").map_err(|error| format!("{error:#}"));
    let why = again.err().unwrap_or_default();
    ensure!(why.contains("there is no other root to drop"), "{why}");

    // What is no authority changes nothing, and is said.
    let broken = r#"{"stringData": {"ca.key": "no key"}}"#;
    let patch = [
        "patch",
        "secret",
        CA_SECRET,
        "-n",
        SYSTEM_NAMESPACE,
        "-p",
        broken,
    ];
    kube.kubectl(&patch)?;
    both_say(REFUSED, 1)?;
    ensure!(under(&new)? == [true, true], "everybody goes on as before");
    both_say(TAKEN, 3)
}
