//! Commands and connections inside pods.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;

use super::{Answer, tell};
use crate::local::cluster::Cluster;
use crate::local::enter::Enter;
use crate::local::lookup::{container_of, find, home};
use crate::local::options::Rung;
use crate::local::{loopback, spec};

/// Where to dial from, and what: without redirection a Service is called at the pod's own proxy.
pub(super) fn way_out(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    to: SocketAddr,
) -> Result<(Option<i32>, SocketAddr)> {
    let entry = find(cluster, namespace, pod)?;
    let join = home(entry)?.join(None);
    let state = entry.handle.state.borrow();
    let listens = state.targets.as_ref().is_some_and(|t| t.lead_to(to.ip()));
    let own = listens
        .then(|| loopback::outbound(entry.number, to.ip()))
        .flatten();
    Ok((join, own.map_or(to, |ip| SocketAddr::new(ip, to.port()))))
}

#[allow(clippy::too_many_arguments, clippy::result_large_err)]
pub(super) fn exec(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    command: Vec<String>,
    env: Vec<(String, String)>,
    fds: Vec<OwnedFd>,
    mut answer: Answer,
) -> Result<(), (anyhow::Error, Answer)> {
    let spawned = enter_for(cluster, namespace, pod, container, command, env).and_then(|enter| {
        let [stdin, stdout, stderr] =
            <[OwnedFd; 3]>::try_from(fds).map_err(|_| anyhow!("exec needs three descriptors"))?;
        cluster.node.enter(&enter, stdin, stdout, stderr)
    });
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Err((error, answer)),
    };
    tokio::spawn(async move {
        tokio::select! {
            code = child.wait() => tell(answer, Ok(code)),
            () = answer.closed() => {
                child.signal(Signal::SIGTERM);
                tokio::time::sleep(Duration::from_millis(500)).await;
                child.signal(Signal::SIGKILL);
            }
        }
    });
    Ok(())
}

fn enter_for(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    argv: Vec<String>,
    more: Vec<(String, String)>,
) -> Result<Enter> {
    if pod == "node" {
        let mut env = cluster.node.base_env.clone();
        env.extend(more);
        let workdir = None;
        return Ok(Enter {
            join: (cluster.node.rung != Rung::Loopback).then_some(1),
            join_mounts: false,
            mounts: None,
            argv,
            env,
            workdir,
            user: None,
            group: None,
        });
    }
    let entry = find(cluster, namespace, pod)?;
    let home = home(entry)?;
    let (index, spec) = container_of(entry, container)?;
    let state = entry.handle.state.borrow();
    let configs = cluster.node.configs.borrow().clone();
    let run = spec::resolve(
        spec,
        &spec::Facts {
            pod: &entry.pod,
            ips: &state.ips,
            rung: cluster.node.rung,
            base: &cluster.node.base_env,
            configs: &configs,
            place: cluster
                .node
                .place(&entry.pod.metadata, entry.number)
                .as_ref(),
        },
    )
    .map_err(|why| anyhow!(why))?;
    let mut env = run.env;
    env.extend(more);
    let join = home.join(state.containers.get(index).and_then(|c| c.pid));
    Ok(Enter {
        join,
        join_mounts: true,
        mounts: None,
        argv,
        env,
        workdir: run.workdir,
        user: run.user,
        group: run.group,
    })
}
