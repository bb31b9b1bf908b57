//! The new process: asks for the sockets, and says when it has taken their place.

use super::channel::Channel;
use super::door::{Door, new_socket, out_of_turn};
use super::{ANSWER, MOST_SOCKETS, Message, PROTOCOL, What};
use anyhow::{Context, bail, ensure};
use socket2::{SockAddr, Socket, Type};
use std::os::fd::OwnedFd;
use std::path::Path;
use weft_proxy_api::names::VERSION;

/// What an old process gave.
pub struct Taken {
    /// Its listeners, in no particular order.
    pub listeners: Vec<std::net::TcpListener>,
    /// Where the next process will ask.
    pub door: Option<Door>,
    /// The word to the old process.
    pub word: Word,
}

/// The last word to the old process.
pub struct Word(Channel);

/// Takes the sockets of the process behind the door at `path`. It goes on accepting until [`Word::ready`].
pub async fn take(path: &Path) -> anyhow::Result<Taken> {
    let nobody = || format!("no proxy gives its listeners away at {}", path.display());
    let socket = new_socket()?;
    socket
        .connect(&SockAddr::unix(path)?)
        .with_context(nobody)?;
    let channel = Channel::new(socket)?;
    channel.check_peer()?;
    let (protocol, version) = (PROTOCOL, VERSION.to_owned());
    let asked = Message::Take { protocol, version };
    channel.send(&asked, None).await?;
    let (mut listeners, mut door) = (Vec::new(), None);
    loop {
        let answer = channel.receive_within(ANSWER).await;
        match answer.context("the old proxy does not give its listeners")? {
            (Message::Socket { what }, Some(descriptor)) => match what {
                What::Listener => listeners.push(listener(descriptor)?),
                What::Door => door = Some(Door::taken(descriptor.into())),
            },
            (Message::End { count }, None) => {
                let got = listeners.len() + usize::from(door.is_some());
                ensure!(got == count, "{got} sockets came in place of {count}");
                break;
            }
            (Message::Refused { why }, None) => bail!("the old proxy refuses: {why}"),
            _ => return Err(out_of_turn().into()),
        }
        ensure!(listeners.len() <= MOST_SOCKETS, "too many sockets");
    }
    let word = Word(channel);
    Ok(Taken {
        listeners,
        door,
        word,
    })
}

/// A TCP socket that listens, and nothing else.
pub(super) fn listener(descriptor: OwnedFd) -> anyhow::Result<std::net::TcpListener> {
    let socket = Socket::from(descriptor);
    let listens = socket.r#type()? == Type::STREAM
        && socket.is_listener()?
        && socket.local_addr()?.as_socket().is_some();
    ensure!(listens, "what came is not a listener");
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Word {
    /// We accept; the old process may leave. If it is gone already, so much the better.
    pub async fn ready(self) {
        let told = async {
            self.0.send(&Message::Ready, None).await?;
            self.0.receive_within(ANSWER).await
        };
        match told.await {
            Ok((Message::Yours, None)) => tracing::info!("the old proxy lets its connections end"),
            Ok(_) => tracing::warn!("the old proxy answered out of turn"),
            Err(error) => tracing::warn!(%error, "the old proxy does not answer any more"),
        }
    }
}
