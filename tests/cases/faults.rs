//! What must not be lost when something dies or lies.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, allow_all, echo, eventually, workload};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) const CASES: &[Case] = &[
    ("controller_killed_under_load", &["curl"], controller_killed),
    ("rolling_restart_under_load", &["curl"], rolled),
    ("a_failing_endpoint_is_set_aside", &["curl"], set_aside),
    (
        "a_broken_manifest_changes_nothing",
        &["curl"],
        broken_manifest,
    ),
];

/// Calls in the background until told to stop; gives the calls made and those that failed.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<(usize, Vec<String>)>>,
}

impl Load {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, pod, stopped) = (
            mesh.client().clone(),
            mesh.pod("client")?.name,
            stop.clone(),
        );
        let thread = std::thread::spawn(move || {
            let (mut calls, mut failures) = (0, Vec::new());
            while !stopped.load(Relaxed) {
                // Twenty calls on one connection, each judged by itself.
                let format = "%{http_code} %{errormsg}\\n";
                let command = [
                    "curl",
                    "-s",
                    "-o",
                    "/dev/null",
                    "-w",
                    format,
                    "--max-time",
                    "30",
                    "http://web:8080/[1-20]",
                ];
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

    /// Ends it; an error if a call failed.
    fn lost_nothing(self) -> anyhow::Result<()> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join();
        let (calls, failures) = ended.map_err(|_| anyhow::anyhow!("the load"))??;
        ensure!(
            calls > 0 && failures.is_empty(),
            "{} of {calls} failed: {failures:?}",
            failures.len()
        );
        Ok(())
    }
}

/// One call, judged at once.
fn served(mesh: &Mesh) -> anyhow::Result<()> {
    let answer = mesh.curl("client", "http://web:8080/", &[])?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

fn controller_killed() -> anyhow::Result<()> {
    let mesh = Mesh::up_with(
        Access::Strict,
        &[
            &echo("web", 2),
            &echo("client", 1),
            &allow_all("client", "web"),
        ],
        |options| {
            options.restart_control = false;
        },
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let load = Load::start(&mesh)?;
    mesh.client().signal_control(9)?;
    let stale = || -> anyhow::Result<()> {
        let metrics = mesh.metrics("client")?;
        let old = metrics.sum("weft_control_staleness_seconds", &[]);
        let tried = metrics.sum("weft_control_reconnects_total", &[]);
        ensure!(old > 0.0, "not stale yet");
        ensure!(tried >= 2.0, "not tried again yet");
        Ok(())
    };
    eventually("the proxies say how old their policy is", stale)?;
    load.lost_nothing()?;
    // What changed meanwhile takes effect once the controller is back.
    mesh.delete("02")?;
    served(&mesh)?;
    mesh.client().start_control()?;
    eventually("the permission removed meanwhile is gone", || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(answer.status == 403, "{answer:?}");
        Ok(())
    })
}

fn rolled() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 2), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let old: Vec<_> = mesh.pods("web")?.into_iter().map(|pod| pod.name).collect();
    let load = Load::start(&mesh)?;
    mesh.client().restart("Deployment", "default", "web")?;
    eventually("every pod is new", || {
        let pods = mesh.client().pods()?;
        ensure!(
            pods.iter().all(|pod| !old.contains(&pod.name)),
            "old pods are left"
        );
        Ok(())
    })?;
    load.lost_nothing()
}

fn set_aside() -> anyhow::Result<()> {
    // One Service over two good pods and one that always fails.
    let broken = workload("broken", 1, &["broken", "8080"], 8080, "http").replace(
        "labels: { app: broken }",
        "labels: { app: broken, serves: all }",
    );
    let good = echo("good", 2).replace(
        "labels: { app: good }",
        "labels: { app: good, serves: all }",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { serves: all }\n  ports:\n    - { name: http, port: 8080 }\n";
    let mesh = Mesh::up(
        Access::Permissive,
        &[&good, &broken, service, &echo("client", 1)],
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let call = |calls: usize| -> anyhow::Result<(usize, usize)> {
        // Many at once: the balancer cannot avoid an endpoint that it has not heard of yet.
        let url = format!("http://web:8080/[1-{calls}]");
        let format = ["-o", "/dev/null", "-w", "%{http_code}\n"];
        let output = mesh.exec(
            "client",
            &[
                &["curl", "-s", "-Z", "--parallel-max", "30"],
                &format[..],
                &[&url],
            ]
            .concat(),
        )?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((text.matches("500").count(), text.lines().count()))
    };
    eventually("it is asked as well", || {
        let (failed, calls) = call(30)?;
        ensure!(failed > 0, "none of {calls} failed");
        Ok(())
    })?;
    // Its failures cost it the balancer's favour; those that still reach it open its breaker. A third would fail without.
    let (failed, calls) = call(600)?;
    ensure!(calls == 600 && failed <= 40, "{failed} of {calls} failed");
    Ok(())
}

fn broken_manifest() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[
            &echo("web", 1),
            &echo("client", 1),
            &allow_all("client", "web"),
        ],
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let good = allow_all("client", "web");
    let huge = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {} }}\n",
        "a".repeat(64 * 1024)
    );
    for (text, named) in [
        (format!("{good}---\n  broken: [yaml\n"), "02.yaml"),
        (
            format!(
                "{good}---\napiVersion: split.smi-spec.io/v9\nkind: TrafficSplit\nmetadata: {{ name: x }}\n"
            ),
            "v9",
        ),
        (
            good.replace("  rules:", "  surprise: 7\n  rules:"),
            "client-to-web",
        ),
        (format!("{good}---\n{huge}"), "metadata.name"),
    ] {
        mesh.apply("02", &text)?;
        eventually("the mistake is reported", || {
            let problems = mesh.client().status()?.problems.join("\n");
            ensure!(problems.contains(named), "{named:?} is not in {problems:?}");
            ensure!(problems.len() < 10_000, "and not at length");
            Ok(())
        })?;
        served(&mesh)?;
    }
    Ok(())
}
