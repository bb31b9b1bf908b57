//! `meshctl explain`: what an error code means and what to do about it.

use clap::Args;
use std::process::ExitCode;
use weft_proxy_api::errors::{ALL, ErrorCode};

/// Say what an error code of the proxy means and what to do about it
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Code or name, e.g. E104 or no-endpoints; all of them if absent
    code: Option<String>,
}

/// 0, or 1 for a code that does not exist.
pub(crate) fn run(args: &ExplainArgs) -> ExitCode {
    let Some(code) = &args.code else {
        ALL.iter()
            .for_each(|row| println!("{}  {:<22} {}", row.code, row.name, row.meaning));
        return ExitCode::SUCCESS;
    };
    let Some(row) = ErrorCode::find(code) else {
        eprintln!("meshctl: there is no error {code:?}; `meshctl explain` lists them all");
        return ExitCode::FAILURE;
    };
    println!("{} {}\n", row.code, row.name);
    println!("{}\n\nWhat to do: {}\n", row.meaning, row.remedy);
    println!(
        "Clients see HTTP status {} or grpc-status {}.",
        row.http_status, row.grpc_status
    );
    ExitCode::SUCCESS
}
