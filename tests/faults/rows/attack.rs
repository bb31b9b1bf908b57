//! Targets, names and clients meant to do harm.

use super::machine::{restarts, subscriptions};
use super::{ROW, Row, background, inside, node};
use crate::promise::Promise::{AtMost, Lost, Rss, RssAfter, Series};
use anyhow::{Context, ensure};
use harness::{Mesh, echo, program, unmeshed};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "17",
        fault: "targets that lead back to the proxy itself",
        promises: &[Lost(0)],
        short: 3,
        full: 3,
        inject: |mesh, _| loops(mesh),
        ..ROW
    },
    Row {
        name: "23",
        fault: "20 readers of metrics that never read, and a tap that is stopped",
        promises: &[Lost(0), Rss(8.0), AtMost("restarts", 0.0)],
        short: 20,
        inject: |mesh, held| {
            let seconds = held.to_string();
            background(mesh, &["deaf", "127.0.0.1:4191/metrics", "20", &seconds])?;
            stopped_tap(mesh, held)
        },
        look: restarts,
        ..ROW
    },
    Row {
        name: "24",
        fault: "another target address with every request (10,000; with --full 50,000), then silence",
        promises: &[Lost(0), Rss(64.0), RssAfter(16.0), AtMost("restarts", 0.0)],
        manifests: || {
            vec![
                echo("web", 1),
                unmeshed("targets", &["echo", "8080"], 8080),
                echo("client", 1),
            ]
        },
        to: "{ip}:8080",
        rate: [1, 250],
        connections: 64,
        short: 40,
        full: 200,
        after: 70,
        prepare: targets,
        look: subscriptions,
        ..ROW
    },
    Row {
        name: "25",
        fault: "another Host and path with every request (10,000; with --full 75,000)",
        promises: &[Series(50.0), RssAfter(8.0)],
        path: "/path/{n}",
        rate: [RATE, 250],
        short: 40,
        full: 300,
        ..ROW
    },
];

const RATE: u64 = 50;

fn loops(mesh: &Mesh) -> anyhow::Result<()> {
    let own = mesh.pod("client")?.ips[0];
    let web = mesh.pod("web")?.ips[0];
    for target in [
        format!("{own}:4140"),
        format!("{own}:4143"),
        format!("{web}:4143"),
        format!("{web}:4140"),
        "127.0.0.1:4140".into(),
    ] {
        let answer = mesh.curl("client", &format!("http://{target}/"), &["--max-time", "3"])?;
        ensure!(!(200..300).contains(&answer.status), "{target}: {answer:?}");
    }
    Ok(())
}

/// Follows the client's traffic, and is stopped before it has read much.
fn stopped_tap(mesh: &Mesh, seconds: u64) -> anyhow::Result<()> {
    let mut tap = Command::new(program("meshctl")?)
        .args(["tap", "deploy/client", "-o", "json", "--state"])
        .arg(mesh.client().state())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(tap.stdout.take().context("no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the tap shows nothing");
    let pid = tap.id().to_string();
    let stopped = Command::new("kill").args(["-STOP", &pid]).status()?;
    ensure!(stopped.success());
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        let _ = tap.kill();
        drop(out);
        tap.wait()
    });
    Ok(())
}

/// A network of which every address is that of one pod.
fn targets(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.pod("targets")?;
    let ip = pod.ips[0];
    inside(mesh, &pod, "ip route add local 198.18.0.0/15 dev lo")?;
    node(mesh, &format!("ip route add 198.18.0.0/15 via {ip}")).map(drop)
}
