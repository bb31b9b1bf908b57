//! Connections that have said one thing and then nothing: what the proxies remember them by.

use crate::figures::{Figures, name};
use crate::load::{Spec, dial, exchange, memory_of};
use crate::load_tcp::first_message;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Opened at a time: a burst of handshakes is another case.
const AT_A_TIME: usize = 32;

pub(crate) async fn run(spec: &Arc<Spec>) -> anyhow::Result<Figures> {
    let wanted = spec.number("connections");
    let mut figures = Figures::default();
    let (before, _) = memory_of(spec);
    let mut held: Vec<TcpStream> = Vec::with_capacity(wanted);
    while held.len() < wanted && figures.problem.is_none() {
        let mut opening = JoinSet::new();
        for _ in 0..AT_A_TIME.min(wanted - held.len()) {
            let spec = Arc::clone(spec);
            opening.spawn(async move { open(&spec).await });
        }
        while let Some(opened) = opening.join_next().await {
            match opened? {
                Ok(stream) => held.push(stream),
                Err(error) => {
                    figures.problem = Some(format!("after {} connections: {error:#}", held.len()))
                }
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(spec.number("settle_ms") as u64)).await;
    let (now, peak) = memory_of(spec);
    let count = held.len().max(1) as f64;
    figures.set(name::CONNECTIONS, held.len() as f64);
    figures.set(name::IDLE_CLIENT, (now[0] - before[0]) * 1024.0 / count);
    figures.set(name::IDLE_SERVER, (now[1] - before[1]) * 1024.0 / count);
    figures.set(name::RSS_BEFORE, before[0] + before[1]);
    figures.set(name::RSS, now[0] + now[1]);
    figures.set(name::RSS_PEAK, peak);
    drop(held);
    tokio::time::sleep(Duration::from_millis(spec.number("after_ms") as u64)).await;
    let (after, _) = memory_of(spec);
    figures.set(name::RSS_AFTER, after[0] + after[1]);
    Ok(figures)
}

async fn open(spec: &Spec) -> anyhow::Result<TcpStream> {
    let attempt = async {
        if spec.number("http") == 0 {
            let mut stream = dial(&spec.address(2)).await?;
            first_message(&mut stream).await?;
            return Ok(stream);
        }
        let mut stream = dial(&spec.address(0)).await?;
        let request = format!("GET /1k HTTP/1.1\r\nhost: {}\r\n\r\n", spec.address(0));
        exchange(&mut stream, request.as_bytes(), &mut [0; 4_096], |_| ()).await?;
        Ok(stream)
    };
    tokio::time::timeout(Duration::from_secs(10), attempt).await?
}
