//! `Observe.Attach`: proxies report their traffic; it is added up in the edge table.

use super::tls::Peer;
use super::{HELLO_LIMIT, Shared, caller, expired, stopped};
use crate::pod_ref::PodRef;
use futures_util::stream::{BoxStream, StreamExt, once, unfold};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::Sleep;
use tonic::{Request, Response, Status, Streaming};
use weft_proxy_api::wire::generated::{self as pb, observe_command::Command, observe_event::Event};

/// How often a proxy reports.
const SUMMARY_MS: u32 = 5_000;

/// The service.
pub struct Attach(pub Arc<Shared>);

#[tonic::async_trait]
impl pb::observe_server::Observe for Attach {
    type AttachStream = BoxStream<'static, Result<pb::ObserveCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::ObserveEvent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = caller(&request)?;
        let (shared, events) = (self.0.clone(), request.into_inner());
        let stopping = shared.stopping.subscribe();
        let listener = Listener {
            shared,
            expiry: caller.expiry(),
            caller,
            events,
            stopping,
        };
        let ask = Command::Summary(pb::SummaryEvery {
            interval_ms: SUMMARY_MS,
        });
        let ask = once(async move { Ok(pb::ObserveCommand { command: Some(ask) }) });
        // Nothing more is asked; the stream ends, with a reason, when listening does.
        let listen = unfold(Some(listener), |listener| async move {
            let status = Box::pin(listener?.listen()).await.err()?;
            Some((Err(status), None))
        });
        Ok(Response::new(ask.chain(listen).boxed()))
    }
}

struct Listener {
    shared: Arc<Shared>,
    caller: Peer,
    expiry: Pin<Box<Sleep>>,
    events: Streaming<pb::ObserveEvent>,
    stopping: watch::Receiver<bool>,
}

impl Listener {
    async fn listen(mut self) -> Result<(), Status> {
        let pod = self.hello().await?;
        while let Some(event) = self.next().await? {
            self.take_in(&pod, event)?;
        }
        Ok(())
    }

    async fn hello(&mut self) -> Result<PodRef, Status> {
        let first = tokio::time::timeout(HELLO_LIMIT, self.events.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        match first.and_then(|event| event.event) {
            Some(Event::Hello(hello)) => self.shared.greet(&hello, &self.caller).await,
            _ => Err(Status::invalid_argument(
                "the first message must be a hello",
            )),
        }
    }

    async fn next(&mut self) -> Result<Option<pb::ObserveEvent>, Status> {
        tokio::select! {
            () = stopped(&mut self.stopping) => Err(Status::unavailable("the controller is stopping")),
            () = &mut self.expiry => Err(expired()),
            event = self.events.message() => event,
        }
    }

    fn take_in(&self, pod: &PodRef, event: pb::ObserveEvent) -> Result<(), Status> {
        match event.event {
            Some(Event::Summary(summary)) => {
                self.shared.counters.summaries.add(1);
                self.shared
                    .edges
                    .record(pod, &summary, Instant::now())
                    .map_err(Status::invalid_argument)
            }
            Some(Event::Tap(_)) | None => Ok(()), // nobody asked; or a kind of event from a newer proxy
            Some(Event::Hello(_)) => Err(Status::invalid_argument(
                "only the first message may be a hello",
            )),
        }
    }
}
