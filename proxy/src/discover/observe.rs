//! The controller watches: it asks for summaries of the traffic between workloads and gets what was counted since the
//! last one. Bounded by the registry's cap of series.

use super::Whoami;
use super::client::Channel;
use crate::connection::Direction;
use crate::metrics::{EdgeLabels, EdgeSummary, Metrics};
use foldhash::HashMap;
use http::Uri;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{MissedTickBehavior, interval_at, sleep};
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
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
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

/// Turns totals into what was counted since the last time.
struct Summaries<'a> {
    metrics: &'a Metrics,
    last: HashMap<EdgeLabels, EdgeSummary>,
    since: Instant,
}

impl<'a> Summaries<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            last: by_labels(metrics.summary()),
            since: Instant::now(),
        }
    }

    /// Sends a summary if there is room; otherwise what was counted goes into the next one.
    fn send(&mut self, events: &Sender<pb::ObserveEvent>) {
        if let Ok(room) = events.try_reserve() {
            room.send(event(Event::Summary(self.next(Instant::now()))));
        }
    }

    fn next(&mut self, now: Instant) -> pb::Summary {
        let all = self.metrics.summary();
        let mut strings = Strings::default();
        let edges = all
            .iter()
            .map(|edge| delta(edge, self.last.get(&edge.labels)));
        let edges = edges
            .filter(is_active)
            .map(|edge| strings.edge(&edge))
            .collect();
        let window_ms =
            u32::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u32::MAX);
        (self.last, self.since) = (by_labels(all), now);
        pb::Summary {
            strings: strings.all,
            window_ms,
            edges,
        }
    }
}

fn by_labels(all: Vec<EdgeSummary>) -> HashMap<EdgeLabels, EdgeSummary> {
    all.into_iter()
        .map(|edge| (edge.labels.clone(), edge))
        .collect()
}

/// What was counted after `before`. A series that began anew counts from 0.
fn delta(now: &EdgeSummary, before: Option<&EdgeSummary>) -> EdgeSummary {
    let Some(before) = before else {
        return now.clone();
    };
    let mut latency = now.latency;
    for (at, before) in latency.iter_mut().zip(&before.latency) {
        *at = at.saturating_sub(*before);
    }
    EdgeSummary {
        labels: now.labels.clone(),
        requests: now.requests.saturating_sub(before.requests),
        success: now.success.saturating_sub(before.success),
        failure: now.failure.saturating_sub(before.failure),
        denied: now.denied.saturating_sub(before.denied),
        latency,
        bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
        bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
        connections: now.connections.saturating_sub(before.connections),
    }
}

fn is_active(edge: &EdgeSummary) -> bool {
    let counted = [
        edge.requests,
        edge.success,
        edge.failure,
        edge.denied,
        edge.bytes_in,
        edge.bytes_out,
        edge.connections,
    ];
    counted.iter().any(|n| *n > 0)
}

/// Strings of one message, each said once and counted from 1.
#[derive(Default)]
struct Strings {
    all: Vec<String>,
    known: HashMap<String, u32>,
}

impl Strings {
    fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        self.all.push(text.to_owned());
        let at = u32::try_from(self.all.len()).unwrap_or(0);
        self.known.insert(text.to_owned(), at);
        at
    }

    fn edge(&mut self, edge: &EdgeSummary) -> pb::Edge {
        let direction = match edge.labels.direction {
            Direction::Inbound => pb::Direction::Inbound,
            Direction::Outbound => pb::Direction::Outbound,
        };
        pb::Edge {
            direction: direction.into(),
            peer_namespace_ref: self.intern(&edge.labels.peer.namespace),
            peer_workload_ref: self.intern(&edge.labels.peer.workload),
            service_ref: self.intern(&edge.labels.service),
            mutual_tls: edge.labels.peer.tls,
            requests: edge.requests,
            success: edge.success,
            failure: edge.failure,
            denied: edge.denied,
            latency: edge.latency.to_vec(),
            bytes_in: edge.bytes_in,
            bytes_out: edge.bytes_out,
            connections: edge.connections,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Code;

    #[test]
    fn a_summary_holds_what_was_counted_since_the_last_one() {
        let metrics = Metrics::new("shop");
        let edge = metrics.inbound_edge(None);
        edge.request();
        let mut summaries = Summaries::new(&metrics);
        let at = |seconds| summaries.since + Duration::from_secs(seconds);
        let (one, two) = (at(1), at(3));
        edge.request();
        edge.request();
        edge.answered(Code::Http(500), Duration::from_millis(1));
        let seen = summaries.next(one);
        assert_eq!((seen.window_ms, seen.edges.len()), (1000, 1));
        assert_eq!(
            (
                seen.edges[0].requests,
                seen.edges[0].failure,
                seen.edges[0].latency[2]
            ),
            (2, 1, 1)
        );
        let seen = summaries.next(two);
        assert_eq!(
            (seen.window_ms, seen.edges),
            (2000, Vec::new()),
            "idle edges are left out"
        );
    }

    #[test]
    fn a_full_outbox_loses_nothing() {
        let metrics = Metrics::new("shop");
        let mut summaries = Summaries::new(&metrics);
        let (events, mut outbox) = mpsc::channel(1);
        for _ in 0..3 {
            metrics.inbound_edge(None).request();
            summaries.send(&events);
        }
        let mut requests = 0;
        for _ in 0..2 {
            if let Some(Event::Summary(summary)) = outbox.try_recv().unwrap().event {
                requests += summary.edges[0].requests;
            }
            summaries.send(&events);
        }
        assert_eq!(requests, 3);
    }
}
