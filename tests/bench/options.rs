//! The command line, read by hand: six flags do not need a parser of their own.

use crate::cases;
use anyhow::{Context, bail, ensure};
use std::time::Duration;

pub(crate) const HELP: &str = "\
bench telemetry [--repetitions N] [--seconds S] [--weft DIR]
bench micro [--quick] [--check] [--write] [NAME...]    instructions under valgrind, beside the baseline
bench [--quick] [--cases a,b] [--peers weft,floor,direct,haproxy,nginx,plain,weft_1k,before] [-o json|table] [--svg FILE]
      [--markdown FILE] [--repetitions N] [--seconds S] [--idle N] [--after S] [--workers N] [--weft DIR] [--before DIR]
      [--no-build]

  --quick        short windows; under four minutes
  --cases        only these (a trailing * matches the rest)
  --peers        besides the usual ones: plain (the floor without TLS), weft_1k (a mesh of a thousand services)
  --workers      threads of every proxy (default 1)
  --after        seconds after which memory is looked at again when idle connections were closed
  --before       folder with the programs of another build of Weft, measured beside this one as `before`
  --weft         folder with weft-proxy, weft-init, weft-control, meshctl (default: beside this program)
  --no-build     take the programs as they are; under `cargo run` they are built first otherwise";

/// Peers in the order of the table; what is not installed is skipped with a reason.
pub(crate) const PEERS: &[&str] = &["direct", "floor", "weft", "haproxy", "nginx"];

/// Peers that are measured only where they are asked for.
pub(crate) const MORE: &[&str] = &["plain", "weft_1k", "before"];

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) cases: Vec<&'static cases::Case>,
    pub(crate) peers: Vec<String>,
    pub(crate) json: bool,
    pub(crate) svg: Option<String>,
    pub(crate) markdown: Option<String>,
    pub(crate) repetitions: usize,
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
    /// Idle connections; the run lowers it to what descriptors allow.
    pub(crate) idle: usize,
    /// How long after idle connections were closed memory is looked at again.
    pub(crate) after: Duration,
    pub(crate) workers: usize,
    pub(crate) weft: Option<String>,
    /// Programs of another build, to compare with.
    pub(crate) before: Option<String>,
    pub(crate) quick: bool,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> anyhow::Result<Self> {
        let quick = args.iter().any(|arg| arg == "--quick");
        let mut options = Self::defaults(quick);
        let mut rest = args.iter();
        while let Some(flag) = rest.next() {
            let mut value = || {
                rest.next()
                    .cloned()
                    .with_context(|| format!("{flag} needs a value"))
            };
            match flag.as_str() {
                "--quick" | "--no-build" => {}
                "--cases" => options.cases = named_cases(&value()?)?,
                "--peers" => options.peers = named_peers(&value()?)?,
                "-o" => options.json = value()? == "json",
                "--svg" => options.svg = Some(value()?),
                "--markdown" => options.markdown = Some(value()?),
                "--repetitions" => options.repetitions = value()?.parse::<usize>()?.clamp(1, 50),
                "--seconds" => {
                    options.window =
                        Duration::from_secs_f64(value()?.parse::<f64>()?.clamp(0.1, 60.0))
                }
                "--idle" => options.idle = value()?.parse::<usize>()?.clamp(1, 20_000),
                "--workers" => options.workers = value()?.parse::<usize>()?.clamp(1, 64),
                "--weft" => options.weft = Some(value()?),
                "--before" => options.before = Some(value()?),
                "--after" => {
                    options.after =
                        Duration::from_secs_f64(value()?.parse::<f64>()?.clamp(0.0, 600.0))
                }
                "-h" | "--help" => {
                    println!(
                        "{HELP}\n\ncases: {}",
                        cases::ALL
                            .iter()
                            .map(|case| case.name)
                            .collect::<Vec<_>>()
                            .join(" ")
                    );
                    std::process::exit(0);
                }
                other => bail!("{other} is not a flag\n\n{HELP}"),
            }
        }
        if options.before.is_some() && !options.peers.iter().any(|peer| peer == "before") {
            options.peers.push("before".to_owned());
        }
        Ok(options)
    }

    fn defaults(quick: bool) -> Self {
        let (repetitions, warm, window) = if quick {
            (3, 120, 400)
        } else {
            (5, 500, 2_000)
        };
        Self {
            cases: cases::ALL.iter().collect(),
            peers: PEERS.iter().map(|&name| name.to_owned()).collect(),
            json: false,
            svg: None,
            markdown: None,
            repetitions,
            warm: Duration::from_millis(warm),
            window: Duration::from_millis(window),
            idle: if quick { 1_000 } else { 9_000 },
            after: Duration::from_secs(if quick { 2 } else { 60 }),
            workers: 1,
            weft: None,
            before: None,
            quick,
        }
    }
}

fn named_cases(list: &str) -> anyhow::Result<Vec<&'static cases::Case>> {
    let wanted: Vec<&str> = list.split(',').map(str::trim).collect();
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    for pattern in &wanted {
        ensure!(
            cases::ALL.iter().any(|case| matches(pattern, case.name)),
            "there is no case {pattern}"
        );
    }
    Ok(cases::ALL
        .iter()
        .filter(|case| wanted.iter().any(|pattern| matches(pattern, case.name)))
        .collect())
}

fn named_peers(list: &str) -> anyhow::Result<Vec<String>> {
    let wanted: Vec<&str> = list.split(',').map(str::trim).collect();
    let known = || PEERS.iter().chain(MORE);
    for name in &wanted {
        ensure!(
            known().any(|known| known == name),
            "there is no peer {name}: {}, {}",
            PEERS.join(", "),
            MORE.join(", ")
        );
    }
    Ok(known()
        .filter(|name| wanted.contains(*name))
        .map(|&name| name.to_owned())
        .collect())
}
