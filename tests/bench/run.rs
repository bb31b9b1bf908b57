//! The conductor: brings the peers up, and goes through cases × repetitions × peers, in that order, so that whatever else
//! the machine does meets all peers alike.

use crate::cases::{Case, GRPC, Load};
use crate::figures::{Figures, Repetitions, name};
use crate::options::Options;
use crate::peers::{Peer, prepare};
use crate::process::{descriptors, memory, output};
use crate::world::Side;
use crate::{report, svg};
use serde_json::{Value, json};
use std::time::Duration;

/// How long proxies are left alone before their memory is looked at.
const SETTLED: Duration = Duration::from_secs(5);

/// Results of a run: a row to a case, a column to a peer.
pub(crate) struct Results {
    pub(crate) cases: Vec<&'static Case>,
    pub(crate) peers: Vec<String>,
    /// By case, then by peer.
    pub(crate) cells: Vec<Vec<Repetitions>>,
    /// Peers left out, and why.
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) facts: Vec<(String, String)>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = tempfile::Builder::new().prefix("weft-bench-").tempdir()?;
    prepare(root.path())?;
    let mut skipped = Vec::new();
    let mut peers = Vec::new();
    for name in &options.peers {
        match Peer::up(name, options, root.path()) {
            Ok(peer) => peers.push(peer),
            Err(error) => skipped.push((name.clone(), format!("{error:#}"))),
        }
    }
    let names = peers.iter().map(|peer| peer.name.clone()).collect();
    let mut results = Results {
        cases: options.cases.clone(),
        peers: names,
        cells: Vec::new(),
        skipped,
        facts: report::facts(options),
    };
    // Memory before any load is only to be had before any load, and when the start is over.
    std::thread::sleep(SETTLED);
    let fresh: Vec<Figures> = peers.iter().map(resident).collect();
    for case in &options.cases {
        eprintln!("{:<10} {}", case.name, case.about);
        let mut row = vec![Repetitions::default(); peers.len()];
        let times = if case.timed() || case.load == Load::Start {
            options.repetitions
        } else {
            1
        };
        for turn in 0..times {
            for at in 0..peers.len() {
                // Another peer begins each time: none is always the one after the heaviest.
                let at = (at + turn) % peers.len();
                row[at].0.push(if case.load == Load::Memory {
                    fresh[at].clone()
                } else {
                    once(&mut peers[at], case, options)
                });
            }
        }
        results.cells.push(row);
    }
    finish(options, &results)
}

fn finish(options: &Options, results: &Results) -> anyhow::Result<()> {
    if let Some(file) = &options.svg {
        std::fs::write(file, svg::plot(results))?;
    }
    if let Some(file) = &options.markdown {
        std::fs::write(file, report::page(results))?;
    }
    if options.json {
        println!("{:#}", report::json(results));
    } else {
        print!("{}", report::page(results));
    }
    Ok(())
}

fn once(peer: &mut Peer, case: &Case, options: &Options) -> Figures {
    if let Some(reason) = peer.not_for(case) {
        return Figures::problem(reason);
    }
    let outcome = peer.alive().and_then(|()| match case.load {
        Load::Start => peer.restart().map(|millis| one(name::START, millis)),
        Load::Size => size(peer),
        Load::Idle { .. } => peer.renew().and_then(|()| load(peer, case, options)),
        _ => load(peer, case, options),
    });
    outcome.unwrap_or_else(|error| Figures::problem(format!("{error:#}")))
}

fn one(name: &str, value: f64) -> Figures {
    let mut figures = Figures::default();
    figures.set(name, value);
    figures
}

fn size(peer: &Peer) -> anyhow::Result<Figures> {
    let program = peer.program.as_deref().unwrap_or_else(|| "".as_ref());
    Ok(one(
        name::SIZE,
        std::fs::metadata(program)?.len() as f64 / 1e6,
    ))
}

fn resident(peer: &Peer) -> Figures {
    let of = |ids: Vec<u32>| ids.into_iter().map(|id| memory(id).0).sum::<f64>() / 1024.0;
    let (client, server) = (
        peer.client.as_ref().map(|proxy| of(proxy.ids())),
        peer.server.as_ref().map(|proxy| of(proxy.ids())),
    );
    let (Some(client), Some(server)) = (client, server) else {
        return Figures::problem("no proxy");
    };
    let mut figures = one(name::RSS_CLIENT, client);
    figures.set(name::RSS, client + server);
    figures
}

/// Runs the load generator in the client's pod.
pub(crate) fn load(peer: &Peer, case: &Case, options: &Options) -> anyhow::Result<Figures> {
    let ids = |proxy: &Option<crate::peers::Proxy>| {
        proxy
            .as_ref()
            .map(crate::peers::Proxy::ids)
            .unwrap_or_default()
    };
    let mut spec = json!({
        "host": peer.host,
        "rate": case.rate,
        "warm_ms": options.warm.as_millis() as u64,
        "window_ms": options.window.as_millis() as u64,
        // Longer than a proxy takes to find out that a connection is idle, and to give its memory back.
        "settle_ms": if options.quick { 7_000 } else { 8_000 },
        "after_ms": options.after.as_millis() as u64,
        "client": ids(&peer.client),
        "server": ids(&peer.server),
    });
    describe(case, options, &mut spec);
    let this = std::env::current_exe()?.display().to_string();
    let text =
        output(
            peer.pods
                .exec(Side::Client, &this)
                .args(["role", "load", &spec.to_string()]),
        )?;
    Ok(Figures::from_json(&serde_json::from_str(&text)?))
}

fn describe(case: &Case, options: &Options, spec: &mut Value) {
    let mut set = |kind: &str, connections: usize| {
        spec["kind"] = kind.into();
        spec["connections"] = connections.into();
    };
    match case.load {
        Load::Http1 {
            connections,
            path,
            close,
        } => {
            set("http1", connections);
            spec["path"] = path.into();
            spec["close"] = u8::from(close).into();
        }
        Load::Http2 {
            connections,
            streams,
            path,
        } => {
            set("http2", connections);
            spec["path"] = path.into();
            spec["streams"] = streams.into();
            debug_assert!(path == GRPC || path.starts_with('/'));
        }
        Load::Up(connections) => set("up", connections),
        Load::Down(connections) => set("down", connections),
        Load::Echo(connections) => set("echo", connections),
        Load::Connect(connections) => set("connect", connections),
        Load::Idle { http } => {
            // A proxy needs two descriptors to a connection.
            set(
                "idle",
                options.idle.min(descriptors().saturating_sub(600) / 2),
            );
            spec["http"] = u8::from(http).into();
        }
        Load::Start | Load::Size | Load::Memory => {}
    }
}
