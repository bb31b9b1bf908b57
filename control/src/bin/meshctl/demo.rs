//! `meshctl demo`: the story, and its outcome for people or for programs.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::demo::{self, Options, Summary};
use weft_control::local::Rung;

/// Run an application on a mesh of its own, on this machine, and watch what the mesh does for it
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the story takes, once everything runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// No live view; one line for each step
    #[arg(long)]
    headless: bool,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Force one way to run: user, root or loopback [default: the first that works]
    #[arg(long)]
    rung: Option<Rung>,
    /// Folder for the demonstration's files [default: a temporary one]
    #[arg(long)]
    state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// 0 if every step held, 1 otherwise.
pub(crate) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let live = std::io::IsTerminal::is_terminal(&std::io::stdout()) && args.output == Format::Table;
    let headless = args.headless || !live;
    let options = Options {
        seconds: args.seconds,
        headless,
        rung: args.rung,
        state: args.state,
    };
    let summary = demo::run(&options)?;
    match args.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&summary)?),
        Format::Table => print(&summary),
    }
    Ok(if summary.held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(summary: &Summary) {
    println!(
        "\n{} requests, {} served, {} denied by policy",
        summary.requests, summary.success, summary.denied
    );
    println!(
        "{:.1} % of what meshed pods said to each other was under mutual TLS",
        summary.mtls_share * 100.0
    );
    let latency = &summary.latency_ms;
    println!(
        "latency p50 {} ms, p95 {} ms, p99 {} ms\n",
        latency.p50, latency.p95, latency.p99
    );
    for step in &summary.steps {
        println!("{}", demo::lines(step));
    }
    println!(
        "\n{}",
        if summary.held {
            "√ every step held"
        } else {
            "× a step did not hold"
        }
    );
}
