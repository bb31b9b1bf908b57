//! Where proxies connect.

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;
use weft_proxy_api::names::ports;

/// Connections the kernel may hold for us: a restarted controller is met by every proxy at once.
const BACKLOG: i32 = 4096;

/// A listener that is bound but does not take connections before [`Bound::into_tokio`].
pub(super) struct Bound(Socket);

impl Bound {
    /// Begins to take connections.
    pub(super) fn into_tokio(self) -> Result<TcpListener> {
        self.0.listen(BACKLOG).context("cannot listen")?;
        TcpListener::from_std(self.0.into()).context("cannot listen")
    }
}

/// The address asked for, or port 8086 of every address, of both families where there are two.
pub(super) fn listen(address: Option<SocketAddr>) -> Result<(Bound, SocketAddr)> {
    let everywhere: SocketAddr = (Ipv6Addr::UNSPECIFIED, ports::CONTROL).into();
    let everywhere_v4: SocketAddr = (Ipv4Addr::UNSPECIFIED, ports::CONTROL).into();
    let socket = match address {
        Some(address) => bind(address).with_context(|| format!("cannot listen on {address}"))?,
        None => bind(everywhere)
            .or_else(|_| bind(everywhere_v4))
            .with_context(|| format!("cannot listen on {everywhere} or {everywhere_v4}"))?,
    };
    let address = socket
        .local_addr()?
        .as_socket()
        .context("not an internet address")?;
    Ok((Bound(socket), address))
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // [::] takes IPv4 as well, whatever the host's default
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
