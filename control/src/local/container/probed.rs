//! A running container under observation: its probes, its hooks.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::local::children::Child;
use crate::local::enter::Enter;
use crate::local::kubelet::{LONGEST, Shared};
use crate::local::options::Rung;
use crate::local::probes::{self, Pace, Streak};
use crate::local::spec::{self, Run};
use crate::manifest::workload::{Container, Hook, Probe};

/// How long a container without a readiness probe may take to listen on its ports.
const LISTENING: Duration = Duration::from_secs(5);

pub(super) fn post_start(container: &Container) -> Option<&Hook> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// A running container under observation.
pub(super) struct Probed<'a> {
    pub(super) pod: &'a Shared,
    pub(super) index: usize,
    pub(super) container: &'a Container,
    pub(super) run: &'a Run,
    pub(super) pid: i32,
}

impl Probed<'_> {
    /// Keeps `started` and `ready` true to the probes; returns why the container must be started again.
    pub(super) async fn watch(&self) -> String {
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
        let deadline = Instant::now() + pace.period.saturating_mul(pace.bad).min(LONGEST);
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

    pub(super) async fn hook(&self, hook: &Hook) -> Result<(), String> {
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
