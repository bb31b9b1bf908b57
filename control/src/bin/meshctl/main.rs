//! `meshctl`: subcommands to functions to exit codes, and nothing else.

mod demo;
mod explain;
mod local;
mod token;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use weft_control::demo::app;

/// See and steer the mesh
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Local(local::LocalArgs),
    Token(token::TokenArgs),
    Explain(explain::ExplainArgs),
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// The demonstration's application
    #[command(hide = true)]
    DemoApp(app::AppArgs),
}

fn main() -> ExitCode {
    // Hidden roles enter namespaces, which a process with several threads may not.
    if let Some(code) = weft_control::local::dispatch() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Local(args) => local::run(args),
        Command::Token(args) => token::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => Ok(explain::run(&args)),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::DemoApp(args) => app::run(args).map(|()| ExitCode::SUCCESS),
    }
}
