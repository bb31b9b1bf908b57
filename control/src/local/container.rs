//! One container's life: start, probe, restart with patience, end in order.

use std::fs::File;
use std::net::IpAddr;
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
use super::options::Rung;
use super::probes::{self, Pace, Streak};
use super::spec::{self, Run};
use super::wire::ContainerInfo;
use crate::manifest::workload::{Container, Hook, Probe};
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

/// How long a container without a readiness probe may take to listen on its ports.
const LISTENING: Duration = Duration::from_secs(5);

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
            pod.set(index, |info| ended(info, code, role));
            if stop.borrow().is_some() || !again(&pod, role, code) {
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

fn ended(info: &mut ContainerInfo, code: i32, role: Role) {
    let done = code == 0 && role != Role::Sidecar;
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

fn post_start(container: &Container) -> Option<&Hook> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// A running container under observation.
struct Probed<'a> {
    pod: &'a Shared,
    index: usize,
    container: &'a Container,
    run: &'a Run,
    pid: i32,
}

impl Probed<'_> {
    /// Keeps `started` and `ready` true to the probes; returns why the container must be started again.
    async fn watch(&self) -> String {
        if let Some(hook) = post_start(self.container)
            && let Err(why) = self.hook(hook).await
        {
            return format!("its postStart hook failed: {why}");
        }
        if let Some(probe) = &self.container.startup_probe
            && let Err(why) = self.until_started(probe).await
        {
            return format!("its startup probe failed: {why}");
        }
        let unprobed = self.container.readiness_probe.is_none();
        if unprobed {
            self.until_listening().await;
        }
        self.pod.set(self.index, |info| {
            info.started = true;
            info.ready |= unprobed;
        });
        let ready = async {
            if let Some(probe) = &self.container.readiness_probe {
                self.follow_readiness(probe).await;
            }
            std::future::pending::<()>().await;
        };
        let alive = async {
            match &self.container.liveness_probe {
                Some(probe) => self.until_dead(probe).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ready => String::new(),
            why = alive => format!("its liveness probe failed: {why}"),
        }
    }

    /// Without a probe a container is ready once it listens on the ports it names. Kubernetes would not wait, and the
    /// first requests would fail.
    async fn until_listening(&self) {
        let ports: Vec<_> = self
            .container
            .ports
            .iter()
            .filter(|p| probes::is_tcp(p))
            .map(|p| p.container_port)
            .collect();
        let deadline = Instant::now() + LISTENING;
        while Instant::now() < deadline {
            let listening = probes::listening(self.pid);
            let there = |port: &u16| {
                let mut on = listening.iter().filter(|at| at.port() == *port);
                on.any(|at| self.is_ours(at.ip()))
            };
            if ports.iter().all(there) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// In namespaces everything is the pod's; elsewhere its neighbours listen beside it.
    fn is_ours(&self, ip: IpAddr) -> bool {
        self.pod.node.rung != Rung::Loopback
            || ip.is_unspecified()
            || ip == self.pod.address_of(self.container)
    }

    async fn until_started(&self, probe: &Probe) -> Result<(), String> {
        let pace = Pace::of(probe);
        sleep(pace.delay).await;
        // Quick tries cost nothing of the patience that was asked for.
        let deadline = Instant::now() + pace.period * pace.bad;
        let mut tries = 0;
        loop {
            match self.check(probe, &pace).await {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() >= deadline => return Err(why),
                Err(_) => tries += 1,
            }
            sleep(wait_for_next(&pace, tries)).await;
        }
    }

    async fn follow_readiness(&self, probe: &Probe) {
        let pace = Pace::of(probe);
        let (mut streak, mut tries, mut ready) = (Streak::default(), 0, false);
        sleep(pace.delay).await;
        loop {
            let result = self.check(probe, &pace).await;
            if let Some(now) = streak.note(result.is_ok(), &pace) {
                ready = now;
                self.pod.set(self.index, |info| {
                    info.ready = now;
                    info.reason = result.err().map(|why| format!("not ready: {why}"));
                });
            }
            tries += 1;
            sleep(if ready {
                pace.period
            } else {
                wait_for_next(&pace, tries)
            })
            .await;
        }
    }

    async fn until_dead(&self, probe: &Probe) -> String {
        let pace = Pace::of(probe);
        let mut streak = Streak::default();
        sleep(pace.delay).await;
        loop {
            let result = self.check(probe, &pace).await;
            if let (Some(false), Err(why)) = (streak.note(result.is_ok(), &pace), result) {
                return why;
            }
            sleep(pace.period).await;
        }
    }

    async fn check(&self, probe: &Probe, pace: &Pace) -> Result<(), String> {
        let check = async {
            match &probe.exec {
                Some(exec) => self.command(&exec.command).await,
                None => {
                    probes::network(probe, self.container, self.pod.address_of(self.container))
                        .await
                }
            }
        };
        timeout(pace.timeout, check)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", pace.timeout)))
    }

    async fn hook(&self, hook: &Hook) -> Result<(), String> {
        if let Some(exec) = &hook.exec {
            return self.command(&exec.command).await;
        }
        if let Some(pause) = &hook.sleep {
            sleep(Duration::from_secs(pause.seconds)).await;
        }
        if let Some(get) = &hook.http_get {
            let probe = Probe {
                http_get: Some(get.clone()),
                ..Probe::default()
            };
            return probes::network(&probe, self.container, self.pod.address_of(self.container))
                .await;
        }
        Ok(())
    }

    /// Run beside the container, in its mounts. Dropped: killed.
    async fn command(&self, command: &[String]) -> Result<(), String> {
        let argv = command
            .iter()
            .map(|arg| spec::expand(arg, &self.run.env))
            .collect();
        let enter = Enter {
            join: self
                .pod
                .home()
                .ok()
                .and_then(|home| home.join(Some(self.pid))),
            join_mounts: true,
            mounts: None,
            argv,
            env: self.run.env.clone(),
            workdir: self.run.workdir.clone(),
            user: self.run.user,
            group: self.run.group,
        };
        let spawned = || -> Result<Child> {
            let null: OwnedFd = File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .context("/dev/null")?
                .into();
            self.pod
                .node
                .enter(&enter, null.try_clone()?, null.try_clone()?, null)
        };
        let child = spawned().map_err(|error| format!("{error:#}"))?;
        let mut child = KillOnDrop(child);
        match child.0.wait().await {
            0 => Ok(()),
            code => Err(format!(
                "{} ended with {code}",
                command.first().map_or("", String::as_str)
            )),
        }
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGKILL);
    }
}

/// The first tries come quicker than the period: on one machine most things are up within a moment.
fn wait_for_next(pace: &Pace, tries: u32) -> Duration {
    if tries <= 20 {
        Duration::from_millis(200).min(pace.period)
    } else {
        pace.period
    }
}
