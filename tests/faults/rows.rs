//! The faults, and how each is made and undone.

use anyhow::{Context, ensure};
use harness::{Mesh, PodInfo};

/// One row of the matrix.
pub(crate) struct Row {
    /// As the command line names it.
    pub(crate) name: &'static str,
    /// What goes wrong.
    pub(crate) fault: &'static str,
    /// What should be seen.
    pub(crate) promise: &'static str,
    /// What the load asks for; `{n}`: something else every time.
    pub(crate) path: &'static str,
    /// Seconds the fault lasts.
    pub(crate) short: u64,
    /// The same with `--full`.
    pub(crate) full: u64,
    pub(crate) inject: fn(&Mesh) -> anyhow::Result<()>,
    pub(crate) heal: fn(&Mesh) -> anyhow::Result<()>,
}

const ROW: Row = Row {
    name: "",
    fault: "",
    promise: "",
    path: "/",
    short: 10,
    full: 60,
    inject: nothing,
    heal: nothing,
};

pub(crate) const ALL: &[Row] = &[
    Row {
        name: "1",
        fault: "controller killed (-9), stays away",
        promise: "lost 0",
        full: 600,
        inject: |mesh| mesh.client().signal_control(9),
        heal: |mesh| mesh.client().start_control(),
        ..ROW
    },
    Row {
        name: "2",
        fault: "controller frozen (STOP)",
        promise: "lost 0",
        inject: |mesh| mesh.client().signal_control(19),
        heal: |mesh| mesh.client().signal_control(18),
        ..ROW
    },
    Row {
        name: "6",
        fault: "application of 1 endpoint of 3 killed (-9)",
        promise: "lost <= 16 (in flight)",
        inject: |mesh| kill(mesh, "web", "app", "KILL"),
        ..ROW
    },
    Row {
        name: "12",
        fault: "1 endpoint of 3 cut off (DROP both ways)",
        promise: "gap <= 1000 ms, recovered <= 2000 ms",
        short: 15,
        full: 30,
        inject: |mesh| partition(mesh, "-I"),
        heal: |mesh| partition(mesh, "-D"),
        ..ROW
    },
    Row {
        name: "13",
        fault: "256 descriptors, 500 connections",
        promise: "recovers; who is connected is served",
        inject: |mesh| {
            limit(mesh, "256")?;
            hold(mesh, 500, 5)
        },
        heal: |mesh| limit(mesh, "65536"),
        ..ROW
    },
    Row {
        name: "15",
        fault: "client's proxy stopped for 5 s (STOP)",
        promise: "recovered <= 2000 ms, no endpoint ejected",
        short: 5,
        full: 5,
        inject: |mesh| kill(mesh, "client", "weft-proxy", "STOP"),
        heal: |mesh| {
            kill(mesh, "client", "weft-proxy", "CONT")?;
            let ejections = mesh
                .metrics("client")?
                .sum("weft_backend_ejections_total", &[]);
            ensure!(ejections == 0.0, "{ejections} endpoints were ejected");
            Ok(())
        },
        ..ROW
    },
    Row {
        name: "17",
        fault: "targets that lead back to the proxy itself",
        promise: "refused in one hop, descriptors + <= 2",
        short: 3,
        full: 3,
        inject: loops,
        ..ROW
    },
    Row {
        name: "22",
        fault: "all endpoints restarted one after the other (TERM)",
        promise: "lost 0",
        short: 30,
        inject: |mesh| mesh.client().restart("Deployment", "default", "web"),
        ..ROW
    },
    Row {
        name: "22k",
        fault: "proxy of 1 endpoint of 3 killed (-9)",
        promise: "lost <= 16 (in flight)",
        inject: |mesh| kill(mesh, "web", "weft-proxy", "KILL"),
        ..ROW
    },
    Row {
        name: "25",
        fault: "another Host and path with every request",
        promise: "series + <= 50",
        path: "/path/{n}",
        full: 300,
        ..ROW
    },
    Row {
        name: "33",
        fault: "application of 1 endpoint of 3 frozen (STOP)",
        promise: "its queue does not block the others",
        inject: |mesh| kill(mesh, "web", "app", "STOP"),
        heal: |mesh| kill(mesh, "web", "app", "CONT"),
        ..ROW
    },
    Row {
        name: "memory",
        fault: "idle connections (2,000; with --full 10,000 in steps)",
        promise: "bounded, and given back",
        short: 12,
        full: 60,
        inject: |mesh| hold(mesh, 2_000, 8),
        ..ROW
    },
];

fn nothing(_: &Mesh) -> anyhow::Result<()> {
    Ok(())
}

/// Always the same pod, so that what was stopped is what is continued.
fn victim(mesh: &Mesh, workload: &str) -> anyhow::Result<PodInfo> {
    let mut pods = mesh.pods(workload)?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods.into_iter().next().context("no pod")
}

fn kill(mesh: &Mesh, workload: &str, container: &str, signal: &str) -> anyhow::Result<()> {
    let pid = pid(mesh, workload, container)?;
    let done = mesh.node(&["kill", &format!("-{signal}"), &pid])?;
    ensure!(done.code == 0, "{done:?}");
    Ok(())
}

fn pid(mesh: &Mesh, workload: &str, container: &str) -> anyhow::Result<String> {
    let pod = victim(mesh, workload)?;
    let found = pod.containers.iter().find(|found| found.name == container);
    let pid = found.and_then(|found| found.pid);
    Ok(pid.context("the container does not run")?.to_string())
}

fn partition(mesh: &Mesh, how: &str) -> anyhow::Result<()> {
    let mut exec = harness::Exec::new(
        &victim(mesh, "web")?.name,
        [
            "sh",
            "-c",
            &format!(
                "for t in iptables ip6tables; do $t -w {how} INPUT ! -i lo -j DROP; $t -w {how} OUTPUT ! -o lo -j DROP; done"
            ),
        ],
    );
    exec.namespace = "default".into();
    let done = mesh.client().output(&exec)?;
    ensure!(done.code == 0, "{done:?}");
    Ok(())
}

fn limit(mesh: &Mesh, descriptors: &str) -> anyhow::Result<()> {
    let pid = pid(mesh, "client", "weft-proxy")?;
    let done = mesh.node(&["prlimit", "--pid", &pid, &format!("--nofile={descriptors}")])?;
    ensure!(done.code == 0, "{done:?}");
    Ok(())
}

/// Silent connections through the client's proxy.
fn hold(mesh: &Mesh, count: u32, seconds: u32) -> anyhow::Result<()> {
    let this = std::env::current_exe()?.display().to_string();
    let exec = harness::Exec::new(
        &mesh.pod("client")?.name,
        [
            &this,
            "role",
            "hold",
            "web:8080",
            &count.to_string(),
            &seconds.to_string(),
        ]
        .map(str::to_owned),
    );
    let client = mesh.client().clone();
    // In the background, as the load is: it ends by itself.
    std::thread::spawn(move || drop(client.output(&exec)));
    Ok(())
}

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
