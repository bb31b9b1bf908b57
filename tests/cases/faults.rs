//! What must not be lost when something dies or lies.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, allow_all, echo, eventually, workload};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) const CASES: &[Case] = &[
    ("controller_killed_under_load", &["curl"], controller_killed),
    ("rolling_restart_under_load", &["curl"], rolled),
    ("a_failing_endpoint_is_ejected", &["curl"], ejected),
    ("a_broken_manifest_changes_nothing", &["curl"], broken_manifest),
];

/// Calls in the background until told to stop; gives the calls made and those that failed.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<(usize, Vec<String>)>>,
}

impl Load {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, pod, stopped) = (mesh.client().clone(), mesh.pod("client")?.name, stop.clone());
        let thread = std::thread::spawn(move || {
            let (mut calls, mut failures) = (0, Vec::new());
            while !stopped.load(Relaxed) {
                // Twenty calls on one connection, each judged by itself.
                let format = "%{http_code} %{errormsg}\\n";
                let command = ["curl", "-s", "-o", "/dev/null", "-w", format, "--max-time", "10", "http://web:8080/[1-20]"];
                let output = client.output(&harness::Exec::new(&pod, command))?;
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    calls += 1;
                    if !line.starts_with("200") {
                        failures.push(line.to_owned());
                    }
                }
            }
            Ok((calls, failures))
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> anyhow::Result<(usize, Vec<String>)> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load"))?
    }
}

fn controller_killed() -> anyhow::Result<()> {
    let mesh = Mesh::up_with(Access::Strict, &[&echo("web", 2), &echo("client", 1), &allow_all("client", "web")], |options| {
        options.restart_control = false;
    })?;
    let served = || -> anyhow::Result<()> {
        ensure!(mesh.curl("client", "http://web:8080/", &[])?.status == 200);
        Ok(())
    };
    eventually("calls are served", served)?;
    let load = Load::start(&mesh)?;
    mesh.client().signal_control(9)?;
    let stale = || -> anyhow::Result<()> {
        ensure!(mesh.metrics("client")?.sum("weft_control_staleness_seconds", &[]) > 0.0, "not stale yet");
        ensure!(mesh.metrics("client")?.sum("weft_control_reconnects_total", &[]) >= 2.0, "not tried again yet");
        Ok(())
    };
    eventually("the proxies say how old their policy is", stale)?;
    let (calls, failures) = load.end()?;
    ensure!(calls > 0 && failures.is_empty(), "{} of {calls} failed: {failures:?}", failures.len());
    // What changed meanwhile takes effect once the controller is back.
    mesh.delete("02")?;
    served()?;
    mesh.client().start_control()?;
    eventually("the permission removed meanwhile is gone", || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(answer.status == 403, "{answer:?}");
        Ok(())
    })
}

fn rolled() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 2), &echo("client", 1)])?;
    let old: Vec<_> = mesh.pods("web")?.into_iter().map(|pod| pod.name).collect();
    let load = Load::start(&mesh)?;
    mesh.client().restart("Deployment", "default", "web")?;
    eventually("every pod is new", || {
        let pods = mesh.client().pods()?;
        ensure!(pods.iter().all(|pod| !old.contains(&pod.name)), "old pods are left");
        Ok(())
    })?;
    let (calls, failures) = load.end()?;
    ensure!(calls > 0 && failures.is_empty(), "{} of {calls} failed: {failures:?}", failures.len());
    Ok(())
}

fn ejected() -> anyhow::Result<()> {
    // One Service over two good pods and one that always fails.
    let broken = workload("broken", 1, &["broken", "8080"], 8080, "http").replace("labels: { app: broken }", "labels: { app: broken, serves: all }");
    let good = echo("good", 2).replace("labels: { app: good }", "labels: { app: good, serves: all }");
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { serves: all }\n  ports:\n    - { name: http, port: 8080 }\n";
    let mesh = Mesh::up(Access::Permissive, &[&good, &broken, service, &echo("client", 1)])?;
    let call = |calls: usize| -> anyhow::Result<(usize, usize)> {
        let url = format!("http://web:8080/[1-{calls}]");
        let output = mesh.exec("client", &["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}\n", &url])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((text.matches("500").count(), text.lines().count()))
    };
    let (failed, calls) = call(300)?;
    ensure!(calls == 300 && failed <= 10, "{failed} of {calls} failed before the endpoint was set aside");
    ensure!(mesh.metrics("client")?.sum("weft_backend_ejections_total", &[]) >= 1.0, "and it was");
    Ok(())
}

fn broken_manifest() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Strict, &[&echo("web", 1), &echo("client", 1), &allow_all("client", "web")])?;
    let served = || -> anyhow::Result<()> {
        ensure!(mesh.curl("client", "http://web:8080/", &[])?.status == 200);
        Ok(())
    };
    eventually("calls are served", served)?;
    let huge = format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {} }}\n", "a".repeat(64 * 1024));
    for (text, named) in [
        (allow_all("client", "web") + "---\n  broken: [yaml\n", "02.yaml"),
        ("apiVersion: split.smi-spec.io/v9\nkind: TrafficSplit\nmetadata: { name: x }\nspec: {}\n".into(), "v9"),
        ("apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: { name: client-to-web }\nspec: 7\n".into(), "client-to-web"),
        (huge, "metadata.name"),
    ] {
        mesh.apply("02", &text)?;
        eventually("the mistake is reported", || {
            let problems = mesh.client().status()?.problems.join("\n");
            ensure!(problems.contains(named), "{named:?} is not in {problems:?}");
            ensure!(problems.len() < 10_000, "and not at length");
            Ok(())
        })?;
        served()?;
    }
    Ok(())
}
