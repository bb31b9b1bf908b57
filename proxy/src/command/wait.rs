//! `await`: start-up order and the end of jobs, for pods whose sidecar is a container like the others.

use super::Await;
use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// Exit code where the sidecar did not get ready in time (`EX_UNAVAILABLE`).
const NOT_READY: u8 = 69;
/// How often is asked.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Longest wait for one answer of the sidecar.
const ANSWER: Duration = Duration::from_secs(2);
/// More than any head of an answer of the admin port.
const MOST: u64 = 4096;
/// What is passed on to the command. What the terminal sends, it sends to the command itself.
const PASSED: [SignalKind; 5] = [
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Waits, runs the command, and ends as it did.
pub(super) fn run(wanted: Await) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let admin = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), wanted.port);
    if let Err(last) = runtime.block_on(ready(admin, wanted.timeout)) {
        eprintln!(
            "weft-proxy: the sidecar at {admin} is not ready in {:?}: {last}",
            wanted.timeout
        );
        return Ok(ExitCode::from(NOT_READY));
    }
    let mut command = Command::new(&wanted.program);
    command.args(&wanted.arguments);
    if !wanted.shutdown {
        // Nothing is left to do: the command takes our place, and signals are its own.
        let error = command.exec();
        return Err(error).with_context(|| format!("cannot run {}", wanted.program.display()));
    }
    runtime.block_on(async {
        let ended = attend(command).await;
        // Even if the command could not run: the job is over.
        match ask(admin, "POST", "/shutdown").await {
            Ok(202) => {}
            Ok(status) => eprintln!("weft-proxy: the sidecar does not leave: {status}"),
            Err(error) => eprintln!("weft-proxy: the sidecar does not leave: {error}"),
        }
        let ended = ended.with_context(|| format!("cannot run {}", wanted.program.display()))?;
        Ok(exit_code(ended))
    })
}

/// Asks until the sidecar is ready; the error is what it said last.
async fn ready(admin: SocketAddr, patience: Duration) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let last = match ask(admin, "GET", "/ready").await {
            Ok(200) => return Ok(()),
            Ok(status) => format!("it answers {status}"),
            Err(error) => error.to_string(),
        };
        if started.elapsed() >= patience {
            return Err(last);
        }
        sleep(ASK_AGAIN).await;
    }
}

/// One request to the admin port; the status of its answer.
async fn ask(admin: SocketAddr, method: &str, path: &str) -> std::io::Result<u16> {
    let exchange = async {
        let mut tcp = TcpStream::connect(admin).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        tcp.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        tcp.take(MOST).read_to_end(&mut answer).await?;
        let status = answer
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
        status.ok_or_else(|| std::io::Error::other("it does not speak HTTP"))
    };
    timeout(ANSWER, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// Runs the command as a child, and passes signals on to it.
async fn attend(command: Command) -> std::io::Result<ExitStatus> {
    // Before there is a child: a signal that comes early must not be lost.
    let mut signals = Vec::new();
    for kind in PASSED {
        signals.push((signal(kind)?, kind));
    }
    // The terminal interrupts us both: whoever waits for the other must not go first.
    let _interrupt = signal(SignalKind::interrupt())?;
    let mut child = tokio::process::Command::from(command).spawn()?;
    loop {
        tokio::select! {
            biased;
            ended = child.wait() => return ended,
            kind = any(&mut signals) => pass(&child, kind),
        }
    }
}

async fn any(signals: &mut [(Signal, SignalKind)]) -> SignalKind {
    let waiting = signals.iter_mut().map(|(signal, kind)| {
        Box::pin(async move {
            // There is no end of signals; a closed stream would only mean that none comes.
            if signal.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            *kind
        })
    });
    futures_util::future::select_all(waiting).await.0
}

fn pass(child: &Child, kind: SignalKind) {
    let to = child.id().and_then(|id| i32::try_from(id).ok());
    let signal = nix::sys::signal::Signal::try_from(kind.as_raw_value());
    if let (Some(to), Ok(signal)) = (to, signal) {
        // It may have ended at this moment.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(to), signal);
    }
}

/// As shells do: 128 and the signal for what a signal ended.
fn exit_code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().or(ended.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
