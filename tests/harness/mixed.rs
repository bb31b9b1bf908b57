//! A load of clients that keep connections, clients that open one for each request, and clients of HTTP/2, none of which
//! tries anything twice: what is lost is seen.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request without its answer after this long is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(4);
/// Clients of each kind.
const CLIENTS: usize = 3;

/// How a client uses connections.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Kept,
    New,
    Http2,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU64,
    /// Handed to a connection that ended at this moment, and given back: nobody ever saw it.
    unsent: AtomicU64,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// `HOST:PORT`: calls until it is told to end (SIGTERM), then says for each kind of client `KIND requests=N failures=N
/// connections=N unsent=N`, and why the first ones failed.
pub(crate) async fn run(to: &str, told: impl Future<Output = ()>) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let kinds = [Kind::Kept, Kind::New, Kind::Http2];
    let counts = kinds.map(|kind| (kind, Arc::new(Counts::default())));
    let clients = counts
        .iter()
        .flat_map(|one| std::iter::repeat_n(one, CLIENTS));
    let clients: Vec<_> = clients
        .map(|(kind, counts)| {
            let (to, stop) = (to.to_owned(), stop.clone());
            tokio::spawn(client(to, *kind, counts.clone(), stop))
        })
        .collect();
    told.await;
    stop.store(true, Relaxed);
    for client in clients {
        client.await?;
    }
    for (kind, counts) in &counts {
        let value = |count: &AtomicU64| count.load(Relaxed);
        println!(
            "{kind:?} requests={} failures={} connections={} unsent={}",
            value(&counts.requests),
            value(&counts.failures),
            value(&counts.connections),
            value(&counts.unsent)
        );
    }
    Ok(())
}

async fn client(to: String, kind: Kind, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    let mut open = None;
    while !stop.load(Relaxed) {
        counts.requests.fetch_add(1, Relaxed);
        let call = timeout(PATIENCE, call(&to, kind, &mut open, &counts));
        let failure = match call.await {
            Ok(Ok(200)) => None,
            Ok(Ok(status)) => Some(format!("status {status}")),
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("no answer".to_owned()),
        };
        if let Some(failure) = failure {
            open = None;
            if counts.failures.fetch_add(1, Relaxed) < 3 {
                eprintln!("{kind:?}: {failure}");
            }
        }
        if kind == Kind::New {
            open = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One POST, which nobody on its way may send twice.
async fn call(
    to: &str,
    kind: Kind,
    open: &mut Option<Sender>,
    counts: &Counts,
) -> anyhow::Result<u16> {
    loop {
        // A connection whose end was announced is not used again.
        let usable = match open {
            Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            counts.connections.fetch_add(1, Relaxed);
            *open = Some(connect(to, kind).await?);
        }
        let body = Full::new(Bytes::from_static(b"once"));
        let sent = match open {
            Some(Sender::Http1(sender)) => {
                let request = Request::post("/crossing").header("host", to).body(body)?;
                sender.try_send_request(request).await
            }
            Some(Sender::Http2(sender)) => {
                let uri = format!("http://{to}/crossing");
                let request = Request::post(uri).body(body)?;
                sender.try_send_request(request).await
            }
            None => anyhow::bail!("no connection"),
        };
        match sent {
            Ok(response) => {
                let status = response.status().as_u16();
                response.into_body().collect().await?;
                return Ok(status);
            }
            // The codec gives back what it never wrote.
            Err(error) if error.message().is_some() => {
                counts.unsent.fetch_add(1, Relaxed);
                *open = None;
            }
            Err(error) => return Err(error.into_error().into()),
        }
    }
}

async fn connect(to: &str, kind: Kind) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    if kind == Kind::Http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(Sender::Http1(sender))
}
