//! One container's life: start, probe, restart with patience, end in order.

mod probed;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::children::Child;
use super::enter::Enter;
use super::kubelet::Shared;
use super::logs;
use super::loopback::Targets;
use super::spec::Run;
use super::wire::ContainerInfo;
use crate::manifest::workload::Container;
use probed::{Probed, post_start};
use weft_proxy_api::names::inject::PROXY_CONTAINER;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// Starts before the application and ends after it.
    Sidecar,
    /// The application.
    App,
}

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A container that ran this long has earned a quick restart.
const HEALTHY: Duration = Duration::from_secs(60);

/// Set to the grace when the container must end.
pub(crate) type Stop = watch::Receiver<Option<Duration>>;

/// Keep a container running until it is done or told to stop; returns its last exit code.
pub(crate) async fn keep(
    pod: Arc<Shared>,
    index: usize,
    container: Container,
    role: Role,
    mut stop: Stop,
) -> i32 {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let began = Instant::now();
        let code = match start(&pod, index, &container) {
            Ok((child, run)) => Some(live(&pod, index, &container, &run, child, &mut stop).await),
            Err(why) => {
                pod.set(index, |info| {
                    info.state = "Waiting".into();
                    info.reason = Some(format!("CreateContainerError: {why:#}"));
                });
                None
            }
        };
        if let Some(code) = code {
            let told = stop.borrow().is_some();
            pod.set(index, |info| ended(info, code, role, told));
            if told || !again(&pod, role, code) {
                return code;
            }
        }
        if began.elapsed() > HEALTHY {
            backoff = FIRST_BACKOFF;
        }
        tokio::select! {
            () = sleep(backoff) => {}
            _ = stop.wait_for(Option::is_some) => return code.unwrap_or(1),
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
        pod.set(index, |info| info.restarts += 1);
    }
}

/// `told`: it was asked to end, and a sidecar never ends well otherwise.
fn ended(info: &mut ContainerInfo, code: i32, role: Role, told: bool) {
    let done = code == 0 && (told || role != Role::Sidecar);
    info.pid = None;
    info.started = done && role == Role::Init;
    info.ready = done && role == Role::Init;
    info.state = "Terminated".into();
    info.reason = Some(if done {
        "Completed".into()
    } else {
        "Error".into()
    });
    info.exit_code = Some(code);
}

/// Shall a container that ended with this code be started again?
fn again(pod: &Shared, role: Role, code: i32) -> bool {
    let policy = pod.pod.spec.restart_policy.as_deref().unwrap_or("Always");
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, "Never") => false,
        (Role::Init, _) | (Role::App, "OnFailure") => code != 0,
        (Role::App, policy) => policy != "Never",
    }
}

fn start(pod: &Shared, index: usize, container: &Container) -> Result<(Child, Run)> {
    if container.name == PROXY_CONTAINER
        && let Some(place) = pod.place()
    {
        let targets = place.targets(&pod.pod);
        free(&targets)?;
        pod.change(|state| state.targets = Some(targets));
    }
    let run = pod.resolve(container).map_err(|why| anyhow!(why))?;
    let join = pod.home()?.join(None);
    let enter = Enter {
        join,
        join_mounts: true,
        mounts: join.map(|_| run.mounts.clone()),
        argv: run.argv.clone(),
        env: run.env.clone(),
        workdir: run.workdir.clone(),
        user: run.user,
        group: run.group,
    };
    let (output, writer) = std::io::pipe()?;
    let (writer, null): (OwnedFd, OwnedFd) = (writer.into(), File::open("/dev/null")?.into());
    let child = pod.node.enter(&enter, null, writer.try_clone()?, writer)?;
    logs::keep(
        output.into(),
        pod.node.log_file(&pod.pod.metadata, &container.name)?,
    )?;
    pod.set(index, |info| {
        info.pid = Some(child.pid);
        info.state = "Running".into();
        info.reason = None;
        info.started = container.startup_probe.is_none() && post_start(container).is_none();
        info.ready =
            info.started && container.readiness_probe.is_none() && container.ports.is_empty();
    });
    Ok((child, run))
}

/// The loopback network is everybody's: who listens on all its addresses is in the way.
fn free(targets: &Targets) -> Result<()> {
    for at in targets.listens() {
        std::net::TcpListener::bind(at).with_context(|| {
            format!(
                "cannot listen on {at} (does another program listen on port {} of all addresses?)",
                at.port()
            )
        })?;
    }
    Ok(())
}

async fn live(
    pod: &Shared,
    index: usize,
    container: &Container,
    run: &Run,
    mut child: Child,
    stop: &mut Stop,
) -> i32 {
    let probed = Probed {
        pod,
        index,
        container,
        run,
        pid: child.pid,
    };
    let grace = pod.grace();
    let (grace, why) = tokio::select! {
        biased;
        code = child.wait() => return code,
        Ok(told) = stop.wait_for(Option::is_some) => (told.unwrap_or(grace), None),
        why = probed.watch() => (grace, Some(why)),
    };
    if let Some(why) = why {
        pod.note(format!(
            "container {}: {why}; it is started again",
            container.name
        ));
    }
    pod.set(index, |info| info.ready = false);
    end(&probed, &mut child, grace).await
}

/// Hook, polite request, order.
async fn end(probed: &Probed<'_>, child: &mut Child, grace: Duration) -> i32 {
    let deadline = Instant::now() + grace;
    let left = || deadline.saturating_duration_since(Instant::now());
    if let Some(hook) = probed
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.as_ref())
    {
        tokio::select! {
            code = child.wait() => return code,
            _ = timeout(left(), probed.hook(hook)) => {}
        }
    }
    child.signal(Signal::SIGTERM);
    if let Ok(code) = timeout(left().max(Duration::from_millis(50)), child.wait()).await {
        // Its helpers share its group.
        child.signal(Signal::SIGKILL);
        return code;
    }
    child.signal(Signal::SIGKILL);
    child.wait().await
}
