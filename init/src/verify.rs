//! Proof that redirection works: a real connection to an address nobody has must arrive at the proxy's port, and must
//! still know where it was going.

use crate::rules::{Family, Own, Plan};
use anyhow::{Context, bail};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

/// How long a connection inside this machine may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Tries every family; the lines say what was proven and what could not be tried. Errors if a connection got away.
pub fn outbound(plan: &Plan, families: &[Family]) -> anyhow::Result<Vec<String>> {
    if plan.own.contains(&Own::Uid(nix::unistd::getuid().as_raw())) {
        return Ok(vec![
            "not verified: this program runs as the proxy's own user".to_owned(),
        ]);
    }
    families.iter().map(|family| one(plan, *family)).collect()
}

fn one(plan: &Plan, family: Family) -> anyhow::Result<String> {
    let listener = match listen(family, plan.outbound_port) {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            return Ok(format!(
                "{family} not verified: port {} is in use, a proxy already runs",
                plan.outbound_port
            ));
        }
        Err(error) => {
            return Ok(format!(
                "{family} not verified: cannot listen on loopback: {error}"
            ));
        }
    };
    let target = target(family);
    let client = Socket::new(domain(family), Type::STREAM, None)?;
    match client.connect_timeout(&SockAddr::from(target), LIMIT) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {
            return Ok(format!(
                "{family} not verified: this namespace has no route to anywhere"
            ));
        }
        Err(error) => {
            bail!(
                "{family} redirection does not work: {target} was not answered by the proxy's port: {error}"
            )
        }
    }
    let accepted = accept(&listener).with_context(|| {
        format!("{family} redirection does not work: {target} was reached past the proxy")
    })?;
    let original = original(&accepted, family)
        .context("the kernel does not tell where a redirected connection was going")?;
    if original != target {
        bail!(
            "{family} redirection is wrong: a connection to {target} arrived as one to {original}"
        );
    }
    Ok(format!(
        "{family} verified: a connection to {target} arrives at the proxy"
    ))
}

fn listen(family: Family, port: u16) -> std::io::Result<Socket> {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let socket = Socket::new(domain(family), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.listen(1)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The connection is complete before `connect` returns, so this hardly ever waits.
fn accept(listener: &Socket) -> anyhow::Result<Socket> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((socket, _)) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < LIMIT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// An address reserved for documentation (RFC 5737, RFC 3849), which no host has.
fn target(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::from(([192, 0, 2, 1], 20001)),
        Family::V6 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 20001)),
    }
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

fn original(socket: &Socket, family: Family) -> nix::Result<SocketAddr> {
    Ok(match family {
        Family::V4 => {
            let address = getsockopt(socket, sockopt::OriginalDst)?;
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into()
        }
        Family::V6 => {
            let address = getsockopt(socket, sockopt::Ip6tOriginalDst)?;
            SocketAddrV6::new(
                address.sin6_addr.s6_addr.into(),
                u16::from_be(address.sin6_port),
                0,
                0,
            )
            .into()
        }
    })
}
