//! `meshctl`: subcommands to functions to exit codes, and nothing else.

mod analyze;
mod ca;
mod check;
mod demo;
mod describe;
mod explain;
mod inject;
mod install;
mod live;
mod local;
mod manifests;
mod monitoring;
mod observe;
mod simulate;
mod token;
mod wait;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;
use weft_control::demo::app;

/// See and steer the mesh
#[derive(Debug, Parser)]
#[command(name = "meshctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Local(local::LocalArgs),
    Inject(Box<inject::InjectArgs>),
    Uninject(inject::UninjectArgs),
    Install(install::InstallArgs),
    Upgrade(install::UpgradeArgs),
    Uninstall(install::UninstallArgs),
    Check(Box<check::CheckArgs>),
    Token(token::TokenArgs),
    Ca(ca::CaArgs),
    Explain(explain::ExplainArgs),
    Simulate(Box<simulate::SimulateArgs>),
    Analyze(analyze::AnalyzeArgs),
    Wait(wait::WaitArgs),
    Describe(describe::DescribeArgs),
    Export(describe::ExportArgs),
    Stat(Box<observe::stat::StatArgs>),
    Edges(observe::edges::EdgesArgs),
    Routes(observe::views::RoutesArgs),
    Authz(observe::views::AuthzArgs),
    Graph(observe::views::GraphArgs),
    Identity(observe::views::IdentityArgs),
    Why(observe::why::WhyArgs),
    Tap(Box<observe::tap::TapArgs>),
    Top(Box<observe::top::TopArgs>),
    Metrics(observe::metrics::MetricsArgs),
    Diagnostics(observe::diagnostics::DiagnosticsArgs),
    Dashboard(observe::dashboard::DashboardArgs),
    Monitoring(monitoring::MonitoringArgs),
    /// Print the version
    Version,
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
    let command = cli().command;
    // The others have pods or a page to look after when their reader leaves.
    if !matches!(
        command,
        Command::Demo(_) | Command::Local(_) | Command::Dashboard(_)
    ) {
        end_with_reader();
    }
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `… | head -1` ends us quietly, as it ends any program that prints.
fn end_with_reader() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action runs no code of ours. Without it a print panics in place of ending us, which is untidy.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// The command line; started as `kubectl-mesh` (by kubectl), the help says `kubectl mesh`.
fn cli() -> Cli {
    let is_plugin = std::env::args_os().next().is_some_and(|name| {
        Path::new(&name)
            .file_stem()
            .is_some_and(|stem| stem == "kubectl-mesh")
    });
    let command = if is_plugin {
        Cli::command().bin_name("kubectl mesh")
    } else {
        Cli::command()
    };
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|e| e.exit())
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Local(args) => local::run(args),
        Command::Inject(args) => inject::inject(&args),
        Command::Uninject(args) => inject::uninject(&args),
        Command::Install(args) => install::install(&args),
        Command::Upgrade(args) => install::upgrade(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Check(args) => check::run(&args),
        Command::Token(args) => token::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Ca(args) => ca::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => Ok(explain::run(&args)),
        Command::Simulate(args) => Ok(simulate::run(&args)),
        Command::Analyze(args) => Ok(analyze::run(&args)),
        Command::Wait(args) => Ok(wait::run(&args)),
        Command::Describe(args) => Ok(describe::run(&args)),
        Command::Export(args) => Ok(describe::export(&args)),
        Command::Stat(args) => observe::finish(observe::stat::run(&args)),
        Command::Edges(args) => observe::finish(observe::edges::run(&args)),
        Command::Routes(args) => observe::finish(observe::views::routes(&args)),
        Command::Authz(args) => observe::finish(observe::views::authorizations(&args)),
        Command::Graph(args) => observe::finish(observe::views::drawn(&args)),
        Command::Identity(args) => observe::finish(observe::views::identities(&args)),
        Command::Why(args) => observe::finish(observe::why::run(&args)),
        Command::Tap(args) => observe::finish(observe::tap::run(&args)),
        Command::Top(args) => observe::finish(observe::top::run(&args)),
        Command::Metrics(args) => observe::finish(observe::metrics::run(&args)),
        Command::Diagnostics(args) => observe::finish(observe::diagnostics::run(&args)),
        Command::Dashboard(args) => observe::finish(observe::dashboard::run(args)),
        Command::Monitoring(args) => monitoring::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Version => {
            println!("meshctl {}", weft_proxy_api::names::VERSION);
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "meshctl",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::DemoApp(args) => app::run(args).map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let mut script = vec![];
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut Cli::command(),
            "meshctl",
            &mut script,
        );
        assert!(!script.is_empty());
    }
}
