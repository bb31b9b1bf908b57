//! The steps of the demonstration. Each says what it expects, does one thing, watches, and compares.

use super::app::Seen;
use super::manifests::{APP, NAMESPACE, POLICY, WEB_TO_FRONT, split};
use super::observe::{Edges, Look, look, since, tls_share, until};
use super::{page, screen};
use crate::local::{self, Client, Exec, Rung, Runtime};
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the demonstration is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the story takes, once everything runs; the steps share it.
    pub seconds: u64,
    /// No live view: one line for each step on standard error.
    pub headless: bool,
    /// Force one rung of the runtime.
    pub rung: Option<Rung>,
    /// State folder of the runtime; a temporary one if absent.
    pub state: Option<PathBuf>,
}

/// What one step expected and saw.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// What was done.
    pub name: &'static str,
    /// What should follow.
    pub expected: String,
    /// What followed.
    pub saw: String,
    /// Whether that is the same.
    pub held: bool,
}

/// The outcome, as `-o json` prints it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// `demo.weft.mesh/v1`.
    pub api_version: &'static str,
    /// Every step held.
    pub held: bool,
    /// On which rung of the runtime it ran.
    pub rung: String,
    /// Seconds from the first manifest until every pod was ready and answered.
    pub ready_seconds: f64,
    /// Requests of the load generator.
    pub requests: u64,
    /// Those answered with 200.
    pub success: u64,
    /// Those that failed outside the steps in which failure was staged.
    pub unexpected_failures: u64,
    /// Good answers by version of the backend.
    pub backends: BTreeMap<String, u64>,
    /// Share of requests and TCP streams between meshed pods under mutual TLS.
    pub mtls_share: f64,
    /// Requests denied by policy, as the proxies counted.
    pub denied: u64,
    /// Latency seen by the load generator, milliseconds.
    pub latency_ms: Latency,
    /// The steps.
    pub steps: Vec<StepReport>,
}

/// Quantiles, milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Half of the requests were faster.
    pub p50: f64,
    /// 95 % were.
    pub p95: f64,
    /// 99 % were.
    pub p99: f64,
}

/// Everything runs after this long, or never will.
const READY: Duration = Duration::from_secs(90);
/// A change of policy is in force after this long.
const IN_FORCE: Duration = Duration::from_secs(1);

/// Starts the mesh, tells the story, takes everything away again.
pub fn run(options: &Options) -> anyhow::Result<Summary> {
    let folder = tempfile::Builder::new().prefix("weft-demo-").tempdir()?;
    let state = options
        .state
        .clone()
        .unwrap_or_else(|| folder.path().join("state"));
    let access = local::Access::Strict;
    let runtime = Runtime::up(local::Options {
        state,
        access,
        rung: options.rung,
        ..local::Options::default()
    })?;
    let start = Instant::now();
    let mut teller = Teller::begin(runtime.client(), options)?;
    teller.ready_seconds = start.elapsed().as_secs_f64();
    let told = teller.tell();
    let summary = told.and_then(|()| teller.summary());
    let diagnosis = if summary.is_err() {
        diagnose(runtime.client())
    } else {
        String::new()
    };
    runtime.down()?;
    summary.with_context(|| format!("the story broke off{diagnosis}"))
}

struct Teller<'a> {
    client: &'a Client,
    options: &'a Options,
    rung: Rung,
    ready_seconds: f64,
    first: Look,
    steps: Vec<StepReport>,
    weights: (u32, u32),
    page: String,
    unexpected: u64,
    denied: f64,
    tls: f64,
    traffic: f64,
}

impl<'a> Teller<'a> {
    fn begin(client: &'a Client, options: &'a Options) -> anyhow::Result<Self> {
        let status = client.status()?;
        let rung = status.rung;
        // On standard error: standard output is for the outcome.
        eprintln!("{}", status.rung_reason);
        if !options.headless {
            eprintln!("starting web, front, colour v1 and v2, tally, load and a stranger …");
        }
        for (file, text) in [
            ("policy.yaml", POLICY),
            ("web-to-front.yaml", WEB_TO_FRONT),
            ("split.yaml", &split(90, 10)),
            ("app.yaml", APP),
        ] {
            let problems = client.apply(file, text)?;
            if !problems.is_empty() {
                bail!(
                    "the demonstration's manifests were not accepted: {}",
                    problems.join("; ")
                );
            }
        }
        client
            .wait(READY)
            .with_context(|| format!("not every pod became ready{}", diagnose(client)))?;
        let enough =
            |look: &Look| look.load.ok >= 20 && look.load.since(&Seen::default()).requests > 0;
        let Some(first) = until(client, READY, enough)? else {
            let last = look(client)?.load;
            bail!(
                "no traffic gets through: {} ({:?}){}",
                last.last_error,
                last.status,
                diagnose(client)
            );
        };
        Ok(Self {
            client,
            options,
            rung,
            ready_seconds: 0.0,
            first,
            steps: Vec::new(),
            weights: (90, 10),
            page: if options.headless {
                String::new()
            } else {
                format!("http://{}/", page::serve(client)?)
            },
            unexpected: 0,
            denied: 0.0,
            tls: 0.0,
            traffic: 0.0,
        })
    }

    fn tell(&mut self) -> anyhow::Result<()> {
        self.split_step("traffic split 90/10", 90, 10, 0.25)?;
        self.split_step("traffic split shifted to 50/50", 50, 50, 0.2)?;
        self.roll()?;
        self.fail()?;
        self.forbid()?;
        self.permit()?;
        self.stranger()
    }

    /// Weights take effect within a second, and no request fails while they do.
    fn split_step(
        &mut self,
        name: &'static str,
        v1: u32,
        v2: u32,
        share: f64,
    ) -> anyhow::Result<()> {
        let change = self.look()?;
        self.client.apply("split.yaml", &split(v1, v2))?;
        self.weights = (v1, v2);
        let settled = self.watch(&change, IN_FORCE, name)?;
        let end = self.watch(&settled, self.part(share), name)?;
        let seen = end.load.since(&settled.load);
        let failed = end.load.since(&change.load).failed();
        let (count, total) = (
            seen.versions.get("v2").copied().unwrap_or(0),
            seen.versions.values().sum::<u64>(),
        );
        let wanted = f64::from(v2) / f64::from(v1 + v2);
        let held = total > 0 && failed == 0 && within_binomial(count, total, wanted);
        self.unexpected += failed;
        let expected = format!("v2 gets {:.0} %, 0 failed", wanted * 100.0);
        let share = 100.0 * count as f64 / total.max(1) as f64;
        self.report(
            name,
            expected,
            format!("v2 got {share:.1} % of {total}, {failed} failed"),
            held,
        );
        Ok(())
    }

    /// Pods are replaced one after another, and no request fails.
    fn roll(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "front rolled, pod by pod";
        let before = self.look()?;
        self.client.restart("Deployment", NAMESPACE, "front")?;
        let client = self.client.clone();
        let rolled = std::thread::spawn(move || client.wait(READY));
        let mut end = before.clone();
        while !rolled.is_finished() {
            end = self.watch(&end, Duration::from_millis(500), NAME)?;
        }
        rolled
            .join()
            .ok()
            .context("the roll-out was not followed to its end")??;
        end = self.watch(&end, self.part(0.1), NAME)?;
        let seen = end.load.since(&before.load);
        self.unexpected += seen.failed();
        let held = seen.failed() == 0 && seen.requests > 0;
        let saw = format!(
            "{} failed of {}{}",
            seen.failed(),
            seen.requests,
            last(&end, seen.failed())
        );
        self.report(NAME, "0 failed".into(), saw, held);
        Ok(())
    }

    /// One of three backends fails every call: the balancer gives it no more traffic, the breaker takes it out, and it
    /// comes back when it is well.
    fn fail(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "one colour pod fails every call";
        // Two callers, at most seven failures in a row each, and a few probes.
        const MOST: u64 = 30;
        let before = self.look()?;
        let pods = self.client.pods()?;
        let version = |pod: &&local::PodInfo| {
            pod.labels
                .get("version")
                .is_some_and(|version| version == "v1")
        };
        let pod = pods
            .iter()
            .filter(|pod| pod.service_account == "colour")
            .find(version);
        let pod = pod.context("no pod of colour-v1")?.name.clone();
        self.order(&pod, "on")?;
        let end = self.watch(&before, self.part(0.2), NAME)?;
        self.order(&pod, "off")?;
        let seen = end.load.since(&before.load);
        let held = (1..=MOST).contains(&seen.failed()) && seen.ok > 0;
        let share = 100.0 * seen.failed() as f64 / seen.requests.max(1) as f64;
        let ejections = end.ejections - before.ejections;
        let saw = format!(
            "{} of {} failed ({share:.1} %), {ejections} ejections",
            seen.failed(),
            seen.requests
        );
        self.report(
            NAME,
            format!("it is set aside: at most {MOST} failed"),
            saw,
            held,
        );
        until(self.client, Duration::from_secs(15), |look| {
            look.ejected_now == 0.0
        })?;
        Ok(())
    }

    fn order(&self, pod: &str, state: &str) -> anyhow::Result<()> {
        let mut exec = Exec::new(pod, ["meshctl", "demo-app", "fail", state]);
        exec.namespace = NAMESPACE.to_owned();
        exec.container = Some("app".to_owned());
        let output = self.client.output(&exec)?;
        if output.code != 0 {
            bail!(
                "cannot make {pod} fail: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Without its TrafficTarget, web may not call front any more.
    fn forbid(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "permission web → front removed";
        let before = self.look()?;
        self.client.delete_file("web-to-front.yaml")?;
        let settled = self.watch(&before, IN_FORCE, NAME)?;
        let end = self.watch(&settled, self.part(0.1), NAME)?;
        let seen = end.load.since(&settled.load);
        let refused = seen.status.get(&403).copied().unwrap_or(0);
        let held = seen.requests > 0 && refused == seen.requests;
        let saw = format!("{refused} of {} refused", seen.requests);
        self.report(
            NAME,
            "every request refused with 403 after a second".into(),
            saw,
            held,
        );
        Ok(())
    }

    /// With it, it may.
    fn permit(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "permission web → front restored";
        let before = self.look()?;
        self.client.apply("web-to-front.yaml", WEB_TO_FRONT)?;
        let settled = self.watch(&before, IN_FORCE, NAME)?;
        let end = self.watch(&settled, self.part(0.15), NAME)?;
        let seen = end.load.since(&settled.load);
        self.unexpected += seen.failed();
        let held = seen.requests > 0 && seen.failed() == 0;
        let saw = format!(
            "{} failed of {}{}",
            seen.failed(),
            seen.requests,
            last(&end, seen.failed())
        );
        self.report(NAME, "0 failed after a second".into(), saw, held);
        Ok(())
    }

    /// All the while, a meshed pod that nobody allowed anything got nothing, and everything was encrypted.
    fn stranger(&mut self) -> anyhow::Result<()> {
        let end = self.look()?;
        let (ok, refused) = (
            end.stranger.ok,
            end.stranger.status.get(&403).copied().unwrap_or(0),
        );
        let saw = format!("{ok} served, {refused} refused");
        self.report(
            "a stranger calls front",
            "0 served".into(),
            saw,
            ok == 0 && refused > 0,
        );
        let share = self.tls / self.traffic.max(1.0);
        let held = self.traffic > 0.0 && self.tls == self.traffic;
        let saw = format!("{:.4} of {} requests and streams", share, self.traffic);
        self.report("mutual TLS between meshed pods", "1.0".into(), saw, held);
        Ok(())
    }

    /// Looks on for this long; adds up what the proxies counted meanwhile.
    fn watch(&mut self, from: &Look, duration: Duration, title: &str) -> anyhow::Result<Look> {
        let start = Instant::now();
        let mut previous = from.clone();
        loop {
            let left = duration.saturating_sub(start.elapsed());
            std::thread::sleep(left.min(Duration::from_secs(1)));
            let now = self.look()?;
            self.add(
                &since(&now.edges, &previous.edges),
                (now.denied - previous.denied).max(0.0),
            );
            if !self.options.headless {
                let view = screen::View {
                    title,
                    page: &self.page,
                    state: self.client.state(),
                    weights: self.weights,
                    steps: &self.steps,
                };
                screen::show(&screen::draw(&previous, &now, &view));
            }
            if start.elapsed() >= duration {
                return Ok(now);
            }
            previous = now;
        }
    }

    fn add(&mut self, edges: &Edges, denied: f64) {
        self.denied += denied;
        self.traffic += edges
            .values()
            .map(|edge| edge.requests + edge.streams)
            .sum::<f64>();
        self.tls += tls_share(edges).unwrap_or(0.0)
            * edges.values().map(|e| e.requests + e.streams).sum::<f64>();
    }

    fn look(&self) -> anyhow::Result<Look> {
        look(self.client)
    }

    fn part(&self, share: f64) -> Duration {
        Duration::from_secs_f64((self.options.seconds as f64 * share).max(2.0))
    }

    fn report(&mut self, name: &'static str, expected: String, saw: String, held: bool) {
        let step = StepReport {
            name,
            expected,
            saw,
            held,
        };
        if self.options.headless {
            eprintln!("{}", screen::line(&step));
        }
        self.steps.push(step);
    }

    fn summary(&self) -> anyhow::Result<Summary> {
        let seen = self.look()?.load.since(&self.first.load);
        Ok(Summary {
            api_version: "demo.weft.mesh/v1",
            held: self.steps.iter().all(|step| step.held),
            rung: self.rung.name().to_owned(),
            ready_seconds: self.ready_seconds,
            requests: seen.requests,
            success: seen.ok,
            unexpected_failures: self.unexpected,
            backends: seen.versions.clone(),
            mtls_share: if self.traffic > 0.0 {
                self.tls / self.traffic
            } else {
                0.0
            },
            denied: self.denied as u64,
            latency_ms: Latency {
                p50: seen.quantile_ms(0.5),
                p95: seen.quantile_ms(0.95),
                p99: seen.quantile_ms(0.99),
            },
            steps: self.steps.clone(),
        })
    }
}

/// Within four standard deviations (and one request) of what chance allows.
fn within_binomial(count: u64, total: u64, wanted: f64) -> bool {
    let (total, count) = (total as f64, count as f64);
    let deviation = (total * wanted * (1.0 - wanted)).sqrt();
    (count - total * wanted).abs() <= 4.0 * deviation + 1.0
}

fn last(look: &Look, failed: u64) -> String {
    if failed == 0 {
        String::new()
    } else {
        format!(" (last: {})", look.load.last_error)
    }
}

/// What may explain why something does not run.
fn diagnose(client: &Client) -> String {
    let mut text = String::new();
    for pod in client
        .pods()
        .unwrap_or_default()
        .iter()
        .filter(|pod| !pod.ready && !pod.finished)
    {
        text += &format!("\n  pod {}/{}: {}", pod.namespace, pod.name, pod.status);
        text += &pod
            .message
            .as_ref()
            .map_or(String::new(), |message| format!(" ({message})"));
    }
    for problem in client
        .status()
        .map(|status| status.problems)
        .unwrap_or_default()
    {
        text += &format!("\n  {problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::within_binomial;

    #[test]
    fn chance_is_told_from_a_wrong_split() {
        assert!(within_binomial(100, 1000, 0.1));
        assert!(within_binomial(130, 1000, 0.1));
        assert!(!within_binomial(150, 1000, 0.1));
        assert!(!within_binomial(0, 1000, 0.1));
        assert!(within_binomial(0, 1000, 0.0));
        assert!(!within_binomial(500, 1000, 0.0));
    }
}
