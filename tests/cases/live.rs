//! The command line asked about a running mesh: what it says is what holds, and when `meshctl wait` returns it holds everywhere.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{Access, Mesh, Options, allow_http, echo, eventually, program, split};
use serde_json::Value;
use std::process::Command;
use std::time::Instant;

pub(crate) const CASES: &[Case] = &[
    (
        "a_change_is_everywhere_when_wait_returns",
        &["curl"],
        everywhere,
    ),
    ("the_running_mesh_is_asked", &["curl"], asked),
];

const ROOT: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { app: web-v1 }\n  ports:\n    - { name: http, port: 8080 }\n";

/// What `meshctl wait` is given where it has to succeed.
pub(crate) const LONG: &str = "3m";

/// What `meshctl` prints, what it says beside that, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn meshctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Said> {
    let output = Command::new(program("meshctl")?)
        .args(args)
        .arg("--state")
        .arg(mesh.client().state())
        .output()
        .context("cannot run meshctl")?;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs it; another exit code than expected is an error.
fn runs(mesh: &Mesh, code: i32, args: &[&str]) -> anyhow::Result<Said> {
    let said = meshctl(mesh, args)?;
    ensure!(
        said.code == code,
        "{args:?}: {}: {}{}",
        said.code,
        said.out,
        said.err
    );
    Ok(said)
}

fn up(access: Access, change: impl FnOnce(&mut Options)) -> anyhow::Result<Mesh> {
    let manifests = [
        ROOT,
        &echo("web-v1", 1),
        &echo("web-v2", 1),
        &echo("client", 1),
    ];
    Mesh::up_with(access, &manifests, change)
}

/// Which pods answered a hundred requests, one right after the other.
fn hundred(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let url = "http://web:8080/[1-100]";
    let output = mesh.exec("client", &["curl", "-s", "--max-time", "60", url])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bodies = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let pod = |body: Result<Value, _>| anyhow::Ok(body?["pod"].as_str().unwrap_or("?").to_owned());
    bodies.map(pod).collect()
}

fn everywhere() -> anyhow::Result<()> {
    let mesh = up(Access::Permissive, |_| {})?;
    let names = [mesh.pod("web-v1")?.name, mesh.pod("web-v2")?.name];
    mesh.answers("client", "http://web:8080/", 200)?;
    runs(&mesh, 0, &["wait", "--timeout", LONG])?;
    for round in 0..6 {
        let to = 1 - round % 2;
        let weights = [("web-v1", 1 - to), ("web-v2", to)];
        mesh.apply("split", &split("web", &weights))?;
        let began = Instant::now();
        runs(&mesh, 0, &["wait", "trafficsplit/web", "--timeout", LONG])?;
        let took = began.elapsed();
        let served = hundred(&mesh)?;
        let other = served.iter().filter(|it| **it != names[to as usize]);
        ensure!(
            served.len() == 100 && other.count() == 0,
            "round {round}: {served:?}"
        );
        println!("round {round}: wait returned after {took:?}");
    }
    refused(&mesh)?;
    mesh.delete("split")?;
    let deleted = ["wait", "split/web", "--for", "deleted", "--timeout", LONG];
    runs(&mesh, 0, &deleted)?;
    let served = hundred(&mesh)?;
    ensure!(served.iter().all(|it| *it == names[0]), "{served:?}");
    let said = runs(&mesh, 1, &["wait", "split/web", "--timeout", "1s"])?;
    ensure!(
        said.err.contains("TrafficSplit default/web is not there"),
        "{}",
        said.err
    );
    runs(&mesh, 2, &["wait", "web"])?;
    runs(&mesh, 2, &["wait", "thing/web"])?;
    behind(&mesh)
}

/// What is rejected is never everywhere, and waiting says so at once.
fn refused(mesh: &Mesh) -> anyhow::Result<()> {
    let broken = split("web", &[("web-v1", 1)]).replace("weight: 1", "weight: -1");
    mesh.apply("split", &broken)?;
    let said = runs(mesh, 1, &["wait", "trafficsplit/web"])?;
    ensure!(said.err.contains("weight"), "{}", said.err);
    Ok(())
}

/// A proxy that stands still is named.
fn behind(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.pod("client")?;
    let mut containers = pod.containers.iter();
    let proxy = containers.find(|it| it.name == "weft-proxy");
    let pid = proxy.and_then(|it| it.pid).context("the proxy runs")?;
    let signal = |signal: &str| {
        let output = mesh.node(&["kill", signal, &pid.to_string()])?;
        ensure!(output.code == 0, "{output:?}");
        anyhow::Ok(())
    };
    signal("-STOP")?;
    mesh.apply("split", &split("web", &[("web-v2", 1)]))?;
    // The others may take longer than that on a busy machine.
    let named = eventually("it is named alone", || {
        let said = meshctl(mesh, &["wait", "trafficsplit/web", "--timeout", "2s"])?;
        ensure!(
            said.code == 1 && said.err.contains(&pod.name) && !said.err.contains("web-v1"),
            "{}: {}",
            said.code,
            said.err
        );
        Ok(())
    });
    signal("-CONT")?;
    named?;
    runs(mesh, 0, &["wait", "trafficsplit/web", "--timeout", LONG])?;
    Ok(())
}

fn asked() -> anyhow::Result<()> {
    let mesh = up(Access::Strict, |options| options.restart_control = false)?;
    mesh.apply("split", &split("web", &[("web-v1", 3), ("web-v2", 1)]))?;
    mesh.apply("allow", &allow_http("client", "web-v1", "GET", "/public"))?;
    let request = |path: &'static str| {
        let to = [
            "--from-pod",
            "default/client",
            "--to",
            "web:8080",
            "--path",
            path,
        ];
        [&["simulate", "-o", "json"], &to[..]].concat()
    };
    // No wait before it: whoever asks is told of what is written by now.
    let said = runs(&mesh, 0, &request("/public"))?;
    let told: Value = serde_json::from_str(&said.out)?;
    ensure!(
        told["verdict"] == "mixed" && told["backends"][0]["share"] == 75.0,
        "{told:#}"
    );
    let (_, assumed) = (&told["to"], told["assumed"].as_array().context("assumed")?);
    ensure!(
        assumed.is_empty(),
        "a running mesh leaves nothing to assume: {told:#}"
    );
    runs(
        &mesh,
        1,
        &[&request("/private")[..], &["--expect", "allow"]].concat(),
    )?;
    let open = ["--access", "permissive", "--expect", "allow"];
    runs(&mesh, 0, &[&request("/private")[..], &open].concat())?;
    let text = runs(&mesh, 0, &["simulate", "--unmeshed", "--to", "web-v1:8080"])?;
    ensure!(text.out.starts_with("DENY 403"), "{}", text.out);

    mesh.answers("client", "http://web-v1:8080/public", 200)?;
    let said = runs(
        &mesh,
        0,
        &["describe", "split", "default/web", "-o", "json"],
    )?;
    let told: Value = serde_json::from_str(&said.out)?;
    ensure!(
        told["inForce"] == true && told["live"]["proxies"]["connected"] == 3,
        "{told:#}"
    );
    let pod = format!("default/{}", mesh.pod("web-v1")?.name);
    eventually("a pod's proxy has said when its certificate ends", || {
        let said = runs(&mesh, 0, &["describe", "pod", &pod, "-o", "json"])?;
        let told: Value = serde_json::from_str(&said.out)?;
        ensure!(told["live"]["state"] == "SYNCED", "{told:#}");
        ensure!(told["live"]["certificateEnds"].is_string(), "{told:#}");
        Ok(())
    })?;
    runs(&mesh, 2, &["describe", "split", "default/none"])?;
    let said = runs(
        &mesh,
        0,
        &["export", "trafficsplit/web", "--to", "gateway-api"],
    )?;
    ensure!(said.out.contains("kind: HTTPRoute"), "{}", said.out);
    let said = runs(&mesh, 0, &["export", "trafficsplit/web"])?;
    ensure!(
        said.out.contains("TrafficSplit default/web"),
        "{}",
        said.out
    );

    runs(&mesh, 0, &["analyze", "--fail-on", "warning"])?;
    mesh.apply("split", &split("web", &[("web-v1", 3), ("gone", 1)]))?;
    let said = runs(&mesh, 1, &["analyze", "--fail-on", "warning", "-o", "json"])?;
    let told: Value = serde_json::from_str(&said.out)?;
    ensure!(
        told[0]["code"] == "W111" && told[0]["line"].is_u64(),
        "{told:#}"
    );

    let checked = |code| runs(&mesh, code, &["check", "--local", "-o", "json"]);
    checked(0)?;
    mesh.client().signal_control(9)?;
    let report: Value = serde_json::from_str(&checked(1)?.out)?;
    let check = &report["categories"][0]["checks"][0];
    ensure!(check["id"] == "controller-answers", "{report:#}");
    ensure!(check["hint"].is_string(), "{report:#}");

    let nowhere = tempfile::tempdir()?;
    let output = Command::new(program("meshctl")?)
        .args(["analyze", "--state"])
        .arg(nowhere.path())
        .output()?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    Ok(())
}
