//! The process that holds a pod's namespaces, from its network to its names, for as long as the pod lives.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::addresses::PodAddresses;
use super::{bridge, rootfs};

/// What it is told, as a file in the pod's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pause {
    pub(crate) hostname: String,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) programs: Vec<PathBuf>,
}

/// Says `namespaces`, waits for the cable, says `ready`, then stays until its stdin ends.
pub(crate) fn run(spec: &Path) -> i32 {
    match hold(spec) {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("error {error:#}"));
            1
        }
    }
}

fn hold(file: &Path) -> Result<()> {
    let spec: Pause = serde_json::from_slice(&std::fs::read(file)?)?;
    let dir = file.parent().context("no folder")?;
    unshare(
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("cannot make the pod's namespaces")?;
    bridge::pod_settings();
    say("namespaces");
    let mut lines = std::io::stdin().lines();
    lines.next().context("the node ended")??;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bridge::set_up_pod(PodAddresses {
        v4: spec.v4,
        v6: spec.v6,
    }))?;
    drop(runtime);
    let _ = nix::unistd::sethostname(&spec.hostname);
    rootfs::change(dir, &spec.programs)?;
    say("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
    }
    Ok(())
}

fn say(line: &str) {
    println!("{}", line.replace('\n', " "));
    let _ = std::io::stdout().flush();
}
