//! The node's Unix socket: one question on each connection, handed to the supervisor; descriptors travel both ways.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::wire::{Reply, Request};

/// Questions answered at the same time.
const MAX_CLIENTS: usize = 128;
/// Longest question: an applied manifest.
const MAX_REQUEST: usize = 32 << 20;

/// A question with what came along and where the answer goes.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) reply: oneshot::Sender<(Reply, Option<OwnedFd>)>,
}

/// Answer until the supervisor has gone.
pub(crate) fn serve(
    listener: std::os::unix::net::UnixListener,
    tx: mpsc::Sender<Asked>,
) -> Result<tokio::task::JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    Ok(tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: not in a circle
                continue;
            };
            let tx = tx.clone();
            tokio::spawn(async move {
                let _ = converse(stream, tx).await;
                drop(place);
            });
        }
    }))
}

async fn converse(mut stream: UnixStream, tx: mpsc::Sender<Asked>) -> Result<()> {
    let reading = tokio::time::timeout(Duration::from_secs(30), read(&mut stream));
    let (request, fds) = match reading.await.context("too slow")? {
        Ok(read) => read,
        Err(error) => return answer(&mut stream, &Reply::Error(format!("{error:#}")), None).await,
    };
    let (reply, answered) = oneshot::channel();
    tx.send(Asked {
        request,
        fds,
        reply,
    })
    .await?;
    // A client that goes away drops `answered`; whoever works on it notices.
    let mut rest = [0; 1];
    tokio::select! {
        done = answered => {
            let (reply, fd) = done.unwrap_or((Reply::Error("the node is ending".into()), None));
            answer(&mut stream, &reply, fd).await
        }
        _ = stream.read(&mut rest) => Ok(()),
    }
}

async fn read(stream: &mut UnixStream) -> Result<(Request, Vec<OwnedFd>)> {
    let mut fds = Vec::new();
    let mut line = Vec::new();
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || {
            receive(stream.as_raw_fd(), &mut line, &mut fds)
        }) {
            Ok(0) => bail!("the question is not complete"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if line.last() == Some(&b'\n') {
            return Ok((
                serde_json::from_slice(&line).context("the question cannot be read")?,
                fds,
            ));
        }
        if line.len() > MAX_REQUEST {
            bail!("the question is too long");
        }
    }
}

fn receive(socket: RawFd, line: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> std::io::Result<usize> {
    let mut bytes = [0; 16 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        socket,
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            fds.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let count = message.bytes;
    line.extend_from_slice(&bytes[..count]);
    Ok(count)
}

async fn answer(stream: &mut UnixStream, reply: &Reply, fd: Option<OwnedFd>) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    if let Some(fd) = fd {
        stream.writable().await?;
        let raw = [fd.as_raw_fd()];
        let sent = stream.try_io(Interest::WRITABLE, || {
            let slices = [std::io::IoSlice::new(&line)];
            Ok(sendmsg::<()>(
                stream.as_raw_fd(),
                &slices,
                &[ControlMessage::ScmRights(&raw)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?)
        })?;
        line.drain(..sent);
    }
    stream.write_all(&line).await?;
    Ok(())
}

/// A TCP connection made in another network namespace: by a thread that goes there and ends.
pub(crate) async fn dial(namespace_of: Option<i32>, to: SocketAddr) -> Result<OwnedFd> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("dial".into())
        .spawn(move || {
            let connect = || -> Result<OwnedFd> {
                if let Some(pid) = namespace_of {
                    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))
                        .context("the pod is gone")?;
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
                }
                Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5))?.into())
            };
            let _ = tell.send(connect());
        })?;
    told.await?
        .with_context(|| format!("cannot connect to {to}"))
}
