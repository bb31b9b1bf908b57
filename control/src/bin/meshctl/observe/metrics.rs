//! `meshctl metrics`: in how much detail proxies say their metrics, and another detail for a while.

use super::connect::Target;
use super::table::{Align, Table};
use super::{Format, Scope, Window};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use weft_control::traffic::Report;
use weft_control::traffic::api::encoded;
use weft_control::traffic::rows::Resource;
use weft_control::traffic::show::Line;
use weft_control::traffic::tiers::LONGEST;
use weft_proxy_api::policy::MetricsTier;

/// Name of the metric that says the tier.
const TIER: &str = "weft_metrics_tier";

/// Show in how much detail proxies say their metrics, or have them say more or less for a while
///
/// For good, the annotation config.weft.mesh/metrics of a pod or namespace says it, and --metrics of the controller for
/// the mesh.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Whose, e.g. deploy/web [default: all]
    resource: Option<Resource>,
    /// Have them say it by edges, by routes, or by endpoints one by one
    #[arg(long, conflicts_with = "reset")]
    tier: Option<MetricsTier>,
    /// How long, to 24h
    #[arg(long = "for", default_value = "10m", value_name = "TIME", value_parser = time)]
    time: Duration,
    /// Back to what annotations say
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    scope: Scope,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

/// 1 where there is no such proxy.
pub(crate) fn run(args: &MetricsArgs) -> Result<ExitCode> {
    if args.tier.is_none() && !args.reset {
        return show(args);
    }
    let mut query: Vec<String> = Vec::new();
    let mut add = |key: &str, value: &str| query.push(format!("{key}={}", encoded(value)));
    if let Some(resource) = &args.resource {
        add("resource", &resource.to_string());
    }
    if let Some(namespace) = args.scope.only() {
        add("namespace", &namespace);
    }
    if let Some(tier) = args.tier {
        add("tier", &tier.to_string());
        add("seconds", &args.time.as_secs().to_string());
    }
    let path = format!("/api/v1/metrics?{}", query.join("&"));
    let answer = args.target.post(&path)?;
    let line = serde_json::from_str(&answer).context("the controller's answer cannot be read")?;
    let Line::Connected { pods, missing, .. } = line else {
        anyhow::bail!("the controller's answer cannot be read");
    };
    if let Some(missing) = missing {
        eprintln!("meshctl: {missing}");
    }
    if pods.is_empty() {
        eprintln!("meshctl: no connected proxy fits");
        return Ok(ExitCode::FAILURE);
    }
    let (pods, seconds) = (pods.join(", "), args.time.as_secs());
    match args.tier {
        Some(tier) => println!("by {tier} for {seconds} s: {pods}"),
        None => println!("as annotations say: {pods}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &MetricsArgs) -> Result<ExitCode> {
    let report = args.target.report(Window(Some(Duration::from_secs(10))))?;
    let tiers = tiers(&report, args);
    let text = match args.output {
        Format::Table | Format::Wide => table(&tiers),
        format => {
            let rows = tiers.iter();
            let row = |(pod, tier): &(String, String)| json!({"pod": pod, "tier": tier});
            let rows: Vec<_> = rows.map(row).collect();
            let all =
                json!({"apiVersion": report.api_version, "kind": "MetricsTiers", "rows": rows});
            super::document(&all, format)?
        }
    };
    super::shown(false, || Ok(text.clone()))?;
    Ok(match tiers.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Pods with a connected proxy, and what each proxy says.
fn tiers(report: &Report, args: &MetricsArgs) -> Vec<(String, String)> {
    let only = args.scope.only();
    let pods = report.pods.iter().filter(|pod| {
        let here = only.as_ref().is_none_or(|at| *at == pod.facts.namespace);
        let fits = |at: &Resource| at.holds_facts(&pod.facts);
        here && pod.proxy.is_some() && args.resource.as_ref().is_none_or(fits)
    });
    let said = pods.map(|pod| {
        let mut readings = pod.readings.iter();
        let tier = readings.find(|at| at.metric == TIER).and_then(|at| {
            let named = |tier: &&MetricsTier| f64::from(**tier as u8) == at.value;
            MetricsTier::ALL.iter().find(named).map(ToString::to_string)
        });
        let name = format!("{}/{}", pod.facts.namespace, pod.facts.name);
        (name, tier.unwrap_or_else(|| "-".into()))
    });
    said.collect()
}

fn table(tiers: &[(String, String)]) -> String {
    let mut table = Table::new(vec![("POD", Align::Left), ("METRICS", Align::Left)]);
    for (pod, tier) in tiers {
        table.row(vec![pod.clone(), tier.clone()]);
    }
    table.render()
}

fn time(text: &str) -> Result<Duration, String> {
    let time = weft_control::args::parse_duration(text);
    let fits = time.filter(|at| at.as_secs() > 0 && *at <= LONGEST);
    fits.ok_or_else(|| "give 1s to 24h".into())
}
