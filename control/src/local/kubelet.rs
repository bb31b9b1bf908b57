//! One pod's life: namespaces, volumes, init containers in order, sidecars, application; and the same backwards.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::addresses::PodAddresses;
use super::bridge::Bridge;
use super::children::Child;
use super::container::{self, Role};
use super::loopback::{self, Place};
use super::network::Network;
use super::node::{Home, Node, Phase, PodState};
use super::options::Rung;
use super::pause::Pause;
use super::spec::{self, Facts, Run};
use super::wire::ContainerInfo;
use super::{roles, volumes};
use crate::manifest::workload::{Container, Pod};
use weft_proxy_api::names::inject::PROXY_CONTAINER;

/// Between "no new traffic for this pod" and its SIGTERM: time for that news to reach every proxy.
pub(crate) const SETTLE: Duration = Duration::from_millis(1500);
const SET_UP: Duration = Duration::from_secs(20);

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
        Duration::from_secs(self.pod.spec.termination_grace_period_seconds.unwrap_or(30))
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

/// Everything that runs for a pod.
#[derive(Default)]
struct Crew {
    pause: Option<(Child, pipe::Sender)>,
    members: Vec<(Role, watch::Sender<Option<Duration>>, JoinHandle<i32>)>,
    refresh: Option<JoinHandle<()>>,
}

impl Crew {
    fn hire(&mut self, pod: &Arc<Shared>, index: usize, container: Container, role: Role) {
        let (stop, stopped) = watch::channel(None);
        let task = tokio::spawn(container::keep(
            pod.clone(),
            index,
            container,
            role,
            stopped,
        ));
        self.members.push((role, stop, task));
    }

    /// End all of one role together, and wait.
    async fn stop(&mut self, role: Role, grace: Duration) {
        for (_, stop, _) in self.members.iter().filter(|(r, ..)| *r == role) {
            stop.send_replace(Some(grace));
        }
        for (_, _, task) in self.members.iter_mut().filter(|(r, ..)| *r == role) {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
        self.members.retain(|(r, ..)| *r != role);
    }

    /// Let the namespaces go.
    fn close(&mut self) {
        if let Some((child, _)) = self.pause.take() {
            child.signal(Signal::SIGKILL);
        }
        if let Some(task) = self.refresh.take() {
            task.abort();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.close();
    }
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

async fn prepare(pod: &Arc<Shared>, crew: &mut Crew) -> Result<()> {
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
async fn refresh(pod: Arc<Shared>) {
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

/// Whatever still runs in the pod: things that went into the background.
fn sweep(pod: &Shared) {
    let uid = pod.pod.metadata.uid.clone().unwrap_or_default();
    let (pause, mark) = match pod.home() {
        Ok(Home::Namespaces(pause)) => (pause, fs::read_link(format!("/proc/{pause}/ns/net"))),
        // Everybody shares one network namespace here: only its mark tells a process of the pod.
        Ok(Home::Machine) if !uid.is_empty() => {
            return sweep_marked(&format!("{}={uid}", loopback::POD_UID));
        }
        _ => return,
    };
    let Ok(own) = mark else { return };
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for (pid, process) in numbered(processes) {
        if pid != pause && fs::read_link(process.join("ns/net")).is_ok_and(|net| net == own) {
            let _ = super::children::signal_process(pid, Signal::SIGKILL as i32);
        }
    }
}

fn sweep_marked(mark: &str) {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for (pid, process) in numbered(processes) {
        let env = fs::read(process.join("environ")).unwrap_or_default();
        if env
            .split(|byte| *byte == 0)
            .any(|var| var == mark.as_bytes())
        {
            let _ = super::children::signal_process(pid, Signal::SIGKILL as i32);
        }
    }
}

fn numbered(processes: fs::ReadDir) -> impl Iterator<Item = (i32, PathBuf)> {
    processes.flatten().filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        Some((pid, process.path()))
    })
}
