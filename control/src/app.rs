//! Starts the controller and says so.
//!
//! Listeners: the control API (`--listen`, gRPC over TLS, for proxies) and admin (`--admin-addr`, HTTP, loopback).
//! Tasks, all on one thread and all ended by [`run`]: the source (watches folders or Kubernetes), the index (takes its
//! events in),
//! the control API with its connections, admin with its connections, the renewal of the controller's own certificate.
//!
//! With a webhook (`--webhook-addr`, HTTPS, for the API server) also that, with its connections, and what keeps its
//! certificates right; and the aggregated metrics API (`--metrics-api-addr`), which shows the same certificate.
//!
//! The control API opens only after everything has been read once: a controller that just started must not tell
//! proxies that what it has not read yet is gone.

use crate::admin::{Admin, Facts, Overview};
use crate::args::{Config, Source};
use crate::ca::Ca;
use crate::index::Index;
use crate::kube::connect;
use crate::kube::metrics_api;
use crate::kube::observers::Observers;
use crate::kube::review::Reviewer;
use crate::kube::secret;
use crate::kube::writer::{self, Writer};
use crate::live::Live;
use crate::live::fresh::{Folders, Fresh};
use crate::manifest::{ObjectKey, Problem, Severity};
use crate::pod_ref::PodRef;
use crate::serve::identity::Enrolled;
use crate::serve::proof::Tokens;
use crate::serve::tls::OwnIdentity;
use crate::serve::{self, Shared};
use crate::source::kube::kinds;
use crate::source::kube::ledger::Ledger;
use crate::source::{Event, dir};
use crate::state::StateDir;
use crate::token::TokenKey;
use crate::traffic::api::Api;
use crate::traffic::gate::{Gate, Keys};
use crate::traffic::{Inventory, inventory};
use crate::views::Mesh;
use crate::views::world::{Reader, World};
use crate::webhook;
use ::kube::Client;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use weft_proxy_api::names::ports;
use weft_proxy_api::policy::Access;

/// Batches of events that may wait for the index.
const EVENT_BATCHES: usize = 16;
/// How often the files of the authority are looked at.
const AUTHORITY_POLL: std::time::Duration = std::time::Duration::from_millis(500);
/// Connections the kernel may hold for us: a restarted controller is met by every proxy at once.
const BACKLOG: i32 = 4096;

/// The program.
pub fn main() -> ExitCode {
    let config = Config::from_env();
    start_log(&config.log);
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}

fn start(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(run(config, terminated()))
}

/// Resolves with the first SIGTERM or SIGINT; a second one ends the program at once.
async fn terminated() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await; // signals keep their default: the program ends without grace
    };
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
}

/// Runs the controller until `stop`, and says on standard output when it is ready.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let access = config.access;
    say_access(&config);
    run_and_tell(config, stop, |ready| announce(&ready, access)).await
}

/// What a controller tells when it begins to serve.
struct Ready {
    control: SocketAddr,
    admin: SocketAddr,
    facts: Facts,
}

async fn run_and_tell(
    config: Config,
    stop: impl Future<Output = ()>,
    tell: impl FnOnce(Ready),
) -> Result<()> {
    let client = match &config.source {
        Source::Folders(_) => None,
        Source::Kubernetes(settings) => Some(connect::client(settings).await?),
    };
    let state = state_of(&config, client.as_ref()).await?;
    let (index, shared, own) = open(&config, &state.dir, client.clone())?;
    let keys = Keys {
        token: state.dir.observe_token()?,
        others: client
            .clone()
            .map(|client| Arc::new(Observers::new(client)) as Arc<dyn Gate>),
    };
    // Both addresses are taken before anything runs: a second controller says so at once.
    let (listener, control) = listen(config.listen)?;
    let admin_listener = TcpListener::bind(config.admin)
        .await
        .with_context(|| format!("cannot listen on {}", config.admin))?;
    let admin = admin_listener.local_addr()?;
    let mut tasks = JoinSet::new();
    if let Some(client) = client.clone() {
        let reports = api_of(&index, &shared, keys.clone(), Fresh::Nothing);
        answer_the_server(&config, client, &state.dir, &index, reports, &mut tasks).await?;
    }
    let mut ending = JoinSet::new();
    let (watched, fresh) = watched(config.source, client.clone(), &index, &shared, &mut ending);
    let api = api_of(&index, &shared, keys, fresh);
    tasks.spawn(admin_of(api, &index, &shared, &own).run(admin_listener));
    tasks.spawn(follow(watched, index.clone()));
    tasks.spawn(renew(own.clone()));
    if let (Some(namespace), Some(client)) = (state.secret, client) {
        let (dir, domain) = (state.dir.clone(), config.trust_domain.clone());
        tasks.spawn(secret::follow(client, namespace, dir, domain));
    }
    tasks.spawn(follow_authority(
        shared.clone(),
        own.clone(),
        state.dir.clone(),
    ));
    let mut synced = index.synced();
    tokio::pin!(stop);
    let stopped = tokio::select! {
        () = &mut stop => true,
        Some(ended) = tasks.join_next() => bail!("a task ended: {ended:?}"),
        synced = synced.wait_for(|synced| *synced) => !*synced.context("the index is gone")?,
    };
    if stopped {
        leave(&shared, ending).await;
        return Ok(());
    }
    let listener = listener.into_tokio()?;
    let facts = index.facts();
    tell(Ready {
        control,
        admin,
        facts,
    });
    serve_until(stop, shared.clone(), listener, own, &mut tasks).await?;
    leave(&shared, ending).await;
    tasks.shutdown().await;
    Ok(())
}

/// Waits for what has something to give back: the Lease goes to the next replica at once.
async fn leave(shared: &Shared, mut ending: JoinSet<()>) {
    shared.stopping.send_replace(true);
    while ending.join_next().await.is_some() {}
}

/// Starts what the API server asks: the webhook, and the metrics API that shows the same certificate.
async fn answer_the_server(
    config: &Config,
    client: Client,
    state: &StateDir,
    index: &Arc<Index>,
    reports: Api,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let knowing = (index, &reports.shared);
    let serving = webhook::start::start(config, client.clone(), state, knowing, tasks).await?;
    let address = config.webhook.as_ref().and_then(|it| it.metrics_api);
    if let (Some(serving), Some(address)) = (serving, address) {
        metrics_api::start::start(address, client, reports, serving, tasks).await?;
    }
    Ok(())
}

fn api_of(index: &Arc<Index>, shared: &Arc<Shared>, keys: Keys, fresh: Fresh) -> Api {
    Api {
        shared: shared.clone(),
        overview: index.clone(),
        keys,
        live: Arc::new(Live::new(index.clone(), shared.clone(), fresh)),
    }
}

fn admin_of(api: Api, index: &Arc<Index>, shared: &Arc<Shared>, own: &Arc<OwnIdentity>) -> Admin {
    Admin {
        api,
        overview: index.clone(),
        shared: shared.clone(),
        own: own.clone(),
        ready: index.synced(),
    }
}

async fn renew(own: Arc<OwnIdentity>) {
    own.keep_current().await;
}

/// Takes up what whoever rotates the roots writes into the state folder.
async fn follow_authority(shared: Arc<Shared>, own: Arc<OwnIdentity>, state: StateDir) {
    let mut last = None;
    loop {
        tokio::time::sleep(AUTHORITY_POLL).await;
        let now = state.fingerprint();
        if last == Some(now) {
            continue;
        }
        let reloaded = shared.reload_authority(&state);
        let renewed = match reloaded {
            Ok(true) => own.renew(std::time::SystemTime::now()).map(|()| true),
            other => other,
        };
        match renewed {
            Ok(true) => tracing::info!("roots or issuer changed; every proxy is told"),
            Ok(false) => {}
            Err(error) => tracing::error!("roots and issuer stay as they were: {error:#}"),
        }
        last = Some(now);
    }
}

async fn serve_until(
    stop: impl Future<Output = ()>,
    shared: Arc<Shared>,
    listener: TcpListener,
    own: Arc<OwnIdentity>,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let serving = serve::run(shared.clone(), listener, own);
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return result.context("the control API ended"),
        Some(ended) = tasks.join_next() => bail!("a task ended: {ended:?}"),
        () = stop => {}
    }
    tracing::info!("stopping");
    shared.stopping.send_replace(true);
    serving.await
}

/// An open state folder.
struct State {
    dir: StateDir,
    /// Namespace of the Secret that it is filled from.
    secret: Option<String>,
    /// It ends with the controller, and what must survive is kept in Kubernetes.
    _passing: Option<tempfile::TempDir>,
}

/// The state folder that was named, or one that is filled from Kubernetes.
async fn state_of(config: &Config, client: Option<&Client>) -> Result<State> {
    match (&config.state, client, &config.source) {
        (None, Some(client), Source::Kubernetes(settings)) => {
            let passing = tempfile::Builder::new().prefix("weft-control-").tempdir()?;
            let dir = StateDir::open(passing.path())?;
            let namespace = &settings.namespace;
            secret::fill(client.clone(), namespace, &dir, &config.trust_domain).await?;
            Ok(State {
                dir,
                secret: Some(namespace.clone()),
                _passing: Some(passing),
            })
        }
        (Some(path), ..) => Ok(State {
            dir: StateDir::open(path)?,
            secret: None,
            _passing: None,
        }),
        (None, ..) => bail!("no state folder is named"),
    }
}

/// Makes what lives on a state folder: an index that remembers who is enrolled, and the services.
fn open(
    config: &Config,
    state: &StateDir,
    client: Option<Client>,
) -> Result<(Arc<Index>, Arc<Shared>, Arc<OwnIdentity>)> {
    let ca = Arc::new(Ca::open_or_create(state, &config.trust_domain)?);
    // With a state folder of its own a controller in Kubernetes also takes tokens made with the key in it.
    let key = match (&config.state, &client) {
        (None, Some(_)) => None,
        _ => Some(TokenKey::open_or_create(state)?),
    };
    let tokens = match client {
        Some(client) => Tokens::reviewed(Reviewer::new(client), key),
        None => key.context("no key for tokens")?.into(),
    };
    let own = OwnIdentity::new(ca.clone(), config.cert_ttl)?;
    let enrolled = Enrolled::open(state.clone())?;
    let mesh = Mesh {
        trust_domain: config.trust_domain.clone(),
        access: config.access,
        metrics: config.metrics,
    };
    let index = Arc::new(Index::new(mesh, enrolled.all()));
    let shared = Shared::new(index.clone(), ca, tokens, enrolled, config.cert_ttl);
    Ok((index, shared, own))
}

/// A running source.
struct Watched {
    source: JoinHandle<()>,
    events: mpsc::Receiver<Vec<Event>>,
    /// Whose status may have to change; nobody's where there is no API server.
    ledger: Arc<Ledger>,
}

/// Starts the source; and, where the API server is it, what writes there how its objects fare, and ends by itself.
fn watched(
    source: Source,
    client: Option<Client>,
    index: &Arc<Index>,
    shared: &Arc<Shared>,
    ending: &mut JoinSet<()>,
) -> (Watched, Fresh) {
    let (tx, events) = mpsc::channel(EVENT_BATCHES);
    let ledger = Arc::<Ledger>::default();
    let (source, fresh) = match (source, client) {
        (Source::Kubernetes(settings), Some(client)) => {
            let writer = Writer {
                client: client.clone(),
                candidate: writer::candidate(&settings.namespace),
                index: index.clone(),
                ledger: Arc::clone(&ledger),
                proxies: shared.proxies.clone(),
            };
            ending.spawn(writer.run(shared.stopping.subscribe()));
            let fresh = Fresh::Kubernetes {
                client: client.clone(),
                ledger: ledger.clone(),
            };
            (
                crate::source::kube::watch(client, tx, Arc::clone(&ledger)),
                fresh,
            )
        }
        (Source::Folders(dirs), _) => {
            let (asks, asked) = mpsc::channel(1);
            let fresh = Fresh::Folders(Folders::new(asks, index));
            (dir::watch_and_answer(dirs, tx, asked), fresh)
        }
        // Not made without a client; a source that ends at once is told as such.
        (Source::Kubernetes(_), None) => (tokio::spawn(async move { drop(tx) }), Fresh::Nothing),
    };
    let watched = Watched {
        source,
        events,
        ledger,
    };
    (watched, fresh)
}

/// Takes the events of the source into the index; ends with the source.
async fn follow(watched: Watched, index: Arc<Index>) {
    let Watched {
        source,
        mut events,
        ledger,
    } = watched;
    let synced = index.synced();
    while let Some(batch) = events.recv().await {
        let before = *synced.borrow();
        let news = index.apply(batch);
        let troubled = news.files.iter().filter_map(|it| kinds::from_origin(it));
        troubled.for_each(|key| ledger.touch(&key));
        news.objects.iter().for_each(|key| ledger.touch(key));
        match (before, *synced.borrow()) {
            // While not everything is read, what comes later looks like missing.
            (_, false) => {}
            (false, true) => tell_problems(&index.problems(), &[]),
            (true, true) => tell_problems(&news.new, &news.gone),
        }
    }
    source.abort();
    tracing::error!("the source is not watched any more");
}

impl Overview for Index {
    fn inventory(&self) -> Inventory {
        self.read(inventory::inventory)
    }

    fn world(&self) -> World {
        self.read(World::clone)
    }

    fn file_problems(&self) -> Vec<Problem> {
        Index::file_problems(self)
    }

    fn has(&self, key: &ObjectKey) -> bool {
        self.read(|world| world.object(key).is_some())
    }

    fn expected(&self) -> BTreeSet<PodRef> {
        self.read(|world| {
            let reader = Reader::new(world);
            let is_expected = |it: &&PodRef| {
                let pod = reader.pod(&it.namespace, &it.name);
                pod.is_some_and(|pod| pod.status.is_ready())
            };
            world
                .enrolled()
                .iter()
                .filter(is_expected)
                .cloned()
                .collect()
        })
    }

    fn facts(&self) -> Facts {
        let objects = self.read(|world| world.objects().count());
        Facts {
            objects,
            problems: self.problems(),
            numbers: self.numbers(),
        }
    }
}

/// Logs what is newly wrong, and what is right again.
fn tell_problems(new: &[Problem], gone: &[Problem]) {
    for problem in new {
        match problem.severity {
            Severity::Info => tracing::info!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Error => tracing::error!("{problem}"),
        }
    }
    for problem in gone {
        tracing::info!("no longer: {problem}");
    }
}

fn say_access(config: &Config) {
    if !config.access_chosen && config.access == Access::Permissive {
        tracing::warn!(
            "access is permissive, because nothing else was said: every caller is let through, whatever the \
             TrafficTargets say; use --access strict to enforce them"
        );
    }
}

fn announce(ready: &Ready, access: Access) {
    let (control, admin, facts) = (ready.control, ready.admin, &ready.facts);
    let (objects, problems) = (facts.objects, facts.problems.len());
    // Whoever started us may have closed standard output; that must not end the controller.
    let _ = writeln!(
        std::io::stdout(),
        "weft-control: serving on {control}, admin on {admin}, access {access}, {objects} objects, {problems} problems"
    );
}

/// A listener that is bound but does not take connections before [`Bound::into_tokio`].
struct Bound(Socket);

impl Bound {
    fn into_tokio(self) -> Result<TcpListener> {
        self.0.listen(BACKLOG).context("cannot listen")?;
        TcpListener::from_std(self.0.into()).context("cannot listen")
    }
}

/// The address asked for, or port 8086 of every address, of both families where there are two.
fn listen(address: Option<SocketAddr>) -> Result<(Bound, SocketAddr)> {
    let everywhere: SocketAddr = (Ipv6Addr::UNSPECIFIED, ports::CONTROL).into();
    let everywhere_v4: SocketAddr = (Ipv4Addr::UNSPECIFIED, ports::CONTROL).into();
    let socket = match address {
        Some(address) => bind(address).with_context(|| format!("cannot listen on {address}"))?,
        None => bind(everywhere)
            .or_else(|_| bind(everywhere_v4))
            .with_context(|| format!("cannot listen on {everywhere} or {everywhere_v4}"))?,
    };
    let address = socket
        .local_addr()?
        .as_socket()
        .context("not an internet address")?;
    Ok((Bound(socket), address))
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // [::] takes IPv4 as well, whatever the host's default
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
