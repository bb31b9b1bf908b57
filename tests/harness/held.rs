//! Clients that keep what they have: connections that idle, streams that never end, answers that nobody reads.

use anyhow::{Context, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whoever has not got it by then does not get it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are opened at the same time.
const AT_ONCE: usize = 32;

/// `HOST:PORT COUNT SECONDS`: opens connections and keeps them, and prints how many were opened and how many of them are
/// still open at the end. `asks`: each has one request answered first; without, it never says a word.
pub(crate) async fn hold(args: &[String], asks: bool) -> anyhow::Result<()> {
    let (to, count, seconds) = three(args)?;
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let some = (open.len()..count).take(AT_ONCE);
        let some: Vec<_> = some
            .map(|_| tokio::spawn(timeout(PATIENCE, open_one(to.clone(), asks))))
            .collect();
        let mut any = false;
        for one in some {
            if let Ok(Ok(stream)) = one.await? {
                open.push(stream);
                any = true;
            }
        }
        if !any {
            break;
        }
    }
    println!("{} open", open.len());
    tokio::time::sleep(seconds).await;
    let alive = |stream: &&TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    println!("{} left", open.iter().filter(alive).count());
    Ok(())
}

async fn open_one(to: String, asks: bool) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(&to).await?;
    if !asks {
        return Ok(stream);
    }
    let request = format!("GET /held HTTP/1.1\r\nhost: {to}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The role `echo` answers with its length, and less than this.
    let mut part = [0; 4096];
    loop {
        let n = stream.read(&mut part).await?;
        anyhow::ensure!(n > 0, "closed");
        answer.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_length = name.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.context("no length")? {
                return Ok(stream);
            }
        }
    }
}

/// `HOST:PORT COUNT SECONDS`: opens streams of HTTP/2, a hundred to a connection, that send a head and never end, and
/// prints how many are left, and how many were answered or refused.
pub(crate) async fn streams(args: &[String]) -> anyhow::Result<()> {
    let (to, count, seconds) = three(args)?;
    let (mut connections, mut open, mut refused) = (Vec::new(), Vec::new(), 0);
    'all: while open.len() < count {
        let Ok(Ok(sender)) = timeout(PATIENCE, connect(&to)).await else {
            refused += 1;
            break;
        };
        for _ in 0..100 {
            let request = hyper::Request::post(format!("http://{to}/held")).body(())?;
            let Ok(Ok(mut ready)) = timeout(PATIENCE, sender.clone().ready()).await else {
                refused += 1;
                break 'all;
            };
            match ready.send_request(request, false) {
                Ok((answer, mut body)) => {
                    let _ = body.send_data(Bytes::from_static(b"x"), false);
                    open.push((tokio::spawn(answer), body));
                }
                Err(_) => refused += 1,
            }
        }
        connections.push(sender);
    }
    tokio::time::sleep(seconds).await;
    let left = open.iter().filter(|(answer, _)| !answer.is_finished());
    let left = left.count();
    println!(
        "{left} left, {} answered, {refused} refused",
        open.len() - left
    );
    Ok(())
}

async fn connect(to: &str) -> anyhow::Result<SendRequest<Bytes>> {
    let (sender, connection) = h2::client::handshake(TcpStream::connect(to).await?).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// `HOST:PORT/PATH COUNT SECONDS`: asks a hundred times on each of so many connections, and never reads.
pub(crate) async fn deaf(args: &[String]) -> anyhow::Result<()> {
    let (to, count, seconds) = three(args)?;
    let (host, path) = to.split_once('/').context("HOST:PORT/PATH")?;
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n").repeat(100);
        let _ = timeout(Duration::from_secs(1), stream.write_all(request.as_bytes())).await;
        open.push(stream);
    }
    println!("{} open", open.len());
    tokio::time::sleep(seconds).await;
    Ok(())
}

fn three(args: &[String]) -> anyhow::Result<(String, usize, Duration)> {
    let [to, count, seconds] = args else {
        bail!("usage: role ROLE HOST:PORT COUNT SECONDS")
    };
    let (count, seconds) = (count.parse()?, seconds.parse()?);
    Ok((to.clone(), count, Duration::from_secs(seconds)))
}
