//! `meshctl analyze`: what is suspicious in manifests?

use crate::manifests;
use crate::simulate::{AccessArg, USAGE};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::analyze;
use weft_control::manifest::Severity;
use weft_control::simulate::Files;
use weft_control::views::Mesh;
use weft_proxy_api::names::DEFAULT_TRUST_DOMAIN;

/// Say what is wrong or suspicious in manifests, with a code, the line and what to do
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    /// File or folder with manifests, or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE", num_args = 1.., required = true)]
    filename: Vec<PathBuf>,
    /// What happens to traffic that no TrafficTarget allows, where no annotation says otherwise
    #[arg(long, value_enum, default_value_t = AccessArg::Permissive)]
    access: AccessArg,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
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

/// 0, 1 if there are errors, 2 for what cannot be read.
pub(crate) fn run(args: &AnalyzeArgs) -> ExitCode {
    look(args).unwrap_or_else(|error| {
        eprintln!("meshctl: {error:#}");
        ExitCode::from(USAGE)
    })
}

fn look(args: &AnalyzeArgs) -> Result<ExitCode> {
    let files = Files::new(manifests::read(&args.filename)?);
    let mesh = Mesh {
        trust_domain: args.trust_domain.clone(),
        access: args.access.into(),
        ..Mesh::default()
    };
    let findings = analyze::files(&files, mesh);
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
