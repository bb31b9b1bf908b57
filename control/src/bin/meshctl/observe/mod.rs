//! What is going on in the mesh: `stat`, `edges`, `routes`, `authz`, `graph`, `identity`,
//! `why`, `tap`, `top`, `metrics`, `diagnostics`, `dashboard`. The controller is asked, no Prometheus.

pub(crate) mod connect;
pub(crate) mod dashboard;
pub(crate) mod diagnostics;
pub(crate) mod edges;
mod forward;
pub(crate) mod metrics;
pub(crate) mod stat;
mod table;
pub(crate) mod tap;
pub(crate) mod top;
pub(crate) mod views;
pub(crate) mod why;

use clap::{Args, ValueEnum};
use connect::Unreachable;
use serde::Serialize;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use weft_control::traffic::edges::Edge;
use weft_control::traffic::table::LONGEST;

/// Exit code where the controller cannot be reached.
pub(crate) const UNREACHABLE: u8 = 3;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

/// A window of time: `10s`, `1m`, `10m` or `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window(pub(crate) Option<Duration>);

impl std::str::FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "start" {
            return Ok(Self(None));
        }
        let window = weft_control::args::parse_duration(text);
        let fits = window.filter(|at| !at.is_zero() && *at <= LONGEST);
        let window = fits.ok_or("give 1s to 10m, or start for all since the proxies started")?;
        Ok(Self(Some(window)))
    }
}

impl Window {
    /// As the API wants it.
    pub(crate) fn query(self) -> String {
        self.0
            .map_or_else(|| "start".into(), |window| window.as_secs().to_string())
    }
}

/// Which namespace.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Every namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

impl Scope {
    /// The one namespace asked for.
    pub(crate) fn only(&self) -> Option<String> {
        (!self.all_namespaces).then(|| self.namespace.clone())
    }
}

/// Turns what a subcommand did into an exit code: 3 where the controller was not reached.
pub(crate) fn finish(done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match done {
        Err(error) if error.is::<Unreachable>() => {
            eprintln!("meshctl: {error:#}");
            Ok(ExitCode::from(UNREACHABLE))
        }
        other => other,
    }
}

/// Where to look instead, to go on with a message; empty: nowhere.
pub(crate) fn elsewhere(namespaces: &BTreeSet<String>) -> String {
    let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!(", but there is in {one}: add -n {one}"),
        some => format!(
            ", but there is in {}: add -n, or -A for all",
            some.join(", ")
        ),
    }
}

/// Why a list of edges is empty: `others` are the namespaces with traffic elsewhere, one for each end of an edge.
pub(crate) fn no_traffic(only: Option<&String>, all: &[Edge]) -> String {
    let place = only.map_or_else(String::new, |at| format!(" in namespace {at}"));
    let hint = match all.len() {
        0 => "; nothing was sent between proxies yet, or pods have none (meshctl check)".to_owned(),
        1 => "; 1 edge in other namespaces: -A".to_owned(),
        n => format!("; {n} edges in other namespaces: -A"),
    };
    format!("no traffic{place}{hint}")
}

/// So many seconds from now; `None`: later than anybody waits.
pub(crate) fn later(seconds: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds))
}

/// Prints a document for programs.
pub(crate) fn document(value: &impl Serialize, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Yaml => serde_saphyr::to_string(value)?,
        _ => serde_json::to_string_pretty(value)? + "\n",
    })
}

/// Shows what `show` gives, again and again where that is asked for.
pub(crate) fn shown(
    watch: bool,
    mut show: impl FnMut() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    use std::io::{IsTerminal, Write};
    let mut out = std::io::stdout();
    let clear = out.is_terminal();
    loop {
        let text = show()?;
        if watch && clear {
            out.write_all(b"\x1b[H\x1b[2J")?;
        }
        if out.write_all(text.as_bytes()).is_err() || out.flush().is_err() || !watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_looked_in_the_wrong_place_is_told_where_to_look() {
        let of = |names: &[&str]| elsewhere(&names.iter().map(ToString::to_string).collect());
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["loom"]), ", but there is in loom: add -n loom");
        assert!(of(&["a", "b"]).ends_with("in a, b: add -n, or -A for all"));
    }

    #[test]
    fn an_empty_list_says_why() {
        let (shop, edge) = ("shop".to_owned(), Edge::default());
        let of = |only, edges: usize| no_traffic(only, &vec![edge.clone(); edges]);
        let expected = "no traffic in namespace shop; 2 edges in other namespaces: -A";
        assert_eq!(of(Some(&shop), 2), expected);
        assert!(of(Some(&shop), 1).ends_with("; 1 edge in other namespaces: -A"));
        assert!(of(None, 0).starts_with("no traffic; nothing was sent"));
    }

    #[test]
    fn windows_are_times_or_the_start() {
        for (text, query) in [("10s", "10"), ("1m", "60"), ("start", "start")] {
            assert_eq!(text.parse::<Window>().unwrap().query(), query);
        }
        for wrong in ["0s", "11m", "x", ""] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
