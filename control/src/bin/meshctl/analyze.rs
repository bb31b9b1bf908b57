//! `meshctl analyze`: what is suspicious in manifests?

use crate::live::{State, WHERE};
use crate::simulate::failed;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use weft_control::analyze;
use weft_control::manifest::Severity;

/// Say what is wrong or suspicious in manifests or a running mesh, with a code, the line and what to do
#[derive(Debug, Args)]
#[command(after_help = WHERE)]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    state: State,
    /// From which severity on the exit code is 1
    #[arg(long, value_name = "SEVERITY", value_enum, default_value_t = Level::Error)]
    fail_on: Level,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Error,
    Warning,
    Info,
}

/// 0, 1 if there are errors, 2 for what cannot be read, 3 for a mesh that cannot be reached.
pub(crate) fn run(args: &AnalyzeArgs) -> ExitCode {
    look(args).unwrap_or_else(|error| failed(&error))
}

fn look(args: &AnalyzeArgs) -> Result<ExitCode> {
    let findings = args.state.source()?.findings()?;
    match args.output {
        Format::Text => print!("{}", analyze::text(&findings)),
        Format::Json => println!("{:#}", analyze::json(&findings)),
    }
    let level = match args.fail_on {
        Level::Error => Severity::Error,
        Level::Warning => Severity::Warning,
        Level::Info => Severity::Info,
    };
    let failed = findings.iter().any(|it| it.problem.severity >= level);
    Ok(ExitCode::from(u8::from(failed)))
}
