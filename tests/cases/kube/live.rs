//! The command line asked about a mesh whose objects are in an API server: by its controller, and by the API server alone.

use super::mesh::{Node, node};
use crate::dashboard::Dashboard;
use crate::live::LONG;
use anyhow::{Context, Result, ensure};
use harness::kube::Kube;
use harness::{Mesh, echo, eventually, program, split};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use weft_control::install::Install;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE, VIEWER_ACCOUNT};

const ROOT: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { app: web-v1 }\n  ports:\n    - { name: http, port: 8080 }\n";

/// Runs `meshctl` where the API server can be reached; another exit code than expected is an error.
fn meshctl(node: &Node, code: i32, words: &[&str]) -> Result<String> {
    let kubeconfig = node.kube.kubeconfig().display().to_string();
    let meshctl = program("meshctl")?.display().to_string();
    let all = node.prefix.iter().map(String::as_str);
    let all: Vec<&str> = all
        .chain([meshctl.as_str()])
        .chain(words.iter().copied())
        .chain(["--kubeconfig", kubeconfig.as_str()])
        .collect();
    run(code, &all)
}

/// The same, by the state folder of the node.
fn by_state(mesh: &Mesh, code: i32, words: &[&str]) -> Result<String> {
    let meshctl = program("meshctl")?.display().to_string();
    let state = mesh.state().display().to_string();
    run(code, &[&[&*meshctl], words, &["--state", &*state]].concat())
}

fn run(code: i32, words: &[&str]) -> Result<String> {
    said(code, words).map(|(out, _)| out)
}

/// What it prints, and what it says beside that.
fn said(code: i32, words: &[&str]) -> Result<(String, String)> {
    let output = Command::new(words[0]).args(&words[1..]).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{words:?}: {:?}: {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok((text(&output.stdout), text(&output.stderr)))
}

/// How many of a hundred requests, one right after the other, were answered by this pod.
fn served_by(mesh: &Mesh, pod: &str) -> Result<usize> {
    let url = "http://web:8080/[1-100]";
    let output = mesh.exec("client", &["curl", "-s", "--max-time", "60", url])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.matches(&format!("\"pod\":\"{pod}\"")).count())
}

pub(super) fn asked() -> Result<()> {
    let manifests = [
        ROOT,
        &echo("web-v1", 1),
        &echo("web-v2", 1),
        &echo("client", 1),
    ];
    // Its admin port is asked through the API server, which goes to no loopback address.
    let there = &node(&manifests, &[("WEFT_CONTROL_ADMIN_ADDR", "0.0.0.0:8085")])?;
    let (mesh, kube) = (&there.mesh, &there.kube);
    nowhere(there)?;
    // Where the Lease of whoever writes status is.
    kube.kubectl(&["create", "namespace", SYSTEM_NAMESPACE])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let pods = [mesh.pod("web-v1")?.name, mesh.pod("web-v2")?.name];
    ensure!(served_by(mesh, &pods[0])? == 100, "the echo says who it is");

    for round in 0..4 {
        let to = 1 - round % 2;
        kube.apply(&split("web", &[("web-v1", 1 - to), ("web-v2", to)]))?;
        let began = Instant::now();
        match round < 2 {
            true => by_state(mesh, 0, &["wait", "split/web", "--timeout", LONG])?,
            false => meshctl(there, 0, &["wait", "split/web", "--timeout", LONG])?,
        };
        let took = began.elapsed();
        let served = served_by(mesh, &pods[to as usize])?;
        ensure!(served == 100, "round {round}: {served} of 100");
        eprintln!("round {round}: wait returned after {took:?}");
    }
    kube.apply(&split("web", &[("web-v1", 1), ("web-v2", 3)]))?;
    told(there)?;
    // No controller is known there: what proxies have nobody says.
    let unknown = ["wait", "split/web", "--for", "synced", "--timeout", LONG];
    meshctl(there, 3, &unknown)?;
    proxies(there)?;
    kube.kubectl(&["delete", "trafficsplit", "web"])?;
    let deleted = ["wait", "split/web", "--for", "deleted", "--timeout", LONG];
    by_state(mesh, 0, &deleted)?;
    ensure!(served_by(mesh, &pods[0])? == 100, "the root serves");
    meshctl(there, 0, &["wait", "--timeout", LONG])?;
    meshctl(there, 1, &["wait", "split/web", "--timeout", "2s"])?;
    outdated(there)
}

/// Without its API server the controller answers from what it knows, and says so.
fn outdated(node: &Node) -> Result<()> {
    node.kube.kill_api();
    let meshctl = program("meshctl")?.display().to_string();
    let state = node.mesh.state().display().to_string();
    let ask = ["--from-pod", "default/client", "--to", "web:8080"];
    let words = [
        &[&*meshctl, "simulate", "-o", "json", "--state", &*state],
        &ask[..],
    ]
    .concat();
    let (out, err) = said(0, &words)?;
    let told: Value = serde_json::from_str(&out)?;
    ensure!(
        told["verdict"] == "allow" && told["outdated"].is_string(),
        "{told:#}"
    );
    ensure!(err.contains("could not be read in time"), "{err}");
    Ok(())
}

/// Without its namespace the controller writes no status, and says so; so does a check.
fn nowhere(node: &Node) -> Result<()> {
    let file = node
        .mesh
        .client()
        .log_file("default", "weft-control", None)?;
    let said = || -> Result<usize> {
        let log = std::fs::read_to_string(&file)?;
        Ok(log
            .matches("W170 no-status: there is no namespace weft-system")
            .count())
    };
    eventually("the controller says that it writes no status", || {
        ensure!(said()? > 0, "it does not");
        Ok(())
    })?;
    let checks = checks(node, &["check"], "weft-control")?;
    ensure!(
        checks[0]["id"] == "namespace" && checks[0]["result"] == "error" && checks.len() == 1,
        "{checks:#?}"
    );
    ensure!(said()? == 1, "once");
    Ok(())
}

/// What a check that fails says of one thing.
fn checks(node: &Node, words: &[&str], of: &str) -> Result<Vec<Value>> {
    let said = meshctl(node, 1, &[words, &["-o", "json"]].concat())?;
    let report: Value = serde_json::from_str(&said)?;
    let sections = report["categories"].as_array().context("categories")?;
    let section = sections.iter().find(|it| it["categoryName"] == of);
    let checks = section.and_then(|it| it["checks"].as_array());
    checks.cloned().with_context(|| format!("{report:#}"))
}

/// What is read from the API server alone.
fn told(node: &Node) -> Result<()> {
    let ask = ["--from-pod", "default/client", "--to", "web:8080"];
    let said = meshctl(node, 0, &[&["simulate", "-o", "json"], &ask[..]].concat())?;
    let told: Value = serde_json::from_str(&said)?;
    ensure!(told["verdict"] == "allow", "{told:#}");
    ensure!(told["backends"][1]["share"] == 75.0, "{told:#}");
    let strict = ["--access", "strict", "--expect", "deny"];
    meshctl(node, 0, &[&["simulate"], &ask[..], &strict].concat())?;
    meshctl(node, 0, &["analyze"])?;
    let said = meshctl(node, 0, &["describe", "split", "default/web", "-o", "json"])?;
    let told: Value = serde_json::from_str(&said)?;
    ensure!(told["inForce"] == true, "{told:#}");
    ensure!(
        told["live"]["unknown"].is_string(),
        "no controller is known: {told:#}"
    );
    let said = meshctl(node, 0, &["export", "split/web", "--to", "gateway-api"])?;
    ensure!(said.contains("kind: HTTPRoute"), "{said}");
    Ok(())
}

/// The controller as a pod of this name.
fn controller(node: &Node, name: &str) -> Result<()> {
    let kube = &node.kube;
    let labels = json!({"app.kubernetes.io/component": CONTROL_ACCOUNT});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "control", "image": "none"}]},
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": SYSTEM_NAMESPACE}});
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [account, pod]}).to_string())?;
    let address = node.mesh.client().status()?.control_addr.ip().to_string();
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    kube.set_status(&["pod", name, "-n", SYSTEM_NAMESPACE], &status)?;
    Ok(())
}

/// The controller as a pod, so that `meshctl check --proxy` finds it and asks it about the proxies.
fn proxies(node: &Node) -> Result<()> {
    controller(node, "control")?;
    let of_proxies = checks(node, &["check", "--proxy"], "weft-proxies")?;
    let fine = of_proxies.iter().all(|it| it["result"] == "success");
    ensure!(fine && of_proxies.len() == 3, "{of_proxies:#?}");
    let of_control = checks(node, &["check"], "weft-control")?;
    let written = of_control.iter().find(|it| it["id"] == "status-written");
    ensure!(
        written.is_some_and(|it| it["result"] == "success"),
        "{of_control:#?}"
    );
    meshctl(node, 0, &["wait", "split/web", "--timeout", LONG])?;
    // What only the controller knows is asked of it through the API server.
    let of = |kind: &str, name: &str| -> Result<Value> {
        let said = meshctl(node, 0, &["describe", kind, name, "-o", "json"])?;
        Ok(serde_json::from_str(&said)?)
    };
    eventually("the proxies are told of", || {
        let pod = of("pod", "default/client")?;
        ensure!(pod["live"]["state"] == "SYNCED", "{pod:#}");
        let split = of("split", "default/web")?;
        ensure!(split["live"]["proxies"]["synced"] == 3, "{split:#}");
        Ok(())
    })?;
    traffic(node)
}

/// Figures and single requests, by the rights of the account that an installation has for it, and of no other.
fn traffic(node: &Node) -> Result<()> {
    let stat = ["stat", "deploy/web-v1", "-t", "start"];
    let all = Install::default().render().into_iter();
    let viewer: Vec<Value> = all
        .filter(|it| it["metadata"]["name"] == VIEWER_ACCOUNT)
        .collect();
    ensure!(viewer.len() == 3, "{viewer:#?}");
    node.kube
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": viewer}).to_string())?;
    eventually("the account may see the traffic", || {
        let said = meshctl(node, 0, &stat)?;
        ensure!(
            said.contains("SUCCESS") && said.contains("web-v1"),
            "{said}"
        );
        Ok(())
    })?;
    let said = meshctl(node, 0, &["tap", "deploy/web-v1", "--seconds", "1"])?;
    ensure!(!said.contains("error"), "{said}");
    let top = ["top", "deploy/web-v1", "--seconds", "1"];
    eventually("top shows the requests that pass", || {
        let over = AtomicBool::new(false);
        let running = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = served_by(&node.mesh, "web-v1");
                }
            });
            let said = meshctl(node, 0, &top);
            over.store(true, Ordering::Relaxed);
            said
        });
        let said = running?;
        ensure!(
            said.contains("default/web-v1") && said.contains("GET"),
            "{said}"
        );
        Ok(())
    })?;
    dashboard(node)?;
    let said = meshctl(node, 0, &["identity"])?;
    ensure!(said.contains("client"), "{said}");
    meshctl(node, 1, &[&stat[..], &["--viewer", "default"]].concat())?;
    // There is no such account: nobody is reached.
    meshctl(node, 3, &[&stat[..], &["--viewer", "nobody"]].concat()).map(drop)
}

/// The page serves what the controller says, though it is reached through the API server alone; also while its pod is replaced.
fn dashboard(node: &Node) -> Result<()> {
    let (program, kube) = (program("meshctl")?.display().to_string(), &node.kube);
    let kubeconfig = kube.kubeconfig().display().to_string();
    let words = [
        &*program,
        "dashboard",
        "--port",
        "0",
        "--kubeconfig",
        &*kubeconfig,
    ];
    let prefix = node.prefix.iter().map(String::as_str);
    let page = Dashboard::start_by(&prefix.clone().chain(words).collect::<Vec<_>>())?;
    let (url, key) = (format!("http://{}", page.host()?), page.key()?);
    let bearer = format!("authorization: Bearer {key}");
    let get = |path: &str| -> Result<String> {
        let url = format!("{url}{path}");
        let curl = ["curl", "-sf", "--max-time", "30", "-H", &*bearer, &*url];
        run(0, &prefix.clone().chain(curl).collect::<Vec<_>>())
    };
    ensure!(get("/")?.contains("<html"), "no page");
    let shown = || -> Result<()> {
        let told: Value = serde_json::from_str(&get("/api/v1/dashboard")?)?;
        ensure!(told.to_string().contains("web-v1"), "{told:#}");
        Ok(())
    };
    shown()?;
    // Another pod takes the place of the first.
    controller(node, "control-2")?;
    let at_once = ["--force", "--grace-period=0"];
    let delete = ["delete", "pod", "control", "-n", SYSTEM_NAMESPACE];
    kube.kubectl(&[&delete[..], &at_once].concat())?;
    eventually("the page goes on", shown)
}

/// An upgrade keeps what was chosen and says what changes; what was chosen is what the command line goes by.
pub(super) fn upgraded() -> Result<()> {
    let kube = Kube::up()?;
    let program = program("meshctl")?.display().to_string();
    let kubeconfig = kube.kubeconfig().display().to_string();
    let meshctl = |code: i32, words: &[&str]| {
        said(
            code,
            &[&[&*program], words, &["--kubeconfig", &*kubeconfig]].concat(),
        )
    };
    let text = run(0, &[&program, "install", "--set", "access=strict"])?;
    kube.apply(&text)?;
    let (text, changes) = meshctl(0, &["upgrade", "--set", "replicas=3"])?;
    ensure!(changes.contains("value replicas: 2 -> 3"), "{changes}");
    ensure!(!changes.contains("value access"), "{changes}");
    ensure!(
        changes.contains("Deployment weft-system/weft-control: changes"),
        "{changes}"
    );
    kube.apply(&text)?;
    let (_, changes) = meshctl(0, &["upgrade"])?;
    ensure!(
        !changes.contains("value "),
        "what was chosen is kept: {changes}"
    );
    let deployment = kube.get(&["deployment", CONTROL_ACCOUNT, "-n", SYSTEM_NAMESPACE])?;
    ensure!(deployment["spec"]["replicas"] == 3, "{deployment}");
    let (_, changes) = meshctl(0, &["upgrade", "--set", "metricsApi=false"])?;
    ensure!(
        changes.contains("APIService v1alpha1.metrics.smi-spec.io: no part of it any more"),
        "{changes}"
    );

    let labels = json!({"app": "web"});
    let injected = json!({"weft.mesh/injected-at-version": "0.1.0"});
    let items = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 80}]}},
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": labels, "annotations": injected},
            "spec": {"containers": [{"name": "app", "image": "none"}]},
        },
    ]);
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let status = json!({"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]});
    kube.set_status(&["pod", "web"], &status)?;
    let ask = [
        "simulate",
        "--from",
        "default/client",
        "--to-pod",
        "default/web:80",
    ];
    let (answer, notes) = meshctl(0, &[&ask[..], &["--expect", "deny"]].concat())?;
    ensure!(
        notes.is_empty(),
        "the installation says what holds: {notes}"
    );
    ensure!(answer.starts_with("DENY 403"), "{answer}");

    let (text, _) = meshctl(0, &["uninstall"])?;
    kube.kubectl_with(&["delete", "--wait=false", "-f", "-"], &text)?;
    let (answer, notes) = meshctl(0, &[&ask[..], &["--expect", "allow"]].concat())?;
    ensure!(notes.contains("access permissive"), "{answer}{notes}");
    Ok(())
}
