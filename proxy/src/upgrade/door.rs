//! The old process: where a new one asks, and what it is given.

use super::channel::{Channel, watched};
use super::{ANSWER, HOLD, MOST_SOCKETS, Message, PROTOCOL, What};
use anyhow::{Context, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The socket where a new process asks.
pub struct Door(Socket);

/// A door, and what is given to whoever may have it.
pub struct Doorway {
    door: AsyncFd<Socket>,
    listeners: Vec<std::net::TcpListener>,
}

impl Door {
    /// Opens a door at `path`, whose folder must be closed to other users. What a dead process left there is replaced;
    /// a living one is not.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let about =
            fs::metadata(folder).with_context(|| format!("no folder {}", folder.display()))?;
        let us = nix::unistd::geteuid().as_raw();
        ensure!(
            [0, us].contains(&about.uid()) && about.mode() & 0o022 == 0,
            "other users may write into {}: whoever sits at the door gets the sockets",
            folder.display()
        );
        let address = SockAddr::unix(path)?;
        if new_socket()?.connect(&address).is_ok() {
            anyhow::bail!("another proxy runs behind {}: --take-over", path.display());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let socket = new_socket()?;
        socket
            .bind(&address)
            .with_context(|| format!("cannot open {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(1)?;
        Ok(Self(socket))
    }

    /// One that an old process held.
    pub(super) fn taken(socket: Socket) -> Self {
        Self(socket)
    }

    /// Ready to give these away. Must be called inside a runtime.
    pub fn giving(self, listeners: Vec<std::net::TcpListener>) -> io::Result<Doorway> {
        Ok(Doorway {
            door: watched(self.0)?,
            listeners,
        })
    }
}

/// Datagrams that keep their order; nothing blocks.
pub(super) fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Doorway {
    /// Waits until a new process accepts in our place, and calls `leave` then. Whoever asks and does not get ready changes
    /// nothing but what `failed` is told.
    pub async fn hand_over(self, failed: impl Fn(), leave: impl FnOnce()) {
        let channel = loop {
            match self.serve_one().await {
                Ok(channel) => break channel,
                Err(error) => {
                    tracing::warn!(%error, "a process that wanted the listeners did not get ready; going on");
                    failed();
                    // Whatever is wrong, it must not be tried in a tight loop.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        leave();
        if let Err(error) = channel.send(&Message::Yours, None).await {
            tracing::warn!(%error, "the new process does not hear that the listeners are its own");
        }
    }

    async fn serve_one(&self) -> io::Result<Channel> {
        let accept = |door: &Socket| door.accept();
        let (socket, _) = self.door.async_io(Interest::READABLE, accept).await?;
        socket.set_nonblocking(true)?;
        let channel = Channel::new(socket)?;
        channel.check_peer()?;
        self.give(&channel).await?;
        match channel.receive_within(HOLD).await? {
            (Message::Ready, None) => Ok(channel),
            _ => Err(out_of_turn()),
        }
    }

    async fn give(&self, channel: &Channel) -> io::Result<()> {
        match channel.receive_within(ANSWER).await? {
            (Message::Take { protocol, version }, None) if protocol == PROTOCOL => {
                tracing::info!(version, "a new process takes the listeners over");
            }
            (Message::Take { .. }, None) => {
                let why = format!("here is spoken protocol {PROTOCOL}");
                let refused = Message::Refused { why };
                channel.send(&refused, None).await?;
                return Err(io::Error::other("it speaks another protocol"));
            }
            _ => return Err(out_of_turn()),
        }
        let listeners = self
            .listeners
            .iter()
            .map(|one| (What::Listener, one.as_fd()));
        let door = (What::Door, self.door.get_ref().as_fd());
        let all: Vec<(What, BorrowedFd<'_>)> = listeners.chain([door]).collect();
        if all.len() > MOST_SOCKETS {
            return Err(io::Error::other("too many sockets"));
        }
        let sending = async {
            for (what, socket) in &all {
                let message = Message::Socket { what: *what };
                channel.send(&message, Some(*socket)).await?;
            }
            let count = all.len();
            channel.send(&Message::End { count }, None).await
        };
        // It may read slowly, not for ever.
        tokio::time::timeout(ANSWER, sending)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

pub(super) fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}
