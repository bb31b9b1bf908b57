//! Results as a page (aligned tables that are Markdown as well) and as JSON. Ratios are to the floor of the same run.

use crate::cases::{Case, Unit};
use crate::figures::{Repetitions, name};
use crate::options::Options;
use crate::process::output;
use crate::run::Results;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::Command;

/// What ratios are to.
const BASE: &str = "floor";
/// More than this share of the machine in other hands, and a figure is to be doubted.
const NOISE: f64 = 0.10;

/// One table of the page.
struct View {
    title: &'static str,
    figure: &'static str,
    of: fn(&Case) -> bool,
    decimals: usize,
    range: bool,
}

const fn view(
    title: &'static str,
    figure: &'static str,
    of: fn(&Case) -> bool,
    decimals: usize,
) -> View {
    View {
        title,
        figure,
        of,
        decimals,
        range: false,
    }
}

const VIEWS: &[View] = &[
    View {
        range: true,
        ..view(
            "CPU of both proxies, µs per request",
            name::CPU_REQUEST,
            |case| case.unit == Unit::PerRequest,
            1,
        )
    },
    View {
        range: true,
        ..view(
            "CPU of both proxies, s per GB",
            name::CPU_GB,
            |case| case.unit == Unit::PerGigabyte,
            2,
        )
    },
    view(
        "CPU of the client side, µs per request",
        name::CPU_REQUEST_CLIENT,
        |case| case.unit == Unit::PerRequest,
        1,
    ),
    view(
        "Requests (connections, messages) per second",
        name::RATE,
        |case| case.unit == Unit::PerRequest && case.rate == 0,
        0,
    ),
    view(
        "Gbit/s",
        name::GBIT,
        |case| case.unit == Unit::PerGigabyte,
        2,
    ),
    view(
        "p50 at a constant rate, µs",
        name::P50,
        |case| case.rate > 0,
        0,
    ),
    view(
        "p99 at a constant rate, µs",
        name::P99,
        |case| case.rate > 0,
        0,
    ),
    view(
        "p99.9 at a constant rate, µs",
        name::P999,
        |case| case.rate > 0,
        0,
    ),
    view(
        "p50 at saturation, µs",
        name::P50,
        |case| case.unit == Unit::PerRequest && case.rate == 0,
        0,
    ),
    view(
        "p99 at saturation, µs",
        name::P99,
        |case| case.unit == Unit::PerRequest && case.rate == 0,
        0,
    ),
    view(
        "Memory per idle connection, client side, KB",
        name::IDLE_CLIENT,
        |_| true,
        1,
    ),
    view(
        "Memory per idle connection, server side, KB",
        name::IDLE_SERVER,
        |_| true,
        1,
    ),
    view(
        "Memory of both proxies before idle connections, MB",
        name::RSS_BEFORE,
        |_| true,
        1,
    ),
    view(
        "Memory of both proxies after they were closed, MB",
        name::RSS_AFTER,
        |_| true,
        1,
    ),
    view(
        "Memory of the client-side proxy before any load, MB",
        name::RSS_CLIENT,
        |_| true,
        1,
    ),
    view(
        "Peak memory of both proxies so far, MB",
        name::RSS_PEAK,
        |case| matches!(case.name, "h1_c256" | "body_10m" | "tcp_bulk16" | "tcp_r2k"),
        1,
    ),
    view(
        "Exec to first answer, ms (steps of 2)",
        name::START,
        |_| true,
        0,
    ),
    view("Program, MB", name::SIZE, |_| true, 1),
    view("Failed requests", name::ERRORS, |_| true, 0),
];

/// The page: facts, then tables.
pub(crate) fn page(results: &Results) -> String {
    let mut text = String::new();
    for (what, value) in &results.facts {
        let _ = writeln!(text, "* {what}: {value}");
    }
    for (peer, reason) in &results.skipped {
        let _ = writeln!(text, "* **{peer} left out**: {reason}");
    }
    let _ = writeln!(text, "* {}", quiet(results));
    for view in VIEWS {
        let _ = write!(text, "{}", table_of(results, view));
    }
    let _ = write!(text, "{}", problems(results));
    text
}

/// Whether somebody else was using the machine.
fn quiet(results: &Results) -> String {
    let all = results
        .cells
        .iter()
        .flatten()
        .filter_map(|cell| cell.spread(name::OTHERS));
    let (mut medians, mut worst) = (Vec::new(), 0.0f64);
    for spread in all {
        medians.push(spread.median);
        worst = worst.max(spread.max);
    }
    medians.sort_by(f64::total_cmp);
    let Some(median) = medians.get(medians.len() / 2) else {
        return "other work on the machine: not measured".to_owned();
    };
    let noisy = medians.iter().filter(|share| **share > NOISE).count();
    let verdict = if noisy == 0 {
        "quiet"
    } else {
        "**NOT QUIET**: repeat on an idle machine before believing a figure"
    };
    let cells = medians.len();
    format!(
        "other work on the machine: median {:.0} %, most {:.0} %, above 10 % in {noisy} of {cells} cells: {verdict}",
        median * 100.0,
        worst * 100.0
    )
}

fn table_of(results: &Results, view: &View) -> String {
    let mut rows = Vec::new();
    for (case, cells) in results
        .cases
        .iter()
        .zip(&results.cells)
        .filter(|(case, _)| (view.of)(case))
    {
        let base = results
            .peers
            .iter()
            .position(|peer| peer == BASE)
            .and_then(|at| cells[at].median(view.figure));
        let row: Vec<String> = cells.iter().map(|cell| entry(cell, view, base)).collect();
        let interesting =
            |text: &String| !text.is_empty() && (view.figure != name::ERRORS || text != "0");
        if row.iter().any(interesting) {
            rows.push(std::iter::once(case.name.to_owned()).chain(row).collect());
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = std::iter::once("case".to_owned())
        .chain(results.peers.iter().cloned())
        .collect();
    format!("\n**{}**\n\n{}", view.title, aligned(head, &rows))
}

fn entry(cell: &Repetitions, view: &View, base: Option<f64>) -> String {
    let Some(spread) = cell.spread(view.figure) else {
        return String::new();
    };
    let places = view.decimals;
    let mut text = format!("{:.places$}", spread.median);
    if let Some(base) = base.filter(|base| *base > 0.0 && view.figure != name::ERRORS) {
        let _ = write!(text, " ({:.2})", spread.median / base);
    }
    if view.range && cell.0.len() > 1 {
        let _ = write!(text, " {:.places$}–{:.places$}", spread.min, spread.max);
    }
    text
}

fn aligned(head: Vec<String>, rows: &[Vec<String>]) -> String {
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|at| {
            lines
                .iter()
                .map(|line| line[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, &width))| {
                if at == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let rules: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(at, &width)| {
                    if at == 0 {
                        "-".repeat(width)
                    } else {
                        format!("{}:", "-".repeat(width.max(2) - 1))
                    }
                })
                .collect();
            let _ = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    text
}

fn problems(results: &Results) -> String {
    let mut text = String::new();
    for (case, cells) in results.cases.iter().zip(&results.cells) {
        for (peer, cell) in results.peers.iter().zip(cells) {
            if let Some(problem) = cell.problem().filter(|problem| !problem.starts_with("no ")) {
                let _ = writeln!(text, "* {} in {}: {problem}", peer, case.name);
            }
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n**What went wrong**\n\n{text}")
    }
}

/// The machine and how it was measured.
pub(crate) fn facts(options: &Options) -> Vec<(String, String)> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |file: &str, key: &str| {
        let text = read(file);
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split(':').nth(1));
        line.unwrap_or("unknown").trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let version = |words: &[&str]| {
        let out = Command::new("sh")
            .args([
                "-c",
                &format!("PATH=$PATH:/usr/sbin {} 2>&1 | head -1", words.join(" ")),
            ])
            .output();
        out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
        .unwrap_or_default()
        .trim()
        .to_owned();
    let mut facts = vec![
        ("date", date),
        ("machine", format!("{cores} × {}, {}", field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"))),
        ("kernel", format!("{}, {}", read("/proc/sys/kernel/osrelease").trim(), read("/proc/sys/net/ipv4/tcp_congestion_control").trim())),
        (
            "method",
            format!(
                "{} interleaved repetitions of {:.1} s after {:.1} s; median, ratio to floor in brackets, min–max; {} worker(s) to a proxy; mutual TLS 1.3, AES-128-GCM, ECDSA P-256; load generator, proxies and server share the machine",
                options.repetitions,
                options.window.as_secs_f64(),
                options.warm.as_secs_f64(),
                options.workers
            ),
        ),
        ("floor", "hyper, h2, rustls, tokio, mimalloc; X25519MLKEM768; full handshakes; 8 KiB copy buffers".to_owned()),
        ("weft", "strict access, mutual TLS, discovery and metrics on, all defaults".to_owned()),
    ];
    for (peer, words) in [("haproxy", &["haproxy", "-v"]), ("nginx", &["nginx", "-v"])] {
        if options.peers.iter().any(|name| name == peer) {
            facts.push((peer, version(words)));
        }
    }
    facts
        .into_iter()
        .map(|(what, value)| (what.to_owned(), value))
        .collect()
}

pub(crate) fn json(results: &Results) -> Value {
    let mut cases = serde_json::Map::new();
    for (case, cells) in results.cases.iter().zip(&results.cells) {
        let mut peers = serde_json::Map::new();
        for (peer, cell) in results.peers.iter().zip(cells) {
            let figure = |name: String| {
                let spread = cell.spread(&name)?;
                Some((
                    name,
                    json!({ "median": spread.median, "min": spread.min, "max": spread.max }),
                ))
            };
            let figures: serde_json::Map<String, Value> =
                cell.names().into_iter().filter_map(figure).collect();
            peers.insert(
                peer.clone(),
                json!({ "figures": figures, "problem": cell.problem() }),
            );
        }
        cases.insert(
            case.name.to_owned(),
            json!({ "about": case.about, "peers": peers }),
        );
    }
    let list = |pairs: &[(String, String)]| {
        pairs
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
    };
    json!({ "facts": list(&results.facts), "skipped": list(&results.skipped), "quiet": quiet(results), "cases": cases })
}
