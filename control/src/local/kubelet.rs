//! One pod's life: namespaces, volumes, init containers in order, sidecars, application; and the same backwards.

mod crew;
mod home;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::sleep;

use super::addresses::PodAddresses;
use super::container::Role;
use super::loopback::{self, Place};
use super::node::{Home, Node, Phase, PodState};
use super::options::Rung;
use super::spec::{self, Facts, Run};
use super::wire::ContainerInfo;
use crate::manifest::workload::{Container, Pod};
use crew::{Crew, sweep};
use home::{prepare, refresh};
use weft_proxy_api::names::inject::PROXY_CONTAINER;

/// Between "no new traffic for this pod" and its SIGTERM: time for that news to reach every proxy, on a busy machine too.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

/// No time of a manifest or a client is waited for longer than this: clocks end somewhere.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, after [`SETTLE`].
    Gently,
    /// At once, with little grace: the node goes down.
    Quickly,
}

/// The supervisor's hold on a pod.
pub(crate) struct Handle {
    pub(crate) state: watch::Receiver<PodState>,
    pub(crate) end: watch::Sender<Option<End>>,
}

/// A pod as its containers see it.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Pod,
    pub(crate) addresses: PodAddresses,
    number: u16,
    dir: PathBuf,
    state: watch::Sender<PodState>,
}

impl Shared {
    /// Change what is known of a container, and tell.
    pub(crate) fn set(&self, index: usize, change: impl FnOnce(&mut ContainerInfo)) {
        self.change(|state| {
            if let Some(info) = state.containers.get_mut(index) {
                change(info);
            }
        });
    }

    /// Something worth reading in `get pods -o wide`.
    pub(crate) fn note(&self, message: String) {
        if self.node.options.verbose {
            eprintln!(
                "pod {}/{}: {message}",
                self.pod.metadata.namespace, self.pod.metadata.name
            );
        }
        self.change(|state| state.message = Some(message));
    }

    /// Where its processes go.
    pub(crate) fn home(&self) -> Result<Home> {
        self.state
            .borrow()
            .home
            .context("the pod has no namespaces")
    }

    /// Where a container listens, past its proxy where that is known.
    pub(crate) fn address_of(&self, container: &Container) -> IpAddr {
        if container.name != PROXY_CONTAINER
            && let Some(place) = &self.place()
        {
            return place.bind(&self.pod).into();
        }
        self.addresses.v4.into()
    }

    /// On the rung without namespaces.
    pub(crate) fn place(&self) -> Option<Place> {
        self.node.place(&self.pod.metadata, self.number)
    }

    pub(crate) fn grace(&self) -> Duration {
        let grace = self.pod.spec.termination_grace_period_seconds;
        Duration::from_secs(grace.unwrap_or(30)).min(LONGEST)
    }

    pub(crate) fn resolve(&self, container: &Container) -> Result<Run, String> {
        let configs = self.node.configs.borrow().clone();
        spec::resolve(
            container,
            &Facts {
                pod: &self.pod,
                ips: &self.ips(),
                rung: self.node.rung,
                base: &self.node.base_env,
                configs: &configs,
                place: self.place().as_ref(),
            },
        )
    }

    fn ips(&self) -> Vec<IpAddr> {
        let mut ips = vec![self.addresses.v4.into()];
        if self.node.network.v6() {
            ips.push(self.addresses.v6.into());
        }
        ips
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut PodState)) {
        self.state.send_modify(change);
        self.node.changed.notify_one();
    }
}

/// Containers in the order of [`PodState::containers`]: init containers first.
pub(crate) fn roles_of(pod: &Pod) -> Vec<(Container, Role)> {
    let init = pod.spec.init_containers.iter().map(|container| {
        let stays = container.restart_policy.as_deref() == Some("Always");
        (
            container.clone(),
            if stays { Role::Sidecar } else { Role::Init },
        )
    });
    let apps = pod.spec.containers.iter().map(|container| {
        // A proxy among the ordinary containers still has to outlive the application.
        let proxy = container.name == PROXY_CONTAINER;
        (
            container.clone(),
            if proxy { Role::Sidecar } else { Role::App },
        )
    });
    init.chain(apps).collect()
}

/// Start a pod's life. `hosts` is the first content of its hosts file.
pub(crate) fn start(node: Arc<Node>, pod: Pod, number: u16, hosts: &str) -> Result<Handle> {
    let meta = &pod.metadata;
    let dir = node.pod_dir(meta);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("hosts"), hosts)?;
    let init_count = pod.spec.init_containers.len();
    let containers = roles_of(&pod)
        .into_iter()
        .enumerate()
        .map(|(place, (container, role))| ContainerInfo {
            name: container.name,
            init: place < init_count,
            sidecar: role == Role::Sidecar,
            state: "Waiting".into(),
            reason: Some("PodInitializing".into()),
            ..ContainerInfo::default()
        })
        .collect();
    let (state, seen) = watch::channel(PodState {
        containers,
        ..PodState::default()
    });
    let (end, ended) = watch::channel(None);
    let addresses = node.space().pod(number);
    let shared = Arc::new(Shared {
        node,
        pod,
        addresses,
        number,
        dir,
        state,
    });
    tokio::spawn(life(shared, ended));
    Ok(Handle { state: seen, end })
}

async fn life(pod: Arc<Shared>, mut ended: watch::Receiver<Option<End>>) {
    let mut crew = Crew::default();
    let own_end = tokio::select! {
        _ = ended.wait_for(Option::is_some) => None,
        phase = work(&pod, &mut crew) => Some(phase),
    };
    if let Some(phase) = own_end {
        crew.stop(Role::Sidecar, pod.grace()).await;
        crew.close();
        pod.change(|state| state.phase = phase);
        let _ = ended.wait_for(Option::is_some).await;
    }
    let how = ended.borrow().unwrap_or(End::Quickly);
    let mut grace = Duration::from_secs(2);
    if how == End::Gently && own_end.is_none() {
        grace = pod.grace();
        tokio::select! {
            () = sleep(SETTLE) => {}
            // The node goes down meanwhile.
            _ = ended.wait_for(|end| *end == Some(End::Quickly)) => grace = Duration::from_secs(2),
        }
    }
    crew.stop(Role::Init, Duration::ZERO).await;
    crew.stop(Role::App, grace).await;
    crew.stop(Role::Sidecar, grace).await;
    sweep(&pod);
    crew.close();
    let _ = fs::remove_dir_all(&pod.dir);
    let _ = fs::remove_dir_all(pod.node.log_dir(&pod.pod.metadata));
    pod.change(|state| state.gone = true);
}

/// From nothing to the end of the application; an application that serves has none.
async fn work(pod: &Arc<Shared>, crew: &mut Crew) -> Phase {
    let mut wait = Duration::from_millis(500);
    while let Err(error) = prepare(pod, crew).await {
        crew.close();
        pod.note(format!("{error:#}"));
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(15));
    }
    pod.change(|state| state.message = None);
    crew.refresh = Some(tokio::spawn(refresh(pod.clone())));
    for (index, (container, role)) in roles_of(&pod.pod).into_iter().enumerate() {
        if pod.node.rung == Rung::Loopback && loopback::is_skipped(&container) {
            skip(pod, index, &container);
            continue;
        }
        crew.hire(pod, index, container, role);
        let in_order = index < pod.pod.spec.init_containers.len();
        if in_order && !started(pod, crew, index, role).await {
            return Phase::Failed;
        }
    }
    pod.change(|state| state.phase = Phase::Running);
    let mut good = true;
    for (_, _, task) in crew
        .members
        .iter_mut()
        .filter(|(role, ..)| *role == Role::App)
    {
        good &= matches!(task.await, Ok(0));
    }
    crew.members.retain(|(role, ..)| *role != Role::App);
    if good {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

/// A container that has nothing to do on this rung counts as done.
fn skip(pod: &Shared, index: usize, container: &Container) {
    const WHY: &str = "skipped: nothing is redirected on the rung loopback";
    if let Ok(file) = pod.node.log_file(&pod.pod.metadata, &container.name) {
        let _ = fs::write(file, format!("{WHY}\n"));
    }
    pod.set(index, |info| {
        (info.started, info.ready) = (true, true);
        info.state = "Terminated".into();
        info.reason = Some(format!("Completed ({WHY})"));
        info.exit_code = Some(0);
    });
}

/// Wait for an init container's end, or a sidecar's start. `false`: it failed for good.
async fn started(pod: &Shared, crew: &mut Crew, index: usize, role: Role) -> bool {
    if role == Role::Sidecar {
        let mut state = pod.state.subscribe();
        return state
            .wait_for(|state| state.containers[index].started)
            .await
            .is_ok();
    }
    let Some((_, _, task)) = crew.members.last_mut() else {
        return false;
    };
    let good = matches!(task.await, Ok(0));
    crew.members.pop();
    good
}
