//! The load generator: closed loop (as fast as answers come) or open loop (requests fall due at a constant rate, and
//! latency counts from when they were due, so that a stall is not forgiven). Counts only inside its window, and reads the
//! CPU time of the proxies at both edges of it.

use crate::figures::{Figures, name};
use crate::histogram::Histogram;
use crate::process::{cpu, cpu_machine, cpu_ours, memory};
use crate::{idle, load_h2, load_tcp};
use anyhow::{Context, bail, ensure};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long connections may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do, as the conductor wrote it.
pub(crate) struct Spec {
    json: Value,
}

impl Spec {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap_or(0) as usize
    }

    pub(crate) fn address(&self, port: usize) -> String {
        format!("{}:{}", self.text("host"), crate::world::PORTS[port])
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        self.json[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| Some(id.as_u64()? as u32))
            .collect()
    }

    fn millis(&self, key: &str) -> Duration {
        Duration::from_millis(self.number(key) as u64)
    }
}

/// The role: a spec on the command line, figures on stdout.
pub(crate) fn run(spec: &str) -> anyhow::Result<()> {
    let spec = Arc::new(Spec {
        json: serde_json::from_str(spec)?,
    });
    let _ = nix::sys::prctl::set_timerslack(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        match spec.text("kind") {
            "idle" => idle::run(&spec).await,
            _ => timed(spec).await,
        }
    })?;
    println!("{}", figures.to_json());
    Ok(())
}

/// What all workers of one run share.
pub(crate) struct Shared {
    /// Only what comes while this is true counts.
    counting: AtomicBool,
    /// Workers that have had a first answer: before all have, connections are still being made.
    started: AtomicUsize,
    seen: Mutex<Histogram>,
    bytes: AtomicU64,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    pace: Option<Pace>,
}

struct Pace {
    /// When the timer began: a moment earlier, and every latency would count that moment as well.
    begun: OnceLock<Instant>,
    period: Duration,
    due: Semaphore,
    taken: AtomicU64,
}

impl Shared {
    /// Waits for the next request to fall due and says when that was; at once where there is no rate.
    pub(crate) async fn turn(&self) -> Instant {
        let Some(pace) = &self.pace else {
            return Instant::now();
        };
        if let Ok(permit) = pace.due.acquire().await {
            permit.forget();
        }
        let begun = pace.begun.get().copied().unwrap_or_else(Instant::now);
        begun + pace.period * (pace.taken.fetch_add(1, Relaxed) as u32 + 1)
    }

    /// A request that was due at `start` has been answered with so many bytes.
    pub(crate) fn done(&self, start: Instant, bytes: usize) {
        if self.counting.load(Relaxed) {
            let nanos = start.elapsed().as_nanos() as u64;
            self.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .record(nanos);
            self.bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Bytes that are no request.
    pub(crate) fn moved(&self, bytes: usize) {
        if self.counting.load(Relaxed) {
            self.bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// A worker, by its own flag, has had its first answer.
    pub(crate) fn started(&self, before: &mut bool) {
        if !std::mem::replace(before, true) {
            self.started.fetch_add(1, Relaxed);
        }
    }

    /// Something failed; false when enough has.
    pub(crate) async fn failed(&self, error: anyhow::Error) -> bool {
        self.first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| format!("{error:#}"));
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.errors.fetch_add(1, Relaxed) < 1_000
    }
}

async fn timed(spec: Arc<Spec>) -> anyhow::Result<Figures> {
    let rate = spec.number("rate") as u32;
    let shared = Arc::new(Shared {
        counting: AtomicBool::new(false),
        started: AtomicUsize::new(0),
        seen: Mutex::new(Histogram::new()),
        bytes: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        first_error: Mutex::new(None),
        pace: (rate > 0).then(|| Pace {
            begun: OnceLock::new(),
            period: Duration::from_secs(1) / rate,
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
        }),
    });
    let mut workers = JoinSet::new();
    for _ in 0..spec.number("connections").max(1) {
        match spec.text("kind") {
            "http1" => drop(workers.spawn(http1(Arc::clone(&spec), Arc::clone(&shared)))),
            "http2" => {
                drop(workers.spawn(load_h2::connection(Arc::clone(&spec), Arc::clone(&shared))))
            }
            "up" | "down" | "echo" | "connect" => {
                drop(workers.spawn(load_tcp::worker(Arc::clone(&spec), Arc::clone(&shared))))
            }
            other => bail!("there is no load {other}"),
        }
    }
    if shared.pace.is_some() {
        let shared = Arc::clone(&shared);
        workers.spawn(async move { drop(tick(&shared).await) });
    }
    let patience = Instant::now() + PATIENCE;
    while shared.started.load(Relaxed) < spec.number("connections") && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(spec.millis("warm_ms")).await;
    let window = Window::open(&spec, &shared);
    tokio::time::sleep(spec.millis("window_ms")).await;
    let window = window.close(&spec, &shared);
    workers.abort_all();
    Ok(summary(&spec, &shared, &window))
}

/// Lets requests fall due. The timer of the kernel is exact to microseconds; tokio's own only to a millisecond.
async fn tick(shared: &Shared) -> anyhow::Result<()> {
    let Some(pace) = &shared.pace else {
        return Ok(());
    };
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    pace.begun.get_or_init(Instant::now);
    timer.set(
        Expiration::Interval(TimeSpec::from_duration(pace.period)),
        TimerSetTimeFlags::empty(),
    )?;
    // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
    let timer = unsafe { AsyncFd::register(OwnedFd::from(timer)) }?;
    loop {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        match nix::unistd::read(timer.get_ref(), &mut count) {
            Ok(_) => pace
                .due
                .add_permits(u64::from_ne_bytes(count).min(1_000_000) as usize),
            Err(_) => ready.clear_ready(),
        }
    }
}

/// Seconds of wall clock and of CPU; first since some time ago, then of the window.
struct Window {
    from: Instant,
    seconds: f64,
    client: f64,
    server: f64,
    ours: f64,
    machine: f64,
}

impl Window {
    /// The slow readings stand outside the window at both ends.
    fn open(spec: &Spec, shared: &Shared) -> Self {
        let (ours, machine) = (cpu_ours(), cpu_machine());
        let (client, server) = (sum(spec, "client"), sum(spec, "server"));
        shared.counting.store(true, Relaxed);
        Self {
            from: Instant::now(),
            seconds: 0.0,
            client,
            server,
            ours,
            machine,
        }
    }

    fn close(self, spec: &Spec, shared: &Shared) -> Self {
        let seconds = self.from.elapsed().as_secs_f64();
        shared.counting.store(false, Relaxed);
        let (client, server) = (
            sum(spec, "client") - self.client,
            sum(spec, "server") - self.server,
        );
        Self {
            seconds,
            client,
            server,
            ours: cpu_ours() - self.ours,
            machine: cpu_machine() - self.machine,
            ..self
        }
    }
}

fn sum(spec: &Spec, key: &str) -> f64 {
    spec.ids(key).into_iter().map(cpu).sum()
}

fn summary(spec: &Spec, shared: &Shared, window: &Window) -> Figures {
    let mut figures = Figures::default();
    let (seconds, client, server) = (window.seconds, window.client, window.server);
    let seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, bytes) = (seen.count() as f64, shared.bytes.load(Relaxed) as f64);
    let proxied = !spec.ids("client").is_empty();
    if count > 0.0 {
        figures.set(name::RATE, count / seconds);
        for (share, name) in [(0.5, name::P50), (0.99, name::P99), (0.999, name::P999)] {
            figures.set(name, seen.quantile(share));
        }
        if proxied {
            figures.set(name::CPU_REQUEST, (client + server) * 1e6 / count);
            figures.set(name::CPU_REQUEST_CLIENT, client * 1e6 / count);
            figures.set(name::CPU_REQUEST_SERVER, server * 1e6 / count);
        }
    }
    if bytes > 0.0 {
        figures.set(name::GBIT, bytes * 8.0 / 1e9 / seconds);
        if proxied {
            figures.set(name::CPU_GB, (client + server) / (bytes / 1e9));
        }
    }
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let others = window.machine - window.ours;
    figures.set(name::OTHERS, (others / seconds / cores).max(0.0));
    figures.set(name::ERRORS, shared.errors.load(Relaxed) as f64);
    if proxied {
        let (rss, peak) = memory_of(spec);
        figures.set(name::RSS, rss[0] + rss[1]);
        figures.set(name::RSS_PEAK, peak);
    }
    figures.problem = shared
        .first_error
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if count == 0.0 && bytes == 0.0 && figures.problem.is_none() {
        figures.problem = Some("nothing came back".to_owned());
    }
    if let Some(pace) = &shared.pace
        && pace.due.available_permits() as u32 > spec.number("rate") as u32 / 10
    {
        figures.problem = Some("could not keep up with the rate".to_owned());
    }
    figures
}

/// Resident memory of client and server side, and the peak of both together; MB.
pub(crate) fn memory_of(spec: &Spec) -> ([f64; 2], f64) {
    let of = |key: &str| {
        spec.ids(key)
            .into_iter()
            .map(memory)
            .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let (client, server) = (of("client"), of("server"));
    (
        [client.0 / 1024.0, server.0 / 1024.0],
        (client.1 + server.1) / 1024.0,
    )
}

/// Opens a connection of the load.
pub(crate) async fn dial(address: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn http1(spec: Arc<Spec>, shared: Arc<Shared>) {
    let close = spec.number("close") > 0;
    let connection = if close { "connection: close\r\n" } else { "" };
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\n{connection}\r\n",
        spec.text("path"),
        spec.address(0)
    );
    let mut buffer = vec![
        0;
        if spec.text("path") == "/1k" {
            8 * 1024
        } else {
            256 * 1024
        }
    ];
    let (mut open, mut begun) = (None, false);
    loop {
        let start = shared.turn().await;
        let outcome = async {
            let mut stream = match open.take() {
                Some(stream) => stream,
                None => dial(&spec.address(0)).await?,
            };
            exchange(&mut stream, request.as_bytes(), &mut buffer, |bytes| {
                shared.moved(bytes)
            })
            .await?;
            shared.done(start, 0);
            shared.started(&mut begun);
            if close {
                while stream.read(&mut buffer).await? > 0 {}
            } else {
                open = Some(stream);
            }
            anyhow::Ok(())
        };
        if let Err(error) = outcome.await
            && !shared.failed(error).await
        {
            return;
        }
    }
}

/// One request and its whole answer, which must be 200 with a length; `moved` hears of the body's bytes as they come, as a
/// large body may begin in one window and end in another.
pub(crate) async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut [u8],
    moved: impl Fn(usize),
) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    let mut have = 0;
    let (head, length) = loop {
        let n = stream.read(&mut buffer[have..]).await?;
        ensure!(n > 0, "closed before an answer");
        have += n;
        if let Some(end) = buffer[..have]
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
        {
            break (end + 4, length(&buffer[..end])?);
        }
    };
    let mut left = length
        .checked_sub(have - head)
        .context("more than was announced")?;
    moved(have - head);
    while left > 0 {
        let n = stream.read(buffer).await?;
        ensure!(n > 0, "closed amid an answer");
        left = left.checked_sub(n).context("more than was announced")?;
        moved(n);
    }
    Ok(())
}

fn length(head: &[u8]) -> anyhow::Result<usize> {
    let text = std::str::from_utf8(head)?;
    ensure!(
        text.get(9..12) == Some("200"),
        "{}",
        text.lines().next().unwrap_or_default()
    );
    let field = |line: &&str| {
        line.get(..15)
            .is_some_and(|name| name.eq_ignore_ascii_case("content-length:"))
    };
    let line = text
        .lines()
        .find(field)
        .context("an answer without a length")?;
    Ok(line[15..].trim().parse()?)
}
