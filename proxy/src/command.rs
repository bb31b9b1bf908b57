//! The command line. The settings of the proxy are in the environment; what is said here is what to do.

use crate::app::{self, Start};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use weft_proxy_api::names::{VERSION, ports};

mod wait;

const HELP: &str = "\
weft-proxy                       runs the sidecar; its settings are WEFT_PROXY_… in the environment
weft-proxy --take-over           the same, in place of the one that runs: takes its listeners at
                                 WEFT_PROXY_UPGRADE_SOCKET, gets ready, and lets it end
weft-proxy await [OPTIONS] -- COMMAND [ARGUMENTS]
                                 waits until the sidecar is ready, then runs COMMAND; ends as COMMAND does
  --timeout DURATION             how long to wait: 500ms, 60s (default), 2m; then exit code 69, COMMAND not run
  --port PORT                    admin port of the sidecar on this host (default 4191)
  --shutdown                     for jobs: asks the sidecar to leave when COMMAND has ended
                                 (needs WEFT_PROXY_ADMIN_SHUTDOWN=true there)
weft-proxy --version
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run(Start),
    Await(Await),
    Help,
    Version,
}

/// Wait for the sidecar, then run something.
#[derive(Debug, PartialEq, Eq)]
struct Await {
    timeout: Duration,
    port: u16,
    shutdown: bool,
    program: OsString,
    arguments: Vec<OsString>,
}

/// Does what the command line says, and says on one line what went wrong.
pub fn main() -> ExitCode {
    let done = match parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(start)) => app::run(start).map(|()| ExitCode::SUCCESS),
        Ok(Command::Await(command)) => wait::run(command),
        Ok(Command::Help) => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Command::Version) => {
            println!("weft-proxy {VERSION}");
            Ok(ExitCode::SUCCESS)
        }
        Err(mistake) => {
            eprint!("weft-proxy: {mistake}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("weft-proxy: {error:#}");
        ExitCode::FAILURE
    })
}

fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let command = match words.next() {
        None => Command::Run(Start::Alone),
        Some(word) => match word.to_str() {
            Some("--take-over") => Command::Run(Start::TakeOver),
            Some("await") => return parse_await(words).map(Command::Await),
            Some("--help" | "-h" | "help") => Command::Help,
            Some("--version" | "-V") => Command::Version,
            _ => return Err(unknown(&word)),
        },
    };
    match words.next() {
        None => Ok(command),
        Some(word) => Err(unknown(&word)),
    }
}

fn parse_await(mut words: impl Iterator<Item = OsString>) -> Result<Await, String> {
    let (mut timeout, mut port, mut shutdown) = (Duration::from_secs(60), ports::ADMIN, false);
    let program = loop {
        let Some(word) = words.next() else {
            return Err("await needs -- and a command".to_owned());
        };
        let mut value = || {
            let value = words.next().and_then(|value| value.into_string().ok());
            value.ok_or_else(|| format!("{} needs a value", word.display()))
        };
        match word.to_str() {
            Some("--timeout") => {
                timeout = crate::config::duration(&value()?)
                    .map_err(|reason| format!("--timeout {reason}"))?;
            }
            Some("--port") => {
                let number = value()?.parse().ok().filter(|port| *port > 0);
                port = number.ok_or("--port must be a port")?;
            }
            Some("--shutdown") => shutdown = true,
            Some("--") => break words.next().ok_or("await needs a command after --")?,
            _ => return Err(unknown(&word)),
        }
    };
    Ok(Await {
        timeout,
        port,
        shutdown,
        program,
        arguments: words.collect(),
    })
}

fn unknown(word: &OsString) -> String {
    format!("{} is not understood", word.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_is_said_is_done_and_what_is_not_understood_is_refused() {
        assert_eq!(said(""), Ok(Command::Run(Start::Alone)));
        assert_eq!(said("--take-over"), Ok(Command::Run(Start::TakeOver)));
        assert_eq!(said("--version"), Ok(Command::Version));
        assert_eq!(said("-h"), Ok(Command::Help));
        let all = "await --timeout 2m --port 5191 --shutdown -- curl --port x";
        let wanted = Await {
            timeout: Duration::from_secs(120),
            port: 5191,
            shutdown: true,
            program: "curl".into(),
            arguments: vec!["--port".into(), "x".into()],
        };
        assert_eq!(said(all), Ok(Command::Await(wanted)));
        let wrong = [
            "run",
            "--take-over now",
            "--takeover",
            "await",
            "await curl",
            "await --",
            "await --timeout -- x",
            "await --timeout soon -- x",
            "await --port 0 -- x",
            "await --port 65536 -- x",
        ];
        for line in wrong {
            assert!(said(line).is_err(), "{line}");
        }
    }
}
