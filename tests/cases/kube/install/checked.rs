//! `meshctl check`, asked of a real API server.

use super::installed;
use anyhow::{Context, Result, ensure};
use harness::kube::Kube;
use harness::{eventually, program};
use serde_json::{Value, json};
use std::process::Command;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// `meshctl check` before, while all is well, and while it is not.
pub(in crate::kube) fn checks() -> Result<()> {
    let fresh = Kube::up()?;
    let (works, report) = check(&fresh, &["--pre"])?;
    ensure!(works, "{report:#}");
    drop(fresh);

    let (kube, _controller) = installed(&[])?;
    eventually("a controller holds the Lease of who writes status", || {
        let (works, report) = check(&kube, &[])?;
        ensure!(!works && wrong(&report) == ["replicas"], "{report:#}");
        Ok(())
    })?;
    let deployment = ["deployment", CONTROL_ACCOUNT, "-n", SYSTEM_NAMESPACE];
    kube.set_status(&deployment, &json!({"replicas": 2, "readyReplicas": 2}))?;
    let (works, report) = check(&kube, &[])?;
    ensure!(works && wrong(&report).is_empty(), "{report:#}");
    kube.kubectl(&["delete", "mutatingwebhookconfiguration", "weft-injector"])?;
    let (works, report) = check(&kube, &[])?;
    ensure!(!works, "{report:#}");
    ensure!(
        wrong(&report).contains(&"injection-works".to_owned()),
        "{report:#}"
    );
    let (_, report) = check(&kube, &["--pre"])?;
    let text = report.to_string();
    ensure!(
        text.contains("installed in weft-system already"),
        "{report:#}"
    );
    Ok(())
}

/// Does it end with 0, and what does it say?
fn check(kube: &Kube, more: &[&str]) -> Result<(bool, Value)> {
    let output = Command::new(program("meshctl")?)
        .args(["check", "-o", "json", "--kubeconfig"])
        .arg(kube.kubeconfig())
        .args(more)
        .output()?;
    let report = serde_json::from_slice(&output.stdout);
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), report.with_context(said)?))
}

fn wrong(report: &Value) -> Vec<String> {
    let sections = report["categories"].as_array().into_iter().flatten();
    let checks = sections.flat_map(|it| it["checks"].as_array().into_iter().flatten());
    let wrong = checks.filter(|check| check["result"] == "error");
    wrong
        .filter_map(|check| check["id"].as_str().map(str::to_owned))
        .collect()
}
