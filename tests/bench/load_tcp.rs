//! Opaque load: bulk either way, a message back and forth, and connections that live for one message.

use crate::load::{Shared, Spec, dial};
use crate::server::{ECHO, MESSAGE, SINK, SOURCE};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) async fn worker(spec: Arc<Spec>, shared: Arc<Shared>) {
    let mut begun = false;
    loop {
        let begun = &mut begun;
        let outcome = match spec.text("kind") {
            "up" => up(&spec, &shared, begun).await,
            "down" => down(&spec, &shared, begun).await,
            "echo" => echo(&spec, &shared, begun).await,
            _ => connect(&spec, &shared, begun).await,
        };
        if let Err(error) = outcome
            && !shared.failed(error).await
        {
            return;
        }
    }
}

async fn up(spec: &Spec, shared: &Shared, begun: &mut bool) -> anyhow::Result<()> {
    let mut stream = dial(&spec.address(2)).await?;
    stream.write_all(&[SINK]).await?;
    let buffer = vec![0; 128 * 1024];
    loop {
        shared.moved(stream.write(&buffer).await?);
        shared.started(begun);
    }
}

async fn down(spec: &Spec, shared: &Shared, begun: &mut bool) -> anyhow::Result<()> {
    let mut stream = dial(&spec.address(2)).await?;
    stream.write_all(&[SOURCE]).await?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = stream.read(&mut buffer).await?;
        anyhow::ensure!(n > 0, "closed");
        shared.moved(n);
        shared.started(begun);
    }
}

async fn echo(spec: &Spec, shared: &Shared, begun: &mut bool) -> anyhow::Result<()> {
    let mut stream = dial(&spec.address(2)).await?;
    first_message(&mut stream).await?;
    let mut message = [0; MESSAGE];
    loop {
        let start = shared.turn().await;
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        shared.done(start, MESSAGE);
        shared.started(begun);
    }
}

async fn connect(spec: &Spec, shared: &Shared, begun: &mut bool) -> anyhow::Result<()> {
    loop {
        let start = shared.turn().await;
        let mut stream = dial(&spec.address(2)).await?;
        first_message(&mut stream).await?;
        shared.done(start, MESSAGE);
        shared.started(begun);
        stream.shutdown().await?;
        let mut rest = [0; 16];
        while stream.read(&mut rest).await? > 0 {}
    }
}

/// Says what the connection is for, with a first message in the same segment, and waits for its echo.
pub(crate) async fn first_message(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut message = [0; MESSAGE + 1];
    message[0] = ECHO;
    stream.write_all(&message).await?;
    stream.read_exact(&mut message[1..]).await?;
    Ok(())
}
