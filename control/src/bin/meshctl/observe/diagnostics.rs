//! `meshctl diagnostics`: what one proxy says of itself, and what it was told.

use super::connect::Unreachable;
use super::table::{Align, Table};
use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::local::{Client, PodInfo, Rung, default_state};
use weft_control::scrape;
use weft_proxy_api::names::ports;

/// Show what a proxy on this machine says of itself
#[derive(Debug, Args)]
#[command(
    after_help = "In Kubernetes: kubectl port-forward POD 4191, and then /config and /metrics of http://127.0.0.1:4191."
)]
pub(crate) struct DiagnosticsArgs {
    #[command(subcommand)]
    what: What,
    /// Namespace
    #[arg(short, long, default_value = "default", global = true)]
    namespace: String,
    /// Folder of the node on this machine [default: as meshctl local]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Its metrics, as Prometheus reads them
    ProxyMetrics {
        /// Pod, or deploy/NAME for one of its pods
        pod: String,
    },
    /// The policy in force, as JSON
    Config {
        /// Pod, or deploy/NAME for one of its pods
        pod: String,
    },
    /// The endpoints it knows
    Endpoints {
        /// Pod, or deploy/NAME for one of its pods
        pod: String,
    },
}

/// Always 0, unless it cannot be reached.
pub(crate) fn run(args: &DiagnosticsArgs) -> Result<ExitCode> {
    let (pod, path) = match &args.what {
        What::ProxyMetrics { pod } => (pod, "/metrics"),
        What::Config { pod } | What::Endpoints { pod } => (pod, "/config"),
    };
    let text = ask(args, pod, path)?;
    let text = match &args.what {
        What::Endpoints { .. } => endpoints(&serde_json::from_str(&text)?),
        _ => text,
    };
    super::shown(false, || Ok(text.clone()))?;
    Ok(ExitCode::SUCCESS)
}

fn ask(args: &DiagnosticsArgs, name: &str, path: &str) -> Result<String> {
    let state = args.state.clone().unwrap_or_else(default_state);
    let client = Client::open(&std::path::absolute(state)?).map_err(Unreachable)?;
    let pods = client.pods().map_err(Unreachable)?;
    let pod = pods.iter().find(|pod| is(pod, &args.namespace, name));
    let pod = pod.with_context(|| {
        format!(
            "there is no pod {name} with a proxy in namespace {}",
            args.namespace
        )
    })?;
    // The configuration is told inside of the pod only.
    let ip = match client.status()?.rung {
        Rung::Loopback => *pod
            .ips
            .first()
            .ok_or_else(|| anyhow!("{name} has no address"))?,
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let admin = SocketAddr::new(ip, ports::ADMIN);
    let stream = client
        .dial(Some((&pod.namespace, &pod.name)), admin)
        .map_err(Unreachable)?;
    scrape::get(stream, path)
}

fn is(pod: &PodInfo, namespace: &str, name: &str) -> bool {
    let owner = name.strip_prefix("deploy/");
    let owned = owner.is_some_and(|owner| {
        let of = |text: &String| text == &format!("Deployment {owner}");
        pod.owner.as_ref().is_some_and(of)
    });
    pod.meshed && !pod.deleting && pod.namespace == namespace && (pod.name == name || owned)
}

/// Every endpoint in the configuration, under its backend.
fn endpoints(config: &Value) -> String {
    let left = ["SERVICE", "BACKEND", "ENDPOINT", "POD", "IDENTITY"];
    let mut columns: Vec<_> = left.map(|name| (name, Align::Left)).into();
    columns.extend([
        ("WEIGHT", Align::Right),
        ("IN_FLIGHT", Align::Right),
        ("STATE", Align::Left),
    ]);
    let mut table = Table::new(columns);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    for destination in list(&config["plan"]["outbound"]) {
        let plan = &destination["plan"];
        for backend in list(&plan["routes"])
            .iter()
            .flat_map(|at| list(&at["backends"]))
        {
            for at in list(&backend["endpoints"]) {
                let state = match at["ejected"] == Value::Bool(true) {
                    true => "ejected",
                    false => "ready",
                };
                table.row(vec![
                    text(&plan["service"]),
                    text(&backend["service"]),
                    text(&at["address"]),
                    text(&at["pod"]),
                    text(&at["identity"]),
                    text(&backend["weight"]),
                    text(&at["in_flight"]),
                    state.to_owned(),
                ]);
            }
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_stand_under_their_backend() {
        let config = serde_json::json!({"plan": {"outbound": [{"plan": {"service": "shop/web:80", "routes": [{"backends": [
            {"service": "shop/web-v1:80", "weight": 9, "endpoints": [
                {"address": "10.0.0.1:8080", "pod": "web-1", "identity": null, "in_flight": 2, "ejected": true}]}]}]}}]}});
        let expected = "\
SERVICE       BACKEND          ENDPOINT        POD     IDENTITY   WEIGHT   IN_FLIGHT   STATE
shop/web:80   shop/web-v1:80   10.0.0.1:8080   web-1   -               9           2   ejected
";
        assert_eq!(endpoints(&config), expected);
        assert_eq!(endpoints(&Value::Null).lines().count(), 1);
    }
}
