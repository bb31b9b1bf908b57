//! Addresses of Services where the kernel cannot translate them: the node listens on each and passes bytes on to a
//! ready pod, by chance. Meshed pods do not come this way; their proxies know the endpoints.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weft_proxy_api::names::ports;

use super::nat::{Forward, Protocol};

/// Connections passed on at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// How long an endpoint may take to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// All relays of a node.
pub(crate) struct Relays {
    open: Mutex<BTreeMap<SocketAddr, Relay>>,
    places: Arc<Semaphore>,
}

struct Relay {
    endpoints: Endpoints,
    task: JoinHandle<()>,
}

type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relays {
    /// The loopback network is everybody's: two nodes on it would answer for each other.
    pub(crate) fn set_up(node: Ipv4Addr) -> Result<Self> {
        for port in [ports::CONTROL, ports::CONTROL_ADMIN] {
            let at = SocketAddr::from((node, port));
            StdListener::bind(at).with_context(|| {
                format!(
                    "cannot listen on {at}: probably another node stands on the rung loopback of this machine already"
                )
            })?;
        }
        Ok(Self {
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Relays for exactly these. What cannot be relayed is in the error; the rest works.
    pub(crate) fn load(&self, forwards: &[Forward]) -> Result<()> {
        let mut open = self.open.lock();
        open.retain(|at, _| forwards.iter().any(|f| at_of(f) == *at));
        let mut wrong = Vec::new();
        for forward in forwards {
            let at = at_of(forward);
            if forward.protocol == Protocol::Udp {
                wrong.push(format!("{} is UDP, which is not passed on", forward.name));
            } else if let Some(relay) = open.get(&at) {
                relay.endpoints.lock().clone_from(&forward.endpoints);
            } else {
                match self.start(at, &forward.endpoints) {
                    Ok(relay) => drop(open.insert(at, relay)),
                    Err(error) => wrong.push(format!("{}: {error:#}", forward.name)),
                }
            }
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        Ok(())
    }

    fn start(&self, at: SocketAddr, endpoints: &[SocketAddr]) -> Result<Relay> {
        let lowest = super::sys::lowest_port();
        if at.port() < lowest {
            bail!(
                "port {} can only be opened by root (this user: {lowest} and above; see net.ipv4.ip_unprivileged_port_start)",
                at.port()
            );
        }
        let listener = StdListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let endpoints: Endpoints = Arc::new(Mutex::new(endpoints.to_vec()));
        let task = tokio::spawn(accept(listener, endpoints.clone(), self.places.clone()));
        Ok(Relay { endpoints, task })
    }
}

fn at_of(forward: &Forward) -> SocketAddr {
    SocketAddr::new(forward.to, forward.port)
}

async fn accept(listener: TcpListener, endpoints: Endpoints, places: Arc<Semaphore>) {
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let chosen = {
            let all = endpoints.lock();
            (!all.is_empty()).then(|| all[fastrand::usize(..all.len())])
        };
        tokio::spawn(async move {
            if let Some(endpoint) = chosen {
                pass_on(client, endpoint).await;
            }
            drop(place);
        });
    }
}

async fn pass_on(mut client: TcpStream, endpoint: SocketAddr) {
    if let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(endpoint)).await {
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn forward(to: SocketAddr, endpoints: Vec<SocketAddr>) -> Forward {
        Forward {
            name: "default/web:80".into(),
            to: to.ip(),
            protocol: Protocol::Tcp,
            port: to.port(),
            endpoints,
        }
    }

    #[tokio::test]
    async fn bytes_reach_an_endpoint_and_nobody_when_there_is_none() {
        let relays = Relays {
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(2)),
        };
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = StdListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        relays
            .load(&[forward(at, vec![server.local_addr().unwrap()])])
            .unwrap();
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        let mut word = [0; 5];
        accepted.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");

        relays.load(&[forward(at, vec![])]).unwrap();
        let mut client = TcpStream::connect(at).await.unwrap();
        assert_eq!(client.read(&mut word).await.unwrap_or(0), 0);
        relays.load(&[]).unwrap();
        assert!(relays.open.lock().is_empty());
    }
}
