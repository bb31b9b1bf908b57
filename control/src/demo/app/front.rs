//! The two HTTP roles: `web` serves the page and passes `/cell` on; `front` weaves a cell from a colour and a tally.

use super::colour::{Cell, METHOD, Thread};
use super::http::{self, Client1, Client2, Request, Response, answer};
use super::tally::Tally;
use prost::Message;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Serves the page and `/cell`.
pub(super) async fn web(address: SocketAddr, front: String) -> anyhow::Result<()> {
    let front = Arc::new(Client1::new(&front));
    http::serve1(address, move |request: Request| {
        let front = front.clone();
        async move {
            match request.uri().path() {
                "/" => answer(200, "text/html; charset=utf-8", include_str!("page.html")),
                "/cell" => pass_on(&front).await,
                "/healthz" => answer(200, "text/plain", "ok\n"),
                _ => answer(404, "text/plain", "there is / and /cell\n"),
            }
        }
    })
    .await
}

async fn pass_on(front: &Client1) -> Response {
    match front.get("/cell").await {
        Ok((status, body)) => answer(status, "application/json", body),
        Err(error) => answer(502, "text/plain", format!("front: {error:#}\n")),
    }
}

/// Serves `/cell`.
pub(super) async fn front(
    address: SocketAddr,
    colour: String,
    tally: String,
) -> anyhow::Result<()> {
    let weaver = Arc::new(Weaver {
        colour: Client2::new(&colour),
        tally: Tally::new(&tally),
        next: AtomicU32::new(0),
    });
    http::serve1(address, move |request: Request| {
        let weaver = weaver.clone();
        async move {
            match request.uri().path() {
                "/cell" => weaver.cell().await,
                "/healthz" => answer(200, "text/plain", "ok\n"),
                _ => answer(404, "text/plain", "there is /cell\n"),
            }
        }
    })
    .await
}

struct Weaver {
    colour: Client2,
    tally: Tally,
    next: AtomicU32,
}

impl Weaver {
    async fn cell(&self) -> Response {
        match self.weave().await {
            Ok(cell) => answer(200, "application/json", cell),
            Err(error) => answer(502, "text/plain", format!("{error:#}\n")),
        }
    }

    async fn weave(&self) -> anyhow::Result<String> {
        use anyhow::Context;
        let cell = Cell {
            number: self.next.fetch_add(1, Relaxed),
        };
        let thread = self
            .colour
            .unary(METHOD, &cell.encode_to_vec())
            .await
            .context("colour")?;
        let thread = Thread::decode(thread).context("colour")?;
        let woven = self.tally.count(&thread.version).await.context("tally")?;
        Ok(serde_json::json!({ "colour": thread.colour, "version": thread.version, "woven": woven }).to_string())
    }
}
