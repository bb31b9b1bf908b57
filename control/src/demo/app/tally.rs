//! The TCP role: a line with a word comes in, the number of lines seen with that word goes out.

use super::http::{self, LIMIT};
use super::names;
use anyhow::{Context, anyhow};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Words remembered, and the longest of them.
const WORDS: usize = 100;
const LONGEST: u64 = 100;

/// Serves until stopped.
pub(super) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let counts = Arc::new(std::sync::Mutex::new(HashMap::<String, u64>::new()));
    http::accept(address, move |stream| {
        let counts = counts.clone();
        async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read);
            loop {
                let mut line = String::new();
                match (&mut lines).take(LONGEST).read_line(&mut line).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let seen = add(
                    &mut counts.lock().unwrap_or_else(PoisonError::into_inner),
                    line.trim(),
                );
                if write
                    .write_all(format!("{seen}\n").as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    })
    .await
}

fn add(counts: &mut HashMap<String, u64>, word: &str) -> u64 {
    if counts.len() >= WORDS && !counts.contains_key(word) {
        return 0;
    }
    let count = counts.entry(word.to_owned()).or_default();
    *count += 1;
    *count
}

/// A client with one connection, made anew when it breaks.
pub(super) struct Tally {
    host: String,
    open: Mutex<Option<BufReader<TcpStream>>>,
}

impl Tally {
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            open: Mutex::new(None),
        }
    }

    /// Counts one word; a connection that has gone away meanwhile is replaced once.
    pub(super) async fn count(&self, word: &str) -> anyhow::Result<u64> {
        let mut open = self.open.lock().await;
        if let Some(stream) = open.as_mut() {
            if let Ok(count) = ask(stream, word).await {
                return Ok(count);
            }
            *open = None;
        }
        let stream = names::connect(&self.host).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let count = ask(&mut stream, word).await?;
        *open = Some(stream);
        Ok(count)
    }
}

async fn ask(stream: &mut BufReader<TcpStream>, word: &str) -> anyhow::Result<u64> {
    let exchange = async {
        stream.write_all(format!("{word}\n").as_bytes()).await?;
        let mut line = String::new();
        stream.take(LONGEST).read_line(&mut line).await?;
        line.trim()
            .parse()
            .with_context(|| format!("not a number: {line:?}"))
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {LIMIT:?}"))?
}
