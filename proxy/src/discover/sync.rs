//! Keeps the one Sync stream: says what is wanted, puts in force what comes, answers for it. While the controller is away
//! everything last known stays, and wishes are kept for the next stream.

use super::Whoami;
use super::cache::{Cache, Shared};
use super::held::{Effect, Held};
use super::link::{Event, Link, Open};
use crate::balance::Place;
use crate::metrics::catalogue;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use weft_proxy_api::names;
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Resource, decode};

/// How often is looked for what nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Discovery on the control thread.
pub(super) struct Sync<O> {
    link: Link<O>,
    held: Held,
    cache: Cache,
    shared: Arc<Shared>,
    wanted: mpsc::Receiver<SocketAddr>,
    whoami: Whoami,
}

impl<O: Open> Sync<O> {
    pub(super) fn new(
        open: O,
        whoami: Whoami,
        shared: Arc<Shared>,
        wanted: mpsc::Receiver<SocketAddr>,
    ) -> Self {
        let who = format!("{}/{}", whoami.namespace, whoami.pod);
        let place = Place::new(&whoami.zone, &who);
        let mut held = Held::default();
        for resource in [Resource::Trust, Resource::Inbound] {
            // Said with the greeting of the first stream.
            held.subscribe(resource);
        }
        Self {
            link: Link::new(open),
            held,
            cache: Cache::new(shared.clone(), place),
            shared,
            wanted,
            whoami,
        }
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut sweep = every(SWEEP_EVERY);
        let mut tiers = self.shared.metrics.tiers();
        loop {
            tokio::select! {
                target = self.wanted.recv() => match target {
                    Some(target) => self.want(target),
                    None => return,
                },
                event = self.link.next() => self.on(event),
                _ = sweep.tick() => self.sweep(),
                Ok(()) = tiers.changed() => self.cache.count_by(*tiers.borrow_and_update()),
            }
            self.count();
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Dialling => self.greet(),
            Event::Opened => self.opened(),
            Event::Message(message) => self.take(&message),
            Event::Lost(reason) => self.lost(&reason),
        }
    }

    fn greet(&mut self) {
        let Whoami {
            namespace,
            pod,
            zone,
        } = self.whoami.clone();
        let hello = pb::Hello {
            namespace,
            pod,
            version: names::VERSION.to_owned(),
            zone,
        };
        self.link.send(Message::Hello(hello));
        for message in self.held.resume() {
            self.link.send(message);
        }
    }

    fn opened(&self) {
        tracing::info!("the controller is there");
        self.shared.metrics.control_connected();
        self.shared.connected.send_replace(true);
    }

    fn lost(&self, reason: &str) {
        if self.shared.connected.send_replace(false) {
            tracing::warn!(
                reason,
                "the controller is gone; what it said last stays in force"
            );
        } else {
            tracing::debug!(reason, "cannot reach the controller");
        }
        self.shared.metrics.control_lost();
        self.shared
            .metrics
            .counter(&catalogue::CONTROL_RECONNECTS, &[])
            .inc();
    }

    fn take(&mut self, message: &pb::SyncResponse) {
        for item in decode::response(message) {
            let Effect {
                change,
                answers,
                rejected,
            } = self.held.take(item);
            if rejected {
                tracing::warn!(
                    ?answers,
                    "rejected an update; the last good one stays in force"
                );
                self.shared
                    .metrics
                    .counter(&catalogue::CONTROL_NACKS, &[])
                    .inc();
            }
            if let Some(change) = change {
                self.shared
                    .metrics
                    .counter(&catalogue::CONTROL_UPDATES, &[change.label()])
                    .inc();
                let wanted = self.cache.apply(change);
                self.subscribe(wanted);
            }
            // Only now: what is acknowledged is in force.
            answers
                .into_iter()
                .for_each(|answer| self.link.send(answer));
        }
    }

    fn want(&mut self, target: SocketAddr) {
        // It may have been swept while the wish was under way.
        if self.shared.destinations.read().contains_key(&target) {
            self.subscribe([Resource::Outbound(target)]);
        }
    }

    fn sweep(&mut self) {
        for resource in self.cache.sweep() {
            if let Some(message) = self.held.unsubscribe(&resource) {
                self.link.send(message);
            }
        }
    }

    fn subscribe(&mut self, wanted: impl IntoIterator<Item = Resource>) {
        for resource in wanted {
            if let Some(message) = self.held.subscribe(resource) {
                self.link.send(message);
            }
        }
    }

    fn count(&self) {
        self.shared
            .metrics
            .gauge(&catalogue::CONTROL_SUBSCRIPTIONS, &[])
            .set(self.held.len() as f64);
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
