//! The controller watches: it says how often it wants a summary of what was counted, and what single requests it wants
//! to see. Bounded by the registry's cap of series and by queues.

use super::Whoami;
use super::client::Channel;
use super::summary::Summaries;
use super::tap;
use crate::metrics::Metrics;
use crate::tap::{Look, MAX_TAPS, State};
use http::Uri;
use prost::Message;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use weft_proxy_api::names;
use weft_proxy_api::wire::decode::metrics_tier;
use weft_proxy_api::wire::generated::{self as pb, observe_client::ObserveClient};
use weft_proxy_api::wire::generated::{observe_command::Command, observe_event::Event};

/// Shortest interval the controller may ask for.
const SHORTEST: Duration = Duration::from_millis(200);
/// Wait after a failed or ended attachment. The Sync stream on the same connection tells sooner if the controller is gone.
const PAUSE: Duration = Duration::from_secs(10);
/// Events that may wait; then summaries wait too, and the next one covers more time.
const OUTBOX: usize = 256;
/// Looks at single requests that may wait; more are left out, and counted.
const LOOKS: usize = 4_096;
/// How long a look may wait for others to travel with: each message wakes two programs, at any rate of requests.
const GATHER: Duration = Duration::from_millis(25);
/// Looks of one message, and their bytes; the controller takes four times as much.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How often a tap says how it fares.
const STATES: Duration = Duration::from_secs(1);
/// Longest time that another tier of metrics may be asked for.
const LONGEST_DETAIL: Duration = Duration::from_secs(86_400);

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
    let mut taps = Tapping::new(metrics);
    let mut detail = Detail::new(metrics);
    loop {
        tokio::select! {
            command = commands.message() => match command? {
                Some(pb::ObserveCommand { command: Some(Command::Summary(every)) }) => ticks = ticker(every.interval_ms),
                Some(pb::ObserveCommand { command: Some(Command::Tap(start)) }) => taps.start(start),
                Some(pb::ObserveCommand { command: Some(Command::Stop(stop)) }) => taps.stop(stop.id),
                Some(pb::ObserveCommand { command: Some(Command::Metrics(asked)) }) => detail.ask(asked),
                // An unknown command is a newer controller's.
                Some(_) => {}
                None => return Ok(()),
            },
            () = wait(&mut detail.until) => detail.end(),
            () = tick(&mut ticks) => summaries.send(&events),
            () = tick(&mut taps.ticks) => taps.tell(&events),
            () = taps.looks.pass_on(&events) => {}
        }
    }
}

/// Looks on their way to the controller.
struct Looks {
    queue: Receiver<Look>,
    /// The controller takes many at once.
    batches: bool,
    /// The first look of the next message, and when that goes.
    first: Option<(pb::TapEvent, Instant)>,
}

impl Looks {
    /// Hands one message over, as soon as there is room. May be dropped and called again at any time.
    async fn pass_on(&mut self, events: &Sender<pb::ObserveEvent>) {
        let due = match &self.first {
            Some((_, due)) => *due,
            None => {
                let Some(look) = self.queue.recv().await else {
                    return std::future::pending().await;
                };
                let now = Instant::now();
                let due = if self.batches { now + GATHER } else { now };
                self.first = Some((tap::look(look), due));
                due
            }
        };
        // Meanwhile nobody waits at the queue, so that looks that come wake nobody.
        sleep_until(due).await;
        let Ok(room) = events.reserve().await else {
            return std::future::pending().await;
        };
        if let Some((first, _)) = self.first.take() {
            room.send(event(match self.batches {
                true => Event::Taps(self.batch(first).encode_to_vec()),
                false => Event::Tap(first.encode_to_vec()),
            }));
        }
    }

    /// All that has come, as far as it fits into one message.
    fn batch(&mut self, first: pb::TapEvent) -> pb::TapEvents {
        let (mut bytes, mut events) = (first.encoded_len(), vec![first]);
        while events.len() < MAX_BATCH
            && bytes < MAX_BATCH_BYTES
            && let Ok(look) = self.queue.try_recv()
        {
            let look = tap::look(look);
            bytes += look.encoded_len();
            events.push(look);
        }
        pb::TapEvents { events }
    }
}

/// The taps of one stream; they end with it.
struct Tapping<'a> {
    metrics: &'a Metrics,
    sender: Sender<Look>,
    looks: Looks,
    ticks: Option<Interval>,
    /// Taps there is no room for; whoever asked is told so as long as it asks.
    refused: BTreeSet<u32>,
}

impl<'a> Tapping<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        let (sender, queue) = mpsc::channel(LOOKS);
        Self {
            metrics,
            sender,
            looks: Looks {
                queue,
                batches: false,
                first: None,
            },
            ticks: None,
            refused: BTreeSet::new(),
        }
    }

    fn start(&mut self, asked: pb::TapStart) {
        tracing::info!(
            tap = asked.id,
            method = asked.method,
            path = asked.path_prefix,
            "requests are being looked at"
        );
        self.looks.batches = asked.batches;
        let (id, taps) = (asked.id, self.metrics.taps());
        if taps.start(tap::tap(asked, self.sender.clone())) {
            self.refused.remove(&id);
        } else if self.refused.len() < MAX_TAPS {
            tracing::warn!(
                tap = id,
                "as many look already as may: this one sees nothing"
            );
            self.refused.insert(id);
        }
        self.ticks.get_or_insert_with(|| interval(STATES));
    }

    fn stop(&mut self, id: u32) {
        let taps = self.metrics.taps();
        taps.stop(id);
        self.refused.remove(&id);
        if !taps.on() && self.refused.is_empty() {
            self.ticks = None;
        }
    }

    fn tell(&self, events: &Sender<pb::ObserveEvent>) {
        for (id, state) in self.metrics.taps().states() {
            let state = tap::state(id, state, false);
            let _ = events.try_send(event(Event::TapState(state)));
        }
        for id in &self.refused {
            let state = tap::state(*id, State::default(), true);
            let _ = events.try_send(event(Event::TapState(state)));
        }
    }
}

impl Drop for Tapping<'_> {
    fn drop(&mut self) {
        self.metrics.taps().clear();
    }
}

/// Another tier of metrics, for a while; ends with the stream.
struct Detail<'a> {
    metrics: &'a Metrics,
    until: Option<Pin<Box<Sleep>>>,
}

impl<'a> Detail<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            until: None,
        }
    }

    fn ask(&mut self, asked: pb::MetricsFor) {
        let wanted = asked.tier() != pb::MetricsTier::Unspecified;
        // A tier of a newer controller's is none of ours.
        match metrics_tier(asked.tier) {
            Ok(tier) if wanted => {
                tracing::info!(%tier, seconds = asked.seconds, "metrics are asked for in another detail");
                let time = Duration::from_secs(asked.seconds.into()).min(LONGEST_DETAIL);
                self.metrics.ask_for_tier(Some(tier));
                self.until = Some(Box::pin(sleep(time)));
            }
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        self.until = None;
        self.metrics.ask_for_tier(None);
    }
}

impl Drop for Detail<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

async fn wait(until: &mut Option<Pin<Box<Sleep>>>) {
    match until {
        Some(until) => until.await,
        None => std::future::pending().await,
    }
}

fn ticker(interval_ms: u32) -> Option<Interval> {
    let period = Duration::from_millis(interval_ms.into()).max(SHORTEST);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (interval_ms != 0).then_some(ticks)
}

async fn tick(ticks: &mut Option<Interval>) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn looks(batches: bool) -> (Sender<Look>, Looks) {
        let (sender, queue) = mpsc::channel(LOOKS);
        let looks = Looks {
            queue,
            batches,
            first: None,
        };
        (sender, looks)
    }

    fn look(exchange: u64) -> Look {
        Look {
            exchange,
            ..Look::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looks_of_a_short_time_travel_together_and_none_is_lost() {
        let (sender, mut looks) = looks(true);
        let (events, mut outbox) = mpsc::channel(OUTBOX);
        let count = 2 * MAX_BATCH as u64 + 1;
        for exchange in 0..count {
            sender.try_send(look(exchange)).unwrap();
        }
        let mut sizes = Vec::new();
        let mut seen = Vec::new();
        while seen.len() < count as usize {
            // As in the loop around it: dropped now and then, before a message goes.
            let again = tokio::time::timeout(GATHER / 2, looks.pass_on(&events));
            assert!(again.await.is_err());
            looks.pass_on(&events).await;
            let Some(Event::Taps(batch)) = outbox.try_recv().unwrap().event else {
                panic!("not a batch");
            };
            let batch = pb::TapEvents::decode(batch.as_slice()).unwrap();
            sizes.push(batch.events.len());
            seen.extend(batch.events.iter().map(|at| at.exchange));
        }
        assert_eq!(sizes, [MAX_BATCH, MAX_BATCH, 1]);
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_tap_without_room_is_told_so_until_it_is_stopped() {
        let metrics = Metrics::new("shop");
        let mut taps = Tapping::new(&metrics);
        let (events, mut outbox) = mpsc::channel(OUTBOX);
        let start = |id| pb::TapStart {
            id,
            ..Default::default()
        };
        let most = MAX_TAPS as u32;
        (0..most + 1).for_each(|id| taps.start(start(id)));
        let mut ended = |taps: &Tapping<'_>| {
            taps.tell(&events);
            let mut all = Vec::new();
            while let Ok(said) = outbox.try_recv() {
                let Some(Event::TapState(state)) = said.event else {
                    panic!("not a state");
                };
                all.extend(state.ended.then_some(state.id));
            }
            all
        };
        assert_eq!(ended(&taps), [most]);
        assert_eq!(ended(&taps), [most], "said again");
        taps.stop(0);
        taps.start(start(most));
        assert!(ended(&taps).is_empty(), "there is room now");
        (0..most + 1).for_each(|id| taps.stop(id));
        assert!(taps.ticks.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_bounded_in_bytes() {
        let (sender, mut looks) = looks(true);
        let (events, mut outbox) = mpsc::channel(OUTBOX);
        for exchange in 0..5 {
            let path = "x".repeat(MAX_BATCH_BYTES / 2);
            sender
                .try_send(Look {
                    path,
                    ..look(exchange)
                })
                .unwrap();
        }
        looks.pass_on(&events).await;
        let Some(Event::Taps(batch)) = outbox.try_recv().unwrap().event else {
            panic!("not a batch");
        };
        let batch = pb::TapEvents::decode(batch.as_slice()).unwrap();
        assert_eq!(batch.events.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_controller_gets_each_look_by_itself() {
        let (sender, mut looks) = looks(false);
        let (events, mut outbox) = mpsc::channel(OUTBOX);
        sender.try_send(look(1)).unwrap();
        sender.try_send(look(2)).unwrap();
        for exchange in [1, 2] {
            looks.pass_on(&events).await;
            let Some(Event::Tap(look)) = outbox.try_recv().unwrap().event else {
                panic!("not a single look");
            };
            let look = pb::TapEvent::decode(look.as_slice()).unwrap();
            assert_eq!(look.exchange, exchange);
        }
    }
}
