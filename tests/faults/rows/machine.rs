//! What the machine gives: descriptors, memory.

use super::{Look, ROW, Row, background, node, pid, sum};
use crate::promise::Promise::{AtMost, Lost, Recovered, Rss, RssAfter};
use anyhow::Context;
use harness::{Mesh, echo};
use std::fmt::Write;

/// MiB the client's proxy may have in row 14.
const MEMORY: u64 = 64;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "13",
        fault: "256 descriptors, 500 connections",
        promises: &[Recovered(1000)],
        inject: |mesh, _| {
            limit(mesh, "256")?;
            background(mesh, &["hold", "web:8080", "500", "5"])
        },
        heal: |mesh| limit(mesh, "20000"),
        ..ROW
    },
    Row {
        name: "14",
        fault: "64 MiB of memory, 1,000 connections and 10,000 streams",
        promises: &[
            AtMost("OOM kills", 0.0),
            AtMost("restarts", 0.0),
            Recovered(2000),
        ],
        short: 30,
        prepare: |mesh| confine(mesh, MEMORY),
        inject: |mesh, held| {
            let seconds = (held - 5).to_string();
            background(mesh, &["idle", "web:8080", "1000", &seconds])?;
            background(mesh, &["streams", "web:8080", "10000", &seconds])
        },
        look: |mesh| {
            let mut look = vec![("OOM kills", oom_kills()?)];
            look.extend(restarts(mesh)?);
            Ok(look)
        },
        ..ROW
    },
    Row {
        name: "connections",
        fault: "10,000 idle connections, each asked once",
        promises: &[Lost(0), Rss(250.0), RssAfter(16.0), AtMost("restarts", 0.0)],
        short: 60,
        full: 120,
        after: 20,
        inject: |mesh, held| {
            let seconds = (held - 20).to_string();
            background(mesh, &["idle", "web:8080", "10000", &seconds])
        },
        look: restarts,
        ..ROW
    },
    Row {
        name: "services",
        fault: "1,000 services called one after the other",
        promises: &[Lost(0), Rss(80.0), AtMost("restarts", 0.0)],
        manifests: || vec![echo("web", 3), echo("client", 1), services()],
        to: "s{n}:8080",
        rate: [10, 50],
        short: 40,
        full: 120,
        look: subscriptions,
        ..ROW
    },
];

/// How often the client's proxy was started again.
pub(super) fn restarts(mesh: &Mesh) -> anyhow::Result<Look> {
    let pod = mesh.pod("client")?;
    let mut containers = pod.containers.iter();
    let proxy = containers.find(|at| at.name == "weft-proxy");
    let count = proxy.context("no proxy")?.restarts;
    Ok(vec![("restarts", f64::from(count))])
}

/// And of how much it wants to be told.
pub(super) fn subscriptions(mesh: &Mesh) -> anyhow::Result<Look> {
    let mut look = restarts(mesh)?;
    let name = "weft_control_subscriptions";
    look.push(("subscriptions", sum(mesh, "client", name, &[])?));
    Ok(look)
}

fn limit(mesh: &Mesh, descriptors: &str) -> anyhow::Result<()> {
    let pid = pid(mesh, "client", "weft-proxy")?;
    // By the proxy's own user, as nobody else may.
    let user = "setpriv --reuid=2102 --regid=2102 --clear-groups";
    let line = format!("{user} prlimit --pid {pid} --nofile={descriptors}:");
    node(mesh, &line).map(drop)
}

/// A thousand services of the same pods.
fn services() -> String {
    let mut text = String::new();
    for n in 0..harness::load::SERVICES {
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s{n} }}\nspec:\n  selector: {{ app: web }}\n  ports:\n    - {{ name: http, port: 8080 }}"
        );
    }
    text
}

/// A group of our own below that of this program.
fn group() -> anyhow::Result<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.split_once(":memory:"));
    let (_, path) = path.context("no memory controller of cgroup v1 here")?;
    Ok(format!("/sys/fs/cgroup/memory{path}/weft-faults"))
}

/// Puts the client's proxy under a limit of memory. The group is there for the next time, and empty.
fn confine(mesh: &Mesh, mib: u64) -> anyhow::Result<()> {
    let (group, pid) = (group()?, pid(mesh, "client", "weft-proxy")?);
    std::fs::create_dir_all(&group)?;
    std::fs::write(format!("{group}/memory.limit_in_bytes"), format!("{mib}M"))?;
    // The number is that of the namespace it is written from.
    node(mesh, &format!("echo {pid} > {group}/cgroup.procs")).map(drop)
}

/// Since the group was made.
fn oom_kills() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("{}/memory.oom_control", group()?))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.context("not counted here")?.trim().parse()?)
}
