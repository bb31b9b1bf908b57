//! Asks again and again until the first answer, and says when it came.

use anyhow::{Context, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

/// Between two attempts: the step of the `start` figure.
const STEP: Duration = Duration::from_millis(2);

pub(crate) fn run(address: &str, millis: &str) -> anyhow::Result<()> {
    let (address, patience) = (address.parse()?, Duration::from_millis(millis.parse()?));
    let begun = Instant::now();
    loop {
        match ask(address) {
            Ok(()) => break,
            Err(error) if begun.elapsed() > patience => {
                println!("{error:#}");
                std::process::exit(1);
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
    println!(
        "{}",
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs_f64()
    );
    Ok(())
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET /1k HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = [0; 256];
    let n = stream.read(&mut answer)?;
    let line = String::from_utf8_lossy(&answer[..n])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    ensure!(line.starts_with("HTTP/1.1 200"), "{line:?}");
    Ok(())
}
