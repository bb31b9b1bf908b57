//! Traffic as objects, asked of the API server, which asks the controller.

use super::mesh::{Node, node};
use anyhow::{Context, Result, bail, ensure};
use harness::kube::Kube;
use harness::{Mesh, echo, eventually};
use serde_json::{Value, json};
use std::process::Command;
use weft_control::kube::metrics_api::{GROUP, VERSIONS, services};
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE, control_env};

/// Where the controller of the node listens.
const WEBHOOK: &str = "127.0.0.1:8443";
const METRICS_API: &str = "127.0.0.1:8444";
/// Successes and failures that are sent.
const SENT: (u64, u64) = (40, 7);

/// The APIServices, and the Service they lead to: whoever listens on the node. Nobody says here whom to trust; the
/// controller does.
fn register(kube: &Kube) -> Result<()> {
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": CONTROL_ACCOUNT, "namespace": SYSTEM_NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }),
    ];
    items.extend(services().zip(VERSIONS).map(|(name, version)| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
            "spec": {
                "group": GROUP, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": CONTROL_ACCOUNT, "namespace": SYSTEM_NAMESPACE, "port": 8444},
            },
        })
    }));
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    eventually("the API server finds and believes the controller", || {
        for name in services() {
            let wait = [
                "wait",
                "apiservice",
                &name,
                "--for=condition=Available",
                "--timeout=5s",
            ];
            kube.kubectl(&wait)?;
        }
        Ok(())
    })
}

fn raw(kube: &Kube, path: &str, more: &[&str]) -> Result<Value> {
    let path = format!("/apis/{GROUP}/v1alpha1{path}");
    let words = [&["get", "--raw", path.as_str()], more].concat();
    Ok(serde_json::from_str(&kube.kubectl(&words)?)?)
}

/// Successes and failures of an object.
fn counts(object: &Value) -> Result<(u64, u64)> {
    let metric = |name: &str| -> Result<u64> {
        let all = object["metrics"].as_array().context("no metrics")?;
        let found = all.iter().find(|metric| metric["name"] == name);
        let value = found.and_then(|metric| metric["value"].as_str());
        value
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("no {name} in {object}"))
    };
    Ok((metric("success_count")?, metric("failure_count")?))
}

/// The same as `meshctl stat` says it.
fn stat(mesh: &Mesh, resource: &str) -> Result<(u64, u64)> {
    let output = Command::new(harness::program("meshctl")?)
        .args(["stat", resource, "-t", "10m", "-o", "json", "--state"])
        .arg(mesh.client().state())
        .output()?;
    let document: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let row = &document["rows"][0];
    let number = |part: &str| {
        row[part]
            .as_u64()
            .with_context(|| format!("{part} in {document}"))
    };
    Ok((number("success")?, number("failure")?))
}

const SIDES: [(&str, &str); 2] = [
    ("/namespaces/default/deployments/web", "deploy/web"),
    ("/namespaces/default/services/web", "svc/web"),
];

pub(super) fn aggregated() -> Result<()> {
    let environment = [
        (control_env::WEBHOOK_ADDR, WEBHOOK),
        (control_env::METRICS_API_ADDR, METRICS_API),
    ];
    let manifests = [echo("web", 1), echo("client", 1)];
    let node = node(&[&manifests[0], &manifests[1]], &environment)?;
    let (mesh, kube) = (&node.mesh, &node.kube);
    register(kube)?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let ask = |path: &str| raw(kube, &format!("{path}?t=10m"), &[]);
    let before = SIDES.map(|(path, _)| ask(path).and_then(|object| counts(&object)));
    for (status, count) in [(200, SENT.0), (500, SENT.1)] {
        let url = format!("http://web:8080/[1-{count}]?status={status}");
        let output = mesh.exec("client", &["curl", "-s", "-o", "/dev/null", &url])?;
        ensure!(output.code == 0, "{output:?}");
    }
    for ((path, resource), before) in SIDES.iter().zip(before) {
        let before = before?;
        eventually(&format!("{path} counts exactly"), || {
            let now = counts(&ask(path)?)?;
            let grown = (now.0 - before.0, now.1 - before.1);
            ensure!(grown == SENT, "{grown:?} in place of {SENT:?}");
            let stat = stat(mesh, resource)?;
            ensure!(now == stat, "meshctl stat says {stat:?}, not {now:?}");
            Ok(())
        })?;
    }
    told(kube)?;
    permitted(kube)?;
    refused(&node)
}

/// Lists, edges and discovery, as clients find them.
fn told(kube: &Kube) -> Result<()> {
    let edges = raw(
        kube,
        "/namespaces/default/deployments/client/edges?t=10m",
        &[],
    )?;
    let to = edges["items"]
        .as_array()
        .context("no items")?
        .iter()
        .find(|item| {
            item["edge"]["direction"] == "to" && item["edge"]["resource"]["name"] == "web"
        });
    let edge = &to.with_context(|| edges.to_string())?["edge"];
    ensure!(
        edge["side"] == "client" && edge["resource"]["kind"] == "Deployment",
        "{edge}"
    );
    let selected = raw(
        kube,
        "/namespaces/default/pods?labelSelector=app%3Dweb",
        &[],
    )?;
    let items = selected["items"].as_array().map_or(0, Vec::len);
    ensure!(
        items == 1 && selected["selector"]["matchLabels"]["app"] == "web",
        "{selected}"
    );
    let resources = raw(kube, "", &[])?;
    let known = resources["resources"].as_array().context("no resources")?;
    ensure!(
        known.iter().any(|it| it["name"] == "trafficsplits"),
        "{resources}"
    );
    let missing = raw(kube, "/namespaces/default/deployments/nobody", &[]);
    let said = missing
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(
        said.contains("NotFound") && said.contains("nobody"),
        "missing: {said}"
    );
    // Short names go on meaning what they meant.
    let pods = kube.kubectl(&["get", "pods", "-o", "name"])?;
    ensure!(
        pods.lines().all(|line| line.starts_with("pod/")),
        "pods: {pods}"
    );
    Ok(())
}

/// What RBAC allows is decided before we are asked.
fn permitted(kube: &Kube) -> Result<()> {
    kube.kubectl(&[
        "create",
        "role",
        "edges",
        "--verb=get",
        "--resource=pods.metrics.smi-spec.io/edges",
    ])?;
    kube.kubectl(&["create", "rolebinding", "ann", "--role=edges", "--user=ann"])?;
    let pods = raw(kube, "/namespaces/default/pods", &[])?;
    let name = pods["items"][0]["metadata"]["name"]
        .as_str()
        .context("no pod")?;
    let path = format!("/namespaces/default/pods/{name}");
    let ann = ["--as", "ann"];
    eventually("ann sees edges", || {
        raw(kube, &format!("{path}/edges"), &ann).map(drop)
    })?;
    let error = raw(kube, &path, &ann)
        .err()
        .context("ann sees the pod")?
        .to_string();
    ensure!(error.contains("Forbidden"), "{error}");
    Ok(())
}

/// Nobody but the API server is answered.
fn refused(node: &Node) -> Result<()> {
    let url = format!("https://{METRICS_API}/apis/{GROUP}/v1alpha1/pods");
    let curl = [
        "curl",
        "-sk",
        "--max-time",
        "10",
        "-w",
        "\n%{http_code}",
        "-H",
        "X-Remote-User: admin",
        &url,
    ];
    let words = node.prefix.iter().map(String::as_str).chain(curl);
    let words: Vec<&str> = words.collect();
    let [program, arguments @ ..] = words.as_slice() else {
        bail!("no command");
    };
    let output = Command::new(program).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        text.contains("\n401") && text.contains("Unauthorized"),
        "{output:?}"
    );
    Ok(())
}
