//! What a mesh of some size costs its controller: 5,000 Services, 50,000 endpoints and 1,000 proxies over the real protocol,
//! 200 changes of endpoints a second. Run by hand, prints its figures, and ends within four minutes in any case:
//!
//! ```text
//! cargo build --release --workspace --bins --examples && target/release/examples/scale
//! ```
//!
//! The controller is a process of its own, so that its memory and time are its own, and takes its objects from an API
//! server: one that lives in this program, or with `--kubeconfig` a real and empty one. The proxies all live in this
//! program. Results that were measured are in `scale/RESULTS.md`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "scale/channel.rs"]
mod channel;
#[path = "scale/controller.rs"]
mod controller;
#[path = "scale/objects.rs"]
mod objects;
#[path = "scale/proxy.rs"]
mod proxy;
#[path = "scale/server.rs"]
mod server;

use clap::Parser;
use controller::{Controller, Usage};
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use objects::{Place, Size};
use proxy::{Proxy, Story, certify};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use weft_control::state::StateDir;

/// Certificates asked for at once.
const AT_ONCE: usize = 64;
/// How long the last change may take to be everywhere.
const LAST: Duration = Duration::from_secs(60);

/// Open files of a thousand connections and what stands beside them.
const FILES: u64 = 16_384;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 5_000)]
    services: u32,
    #[arg(long, default_value_t = 50_000)]
    endpoints: u32,
    /// Pods, the proxies among them [default: one for each endpoint]
    #[arg(long)]
    pods: Option<u32>,
    #[arg(long, default_value_t = 500)]
    splits: u32,
    #[arg(long, default_value_t = 1_000)]
    proxies: u32,
    /// Services that each proxy calls
    #[arg(long, default_value_t = 50)]
    called: u32,
    /// Changes a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How long there are changes
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Seconds after which it ends, done or not
    #[arg(long, default_value_t = 240)]
    limit: u64,
    /// A real API server, which is filled and never emptied
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Another controller than the one beside this program
    #[arg(long)]
    controller: Option<PathBuf>,
}

/// Everything that a measurement needs.
struct Bench {
    options: Options,
    size: Size,
    place: Place,
    folder: tempfile::TempDir,
    proxies: Vec<Proxy>,
    /// Changes so far.
    changes: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES.min(hard)), hard)?;
    let options = Options::parse();
    let limit = Duration::from_secs(options.limit);
    match timeout(limit, measure(options)).await {
        Ok(measured) => measured,
        Err(_) => Err(format!("not done within {limit:?}").into()),
    }
}

async fn measure(options: Options) -> Result<(), Failure> {
    let mut bench = Bench::new(options).await?;
    let started = Instant::now();
    let mut controller = bench.controller("127.0.0.1:0").await?;
    println!("everything read and served after {:.1?}", started.elapsed());
    show("idle", &controller, &Usage::default());

    bench.certify(&controller).await?;
    let before = controller.usage();
    bench.connect("first connect").await?;
    show("connected", &controller, &before);
    let each =
        (controller.usage().rss.saturating_sub(before.rss)) / u64::from(bench.options.proxies);
    println!("  {} KiB of memory for each proxy", each >> 10);

    let before = controller.usage();
    sleep(Duration::from_secs(10)).await;
    show("ten quiet seconds", &controller, &before);

    let before = controller.usage();
    bench.change("changes", None, async {}).await?;
    show("changed", &controller, &before);

    let before = controller.usage();
    bench.proxies.iter_mut().for_each(Proxy::cut);
    bench.connect("reconnect of all at once").await?;
    show("reconnected", &controller, &before);

    let second = bench.controller("127.0.0.1:0").await?;
    let (address, other) = (controller.address, second.address);
    let life = Duration::from_secs(u64::from(bench.options.seconds / 2));
    let dies = async {
        sleep(life).await;
        controller.kill().await;
    };
    bench
        .change(
            "changes, and the controller dies amid them",
            Some(other),
            dies,
        )
        .await?;
    show("the other one", &second, &Usage::default());

    drop(second);
    bench.proxies.iter_mut().for_each(Proxy::cut);
    let started = Instant::now();
    let controller = bench.controller(&address.to_string()).await?;
    println!("killed; serving again after {:.1?}", started.elapsed());
    bench.turn_to(&controller);
    bench.connect("reconnect of all after a restart").await?;
    show("restarted", &controller, &Usage::default());
    Ok(())
}

impl Bench {
    async fn new(options: Options) -> Result<Self, Failure> {
        let size = Size {
            services: options.services,
            endpoints: options.endpoints,
            pods: options
                .pods
                .unwrap_or(options.endpoints)
                .max(options.proxies),
            splits: options.splits.min(options.services / 2),
        };
        let folder = tempfile::tempdir()?;
        let place = match &options.kubeconfig {
            Some(kubeconfig) => Place::real(kubeconfig).await?,
            None => Place::own(folder.path()).await?,
        };
        let started = Instant::now();
        place.fill(size).await?;
        println!("{size:?} written after {:.1?}", started.elapsed());
        Ok(Self {
            options,
            size,
            place,
            folder,
            proxies: vec![],
            changes: 0,
        })
    }

    async fn controller(&self, listen: &str) -> Result<Controller, Failure> {
        let state = self.folder.path().join("state");
        let program = self.options.controller.as_deref();
        Controller::start(program, self.place.kubeconfig(), &state, listen).await
    }

    async fn certify(&mut self, controller: &Controller) -> Result<(), Failure> {
        let state = StateDir::open(self.folder.path().join("state"))?;
        let (before, started) = (controller.usage(), Instant::now());
        let (state, size, to) = (&state, self.size, controller.address);
        let certified: Vec<_> = stream::iter(0..self.options.proxies)
            .map(|n| async move {
                let account = format!("sa-{}", n % size.services);
                certify(to, state, n, &account).await
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let put_off: usize = certified.iter().map(|(_, put_off)| put_off).sum();
        println!(
            "{} certificates after {:.1?}, put off {put_off} times",
            certified.len(),
            started.elapsed()
        );
        show("certified", controller, &before);
        let numbered = (0..).zip(certified);
        let called = self.options.called;
        self.proxies = numbered
            .map(|(n, (identity, _))| Proxy::new(n, called, size, identity, to))
            .collect();
        Ok(())
    }

    fn turn_to(&mut self, controller: &Controller) {
        for proxy in &mut self.proxies {
            proxy.controller = controller.address;
        }
    }

    async fn connect(&mut self, what: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let all = self.proxies.iter_mut().map(Proxy::come);
        for connected in futures_util::future::join_all(all).await {
            connected?;
        }
        let sum = |of: fn(&Proxy) -> usize| self.proxies.iter().map(of).sum::<usize>();
        println!(
            "{what}, {} proxies, {} subscriptions, all answered after {:.1?} ({} attempts failed): {} answers say unchanged, {} KiB told to each",
            self.proxies.len(),
            sum(Proxy::subscriptions),
            started.elapsed(),
            sum(|it| it.failed),
            sum(|it| it.unchanged),
            (sum(|it| it.bytes) / self.proxies.len()) >> 10
        );
        Ok(())
    }

    /// Changes endpoints for a while, and says how long proxies waited for each. Beside it, something else happens.
    async fn change(
        &mut self,
        what: &str,
        other: Option<std::net::SocketAddr>,
        beside: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let total = self.options.rate * self.options.seconds;
        let (first, end) = (self.changes, self.changes + total);
        self.changes = end.next_multiple_of(self.size.round());
        let story = Arc::new(Story {
            size: self.size,
            first,
            end,
            other,
            written: Default::default(),
            waits: Default::default(),
            done: Default::default(),
        });
        let sets: usize = self.proxies.iter().map(|it| it.changing(self.size)).sum();
        let (ended, end_of_story) = watch::channel(false);
        let mut following = JoinSet::new();
        for proxy in self.proxies.drain(..) {
            following.spawn(proxy.follow(story.clone(), end_of_story.clone()));
        }
        let (started, own) = (Instant::now(), Usage::own());
        let (written, ()) = tokio::join!(self.write(&story), beside);
        written?;
        let took = started.elapsed();
        let done = || story.done.load(Ordering::Relaxed);
        while done() < sets && started.elapsed() < took + LAST {
            sleep(Duration::from_millis(20)).await;
        }
        let late = sets - done().min(sets);
        ended.send_replace(true);
        self.proxies = following.join_all().await;
        let mut waits = std::mem::take(&mut *story.waits.lock());
        waits.sort_unstable();
        let rank = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        println!(
            "{what}: {total} in {took:.1?}, heard {} times: p50 {:.1?}, p99 {:.1?}, most {:.1?}; {late} of {sets} sets not current at the end",
            waits.len(),
            rank(0.5),
            rank(0.99),
            rank(1.0)
        );
        println!(
            "  this program itself: CPU {:.1?} in {:.1?}",
            Usage::own().cpu - own.cpu,
            started.elapsed()
        );
        Ok(())
    }

    async fn write(&self, story: &Story) -> Result<(), Failure> {
        let mut ticks = interval(Duration::from_secs(1) / self.options.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for change in story.first..story.end {
            ticks.tick().await;
            story.written.lock().push(Instant::now());
            self.place.change(self.size, change).await?;
        }
        Ok(())
    }
}

fn show(what: &str, controller: &Controller, before: &Usage) {
    let now = controller.usage();
    println!(
        "  {what}: RSS {} MiB (most {} MiB), CPU {:.2} s",
        now.rss >> 20,
        now.most >> 20,
        (now.cpu - before.cpu).as_secs_f64()
    );
}
