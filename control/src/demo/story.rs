//! The demonstration from its start to its outcome: the mesh it runs on, what is seen meanwhile, and what came of it.

mod steps;

use super::app::Seen;
use super::manifests::{APP, POLICY, WEB_TO_FRONT, split};
use super::observe::{Edges, Look, look, since, tls_share, until};
use super::{page, screen};
use crate::local::{self, Client, Rung, Runtime};
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
const READY: Duration = Duration::from_secs(180);
/// Between two looks, at least.
const BREATH: Duration = Duration::from_millis(100);

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

    /// Looks on for this long, and until anything was answered: a machine that stands still for a moment tells nothing. Adds up
    /// what the proxies counted meanwhile.
    fn watch(&mut self, from: &Look, duration: Duration, title: &str) -> anyhow::Result<Look> {
        let start = Instant::now();
        let mut previous = from.clone();
        loop {
            let left = duration.saturating_sub(start.elapsed());
            std::thread::sleep(left.clamp(BREATH, Duration::from_secs(1)));
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
            let over = start.elapsed().checked_sub(duration);
            let heard = now.load.requests > from.load.requests;
            if over.is_some_and(|over| heard || over > READY) {
                return Ok(now);
            }
            previous = now;
        }
    }

    fn add(&mut self, edges: &Edges, denied: f64) {
        self.denied += denied;
        let traffic: f64 = edges
            .values()
            .map(|edge| edge.requests + edge.streams)
            .sum();
        self.traffic += traffic;
        self.tls += tls_share(edges).unwrap_or(0.0) * traffic;
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
