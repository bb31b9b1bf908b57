//! The controller watches: it says how often it wants a summary of what was counted. Bounded by the registry's cap of
//! series.

use super::Whoami;
use super::client::Channel;
use super::summary::Summaries;
use crate::metrics::Metrics;
use http::Uri;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use weft_proxy_api::names;
use weft_proxy_api::wire::generated::{self as pb, observe_client::ObserveClient};
use weft_proxy_api::wire::generated::{observe_command::Command, observe_event::Event};

/// Shortest interval the controller may ask for.
const SHORTEST: Duration = Duration::from_millis(200);
/// Wait after a failed or ended attachment. The Sync stream on the same connection tells sooner if the controller is gone.
const PAUSE: Duration = Duration::from_secs(10);
/// Events that may wait; then summaries wait too, and the next one covers more time.
const OUTBOX: usize = 8;

/// Attaches again and again, as long as the connection lives.
pub(super) async fn observe(channel: Channel, origin: Uri, whoami: Whoami, metrics: Arc<Metrics>) {
    loop {
        if let Err(error) = attach(channel.clone(), origin.clone(), &whoami, &metrics).await {
            tracing::debug!(%error, "nobody observes");
        }
        sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

async fn attach(
    channel: Channel,
    origin: Uri,
    whoami: &Whoami,
    metrics: &Metrics,
) -> Result<(), tonic::Status> {
    let (events, outbox) = mpsc::channel(OUTBOX);
    let _ = events.try_send(event(Event::Hello(hello(whoami))));
    let mut client = ObserveClient::with_origin(channel, origin);
    let mut commands = client
        .attach(ReceiverStream::new(outbox))
        .await?
        .into_inner();
    let mut summaries = Summaries::new(metrics);
    let mut ticks = None;
    loop {
        tokio::select! {
            command = commands.message() => match command? {
                Some(pb::ObserveCommand { command: Some(Command::Summary(every)) }) => ticks = ticker(every.interval_ms),
                // Tap comes later; an unknown command is a newer controller's.
                Some(_) => {}
                None => return Ok(()),
            },
            () = tick(&mut ticks) => summaries.send(&events),
        }
    }
}

fn ticker(interval_ms: u32) -> Option<tokio::time::Interval> {
    let period = Duration::from_millis(interval_ms.into()).max(SHORTEST);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (interval_ms != 0).then_some(ticks)
}

async fn tick(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

fn hello(whoami: &Whoami) -> pb::Hello {
    let Whoami {
        namespace,
        pod,
        zone,
    } = whoami.clone();
    pb::Hello {
        namespace,
        pod,
        version: names::VERSION.to_owned(),
        zone,
    }
}

fn event(event: Event) -> pb::ObserveEvent {
    pb::ObserveEvent { event: Some(event) }
}
