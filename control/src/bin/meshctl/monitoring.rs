//! `meshctl monitoring`: the files for Prometheus and Grafana, into a folder.

use anyhow::{Context, Result};
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use weft_control::local::{Client, default_state};
use weft_control::monitoring::files;
use weft_proxy_api::names::ports;

/// Write the scrape configuration, rules and alerts for Prometheus, and dashboards for Grafana
#[derive(Debug, Args)]
pub(crate) struct MonitoringArgs {
    /// Folder; it is made where it is missing
    folder: PathBuf,
    /// Also the addresses of the pods of the node on this machine (prometheus/targets.json)
    #[arg(long)]
    targets: bool,
    /// Folder of the node on this machine (meshctl local) [default: as meshctl local]
    #[arg(long, value_name = "DIR", requires = "targets")]
    state: Option<PathBuf>,
}

/// Writes them.
pub(crate) fn run(args: &MonitoringArgs) -> Result<()> {
    let mut all = files();
    if args.targets {
        let state = args.state.clone().unwrap_or_else(default_state);
        let text = targets(&Client::open(&std::path::absolute(state)?)?)?;
        all.push(("prometheus/targets.json".to_owned(), text));
    }
    for (path, text) in all {
        write(&args.folder.join(&path), &text)?;
        println!("{path}");
    }
    Ok(())
}

/// Whole or not at all: Prometheus may be reading it.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let said = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new();
    let file = file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = file.tempfile_in(folder).with_context(said)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(said)?;
    file.persist(path).with_context(said)?;
    Ok(())
}

/// Proxies as Prometheus' `file_sd` wants them.
fn targets(node: &Client) -> Result<String> {
    let pods = node
        .pods()?
        .into_iter()
        .filter(|pod| pod.meshed && !pod.finished);
    let groups: Vec<_> = pods
        .filter_map(|pod| {
            let address = SocketAddr::new(*pod.ips.first()?, ports::ADMIN);
            Some(serde_json::json!({
                "targets": [address.to_string()],
                "labels": {"pod": pod.name},
            }))
        })
        .collect();
    Ok(serde_json::to_string_pretty(&groups)? + "\n")
}
