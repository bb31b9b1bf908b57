//! Starts everything; the only file that knows all rooms.
//!
//! | listener | where | thread |
//! |---|---|---|
//! | outbound | `127.0.0.1:4140`, `[::1]:4140` | every worker |
//! | inbound | `[::]:4143` | every worker |
//! | fixed targets | as set | every worker |
//! | admin | `127.0.0.1:4191`, `[::1]:4191` | control |
//!
//! | task | what it does | thread |
//! |---|---|---|
//! | listener, one each | accepts | worker |
//! | connection, one each | serves it | worker |
//! | judge again | closes what a new policy no longer admits | worker |
//! | sweep | forgets idle destinations | worker |
//! | identity | obtains and renews our certificate | control |
//! | discovery | keeps the Sync stream, once there is an identity | control |
//! | trust | installs new roots | control |
//! | identity figures | tells metrics how the identity stands | control |
//! | admin | health, metrics, configuration, orders | control |
//! | footprint | once: lets go of what only the start needed ([`footprint`]) | control |
//! | spans | sends them to the collector, where there is one | control |
//! | access log | writes its lines, where there is one | its own |
//! | door | gives the listeners to a new process that asks ([`upgrade`]) | control |
//! | signals | first: leave ([`leave`]); second: now | control (main) |

use crate::accept::{self, Inherited, Listener};
use crate::admin::Admin;
use crate::config::{Config, LogFormat, Workload};
use crate::connect::{self, Connector};
use crate::discover::{Certifier, ControlClient, Discover, Driver, Whoami};
use crate::footprint;
use crate::http::kept::MostKept;
use crate::leave::{after_hand_over, leave};
use crate::metrics::Metrics;
use crate::room::Room;
use crate::stack::Shared;
use crate::tasks::{Drain, DrainWatch, Tasks};
use crate::tell::Teller;
use crate::tell::access::{self, AccessLog};
use crate::tell::export::{self, Exporter};
use crate::tls::Tls;
use crate::tls::identity::{Renewal, State};
use crate::upgrade::{self, Door, GET_READY};
use crate::worker::Worker;
use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// How long cut-off work has to say goodbye.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// After the first certificate: by then policy and the first connections have come, and the start is over.
const SETTLED: Duration = Duration::from_secs(3);

type LogHandle = reload::Handle<EnvFilter, Registry>;

/// How the proxy comes to its listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nobody has them.
    Alone,
    /// From the proxy that runs.
    TakeOver,
}

/// The whole life of the proxy.
pub fn run(start: Start) -> anyhow::Result<()> {
    stay_small();
    let config = Arc::new(Config::from_env()?);
    let log = start_log(&config)?;
    harden();
    if let Some(mark) = config.mark {
        connect::may_mark(mark).context("WEFT_PROXY_MARK needs CAP_NET_ADMIN")?;
    }
    if start == Start::Alone {
        accept::probe(&config)?;
    }
    let control = runtime()?;
    let _inside = control.enter();
    let (app, once) = App::new(config, log)?;
    control.block_on(app.run(start, once))
}

/// What is shared between threads.
struct App {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    tls: Tls,
    discover: Discover,
    client: ControlClient,
    room: Arc<Room>,
    drain: Arc<Drain>,
    draining: DrainWatch,
    teller: Option<Arc<Teller>>,
    log: LogHandle,
}

/// What runs once and cannot be shared.
struct Once {
    driver: Driver,
    exporter: Option<Exporter>,
}

impl App {
    fn new(config: Arc<Config>, log: LogHandle) -> anyhow::Result<(Self, Once)> {
        let metrics = Metrics::new(&config.workload.namespace);
        metrics.set_aliases(config.metrics_aliases);
        let tls = Tls::new(&config.trust_domain, config.trust_anchors.clone());
        if !config.tunnels {
            tls.refuse_tunnels();
        }
        let source = tls.clone();
        let client = ControlClient::new(
            config.control_addr.clone(),
            config.mark,
            Arc::new(move |credentials| source.controller(credentials)),
        );
        let whoami = Whoami {
            namespace: config.workload.namespace.clone(),
            pod: config.workload.pod.clone(),
            zone: config.zone.clone(),
        };
        let (discover, driver) = Discover::new(client.clone(), whoami, metrics.clone());
        let (drain, draining) = Drain::new();
        let (teller, exporter) = Self::teller(&config, &metrics)?;
        let room = Room::from_setting(config.max_connections);
        metrics.connection_limit().set(room.most() as f64);
        let app = Self {
            config,
            metrics,
            tls,
            discover,
            client,
            room,
            drain: Arc::new(drain),
            draining,
            teller,
            log,
        };
        Ok((app, Once { driver, exporter }))
    }

    async fn run(self, start: Start, once: Once) -> anyhow::Result<()> {
        let tasks = Tasks::default();
        let (admin, listeners, door, word) = match start {
            Start::Alone => {
                // All sockets are bound before anything runs: a mistake is told at once, and nothing is half started.
                let listeners = self.listen(Vec::new())?;
                let door = self.config.upgrade_socket.as_deref();
                let door = door.map(Door::open).transpose()?;
                (self.start_tasks(&tasks, once), listeners, door, None)
            }
            Start::TakeOver => {
                let taken = upgrade::take(self.upgrade_socket()?).await?;
                let admin = self.start_tasks(&tasks, once);
                // The old process accepts until we could.
                get_ready(&admin).await?;
                let listeners = self.listen(taken.listeners)?;
                self.metrics.upgrades("taken").inc();
                (admin, listeners, taken.door, Some(taken.word))
            }
        };
        if let Some(door) = door {
            let (metrics, drain) = (self.metrics.clone(), self.drain.clone());
            let handing = door.giving(listeners.copies()?)?.hand_over(
                move || metrics.upgrades("failed").inc(),
                move || drain.hand_over(),
            );
            spawn(&tasks, "door", handing);
        }
        let workers = self.start_workers(listeners.workers)?;
        spawn(&tasks, "admin", admin.run(listeners.admin));
        if let Some(word) = word {
            word.ready().await;
        }
        tracing::info!(
            workers = workers.len(),
            version = weft_proxy_api::names::VERSION,
            "started"
        );
        let end = End {
            drain: &self.drain,
            draining: &self.draining,
            metrics: &self.metrics,
            grace: self.config.shutdown_grace,
        };
        let ended = end.wait(workers).await;
        if let Some(access) = self
            .teller
            .as_ref()
            .and_then(|teller| teller.access.as_ref())
        {
            access.flush();
        }
        ended
    }

    fn start_tasks(&self, tasks: &Tasks, once: Once) -> Arc<Admin> {
        let (state, identity) = watch::channel(State::Asking(None));
        let (metrics, tls) = (self.metrics.clone(), self.tls.clone());
        let figures = tell_identity(identity.clone(), metrics.clone());
        spawn(tasks, "identity figures", figures);
        let trust = follow_trust(self.discover.clone(), tls.clone());
        spawn(tasks, "trust", trust);
        let renewal = Renewal {
            tls: tls.clone(),
            certify: Certifier::new(self.client.clone()),
            token_file: self.config.token_file.clone(),
            clock: SystemTime::now,
            state,
            metrics,
        };
        spawn(tasks, "identity", renewal.run());
        let ready = tls.clone();
        spawn(tasks, "footprint", async move {
            ready.ready().await;
            tokio::time::sleep(SETTLED).await;
            if let Err(error) = footprint::forget_start() {
                tracing::debug!(%error, "what the start needed stays in memory");
            }
        });
        spawn(tasks, "discovery", async move {
            tls.ready().await;
            once.driver.run().await;
        });
        if let Some(exporter) = once.exporter {
            spawn(tasks, "spans", exporter.run());
        }
        let log = self.log.clone();
        Arc::new(Admin {
            metrics: self.metrics.clone(),
            discover: self.discover.clone(),
            identity,
            drain: self.drain.clone(),
            draining: self.draining.clone(),
            may_shut_down: self.config.admin_shutdown,
            set_log: Box::new(move |filter| set_log(&log, filter)),
        })
    }

    /// Whoever is to be told about requests, and what sends spans.
    fn teller(
        config: &Config,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<(Option<Arc<Teller>>, Option<Exporter>)> {
        let access = config.access_log.map(|form| {
            let settings = access::Settings {
                form,
                filter: config.access_log_filter.clone(),
                query: config.access_log_query,
            };
            AccessLog::start(settings, metrics, std::io::stdout())
        });
        let traces = config.trace_collector.as_ref().map(|collector| {
            let Workload { namespace, pod } = config.workload.clone();
            let service = Some(&config.trace_service).filter(|name| !name.is_empty());
            let settings = export::Settings {
                collector: collector.clone(),
                mark: config.mark,
                ratio: config.trace_ratio,
                service: service.unwrap_or(&pod).clone(),
                pod: (namespace, pod),
            };
            export::new(settings, metrics)
        });
        let (tracer, exporter) = traces.unzip();
        let access = access.transpose()?;
        let anybody = access.is_some() || tracer.is_some();
        let teller = anybody.then(|| Arc::new(Teller { access, tracer }));
        Ok((teller, exporter))
    }

    fn upgrade_socket(&self) -> anyhow::Result<&Path> {
        let path = self.config.upgrade_socket.as_deref();
        path.context("--take-over needs WEFT_PROXY_UPGRADE_SOCKET")
    }

    fn listen(&self, before: Vec<std::net::TcpListener>) -> anyhow::Result<Listeners> {
        let mut inherited = Inherited::new(before);
        Ok(Listeners {
            workers: accept::bind(&self.config, &mut inherited)?,
            admin: accept::bind_admin(&self.config, &mut inherited)?,
        })
    }

    fn start_workers(&self, listeners: Vec<Vec<Listener>>) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let workers = listeners.into_iter().enumerate();
        workers
            .map(|(n, listeners)| self.start_worker(n, listeners))
            .collect()
    }

    fn start_worker(&self, n: usize, listeners: Vec<Listener>) -> anyhow::Result<JoinHandle<()>> {
        let (mark, metrics) = (self.config.mark, self.metrics.clone());
        let connector = match self.config.fixed_targets.is_empty() {
            true => Connector::new(self.tls.clone(), mark, metrics),
            false => Connector::without_redirection(self.tls.clone(), mark, metrics),
        };
        let (metrics, discover, tls) = (
            self.metrics.clone(),
            self.discover.clone(),
            self.tls.clone(),
        );
        let kept = MostKept {
            most: self.config.max_idle.min(self.room.most()),
            workers: self.config.workers,
        };
        let (config, draining) = (self.config.clone(), self.draining.clone());
        let room = self.room.clone();
        let teller = self.teller.clone();
        let runtime = runtime()?;
        let body = move || {
            // Made inside the runtime: stacks and pools may start tasks of their own.
            runtime.block_on(async {
                let shared = Shared::new(metrics, connector, discover.inbound(), teller, kept);
                Worker::new(shared, discover, tls, config, draining, room)
                    .run(listeners)
                    .await;
            });
            runtime.shutdown_timeout(LAST_WORDS);
        };
        Ok(std::thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(body)?)
    }
}

/// Every listener of the process.
struct Listeners {
    workers: Vec<Vec<Listener>>,
    admin: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// All of them once more, to be given away.
    fn copies(&self) -> std::io::Result<Vec<std::net::TcpListener>> {
        let workers = self.workers.iter().flatten().map(Listener::copy);
        let admin = self.admin.iter().map(std::net::TcpListener::try_clone);
        workers.chain(admin).collect()
    }
}

/// Waits until traffic could be sent here; the error says what is missing.
async fn get_ready(admin: &Admin) -> anyhow::Result<()> {
    let ready = async {
        while admin.not_ready().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(GET_READY, ready).await.is_err() {
        let missing = admin.not_ready().unwrap_or_default();
        anyhow::bail!("not ready in {GET_READY:?}, the old proxy goes on: {missing}");
    }
    Ok(())
}

fn spawn(tasks: &Tasks, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(task, move || {
        // Without it the proxy would look alive and rot: better to be restarted.
        tracing::error!(task = name, "a background task panicked; leaving");
        std::process::exit(70);
    });
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// What ends the process.
struct End<'a> {
    drain: &'a Drain,
    draining: &'a DrainWatch,
    metrics: &'a Metrics,
    grace: Duration,
}

impl End<'_> {
    /// SIGTERM or SIGINT starts to [`leave`]; the deadline or a second signal ends it.
    async fn wait(self, workers: Vec<JoinHandle<()>>) -> anyhow::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut ended = reap(workers)?;
        tokio::select! {
            // Workers that had nothing open may have ended before we hear why.
            biased;
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = self.draining.leaving() => {}
            () = self.draining.handed_over() => {}
            _ = ended.wait_for(|ended| *ended) => anyhow::bail!("every worker has ended"),
        }
        tracing::info!(grace = ?self.grace, "leaving");
        let left = async {
            match self.draining.is_handed_over() {
                true => after_hand_over(self.drain, self.grace, &ended).await,
                false => leave(self.drain, self.metrics).await,
            }
            let _ = ended.clone().wait_for(|ended| *ended).await;
        };
        tokio::select! {
            () = left => return Ok(()),
            _ = term.recv() => tracing::warn!("second signal: leaving now"),
            _ = int.recv() => tracing::warn!("second signal: leaving now"),
            () = tokio::time::sleep(self.grace) => tracing::warn!("the drain took too long: leaving now"),
        }
        self.drain.now();
        let _ = tokio::time::timeout(2 * LAST_WORDS, ended.wait_for(|ended| *ended)).await;
        Ok(())
    }
}

/// Joins the workers on a thread of its own; true when all have ended.
fn reap(workers: Vec<JoinHandle<()>>) -> anyhow::Result<watch::Receiver<bool>> {
    let (done, ended) = watch::channel(false);
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || {
            for worker in workers {
                // A worker's panic was logged by its own thread; the others are still waited for.
                let _ = worker.join();
            }
            done.send_replace(true);
        })?;
    Ok(ended)
}

/// Roots that the controller sends replace the ones in use.
async fn follow_trust(discover: Discover, tls: Tls) {
    let mut trust = discover.trust();
    loop {
        let roots = trust
            .borrow_and_update()
            .as_ref()
            .map(|trust| trust.roots.clone());
        if let Some(roots) = roots {
            tls.set_roots(roots);
        }
        if trust.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_identity(mut state: watch::Receiver<State>, metrics: Arc<Metrics>) {
    loop {
        let (expiry, life) = match &*state.borrow_and_update() {
            State::Valid {
                not_after, life, ..
            } => {
                let since = not_after.duration_since(UNIX_EPOCH);
                (since.map_or(0, |since| since.as_secs()), life.as_secs())
            }
            State::Asking(_) | State::Expired(_) => (0, 0),
        };
        metrics.identity_expiry().set(expiry as f64);
        metrics.identity_lifetime().set(life as f64);
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// There is one of us to every pod: huge pages would give 2 MiB to what needs a few of 4 KiB, twice the memory of an
/// idle proxy.
fn stay_small() {
    // A kernel without them needs no telling.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Keys live in memory only, so memory must not be written anywhere; and one connection is two descriptors.
fn harden() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps stay possible");
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn start_log(config: &Config) -> anyhow::Result<LogHandle> {
    let filter = EnvFilter::try_new(&config.log).context("WEFT_PROXY_LOG is not a log filter")?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Plain => registry.with(lines.with_ansi(false)).try_init()?,
        LogFormat::Json => registry.with(lines.json()).try_init()?,
    }
    Ok(handle)
}

fn set_log(handle: &LogHandle, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    handle.reload(filter).map_err(|error| error.to_string())
}
