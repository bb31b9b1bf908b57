//! An open-loop load: a request is due at its time whether or not earlier ones were answered, and its latency counts
//! from then, so that a stall is seen by everybody who would have called during it.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A request without its answer after this long is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// One request, as it went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was due, in milliseconds since 1970.
    pub due: u64,
    /// From then to the end of its answer, or until it was given up, in microseconds.
    pub took: u64,
    /// HTTP status; 0: no answer.
    pub status: u16,
}

struct Plan {
    to: String,
    path: String,
    started: Instant,
    clock: u64,
    rate: u64,
    count: u64,
    next: AtomicU64,
}

/// `HOST:PORT PATH RATE SECONDS CONNECTIONS`: calls, and prints a line `due took status` for each request. `{n}` in the
/// path is the number of the request; then every request has a Host of its own, too.
pub(crate) async fn run(args: &[String]) -> anyhow::Result<()> {
    let [to, path, rate, seconds, connections] = args else {
        bail!("usage: role load HOST:PORT PATH RATE SECONDS CONNECTIONS")
    };
    let rate: u64 = rate.parse().context("rate")?;
    let seconds: u64 = seconds.parse().context("seconds")?;
    let plan = Arc::new(Plan {
        to: to.clone(),
        path: path.clone(),
        started: Instant::now(),
        clock: now(),
        rate,
        count: rate * seconds,
        next: AtomicU64::new(0),
    });
    let connections: usize = connections.parse().context("connections")?;
    let workers: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(worker(plan.clone())))
        .collect();
    let mut text = String::new();
    for worker in workers {
        for Sample { due, took, status } in worker.await? {
            let _ = writeln!(text, "{due} {took} {status}");
        }
    }
    print!("{text}");
    Ok(())
}

/// What [`run`] printed.
pub fn parse(text: &str) -> Vec<Sample> {
    let sample = |line: &str| {
        let mut words = line.split(' ');
        Some(Sample {
            due: words.next()?.parse().ok()?,
            took: words.next()?.parse().ok()?,
            status: words.next()?.parse().ok()?,
        })
    };
    let mut samples: Vec<_> = text.lines().filter_map(sample).collect();
    samples.sort_by_key(|sample| sample.due);
    samples
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn worker(plan: Arc<Plan>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut open = None;
    loop {
        let at = plan.next.fetch_add(1, Relaxed);
        if at >= plan.count {
            return samples;
        }
        let after = Duration::from_micros(at * 1_000_000 / plan.rate);
        let due = plan.started + after;
        tokio::time::sleep_until(due).await;
        // Late is late: a request that could not even be sent in time has less of it left.
        let status = match timeout_at(
            due.max(Instant::now()) + PATIENCE,
            call(&plan, at, &mut open),
        )
        .await
        {
            Ok(Ok(status)) => status,
            _ => {
                open = None;
                0
            }
        };
        samples.push(Sample {
            due: plan.clock + u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            took: u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX),
            status,
        });
    }
}

/// `HOST:PORT COUNT SECONDS`: opens connections, keeps them silent, and prints how many are still open at the end.
pub(crate) async fn hold(args: &[String]) -> anyhow::Result<()> {
    let [to, count, seconds] = args else {
        bail!("usage: role hold HOST:PORT COUNT SECONDS")
    };
    let (count, seconds): (usize, u64) = (count.parse()?, seconds.parse()?);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await {
            open.push(stream);
        }
    }
    println!("{} open", open.len());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let alive = |stream: &&TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    println!("{} left", open.iter().filter(alive).count());
    Ok(())
}

async fn call(
    plan: &Plan,
    number: u64,
    open: &mut Option<SendRequest<Empty<Bytes>>>,
) -> anyhow::Result<u16> {
    if let Some(sender) = open
        && (sender.is_closed() || sender.ready().await.is_err())
    {
        *open = None;
    }
    let sender = match open {
        Some(sender) => sender,
        None => open.insert(connect(&plan.to).await?),
    };
    let request = match plan.path.contains("{n}") {
        false => Request::get(&plan.path).header("host", &plan.to),
        true => {
            let path = plan.path.replace("{n}", &number.to_string());
            Request::get(path).header("host", format!("h{number}.example"))
        }
    };
    let request = request.body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

async fn connect(to: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
