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

mod follow;
mod listen;

use crate::admin::{Admin, Facts, Overview};
use crate::args::{Config, Source};
use crate::ca::Ca;
use crate::index::Index;
use crate::kube::connect;
use crate::kube::metrics_api;
use crate::kube::observers::Observers;
use crate::kube::review::Reviewer;
use crate::kube::secret;
use crate::live::Live;
use crate::manifest::{Object, ObjectKey, Problem};
use crate::peers::Peers;
use crate::pod_ref::PodRef;
use crate::serve::identity::Enrolled;
use crate::serve::proof::Tokens;
use crate::serve::tls::OwnIdentity;
use crate::serve::{self, Shared};
use crate::source::kube::ledger::Ledger;
use crate::state::StateDir;
use crate::token::TokenKey;
use crate::traffic::api::Api;
use crate::traffic::gate::{Gate, Keys};
use crate::traffic::{Inventory, inventory};
use crate::views::Mesh;
use crate::views::pod::is_meshed;
use crate::views::world::{Reader, World};
use crate::webhook;
use ::kube::Client;
use anyhow::{Context, Result, bail};
use follow::{follow, watched};
use listen::listen;
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use weft_proxy_api::policy::Access;

/// How often the files of the authority are looked at.
const AUTHORITY_POLL: std::time::Duration = std::time::Duration::from_millis(500);

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
        Source::Kubernetes(settings) => Some(connect::lasting_client(settings).await?),
    };
    let state = state_of(&config, client.as_ref()).await?;
    let (index, shared, own) = open(&config, &state.dir, client.clone())?;
    let peers = Peers::new(config.peers.clone(), shared.clone(), own.clone());
    let keys = Keys {
        token: state.dir.observe_token(!config.peers.is_empty())?,
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
        let reports = api_of(&index, &peers, keys.clone());
        answer_the_server(&config, client, &state.dir, &index, reports, &mut tasks).await?;
    }
    let mut ending = JoinSet::new();
    let source = (config.source, config.groups);
    let watched = watched(source, client.clone(), &index, &peers, &mut ending);
    let api = api_of(&index, &peers, keys);
    let ledger = watched.ledger();
    tasks.spawn(admin_of(api, &index, &shared, &own, ledger).run(admin_listener));
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
        let shared = reports.shared.clone();
        metrics_api::start::start(address, client, reports, serving, shared, tasks).await?;
    }
    Ok(())
}

fn api_of(index: &Arc<Index>, peers: &Peers, keys: Keys) -> Api {
    Api {
        shared: peers.shared().clone(),
        peers: peers.clone(),
        overview: index.clone(),
        keys,
        live: Arc::new(Live::new(index.clone(), peers.clone())),
    }
}

fn admin_of(
    api: Api,
    index: &Arc<Index>,
    shared: &Arc<Shared>,
    own: &Arc<OwnIdentity>,
    ledger: Arc<Ledger>,
) -> Admin {
    Admin {
        api,
        overview: index.clone(),
        shared: shared.clone(),
        own: own.clone(),
        ready: index.synced(),
        ledger,
    }
}

async fn renew(own: Arc<OwnIdentity>) {
    own.keep_current().await;
}

/// Takes up what whoever rotates the roots writes into the state folder.
async fn follow_authority(shared: Arc<Shared>, own: Arc<OwnIdentity>, state: StateDir) {
    let (mut last, mut refused) = (None, None);
    // The controller's own certificate is of the issuer before.
    let mut is_old = false;
    let mut is_told = false;
    loop {
        tokio::time::sleep(AUTHORITY_POLL).await;
        // Whom another controller of the same folder gave a certificate is meshed here as well.
        match shared.enrolled.learn() {
            Ok(pods) => {
                is_told = false;
                pods.iter().for_each(|pod| shared.views.enroll(pod));
            }
            // Said once: it is tried again all the time.
            Err(error) if !is_told => {
                tracing::warn!(
                    "cannot read who is enrolled; whom others enrolled is not known here: {error:#}"
                );
                is_told = true;
            }
            Err(_) => {}
        }
        shared.enrolled.write_rest();
        let now = state.fingerprint();
        if last == Some(now) {
            continue;
        }
        let reloaded = shared.reload_authority(&state);
        is_old |= matches!(reloaded, Ok(true));
        let renewed = match reloaded {
            Ok(_) if is_old => own.renew(std::time::SystemTime::now()).map(|()| true),
            other => other,
        };
        is_old &= renewed.is_err();
        match renewed {
            // Said once, and tried again: perhaps it could not be read for a moment only.
            Err(error) if refused != Some(now) => {
                tracing::error!("roots and issuer stay as they were: {error:#}");
                refused = Some(now);
            }
            Err(_) => {}
            Ok(is_new) => {
                last = Some(now);
                if is_new {
                    tracing::info!("roots or issuer changed; every proxy is told");
                }
            }
        }
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
            // Not only those that got a certificate here: another controller may have given theirs to the others.
            let expected = world.objects().filter_map(|it| match &it.object {
                Object::Pod(pod) if pod.status.is_ready() && is_meshed(&reader, pod) => {
                    Some(PodRef::new(&it.key.namespace, &it.key.name))
                }
                _ => None,
            });
            expected.collect()
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

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
