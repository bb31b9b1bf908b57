//! What clients of old versions write into an installation, by the real conversion and the real admission.

use super::create;
use anyhow::{Context, Result, ensure};
use harness::eventually;
use harness::kube::Kube;
use serde_json::{Value, json};

/// A split as a canary tool writes it: its weights are quantities in v1alpha1, and whole numbers since. Argo Rollouts has the
/// root among the backends.
fn split(version: &str, [canary, stable]: [u32; 2]) -> Value {
    let weight = |weight: u32| match version {
        "v1alpha1" => json!(weight.to_string()),
        _ => json!(weight),
    };
    let backends = json!([
        {"service": "podinfo-canary", "weight": weight(canary)},
        {"service": "podinfo", "weight": weight(stable)},
    ]);
    json!({
        "apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
        "metadata": {"name": name(version)},
        "spec": {"service": "podinfo", "backends": backends},
    })
}

fn name(version: &str) -> String {
    format!("podinfo-{version}")
}

fn splits(version: &str) -> String {
    format!("trafficsplits.{version}.split.smi-spec.io")
}

fn patch(kube: &Kube, resource: &str, name: &str, path: &str, value: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": path, "value": value}]).to_string();
    let words = ["patch", resource, name, "--type=json", "-p", &patch];
    kube.kubectl(&words).map(drop)
}

/// Each tool is shown what it wrote, zeros and all, and nothing else.
pub(super) fn canaries(kube: &Kube) -> Result<()> {
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        for (step, weights) in [[0, 100], [5, 95], [100, 0]].into_iter().enumerate() {
            let written = split(version, weights);
            let shown = match step {
                0 => create(kube, "default", &written, &[])?,
                _ => {
                    let words = ["replace", "-o", "json", "-f", "-"];
                    serde_json::from_str(&kube.kubectl_with(&words, &written.to_string())?)?
                }
            };
            ensure!(shown["spec"] == written["spec"], "{shown}");
            ensure!(shown["metadata"]["annotations"].is_null(), "{shown}");
        }
    }
    // As linkerd-failover does; whoever reads another version sees the same.
    let name = name("v1alpha2");
    let weight = "/spec/backends/0/weight";
    patch(kube, &splits("v1alpha2"), &name, weight, &json!(0))?;
    let shown = kube.get(&[&splits("v1alpha1"), &name])?;
    ensure!(
        shown["spec"] == split("v1alpha1", [0, 0])["spec"],
        "{shown}"
    );
    hidden(kube)
}

/// What a version cannot show neither gets lost nor keeps its clients from writing.
fn hidden(kube: &Kube) -> Result<()> {
    let (name, stored) = (name("v1alpha3"), splits("v1alpha4"));
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    let merge = json!({"spec": {"matches": matches}}).to_string();
    kube.kubectl(&["patch", &stored, &name, "--type=merge", "-p", &merge])?;
    let weight = "/spec/backends/1/weight";
    patch(kube, &splits("v1alpha2"), &name, weight, &json!(7))?;
    let shown = kube.get(&[&stored, &name])?;
    ensure!(shown["spec"]["matches"] == matches, "{shown}");
    ensure!(shown["spec"]["backends"][1]["weight"] == 7, "{shown}");
    Ok(())
}

/// Who empties a list where that is allowed takes the access back: it is no mistake of the version that is stored.
pub(super) fn emptied(kube: &Kube) -> Result<()> {
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name});
    let target = json!({
        "apiVersion": "access.smi-spec.io/v1alpha2", "kind": "TrafficTarget", "metadata": {"name": "web"},
        "spec": {
            "destination": account("web"), "sources": [account("front")],
            "rules": [{"kind": "TCPRoute", "name": "any"}],
        },
    });
    create(kube, "default", &target, &[])?;
    let resource = "traffictargets.v1alpha2.access.smi-spec.io";
    patch(kube, resource, "web", "/spec/sources", &json!([]))?;
    eventually("the emptied target is accepted", || {
        let target = kube.get(&["traffictargets", "web"])?;
        ensure!(target["spec"]["sources"] == json!([]), "{target}");
        let all = target["status"]["conditions"].as_array();
        let accepted = all.and_then(|all| all.iter().find(|it| it["type"] == "Accepted"));
        let accepted = accepted.context("no condition yet")?;
        let is_new = accepted["observedGeneration"] == target["metadata"]["generation"];
        ensure!(accepted["status"] == "True" && is_new, "{accepted}");
        Ok(())
    })
}
