//! A server that does as it is told: how it answers, how slowly, and how much of it at once. It counts what it served.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How it feels: one for the whole process.
struct Mood {
    status: AtomicU16,
    delay_ms: AtomicU64,
    /// Places for requests; what finds none waits.
    places: Semaphore,
    all: AtomicUsize,
    served: AtomicU64,
}

static MOOD: LazyLock<Mood> = LazyLock::new(|| Mood {
    status: AtomicU16::new(200),
    delay_ms: AtomicU64::new(0),
    places: Semaphore::new(MANY),
    all: AtomicUsize::new(MANY),
    served: AtomicU64::new(0),
});
const MANY: usize = 100_000;

/// `/-/mood?status=500&delay=20&places=2` changes it, `/-/served` says how much it served; all else is served.
pub(crate) async fn answer(request: Request<Incoming>, _: SocketAddr) -> Response<Full<Bytes>> {
    let mood = &*MOOD;
    match request.uri().path() {
        "/-/mood" => match change(mood, request.uri().query().unwrap_or_default()) {
            Ok(()) => text(StatusCode::OK, "so be it\n".into()),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        },
        "/-/served" => text(StatusCode::OK, mood.served.load(Relaxed).to_string()),
        _ => {
            mood.served.fetch_add(1, Relaxed);
            let _place = mood.places.acquire().await;
            let delay = mood.delay_ms.load(Relaxed);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            let status = StatusCode::from_u16(mood.status.load(Relaxed)).unwrap_or_default();
            text(status, String::new())
        }
    }
}

fn change(mood: &Mood, query: &str) -> anyhow::Result<()> {
    for part in query.split('&') {
        let (name, value) = part.split_once('=').context("NAME=VALUE")?;
        let number: usize = value.parse().context("a number")?;
        match name {
            "status" => mood.status.store(u16::try_from(number)?, Relaxed),
            "delay" => mood.delay_ms.store(u64::try_from(number)?, Relaxed),
            "places" => {
                let before = mood.all.swap(number.clamp(1, MANY), Relaxed);
                mood.places.add_permits(number.saturating_sub(before));
                mood.places.forget_permits(before.saturating_sub(number));
            }
            other => anyhow::bail!("there is no {other}"),
        }
    }
    Ok(())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
