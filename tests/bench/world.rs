//! Two pods as network namespaces and a cable between them, all inside namespaces of our own: when the bench ends, they
//! and every process in them are gone.

use crate::process::output;
use anyhow::Context;
use std::process::Command;

pub(crate) const CLIENT: &str = "10.77.0.1";
pub(crate) const SERVER: &str = "10.77.0.2";
/// The service address that clients of a mesh call.
pub(crate) const SERVICE: &str = "10.77.9.9";
/// Ports of the application: HTTP/1.1, HTTP/2, bytes.
pub(crate) const PORTS: [u16; 3] = [8080, 8081, 7000];

const INSIDE: &str = "WEFT_BENCH_INSIDE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Whether this is the second run, inside.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// True inside; outside, runs this program again in new namespaces and says false when that has ended.
pub(crate) fn enter(args: &[String]) -> anyhow::Result<bool> {
    if inside() {
        output(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
        output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        return Ok(true);
    }
    let mut command = Command::new("unshare");
    if !privileged() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    let root = if privileged() { "root" } else { "user" };
    let status = command
        .arg(std::env::current_exe()?)
        .args(args)
        .env(INSIDE, root)
        .status();
    let status = status.context("cannot run unshare (util-linux)")?;
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(false)
}

/// Whether packets of a proxy can be told apart by user id; in a namespace with a single id they need a mark.
pub(crate) fn privileged() -> bool {
    match std::env::var(INSIDE) {
        Ok(how) => how == "root",
        Err(_) => nix::unistd::geteuid().is_root(),
    }
}

/// The two pods of one peer.
pub(crate) struct Pods {
    name: String,
}

impl Pods {
    pub(crate) fn up(name: &str) -> anyhow::Result<Self> {
        let pods = Self {
            name: name.to_owned(),
        };
        let (client, server) = (pods.namespace(Side::Client), pods.namespace(Side::Server));
        ip(&format!("netns add {client}"))?;
        ip(&format!("netns add {server}"))?;
        ip(&format!(
            "link add eth0 netns {client} type veth peer name eth0 netns {server}"
        ))?;
        for (namespace, own, other) in [(&client, CLIENT, SERVER), (&server, SERVER, CLIENT)] {
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} address add {own}/24 dev eth0"))?;
            ip(&format!("-n {namespace} route add default via {other}"))?;
        }
        for side in [Side::Client, Side::Server] {
            pods.tune(side)?;
        }
        Ok(pods)
    }

    /// A command that runs in a pod.
    pub(crate) fn exec(&self, side: Side, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side), program]);
        command
    }

    fn namespace(&self, side: Side) -> String {
        let side = if side == Side::Client { "c" } else { "s" };
        format!("{side}-{}", self.name)
    }

    /// Thousands of connections a second must not run out of ports.
    fn tune(&self, side: Side) -> anyhow::Result<()> {
        let set = "cd /proc/sys/net/ipv4; echo '10000 65000' > ip_local_port_range; echo 1 > tcp_tw_reuse; \
                   echo 4096 > tcp_max_tw_buckets || true; echo cubic > tcp_congestion_control || true; \
                   echo 4096 > ../core/somaxconn || true; echo 4096 > tcp_max_syn_backlog || true";
        output(self.exec(side, "sh").args(["-c", set]))?;
        Ok(())
    }
}

fn ip(words: &str) -> anyhow::Result<()> {
    output(Command::new("ip").args(words.split(' '))).map(drop)
}
