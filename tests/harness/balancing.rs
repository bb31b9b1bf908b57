//! What the balancer does about endpoints that are slow or fail, counted at the endpoints and seen by a client.

use crate::load::{self, Sample};
use crate::{Access, Exec, Mesh, PodInfo, echo, eventually, moody};
use anyhow::{Context, ensure};
use std::time::Instant;

/// Milliseconds of the slow endpoint where latencies are judged; the others take a tenth.
pub const SLOW: u64 = 200;
const RATE: u64 = 100;
/// Seconds after which a request is lost, where latencies are judged.
pub const PROMPT: u64 = 2;
/// The same where only the status counts: far beyond what a busy machine needs.
pub const PATIENT: u64 = 30;

/// How ten endpoints are asked of which one is slow.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// For so long, at a hundred requests a second.
    pub seconds: u64,
    /// Never more at once: a machine that cannot keep up makes fewer requests, not a queue that hides who is slow.
    pub connections: u64,
    /// Milliseconds of the slow endpoint; the others take a tenth.
    pub slow: u64,
    /// [`PROMPT`] or [`PATIENT`].
    pub patience: u64,
}

/// One endpoint of ten that is ten times slower.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    /// Requests to all of them, after the first second.
    pub requests: usize,
    /// Of these, to the slow one.
    pub to_slow: u64,
    /// What the client saw of these, milliseconds.
    pub p99: u64,
}

/// One endpoint of five that always fails, with retries on.
#[derive(Debug, Clone, Copy)]
pub struct Failing {
    /// Requests it got until it was set aside, one of the client's after the other.
    pub before_ejection: u64,
    /// Requests of the client, under load from then on.
    pub requests: usize,
    /// Of these, answered well.
    pub good: usize,
}

/// All five failing, with retries on.
#[derive(Debug, Clone, Copy)]
pub struct AllFail {
    /// Requests of the client.
    pub requests: u64,
    /// What the endpoints got.
    pub served: u64,
    /// Seconds it took, rounded up: a slow machine takes longer, and the budget grows with time.
    pub seconds: u64,
    /// What the client waited for its failure, milliseconds.
    pub p99: u64,
}

/// A ServicePolicy for the Service `web`.
pub fn policy(spec: &str) -> String {
    format!(
        "apiVersion: weft.mesh/v1alpha1\nkind: ServicePolicy\nmetadata: {{ name: web }}\nspec: {{ service: web, {spec} }}\n"
    )
}

/// Sends the requests of a schedule (see the role `load`) through the client's proxy.
pub fn run(
    mesh: &Mesh,
    to: &str,
    path: &str,
    schedule: &str,
    connections: u64,
) -> anyhow::Result<Vec<Sample>> {
    send(mesh, &[to, path, schedule, &connections.to_string()])
}

/// The same to the Service `web`, with this patience.
fn ask(
    mesh: &Mesh,
    schedule: &str,
    connections: u64,
    patience: u64,
) -> anyhow::Result<Vec<Sample>> {
    let (connections, patience) = (connections.to_string(), patience.to_string());
    send(mesh, &["web:8080", "/", schedule, &connections, &patience])
}

fn send(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Vec<Sample>> {
    let this = std::env::current_exe()?.display().to_string();
    let command = [&[&*this, "role", "load"], args].concat();
    let exec = Exec::new(&mesh.pod("client")?.name, command);
    let output = mesh.client().output(&exec)?;
    let samples = load::parse(&String::from_utf8_lossy(&output.stdout));
    ensure!(!samples.is_empty(), "the load said nothing: {output:?}");
    Ok(samples)
}

/// Tells a pod of the role `moody` how to behave.
pub fn tell(mesh: &Mesh, pod: &PodInfo, mood: &str) -> anyhow::Result<()> {
    mesh.ask(pod, 8080, &format!("/-/mood?{mood}")).map(drop)
}

/// How many requests a pod of the role `moody` has got.
pub fn served(mesh: &Mesh, pod: &PodInfo) -> anyhow::Result<u64> {
    let text = mesh.ask(pod, 8080, "/-/served")?;
    text.parse().context("not a number")
}

/// The 99th percentile of what these took, milliseconds.
pub fn p99<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> u64 {
    let mut took: Vec<u64> = samples.into_iter().map(|at| at.took / 1000).collect();
    took.sort_unstable();
    let at = (took.len() * 99).div_ceil(100);
    took.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

fn up(replicas: u32) -> anyhow::Result<(Mesh, Vec<PodInfo>)> {
    let mesh = Mesh::up(
        Access::Permissive,
        &[&moody("web", replicas), &echo("client", 1)],
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let pods = mesh.pods("web")?;
    Ok((mesh, pods))
}

fn good(sample: &&Sample) -> bool {
    (200..300).contains(&sample.status)
}

/// One of ten becomes ten times slower.
pub fn slow_of_ten(asked: Asked) -> anyhow::Result<Slow> {
    let (mesh, pods) = up(10)?;
    for pod in &pods {
        tell(&mesh, pod, &format!("delay={}", asked.slow / 10))?;
    }
    let load = |seconds: u64| {
        let schedule = format!("{RATE}x{seconds}");
        ask(&mesh, &schedule, asked.connections, asked.patience)
    };
    load(3)?;
    tell(&mesh, &pods[0], &format!("delay={}", asked.slow))?;
    load(1)?;
    let before = served(&mesh, &pods[0])?;
    let samples = load(asked.seconds)?;
    ensure!(samples.iter().all(|at| good(&at)), "some were lost");
    Ok(Slow {
        requests: samples.len(),
        to_slow: served(&mesh, &pods[0])? - before,
        p99: p99(&samples),
    })
}

fn retries(mesh: &Mesh, result: &str) -> anyhow::Result<f64> {
    let labels = [("result", result)];
    Ok(mesh.metrics("client")?.sum("weft_retries_total", &labels))
}

/// Waits until a failure of the only failing endpoints is asked for again.
fn retried(mesh: &Mesh, spec: &str) -> anyhow::Result<()> {
    mesh.apply("policy", &policy(spec))?;
    eventually("the policy is in force", || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        let tried = retries(mesh, "tried")? + retries(mesh, "budget")?;
        ensure!(tried > 0.0, "{answer:?}");
        Ok(())
    })
}

/// One of five fails from the moment on when retries are in force.
pub fn failing_of_five(seconds: u64, patience: u64) -> anyhow::Result<Failing> {
    let (mesh, pods) = up(5)?;
    // All fail once, so that it shows when the policy holds; then they are well, and forgotten about.
    pods.iter()
        .try_for_each(|pod| tell(&mesh, pod, "status=500"))?;
    retried(&mesh, "retries: { attempts: 2, statuses: [5xx] }")?;
    pods.iter()
        .try_for_each(|pod| tell(&mesh, pod, "status=200"))?;
    eventually("all are well", || {
        ask(&mesh, "50x1", 4, patience)?;
        let aside = mesh
            .metrics("client")?
            .sum("weft_backend_endpoints_ejected", &[]);
        ensure!(aside == 0.0);
        Ok(())
    })?;
    let ejections = || -> anyhow::Result<f64> {
        let metrics = mesh.metrics("client")?;
        Ok(metrics.sum("weft_backend_ejections_total", &[]))
    };
    let (before, had) = (ejections()?, served(&mesh, &pods[0])?);
    tell(&mesh, &pods[0], "status=500")?;
    let mut last = had;
    eventually("it is set aside", || {
        mesh.curl("client", "http://web:8080/[1-5]", &[])?;
        last = served(&mesh, &pods[0])?;
        ensure!(ejections()? > before, "{} requests", last - had);
        Ok(())
    })?;
    let samples = ask(&mesh, &format!("{RATE}x{seconds}"), 16, patience)?;
    Ok(Failing {
        before_ejection: last - had,
        requests: samples.len(),
        good: samples.iter().filter(good).count(),
    })
}

/// All five fail.
pub fn all_of_five(seconds: u64, patience: u64) -> anyhow::Result<AllFail> {
    let (mesh, pods) = up(5)?;
    let all = || -> anyhow::Result<u64> { pods.iter().map(|pod| served(&mesh, pod)).sum() };
    pods.iter()
        .try_for_each(|pod| tell(&mesh, pod, "status=500"))?;
    retried(
        &mesh,
        "retries: { attempts: 3, statuses: [5xx] }, retryBudget: { percent: 20, minPerSecond: 10 }",
    )?;
    let (before, began) = (all()?, Instant::now());
    let samples = ask(&mesh, &format!("{RATE}x{seconds}"), 16, patience)?;
    ensure!(!samples.iter().any(|at| good(&at)), "some were answered");
    Ok(AllFail {
        requests: samples.len() as u64,
        served: all()? - before,
        seconds: began.elapsed().as_secs() + 1,
        p99: p99(&samples),
    })
}

impl AllFail {
    /// Most requests that may have reached the endpoints: the budget is 20 % and 10 a second, besides what the few requests
    /// before and the second before them have saved.
    pub fn most(&self) -> u64 {
        self.requests + self.requests / 5 + 10 * (self.seconds + 2)
    }
}
