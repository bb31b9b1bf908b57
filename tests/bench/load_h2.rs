//! HTTP/2 load: one connection with many streams, each with one request at a time.

use crate::cases::GRPC;
use crate::load::{Shared, Spec, dial};
use anyhow::ensure;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::task::JoinSet;

pub(crate) async fn connection(spec: Arc<Spec>, shared: Arc<Shared>) {
    let begun = Arc::new(AtomicBool::new(false));
    loop {
        let outcome = streams(&spec, &shared, &begun).await;
        if let Err(error) = outcome
            && !shared.failed(error).await
        {
            return;
        }
    }
}

async fn streams(
    spec: &Arc<Spec>,
    shared: &Arc<Shared>,
    begun: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let stream = dial(&spec.address(1)).await?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let mut all = JoinSet::new();
    all.spawn(async move { Ok(connection.await?) });
    for _ in 0..spec.number("streams").max(1) {
        let (spec, shared, begun, sender) = (
            Arc::clone(spec),
            Arc::clone(shared),
            Arc::clone(begun),
            sender.clone(),
        );
        all.spawn(async move { requests(&spec, &shared, &begun, sender).await });
    }
    // The first to end is the one that failed; the others go with it.
    all.join_next().await.map_or(Ok(()), |first| first?)
}

async fn requests(
    spec: &Spec,
    shared: &Shared,
    begun: &AtomicBool,
    mut sender: SendRequest<Bytes>,
) -> anyhow::Result<()> {
    let uri = format!("http://{}{}", spec.address(1), spec.text("path"));
    let call = spec.text("path") == GRPC;
    let request = if call {
        Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?
    } else {
        Request::get(uri).body(())?
    };
    loop {
        let start = shared.turn().await;
        sender = sender.ready().await?;
        let (response, mut send) = sender.send_request(request.clone(), !call)?;
        if call {
            send.send_data(Bytes::from_static(b"\0\0\0\0\x0ehow do you do?"), true)?;
        }
        let response = response.await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            bytes += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        if call {
            let trailers = body.trailers().await?;
            let status = trailers.as_ref().and_then(|all| all.get("grpc-status"));
            ensure!(
                status.is_some_and(|status| status == "0"),
                "no grpc-status in the trailers"
            );
        }
        ensure!(bytes >= 1_024, "a body of {bytes} bytes");
        shared.done(start, bytes);
        shared.started(&mut begun.swap(true, Relaxed));
    }
}
