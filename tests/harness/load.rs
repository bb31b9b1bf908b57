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

/// A request without its answer after this long is lost, unless the role is told otherwise.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hosts that `{n}` stands for.
pub const SERVICES: u32 = 1000;
/// The first of the addresses that `{ip}` stands for: set aside for tests of networks.
const TARGETS: u32 = 0xc612_0000;

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

/// So many requests a second for so many seconds, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule(Vec<(u64, u64)>);

struct Plan {
    to: String,
    path: String,
    patience: Duration,
    started: Instant,
    clock: u64,
    /// When each is due, in microseconds from the start.
    due: Vec<u64>,
    next: AtomicU64,
}

impl Schedule {
    /// `RATExSECONDS,…`
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let part = |part: &str| {
            let (rate, seconds) = part.split_once('x').context("RATExSECONDS")?;
            Ok((
                rate.parse().context("rate")?,
                seconds.parse().context("seconds")?,
            ))
        };
        text.split(',')
            .map(part)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    fn due(&self) -> Vec<u64> {
        let (mut all, mut from) = (Vec::new(), 0);
        for (rate, seconds) in &self.0 {
            all.extend((0..rate * seconds).map(|n| from + n * 1_000_000 / rate));
            from += seconds * 1_000_000;
        }
        all
    }
}

/// `HOST:PORT PATH SCHEDULE CONNECTIONS [SECONDS]`: calls, and prints a line `due took status` for each request. `{n}` in
/// the path is the number of the request; then every request has a Host of its own, too. `{n}` in the host makes each
/// request a new connection to another host, up to a thousand of them; `{ip}` one to another address of 198.18.0.0/15.
/// What is not answered within the seconds is lost.
pub(crate) async fn run(args: &[String]) -> anyhow::Result<()> {
    let [to, path, schedule, connections, seconds @ ..] = args else {
        bail!("usage: role load HOST:PORT PATH RATExSECONDS,… CONNECTIONS [SECONDS]")
    };
    let patience = match seconds.first() {
        Some(seconds) => Duration::from_secs(seconds.parse().context("seconds")?),
        None => PATIENCE,
    };
    let plan = Arc::new(Plan {
        to: to.clone(),
        path: path.clone(),
        patience,
        started: Instant::now(),
        clock: now(),
        due: Schedule::parse(schedule)?.due(),
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

impl Plan {
    fn to(&self, number: u64) -> String {
        let number = u32::try_from(number).unwrap_or(0);
        let ip = std::net::Ipv4Addr::from_bits(TARGETS + number % (1 << 17));
        self.to
            .replace("{n}", &(number % SERVICES).to_string())
            .replace("{ip}", &ip.to_string())
    }
}

async fn worker(plan: Arc<Plan>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut open = None;
    loop {
        let at = plan.next.fetch_add(1, Relaxed);
        let Some(due) = usize::try_from(at).ok().and_then(|at| plan.due.get(at)) else {
            return samples;
        };
        let after = Duration::from_micros(*due);
        let due = plan.started + after;
        tokio::time::sleep_until(due).await;
        // Who could not even be sent in time has as long for an answer; `took` counts from when it was due.
        let status = match timeout_at(
            due.max(Instant::now()) + plan.patience,
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
    let to = plan.to(number);
    if to != plan.to {
        *open = None;
    }
    let sender = match open {
        Some(sender) => sender,
        None => open.insert(connect(&to).await?),
    };
    let request = match plan.path.contains("{n}") {
        false => Request::get(&plan.path).header("host", &to),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_its_rates_one_after_the_other() -> anyhow::Result<()> {
        let due = Schedule::parse("2x1,4x1")?.due();
        assert_eq!(
            due,
            [0, 500_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000]
        );
        assert!(Schedule::parse("2").is_err() && Schedule::parse("ax1").is_err());
        Ok(())
    }
}
