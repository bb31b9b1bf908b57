//! Rows of the fault matrix, each with its figures: `cargo run -p weft-tests --bin faults -- [--full] [ROW…]`, after
//! `cargo build --bins`. Every row is a mesh of its own (three endpoints and a client, real programs in namespaces), an
//! open-loop load through it, a fault in the middle, and its healing.

mod figures;
mod rows;

use anyhow::Context;
use figures::Figures;
use harness::{Access, Mesh, echo, eventually, load, sandbox};
use rows::Row;
use std::time::Duration;

/// Requests per second, and the connections they share.
const RATE: u64 = if cfg!(debug_assertions) { 100 } else { 300 };
const CONNECTIONS: u64 = 16;
/// Seconds of load before the fault, and after it is healed.
const BEFORE: u64 = 5;
const AFTER: u64 = 10;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = &args[..]
        && role == "role"
    {
        return harness::role::play(rest);
    }
    if let Some(reason) = sandbox::unavailable() {
        println!("ignored: {reason}");
        return Ok(());
    }
    let full = args.iter().any(|arg| arg == "--full");
    let wanted = |row: &&Row| {
        let mut named = args.iter().filter(|arg| !arg.starts_with("--")).peekable();
        named.peek().is_none() || named.any(|name| name == row.name)
    };
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    println!(
        "{build} build, {RATE} requests/s on {CONNECTIONS} connections, three endpoints; durations are {}",
        if full {
            "the whole ones"
        } else {
            "shortened (--full for the whole ones)"
        }
    );
    println!("{}", Figures::HEAD);
    let mut failed = Vec::new();
    for row in rows::ALL.iter().filter(wanted) {
        match run(row, full) {
            Ok(figures) => println!("{}", figures.line(row)),
            Err(error) => {
                println!(
                    "| {} | {} | could not be run: {error:#} |",
                    row.name, row.fault
                );
                failed.push(row.name);
            }
        }
    }
    anyhow::ensure!(failed.is_empty(), "not run: {}", failed.join(", "));
    Ok(())
}

fn run(row: &Row, full: bool) -> anyhow::Result<Figures> {
    let mesh = Mesh::up_with(
        Access::Permissive,
        &[&echo("web", 3), &echo("client", 1)],
        |options| {
            options.restart_control = false;
        },
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let held = if full { row.full } else { row.short };
    let client = mesh.client().clone();
    let seconds = (BEFORE + held + AFTER).to_string();
    let this = std::env::current_exe()?.display().to_string();
    let (rate, connections) = (RATE.to_string(), CONNECTIONS.to_string());
    let command = [
        &this,
        "role",
        "load",
        "web:8080",
        row.path,
        &rate,
        &seconds,
        &connections,
    ];
    let exec = harness::Exec::new(
        &mesh.pod("client")?.name,
        command.iter().map(|word| word.to_string()),
    );
    let before = figures::gauges(&mesh)?;
    let loading = std::thread::spawn(move || client.output(&exec));
    std::thread::sleep(Duration::from_secs(BEFORE));
    let broken = load::now();
    (row.inject)(&mesh).context("the fault")?;
    let peak = watch(&mesh, held);
    let healed = load::now();
    (row.heal)(&mesh).context("the healing")?;
    let output = loading.join().map_err(|_| anyhow::anyhow!("the load"))??;
    let samples = load::parse(&String::from_utf8_lossy(&output.stdout));
    anyhow::ensure!(!samples.is_empty(), "the load said nothing: {output:?}");
    let after = eventually("the proxy is there", || figures::gauges(&mesh))?;
    Ok(Figures::of(
        &samples,
        broken,
        healed,
        [before, peak.unwrap_or(before), after],
    ))
}

/// Looks at the client's proxy once a second while the fault holds; the highest of each.
fn watch(mesh: &Mesh, seconds: u64) -> Option<figures::Gauges> {
    let mut peak = None;
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        if let Ok(now) = figures::gauges(mesh) {
            peak = Some(peak.map_or(now, |peak: figures::Gauges| peak.max(now)));
        }
    }
    peak
}
