//! The floor's pool: idle HTTP/1.1 connections, last in first out, and one HTTP/2 connection, to a worker.

use crate::floor::{Answer, Dial, Kind};
use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

type Idle = Arc<Mutex<Vec<http1::SendRequest<Incoming>>>>;

pub(crate) struct Pool<D> {
    way: D,
    idle: Idle,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Incoming>>>,
}

impl<D: Dial> Pool<D> {
    pub(crate) fn new(way: D) -> Self {
        Self {
            way,
            idle: Idle::default(),
            shared: tokio::sync::Mutex::new(None),
        }
    }

    /// How this pool dials.
    pub(crate) fn way(&self) -> &D {
        &self.way
    }

    /// Sends a request on and hands its answer back.
    pub(crate) async fn forward(
        &self,
        kind: Kind,
        mut request: Request<Incoming>,
    ) -> anyhow::Result<Answer> {
        if kind == Kind::Http2 {
            let response = self.http2().await?.send_request(request).await?;
            return Ok(response.map(|body| Pooled { body, back: None }));
        }
        request.headers_mut().remove(http::header::CONNECTION);
        let mut sender = self.http1().await?;
        let response = sender.send_request(request).await?;
        let back = Some((sender, Arc::clone(&self.idle)));
        Ok(response.map(|body| Pooled { body, back }))
    }

    async fn http1(&self) -> anyhow::Result<http1::SendRequest<Incoming>> {
        loop {
            let idle = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let Some(mut sender) = idle else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let io = TokioIo::new(self.way.dial(Kind::Http1).await?);
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn http2(&self) -> anyhow::Result<http2::SendRequest<Incoming>> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let io = TokioIo::new(self.way.dial(Kind::Http2).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(shared.insert(sender).clone())
    }
}

/// A body that gives its connection back when it is over.
pub(crate) struct Pooled {
    body: Incoming,
    back: Option<(http1::SendRequest<Incoming>, Idle)>,
}

impl Body for Pooled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some((sender, idle)) = self.back.take()
            && !sender.is_closed()
        {
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sender);
        }
    }
}
