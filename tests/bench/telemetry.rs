//! What telling costs: the same load at a fixed rate while the controller hears nothing, while it hears as much as by
//! default, while somebody looks and scrapes, and while a thousand requests in a second are shown.
//!
//! `bench telemetry [--repetitions N] [--seconds S]`. Counting itself is always on, and part of every figure.

use crate::cases::{Case, Load, Unit};
use crate::figures::name;
use crate::options::Options;
use crate::peers::{Peer, prepare};
use crate::process::{Process, output};
use crate::run;
use crate::world::Side;
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use weft_control::state::OBSERVE_TOKEN;
use weft_proxy::connection::Direction;
use weft_proxy::metrics::{Code, Metrics};
use weft_proxy_api::names::ports;

const LOAD: Case = Case {
    name: "telemetry",
    load: Load::Http1 {
        connections: 32,
        path: "/1k",
        close: false,
    },
    unit: Unit::PerRequest,
    rate: 2_000,
    about: "HTTP/1.1, 32 connections, 1 KB, 2,000 requests a second",
};

/// How much is told meanwhile.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// The controller is stopped: nobody hears anything.
    Silent,
    /// Reports every five seconds, which nobody reads.
    Default,
    /// The traffic is asked for every second, and both proxies are scraped.
    Watched,
    /// A thousand requests in a second are shown, of each proxy.
    Tapped,
}

const MODES: [Mode; 4] = [Mode::Silent, Mode::Default, Mode::Watched, Mode::Tapped];

/// One repetition: CPU µs per request of both proxies, and bytes in a second that both sent to the controller.
type Sample = (f64, f64);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = tempfile::Builder::new().prefix("weft-bench-").tempdir()?;
    prepare(root.path())?;
    let peer = Peer::up("weft", options, root.path())?;
    let mut samples: [Vec<Sample>; MODES.len()] = Default::default();
    for turn in 0..options.repetitions {
        for at in 0..MODES.len() {
            // Another one begins each time.
            let at = (at + turn) % MODES.len();
            let sample = once(&peer, MODES[at], options);
            samples[at].push(sample.with_context(|| format!("{:?}", MODES[at]))?);
        }
    }
    println!("{}; a scrape is {} bytes", LOAD.about, scrape(&peer)?);
    println!("counting a request takes each proxy {:.0} ns\n", counting());
    println!(
        "| told | CPU µs per request | range | against silent | bytes/s to the controller |\n|---|---|---|---|---|"
    );
    let silent = median(&samples[0], |at| at.0).1;
    for (mode, samples) in MODES.iter().zip(&samples) {
        let (low, cpu, high) = median(samples, |at| at.0);
        let (_, bytes, _) = median(samples, |at| at.1);
        let more = (cpu / silent - 1.0) * 100.0;
        println!("| {mode:?} | {cpu:.1} | {low:.1}–{high:.1} | {more:+.1} % | {bytes:.0} |");
    }
    Ok(())
}

/// What is counted for each request, and always: on the edge, and on the connections to both sides. The least of some
/// rounds, in nanoseconds, as nothing makes it quicker than it is.
fn counting() -> f64 {
    const TIMES: u32 = 1_000_000;
    let metrics = Metrics::new("bench");
    let edge = metrics.inbound_edge(None);
    let open =
        [Direction::Inbound, Direction::Outbound].map(|at| metrics.opened_plain(at, "http1"));
    let round = |_| {
        let begun = Instant::now();
        for took in 0..TIMES {
            edge.request();
            open.iter().for_each(|at| at.metrics().bytes(100, 1_100));
            edge.bytes(0, 1_000);
            edge.answered(Code::Http(200), Duration::from_micros(took.into()));
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
    };
    (0..5).map(round).fold(f64::INFINITY, f64::min)
}

fn once(peer: &Peer, mode: Mode, options: &Options) -> anyhow::Result<Sample> {
    let _meanwhile = Meanwhile::begin(peer, mode)?;
    let (before, begun) = (sent(peer)?, Instant::now());
    let figures = run::load(peer, &LOAD, options)?;
    if let Some(problem) = figures.problem {
        anyhow::bail!(problem);
    }
    let bytes = (sent(peer)? - before) / begun.elapsed().as_secs_f64();
    let cpu = figures.values.get(name::CPU_REQUEST).copied();
    Ok((cpu.context("no CPU figure")?, bytes))
}

/// Lowest, middle and highest.
fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> (f64, f64, f64) {
    let mut all: Vec<f64> = samples.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = all.len().saturating_sub(1) as f64;
        all.get((last * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    (at(0.0), at(0.5), at(1.0))
}

/// Bytes that both proxies have sent to the controller so far, as the kernel counts them.
fn sent(peer: &Peer) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for side in [Side::Client, Side::Server] {
        let filter = format!("dport = :{}", ports::CONTROL);
        let text = output(peer.pods.exec(side, "ss").args(["-tinH", &filter]))?;
        let counts = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("bytes_sent:"));
        sum += counts.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}

fn scrape(peer: &Peer) -> anyhow::Result<usize> {
    let url = format!("http://127.0.0.1:{}/metrics", ports::ADMIN);
    Ok(output(peer.pods.exec(Side::Server, "curl").args(["-s", &url]))?.len())
}

/// Who listens during a repetition; ends with it.
struct Meanwhile {
    /// Stopped until then.
    controller: Option<Pid>,
    _listeners: Vec<Process>,
}

impl Meanwhile {
    fn begin(peer: &Peer, mode: Mode) -> anyhow::Result<Self> {
        let mut now = Self {
            controller: None,
            _listeners: Vec::new(),
        };
        let metrics = format!(
            "curl -s -o /dev/null http://127.0.0.1:{}/metrics",
            ports::ADMIN
        );
        let every = |command: &str| format!("while :; do {command}; sleep 1; done");
        match mode {
            Mode::Silent => {
                let controller = peer.others.last().context("no controller")?;
                let id = *controller.ids().first().context("no controller")?;
                let id = Pid::from_raw(i32::try_from(id)?);
                kill(id, Signal::SIGSTOP)?;
                now.controller = Some(id);
            }
            Mode::Default => {}
            Mode::Watched => {
                let asked = every(&ask(peer, "traffic?fresh")?);
                now.listen(peer, Side::Server, &asked)?;
                for side in [Side::Client, Side::Server] {
                    now.listen(peer, side, &every(&metrics))?;
                }
            }
            Mode::Tapped => {
                let shown = ask(peer, "tap?max-rps=1000")?;
                now.listen(peer, Side::Server, &format!("exec {shown}"))?;
            }
        }
        Ok(now)
    }

    fn listen(&mut self, peer: &Peer, side: Side, script: &str) -> anyhow::Result<()> {
        let mut command = peer.pods.exec(side, "sh");
        command.args(["-c", script]);
        let log: PathBuf = peer.folder.join("listener.log");
        self._listeners.push(Process::start(&mut command, &log)?);
        Ok(())
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        if let Some(controller) = self.controller {
            let _ = kill(controller, Signal::SIGCONT);
        }
    }
}

/// A call of the controller's API, by its token.
fn ask(peer: &Peer, what: &str) -> anyhow::Result<String> {
    let token = peer.folder.join("manifests/.weft").join(OBSERVE_TOKEN);
    let token = std::fs::read_to_string(token).context("no token")?;
    let port = ports::CONTROL_ADMIN;
    Ok(format!(
        "curl -s -N -o /dev/null -H 'authorization: Bearer {}' 'http://127.0.0.1:{port}/api/v1/{what}'",
        token.trim()
    ))
}
