//! TrafficSplit: shares, conditions, and what happens when nothing is left to choose.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, echo, eventually, split};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("shares_conditions_and_nothing_left", &["curl"], shares),
    (
        "canary_tools_shift_without_a_failed_request",
        &["curl"],
        canary,
    ),
];

/// A Service over both versions, and a Service and Deployment for each.
fn versions() -> String {
    let root = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { app: web-v1 }\n  ports:\n    - { name: http, port: 8080 }\n";
    format!("{root}---\n{}---\n{}", echo("web-v1", 1), echo("web-v2", 1))
}

fn shares() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&versions(), &echo("client", 1)])?;
    let v2 = mesh.pod("web-v2")?.name;
    let share = |options: &[&str], calls: usize| -> anyhow::Result<(usize, usize)> {
        let urls = format!("http://web:8080/[1-{calls}]");
        let mut command = vec!["curl", "-s", "--max-time", "60"];
        command.extend(options);
        command.push(&urls);
        let text = String::from_utf8_lossy(&mesh.exec("client", &command)?.stdout).into_owned();
        Ok((text.matches(&v2).count(), text.matches("\"pod\"").count()))
    };
    mesh.answers("client", "http://web:8080/", 200)?;
    ensure!(
        share(&[], 50)? == (0, 50),
        "without a split the root's own endpoints serve"
    );
    mesh.apply("split", &split("web", &[("web-v1", 90), ("web-v2", 10)]))?;
    eventually("the split is in force", || {
        mesh.answers("client", "http://web:8080/", 200)?;
        ensure!(share(&[], 50)?.0 > 0);
        Ok(())
    })?;
    // 1,000 requests at 10 %: 100 expected; chance goes beyond this once in ten million times.
    let (second, all) = share(&[], 1000)?;
    ensure!(
        all == 1000 && (52..=154).contains(&second),
        "{second} of {all}"
    );

    let conditional = split("web", &[("web-v1", 0), ("web-v2", 1)])
        + "  matches:\n    - { kind: HTTPRouteGroup, name: beta }\n---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: { name: beta }\nspec:\n  matches:\n    - name: beta\n      headers:\n        - x-beta: \"yes\"\n";
    mesh.apply("split", &conditional)?;
    eventually("only requests that match follow the split", || {
        ensure!(share(&["-H", "x-beta: yes"], 20)? == (20, 20), "matching");
        ensure!(share(&[], 20)? == (0, 20), "others");
        Ok(())
    })?;
    ensure!(
        share(&["-H", "x-beta: yes please"], 20)? == (0, 20),
        "a header pattern must fit the whole value"
    );

    mesh.apply("split", &split("web", &[("web-v1", 0), ("web-v2", 0)]))?;
    eventually("all weights 0 is an instruction: 503", || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(
            answer.status == 503 && answer.header("weft-error").is_some(),
            "{answer:?}"
        );
        Ok(())
    })?;
    mesh.delete("split")?;
    eventually("the split is gone", || {
        ensure!(share(&[], 20)? == (0, 20));
        Ok(())
    })
}

/// What Flagger and Argo Rollouts write in their old versions, step by step and under load. Says how long a step took.
fn canary() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&versions(), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let stop = AtomicBool::new(false);
    let (answers, longest) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&mesh, &stop));
        let longest = steps(&mesh);
        stop.store(true, Ordering::Relaxed);
        let answers = load
            .join()
            .unwrap_or_else(|_| anyhow::bail!("the load panicked"));
        anyhow::Ok((answers?, longest?))
    })?;
    eprintln!("answers: {answers:?}; the longest step took {longest:?}");
    ensure!(
        answers.len() == 1 && answers.contains_key("200"),
        "{answers:?}"
    );
    Ok(())
}

/// Requests without a pause; how many there were of each status.
fn load(mesh: &Mesh, stop: &AtomicBool) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let command = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\\n",
            "http://web:8080/[1-100]",
        ];
        let output = mesh.exec("client", &command)?;
        for status in String::from_utf8_lossy(&output.stdout).lines() {
            *answers.entry(status.to_owned()).or_default() += 1;
        }
    }
    Ok(answers)
}

fn steps(mesh: &Mesh) -> anyhow::Result<Duration> {
    let v2 = mesh.pod("web-v2")?.name;
    let mut longest = Duration::ZERO;
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        for (canary, stable) in [(0, 100), (50, 50), (100, 0), (0, 100)] {
            let text = split("web", &[("web-v2", canary), ("web-v1", stable)]);
            let mut text = text.replace("v1alpha4", version);
            if version == "v1alpha1" {
                text = text
                    .replace("weight: 100", "weight: \"1e2\"")
                    .replace("weight: 50", "weight: 500m");
            }
            let start = Instant::now();
            mesh.apply("split", &text)?;
            eventually("the step is in force", || {
                let output = mesh.exec("client", &["curl", "-s", "http://web:8080/[1-20]"])?;
                let seen = String::from_utf8_lossy(&output.stdout).matches(&v2).count();
                let fits = match canary {
                    0 => seen == 0,
                    100 => seen == 20,
                    _ => (1..20).contains(&seen),
                };
                ensure!(fits, "{version}: {seen} of 20 at {canary} %");
                Ok(())
            })?;
            longest = longest.max(start.elapsed());
        }
    }
    Ok(longest)
}
