//! The load generator: calls at a constant rate whatever the answers do (an open loop hides no waiting), and prints
//! what it saw since its start, four JSON lines a second.

use super::http::Client1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Requests under way at most; beyond it the machine is too slow for the rate, and requests are skipped, not piled up until
/// they fail.
const IN_FLIGHT: usize = 50;

/// Everything seen since the start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Requests answered or given up.
    pub requests: u64,
    /// Answers with status 200.
    pub ok: u64,
    /// Answers by status; 0: no answer.
    pub status: BTreeMap<u16, u64>,
    /// Good answers by version of the backend.
    pub versions: BTreeMap<String, u64>,
    /// Requests not made because too many were under way.
    pub skipped: u64,
    /// Answers by latency: microseconds (upper bound, powers of the square root of two) to count.
    pub latency_us: BTreeMap<u64, u64>,
    /// The last answer that was not good, for people.
    pub last_error: String,
}

/// Calls until stopped.
pub(super) async fn run(target: String, rate: u32) -> anyhow::Result<()> {
    let client = Arc::new(Client1::new(&target));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let in_flight = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut report = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = tick.tick() => match in_flight.clone().try_acquire_owned() {
                Ok(permit) => {
                    let (client, seen) = (client.clone(), seen.clone());
                    tokio::spawn(async move {
                        call(&client, &seen).await;
                        drop(permit);
                    });
                }
                Err(_) => lock(&seen).skipped += 1,
            },
            _ = report.tick() => println!("{}", serde_json::to_string(&*lock(&seen))?),
        }
    }
}

async fn call(client: &Client1, seen: &Mutex<Seen>) {
    let start = Instant::now();
    let answer = client.get("/cell").await;
    let latency = start.elapsed();
    let mut seen = lock(seen);
    seen.requests += 1;
    *seen.latency_us.entry(bucket(latency)).or_default() += 1;
    match answer {
        Ok((200, body)) => {
            seen.ok += 1;
            *seen.status.entry(200).or_default() += 1;
            let cell: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let version = cell["version"].as_str().unwrap_or("unknown").to_owned();
            *seen.versions.entry(version).or_default() += 1;
        }
        Ok((status, body)) => {
            *seen.status.entry(status).or_default() += 1;
            seen.last_error = String::from_utf8_lossy(&body)
                .trim()
                .chars()
                .take(200)
                .collect();
        }
        Err(error) => {
            *seen.status.entry(0).or_default() += 1;
            seen.last_error = format!("{error:#}");
        }
    }
}

/// The upper bound of the bucket: 100 µs times a power of the square root of two.
fn bucket(latency: Duration) -> u64 {
    let mut bound = 100f64;
    while (bound as u128) < latency.as_micros() && bound < 1e8 {
        bound *= std::f64::consts::SQRT_2;
    }
    bound as u64
}

impl Seen {
    /// What was seen since `before`.
    pub fn since(&self, before: &Seen) -> Seen {
        let mut new = self.clone();
        new.requests -= before.requests.min(new.requests);
        new.ok -= before.ok.min(new.ok);
        new.skipped -= before.skipped.min(new.skipped);
        subtract(&mut new.status, &before.status);
        subtract(&mut new.versions, &before.versions);
        subtract(&mut new.latency_us, &before.latency_us);
        new
    }

    /// Requests that did not get their 200.
    pub fn failed(&self) -> u64 {
        self.requests - self.ok.min(self.requests)
    }

    /// Latency in milliseconds that this share of the requests stayed below.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.latency_us.values().sum::<u64>() as f64 * share).ceil() as u64;
        let mut counted = 0;
        for (bound, count) in &self.latency_us {
            counted += count;
            if counted >= wanted.max(1) {
                return *bound as f64 / 1000.0;
            }
        }
        0.0
    }
}

fn subtract<K: Ord>(new: &mut BTreeMap<K, u64>, before: &BTreeMap<K, u64>) {
    for (key, count) in before {
        if let Some(value) = new.get_mut(key) {
            *value -= (*count).min(*value);
        }
    }
    new.retain(|_, count| *count > 0);
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
