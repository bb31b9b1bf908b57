//! `meshctl check`: can the mesh be installed, and does it work?

use super::install::{Cluster, block_on};
use super::observe::connect::{Node, Target};
use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use weft_control::check::report::Verdict;
use weft_control::check::{self, Asked, Report, Section, proxies};
use weft_proxy_api::names;

/// Between two rounds of --wait.
const PAUSE: Duration = Duration::from_secs(2);

/// Say whether the mesh works, or could be installed; exit code 1 if not
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Before an installation: is there all that it needs?
    #[arg(long, conflicts_with_all = ["proxy", "local"])]
    pre: bool,
    /// The proxies as well
    #[arg(long)]
    proxy: bool,
    /// A mesh on this machine (meshctl local) in place of one in Kubernetes
    #[arg(long)]
    local: bool,
    /// Check again until everything works, at most for this time
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = duration)]
    wait: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Namespace of the controller
    #[arg(short, long, default_value = names::SYSTEM_NAMESPACE)]
    namespace: String,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    weft_control::args::parse_duration(text).ok_or_else(|| "is not a time like 90s or 5m".into())
}

/// 0 if everything works, warnings or not; 1 if something does not.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    // A time that no clock reaches is no end.
    let end = args.wait.map(|time| Instant::now().checked_add(time));
    let report = loop {
        let report = args.report()?;
        let over = |end: Option<Instant>| end.is_some_and(|end| Instant::now() + PAUSE > end);
        if report.works() || end.is_none_or(over) {
            break report;
        }
        std::thread::sleep(PAUSE);
    };
    match args.output {
        Format::Table => print!("{report}"),
        Format::Json => println!("{:#}", report.to_json()),
    }
    Ok(match report.works() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl CheckArgs {
    fn report(&self) -> Result<Report> {
        if self.local {
            return Ok(local(&self.node.clone().into()));
        }
        block_on(async {
            let asked = Asked::open(&self.cluster.settings(&self.namespace)).await?;
            Ok(match (self.pre, self.proxy) {
                (true, _) => check::before(&asked).await,
                (false, false) => check::installed(&asked).await,
                (false, true) => check::with_proxies(&asked).await,
            })
        })
    }
}

/// A mesh without Kubernetes: what its controller says of itself and of the proxies.
fn local(target: &Target) -> Report {
    // Nothing else is asked in its place: a cluster that kubectl would ask is another mesh.
    let is_there = target.is_named() || target.is_there();
    let status = match is_there {
        true => target.get("/status"),
        false => Err(anyhow!("no node of meshctl local runs on this machine")),
    };
    let status = status.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
    match status {
        Ok(status) => Report {
            sections: match target.traffic("window=10") {
                Ok(traffic) => vec![
                    proxies::controllers(&status, &traffic),
                    proxies::everywhere(&traffic),
                ],
                // One that is not ready tells of nobody's.
                Err(_) => vec![
                    proxies::controller(&status),
                    proxies::proxies(&[status], &BTreeSet::new()),
                ],
            },
        },
        Err(error) => {
            let mut section = Section::new("weft-control");
            let verdict = Verdict::failure(format!("{error:#}"));
            section.add("controller-answers", "the controller is ready", verdict);
            Report {
                sections: vec![section],
            }
        }
    }
}
