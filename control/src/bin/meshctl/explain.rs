//! `meshctl explain`: what the code of an error or a finding means and what to do about it.

use clap::Args;
use std::process::ExitCode;
use weft_control::views::findings::codes::{self, Row};
use weft_proxy_api::errors::{ALL, ErrorCode};

/// Say what the code of an error or a finding means and what to do about it
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Code or name, e.g. E104, no-endpoints or W101; all of them if absent
    code: Option<String>,
}

/// 0, or 1 for a code that does not exist.
pub(crate) fn run(args: &ExplainArgs) -> ExitCode {
    let Some(code) = &args.code else {
        let line = |code, name, meaning| println!("{code}  {name:<26} {meaning}");
        ALL.iter()
            .for_each(|row| line(row.code, row.name, row.meaning));
        codes::ALL
            .iter()
            .for_each(|row| line(row.number, row.name, row.meaning));
        return ExitCode::SUCCESS;
    };
    match (ErrorCode::find(code), Row::find(code)) {
        (Some(row), _) => error(row),
        (None, Some(row)) => finding(row),
        (None, None) => {
            eprintln!("meshctl: there is no code {code:?}; `meshctl explain` lists them all");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A failure of the proxy.
fn error(row: &ErrorCode) {
    println!("{} {}\n", row.code, row.name);
    println!("{}\n\nWhat to do: {}\n", row.meaning, row.remedy);
    println!(
        "Clients see HTTP status {} or grpc-status {}.",
        row.http_status, row.grpc_status
    );
}

/// A finding in manifests.
fn finding(row: &Row) {
    println!("{} {} ({})\n", row.number, row.name, row.severity);
    println!("{}\n\nWhat to do: {}", row.meaning, row.remedy);
}
