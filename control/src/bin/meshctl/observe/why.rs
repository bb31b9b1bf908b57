//! `meshctl why`: a Service explained in a few sentences.

use super::connect::Target;
use super::{Format, Window};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;
use weft_control::traffic::why::{Why, why};

/// Say why a Service is loaded, slow or failing
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Service, with or without svc/
    service: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Time to look back over: 1s to 10m, or start
    #[arg(short = 't', long, default_value = "1m")]
    time_window: Window,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

/// 0, or 1 if there is no such Service.
pub(crate) fn run(args: &WhyArgs) -> Result<ExitCode> {
    let report = args.target.report(args.time_window)?;
    let name = args.service.trim_start_matches("svc/");
    let Some(why) = why(&report, &args.namespace, name) else {
        let named = format!("/{name}");
        let others = report.services.iter();
        let others = others.filter_map(|at| at.strip_suffix(&named).map(str::to_owned));
        let (place, hint) = (&args.namespace, super::elsewhere(&others.collect()));
        eprintln!("there is no service {name} in namespace {place}{hint}");
        return Ok(ExitCode::FAILURE);
    };
    let text = match args.output {
        Format::Table => render(&why),
        Format::Wide => render(&why) + "\n" + &figures(&why),
        format => super::document(&why, format)?,
    };
    super::shown(false, || Ok(text.clone()))?;
    Ok(ExitCode::SUCCESS)
}

fn render(why: &Why) -> String {
    why.sentences.iter().map(|at| format!("{at}\n")).collect()
}

/// Callers, routes and dependencies behind the sentences.
fn figures(why: &Why) -> String {
    use super::table::{Align, Table, latency, percent, rate};
    let columns = [
        "SUCCESS",
        "RPS",
        "LATENCY_P50",
        "LATENCY_P95",
        "LATENCY_P99",
    ];
    let mut head = vec![("WHAT", Align::Left), ("NAME", Align::Left)];
    head.extend(columns.map(|name| (name, Align::Right)));
    let mut table = Table::new(head);
    let parts = [
        ("caller", &why.callers),
        ("route", &why.routes),
        ("dependency", &why.dependencies),
    ];
    for (what, legs) in parts {
        for leg in legs {
            let sum = &leg.sum;
            let mut cells = vec![what.to_owned(), leg.name.clone()];
            cells.extend([percent(sum.success_rate), rate(sum.rps)]);
            cells.extend([sum.latency_p50, sum.latency_p95, sum.latency_p99].map(latency));
            table.row(cells);
        }
    }
    table.render()
}
