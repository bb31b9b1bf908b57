//! Listeners, original destinations, loop prevention: a connection comes in and is handed on, or is refused.

use crate::config::{Config, FixedTarget};
use crate::connect::tune;
use crate::connection::Direction;
use crate::room::{ALL_TAKEN, exhausted};
use crate::worker::Worker;
use anyhow::Context;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// First and longest pause when descriptors or memory ran out.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// A bound socket and what its connections are.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    direction: Direction,
    fixed: Option<FixedTarget>,
}

/// Where an accepted connection was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// To or from the application.
    pub direction: Direction,
    /// Who connected.
    pub client: SocketAddr,
    /// Its destination before redirection: what policy is about.
    pub target: SocketAddr,
    /// Where the application is dialled (inbound).
    pub dial: SocketAddr,
    /// The target was given by the settings, not by the kernel.
    pub fixed: bool,
}

/// Listeners that another process had before, by address.
#[derive(Debug, Default)]
pub struct Inherited(HashMap<SocketAddr, Vec<std::net::TcpListener>>);

impl Inherited {
    /// What an old process gave.
    pub fn new(listeners: Vec<std::net::TcpListener>) -> Self {
        let mut by_address = HashMap::<_, Vec<_>>::new();
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                by_address.entry(address).or_default().push(listener);
            }
        }
        Self(by_address)
    }

    /// Those of an address; of `[::]` also where there was no IPv6.
    fn take(&mut self, address: SocketAddr) -> Vec<std::net::TcpListener> {
        let otherwise = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        match self.0.remove(&address) {
            Some(listeners) => listeners,
            None if address == (Ipv6Addr::UNSPECIFIED, address.port()).into() => {
                self.0.remove(&otherwise).unwrap_or_default()
            }
            None => Vec::new(),
        }
    }
}

/// The listeners of each worker. Workers share addresses; the kernel spreads connections among them. Every inherited
/// listener goes to some worker, as connections may wait in its queue; what is missing is bound.
pub fn bind(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut workers: Vec<Vec<Listener>> = (0..config.workers).map(|_| Vec::new()).collect();
    let mut deal = |addresses: &[SocketAddr], direction, fixed: Option<&FixedTarget>| {
        for address in addresses {
            let mut sockets = inherited.take(*address);
            while sockets.len() < workers.len() {
                match bind_or_leave_out(*address, addresses.len() == 1, true)? {
                    Some(socket) => sockets.push(socket),
                    None => break,
                }
            }
            let count = workers.len();
            for (at, socket) in sockets.into_iter().enumerate() {
                workers[at % count].push(Listener {
                    socket,
                    direction,
                    fixed: fixed.cloned(),
                });
            }
        }
        anyhow::Ok(())
    };
    deal(&config.outbound, Direction::Outbound, None)?;
    deal(&config.inbound, Direction::Inbound, None)?;
    for fixed in &config.fixed_targets {
        deal(&[fixed.listen], fixed.direction, Some(fixed))?;
    }
    Ok(workers)
}

/// The listeners of the admin port.
pub fn bind_admin(
    config: &Config,
    inherited: &mut Inherited,
) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let mut listeners = Vec::new();
    for address in &config.admin {
        let before = inherited.take(*address);
        if before.is_empty() {
            let bound = bind_or_leave_out(*address, config.admin.len() == 1, false)?;
            listeners.extend(bound);
        }
        listeners.extend(before);
    }
    Ok(listeners)
}

/// Is anybody else on these addresses? Sharing them among workers would hide that.
pub fn probe(config: &Config) -> anyhow::Result<()> {
    let fixed: Vec<_> = config
        .fixed_targets
        .iter()
        .map(|fixed| fixed.listen)
        .collect();
    for addresses in [&config.outbound, &config.inbound, &fixed] {
        bind_all(addresses, false)?;
    }
    Ok(())
}

fn bind_all(addresses: &[SocketAddr], shared: bool) -> anyhow::Result<Vec<std::net::TcpListener>> {
    addresses
        .iter()
        .filter_map(|address| bind_or_leave_out(*address, addresses.len() == 1, shared).transpose())
        .collect()
}

/// Binds an address. On a machine without IPv6 `[::]` becomes `0.0.0.0`, and another IPv6 address is left out if it is
/// not the only one of its kind.
fn bind_or_leave_out(
    address: SocketAddr,
    only: bool,
    shared: bool,
) -> anyhow::Result<Option<std::net::TcpListener>> {
    let bound = match bind_one(address, shared) {
        Err(error) if address.is_ipv6() && no_ipv6(&error) => match address.ip().is_unspecified() {
            true => bind_one((Ipv4Addr::UNSPECIFIED, address.port()).into(), shared),
            false if !only => return Ok(None),
            false => Err(error),
        },
        bound => bound,
    };
    Ok(Some(
        bound.with_context(|| format!("cannot listen on {address}"))?,
    ))
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    tune(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Another name for the same socket, to be given away.
    pub fn copy(&self) -> io::Result<std::net::TcpListener> {
        self.socket.try_clone()
    }

    /// Accepts until the drain begins. Must be called inside the worker's runtime.
    pub async fn run(self, worker: Arc<Worker>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.socket)?;
        let mut reserve = Reserve::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = worker.drain.no_more(self.direction) => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // A connection brings requests, which would all wait in its codec to be refused.
                Ok((tcp, _)) if worker.shared.is_short_of_memory() => {
                    worker.exhausted(self.direction, &io::ErrorKind::OutOfMemory.into());
                    drop(tcp);
                }
                Ok((tcp, client)) => {
                    reserve.refill();
                    let Some(place) = worker.room.take() else {
                        worker.full(self.direction, client, ALL_TAKEN);
                        continue;
                    };
                    match original(&tcp, client, self.direction, self.fixed.as_ref()) {
                        Ok(accepted) => worker.spawn(tcp, accepted, place),
                        Err(reason) => worker.refuse(tcp, client, reason),
                    }
                }
                Err(error) if exhausted(&error) => {
                    worker.exhausted(self.direction, &error);
                    reserve.turn_away(&listener);
                    tokio::time::sleep(reserve.pause()).await;
                }
                // One connection that was gone before it was accepted.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(reserve.pause()).await;
                }
            }
        }
    }
}

/// Where the connection was going before it was redirected to us; an error is a label.
fn original(
    tcp: &TcpStream,
    client: SocketAddr,
    direction: Direction,
    fixed: Option<&FixedTarget>,
) -> Result<Accepted, &'static str> {
    if let Some(fixed) = fixed {
        return Ok(Accepted {
            direction,
            client: canonical(client),
            target: fixed.target,
            dial: fixed.dial,
            fixed: true,
        });
    }
    let local = canonical(tcp.local_addr().map_err(|_| "gone")?);
    let target = original_destination(tcp, local).ok_or("not_redirected")?;
    // Somebody dialled our own port. Dialling the "destination" would be dialling ourselves.
    if target == local {
        return Err("not_redirected");
    }
    Ok(Accepted {
        direction,
        client: canonical(client),
        target,
        dial: target,
        fixed: false,
    })
}

fn original_destination(tcp: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(tcp);
    let address = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.ok()?.as_socket().map(canonical)
}

/// An IPv4 address in IPv6 clothes (dual-stack listeners) as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What must never be dialled from outside, whatever the kernel says the target is: the SSRF rule. An error is a label.
pub fn may_be_dialled(
    target: SocketAddr,
    own_ports: &[u16],
    is_own: impl Fn(IpAddr) -> bool,
) -> Result<(), &'static str> {
    let internal = match target.ip() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
    };
    if internal {
        return Err("internal_target");
    }
    if own_ports.contains(&target.port()) {
        return Err("own_port");
    }
    // The pod is not a router: only what was sent to the pod itself is the application's.
    if is_own(target.ip()) {
        Ok(())
    } else {
        Err("foreign_target")
    }
}

/// A descriptor held back, so that a client can be turned away at once when all others are in use.
struct Reserve {
    spare: Option<File>,
    failures: u32,
}

impl Reserve {
    fn new() -> Self {
        Self {
            spare: File::open("/dev/null").ok(),
            failures: 0,
        }
    }

    fn refill(&mut self) {
        self.failures = 0;
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }

    /// Accepts one connection with the spare descriptor, to close it.
    fn turn_away(&mut self, listener: &TcpListener) {
        drop(self.spare.take());
        drop(futures_util::FutureExt::now_or_never(listener.accept()));
        self.spare = File::open("/dev/null").ok();
    }

    fn pause(&mut self) -> Duration {
        let pause = PAUSE
            .0
            .saturating_mul(1 << self.failures.min(10))
            .min(PAUSE.1);
        self.failures += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_pods_own_addresses_and_the_applications_ports_may_be_dialled() {
        let own: IpAddr = "10.0.0.5".parse().unwrap();
        let own6: IpAddr = "fd00::5".parse().unwrap();
        let table = [
            ("10.0.0.5:8080", Ok(())),
            ("[fd00::5]:8080", Ok(())),
            ("10.0.0.6:8080", Err("foreign_target")),
            ("10.0.0.5:4143", Err("own_port")),
            ("10.0.0.5:4191", Err("own_port")),
            ("127.0.0.1:8080", Err("internal_target")),
            ("[::1]:8080", Err("internal_target")),
            ("169.254.169.254:80", Err("internal_target")),
            ("[fe80::1]:80", Err("internal_target")),
            ("0.0.0.0:80", Err("internal_target")),
            ("[ff02::1]:80", Err("internal_target")),
        ];
        for (target, expected) in table {
            let verdict = may_be_dialled(target.parse().unwrap(), &[4140, 4143, 4191], |ip| {
                ip == own || ip == own6
            });
            assert_eq!(verdict, expected, "{target}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut reserve = Reserve::new();
        let pauses: Vec<u128> = (0..9).map(|_| reserve.pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000]);
        reserve.refill();
        assert_eq!(reserve.pause().as_millis(), 5);
    }

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_no_target() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_client, accepted) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let (tcp, client) = accepted.unwrap();
        assert_eq!(
            original(&tcp, client, Direction::Outbound, None),
            Err("not_redirected")
        );
        let target = "10.1.1.1:80".parse().unwrap();
        let fixed = FixedTarget {
            direction: Direction::Outbound,
            listen: client,
            target,
            dial: target,
        };
        assert_eq!(
            original(&tcp, client, Direction::Outbound, Some(&fixed))
                .unwrap()
                .target,
            target
        );
    }

    #[test]
    fn every_inherited_listener_finds_a_worker_and_every_worker_a_listener() {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for (before, workers, expected) in [
            (1, 3, vec![1, 1, 1]),
            (3, 2, vec![2, 1]),
            (0, 2, vec![1, 1]),
        ] {
            let first = bind_one(address, true).unwrap();
            let at = first.local_addr().unwrap();
            let mut old: Vec<_> = (1..before).map(|_| bind_one(at, true).unwrap()).collect();
            if before > 0 {
                old.push(first);
            }
            let mut inherited = Inherited::new(old);
            let mut config = crate::config::Config::read(|name| {
                use weft_proxy_api::names::proxy_env as env;
                let value = match name {
                    env::WORKLOAD => "shop/web-0",
                    env::CONTROL_ADDR => "127.0.0.1:1",
                    env::TOKEN_FILE => "token",
                    _ => return None,
                };
                Some(value.to_owned())
            })
            .unwrap();
            config.workers = workers;
            (config.inbound, config.outbound) = (vec![at], Vec::new());
            let dealt = bind(&config, &mut inherited).unwrap();
            let counts: Vec<_> = dealt.iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{before} sockets, {workers} workers");
            assert!(inherited.0.is_empty());
        }
    }

    #[test]
    fn a_taken_address_is_noticed() {
        let taken = bind_one("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = taken.local_addr().unwrap();
        assert!(bind_all(&[address], false).is_err());
        assert!(bind_all(&[address], true).is_ok());
    }
}
