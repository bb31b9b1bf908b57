//! One conversation: datagrams in order over a Unix socket, each with at most one descriptor.

use super::Message;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt,
};
use socket2::Socket;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Longest message, in bytes.
const LONGEST: usize = 1024;

pub(super) struct Channel(AsyncFd<Socket>);

impl Channel {
    /// A connected socket that does not block.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self(watched(socket)?))
    }

    /// Fails if the other end is not a process of our own user. Being root is not enough: keys change hands by this.
    pub(super) fn check_peer(&self) -> io::Result<()> {
        let peer = getsockopt(self.0.get_ref(), sockopt::PeerCredentials)?;
        if peer.uid() == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        let text = format!("the other process belongs to user {}", peer.uid());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    pub(super) async fn send(
        &self,
        message: &Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let attached = [ControlMessage::ScmRights(&raw)];
        let attached = if raw.is_empty() { &[] } else { &attached[..] };
        let send = |socket: &Socket| {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let parts = [IoSlice::new(&text)];
            Ok(sendmsg::<()>(
                socket.as_raw_fd(),
                &parts,
                attached,
                flags,
                None,
            )?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next message, and the descriptor that came with it. The end of the conversation is an error.
    pub(super) async fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        self.0.async_io(Interest::READABLE, receive).await
    }

    /// The same, within a time.
    pub(super) async fn receive_within(
        &self,
        time: Duration,
    ) -> io::Result<(Message, Option<OwnedFd>)> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {time:?}"));
        timeout(time, self.receive())
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

/// Lets the runtime watch a socket that does not block.
pub(super) fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, and nobody replaces or closes it while it is watched.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn receive(socket: &Socket) -> io::Result<(Message, Option<OwnedFd>)> {
    let mut text = [0; LONGEST];
    let mut space = cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    if let Ok(attached) = received.cmsgs() {
        for part in attached {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows their numbers.
                let owned = raw
                    .into_iter()
                    .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
                descriptors.extend(owned);
            }
        }
    }
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
    if received.flags.intersects(cut) || descriptors.len() > 1 {
        return Err(wrong("a message that is too large"));
    }
    let length = received.bytes;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = serde_json::from_slice(&text[..length])
        .map_err(|_| wrong("a message that means nothing here"))?;
    Ok((message, descriptors.pop()))
}
