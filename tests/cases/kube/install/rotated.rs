//! The certificates that the API server trusts, while they are replaced.

use super::super::with_runtime;
use super::{create, installed, is_injected, pod};
use anyhow::{Context, Result, ensure};
use harness::eventually;
use harness::kube::Kube;
use serde_json::json;
use std::path::Path;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// The authority is replaced while pods are created; not one creation fails.
pub(in crate::kube) fn rotates() -> Result<()> {
    let (kube, controller) = installed(&[])?;
    drop(controller);
    let port = injector_port(&kube)?;
    let kubeconfig = kube.kubeconfig_of(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)?;
    kube.kubectl(&[
        "delete",
        "secret",
        "weft-webhook-ca",
        "-n",
        SYSTEM_NAMESPACE,
    ])?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = std::thread::spawn(move || short_lived(&kubeconfig, port, stopped));
    let secret = || kube.get(&["secret", "weft-webhook-ca", "-n", SYSTEM_NAMESPACE]);
    let dry = || -> Result<()> {
        let pod = pod("dry", json!({"weft.mesh/inject": "enabled"}));
        let made = create(&kube, "default", &pod, &["--dry-run=server"])?;
        ensure!(is_injected(&made), "{made}");
        Ok(())
    };
    eventually("the new authority is trusted", dry)?;
    let first = secret()?["data"]["ca.crt"].clone();
    let (mut tries, mut seen) = (0, vec![first]);
    eventually("another authority has taken its place", || {
        dry().unwrap_or_else(|error| panic!("a pod could not be created: {error:#}"));
        tries += 1;
        let current = secret()?["data"]["ca.crt"].clone();
        if seen.last() != Some(&current) {
            seen.push(current);
        }
        ensure!(seen.len() == 2, "{} authorities", seen.len());
        Ok(())
    })?;
    // What signs now is shown to whoever connects from now on.
    (0..10).try_for_each(|_| dry())?;
    eprintln!("{tries} pods while {} authorities signed", seen.len());
    let _ = stop.send(());
    controller.join().ok().context("the controller panicked")?
}

fn injector_port(kube: &Kube) -> Result<u16> {
    let injector = kube.get(&["mutatingwebhookconfiguration", "weft-injector"])?;
    let port = injector["webhooks"][0]["clientConfig"]["service"]["port"].as_u64();
    Ok(u16::try_from(port.context("a port")?)?)
}

/// A controller whose authority lives for seconds: shorter than its command line lets anybody choose.
fn short_lived(
    kubeconfig: &Path,
    port: u16,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<()> {
    let address = format!("--webhook-addr=127.0.0.1:{port}");
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let words = [
        "weft-control",
        &kubeconfig,
        &address,
        "--listen=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
    ];
    let words = words.map(std::ffi::OsString::from);
    let mut config = weft_control::args::Config::parse(words, None)?;
    let webhook = config.webhook.as_mut().context("a webhook")?;
    // A sixth of it is what the API server has to hear of the next one, and what is left of the old one then: more than a
    // busy machine needs.
    webhook.ca_ttl = std::time::Duration::from_secs(45);
    with_runtime(weft_control::app::run(config, async {
        let _ = stopped.await;
    }))
}
