//! What a pod needs before its first container: checked manifests, volumes, namespaces.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use super::crew::Crew;
use super::{Shared, roles_of};
use crate::local::bridge::Bridge;
use crate::local::children::Child;
use crate::local::network::Network;
use crate::local::node::Home;
use crate::local::pause::Pause;
use crate::local::{roles, spec, volumes};

const SET_UP: Duration = Duration::from_secs(20);

/// Everything a pod needs before its first container.
pub(super) async fn prepare(pod: &Arc<Shared>, crew: &mut Crew) -> Result<()> {
    let spec = &pod.pod.spec;
    if spec.containers.is_empty() {
        bail!("the pod has no containers");
    }
    for volume in &spec.volumes {
        volumes::check(volume).map_err(|why| anyhow!(why))?;
    }
    for (container, _) in roles_of(&pod.pod) {
        pod.resolve(&container).map_err(|why| anyhow!(why))?;
    }
    write_volumes(pod)?;
    let home = match &pod.node.network {
        Network::Bridge(bridge) => {
            let held = timeout(SET_UP, sandbox(pod, bridge)).await;
            let (child, orders) = held.context("the pod's namespaces took too long")??;
            let home = Home::Namespaces(child.pid);
            crew.pause = Some((child, orders));
            home
        }
        Network::Loopback(_) => Home::Machine,
    };
    let ips = pod.ips();
    pod.change(|state| {
        state.home = Some(home);
        state.ips = ips;
    });
    Ok(())
}

fn write_volumes(pod: &Shared) -> Result<()> {
    let configs = pod.node.configs.borrow().clone();
    volumes::write(
        &pod.dir.join("volumes"),
        &pod.pod,
        &configs,
        pod.node.tokens.as_ref(),
    )
}

/// The pod's namespaces, with their cable, held by a process.
async fn sandbox(pod: &Arc<Shared>, bridge: &Bridge) -> Result<(Child, pipe::Sender)> {
    let node = &pod.node;
    let file = pod.dir.join("pause.json");
    let spec = Pause {
        hostname: spec::hostname(&pod.pod),
        v4: pod.addresses.v4,
        v6: pod.addresses.v6,
        programs: node.programs.clone(),
    };
    fs::write(&file, serde_json::to_vec(&spec)?)?;
    let mut command = Command::new(&node.meshctl);
    command
        .arg(roles::PAUSE)
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let (child, mut pipes) = node.children.spawn(&mut command)?;
    let (Some(stdin), Some(stdout)) = (pipes.stdin.take(), pipes.stdout.take()) else {
        bail!("no pipes")
    };
    let mut orders = pipe::Sender::from_owned_fd(stdin.into())?;
    let mut answers = BufReader::new(pipe::Receiver::from_owned_fd(stdout.into())?).lines();
    expect(&mut answers, "namespaces").await?;
    let cable = format!("pod{}", pod.number);
    bridge.plug(&cable, child.pid).await?;
    orders.write_all(b"plugged\n").await?;
    expect(&mut answers, "ready").await?;
    Ok((child, orders))
}

async fn expect(lines: &mut tokio::io::Lines<BufReader<pipe::Receiver>>, word: &str) -> Result<()> {
    match lines.next_line().await? {
        Some(line) if line == word => Ok(()),
        Some(line) => bail!("{}", line.strip_prefix("error ").unwrap_or(&line)),
        None => bail!("the process that holds the pod's namespaces ended"),
    }
}

/// Tokens before they run out, ConfigMaps when they change.
pub(super) async fn refresh(pod: Arc<Shared>) {
    let mut configs = pod.node.configs.subscribe();
    let mut used = volumes::used(&pod.pod, &configs.borrow_and_update().clone());
    loop {
        tokio::select! {
            () = sleep(volumes::REFRESH) => {}
            changed = configs.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = volumes::used(&pod.pod, &configs.borrow_and_update().clone());
                if now == used {
                    continue;
                }
                used = now;
            }
        }
        if let Err(error) = write_volumes(&pod) {
            pod.note(format!("{error:#}"));
        }
    }
}
