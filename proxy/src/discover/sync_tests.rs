//! The stream against a made-up controller, on a paused clock.
#![allow(clippy::unwrap_used)]

use super::super::link::Incoming;
use super::super::{Discover, InboundHandle};
use super::*;
use crate::error::ErrorKind;
use crate::metrics::Metrics;
use crate::policy::OutboundPlan;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use std::collections::HashMap;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use weft_proxy_api::policy::Access;
use weft_proxy_api::policy::inbound::Inbound;
use weft_proxy_api::policy::outbound::Outbound;
use weft_proxy_api::wire::{Body, Item, encode};

/// What the controller sees of one stream.
struct Stream {
    from: Receiver<pb::SyncRequest>,
    to: UnboundedSender<Result<pb::SyncResponse, String>>,
    at: Instant,
    /// Subscriptions seen: resource to id and version.
    seen: HashMap<Resource, (u32, u64)>,
}

/// Opens streams to the test, or refuses.
struct Fake {
    streams: UnboundedSender<Stream>,
    up: watch::Receiver<bool>,
}

use tokio::sync::watch;

impl Open for Fake {
    fn open(
        &mut self,
        outbox: Receiver<pb::SyncRequest>,
    ) -> BoxFuture<'static, Result<Incoming, String>> {
        let (to, incoming) = unbounded_channel();
        let stream = Stream {
            from: outbox,
            to,
            at: Instant::now(),
            seen: HashMap::new(),
        };
        let _ = self.streams.send(stream);
        let answer = if *self.up.borrow() {
            Ok(UnboundedReceiverStream::new(incoming).boxed())
        } else {
            Err("down".into())
        };
        std::future::ready(answer).boxed()
    }
}

struct World {
    discover: Discover,
    streams: UnboundedReceiver<Stream>,
    up: watch::Sender<bool>,
    driver: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let (sender, wanted) = mpsc::channel(16);
        let (streams, seen) = unbounded_channel();
        let up = watch::Sender::new(true);
        let shared = Arc::new(Shared::new(Metrics::new("shop")));
        let whoami = Whoami {
            namespace: "shop".into(),
            pod: "web-1".into(),
            zone: String::new(),
        };
        let fake = Fake {
            streams,
            up: up.subscribe(),
        };
        let driver = tokio::spawn(Sync::new(fake, whoami, shared.clone(), wanted).run());
        Self {
            discover: Discover {
                shared,
                wanted: sender,
            },
            streams: seen,
            up,
            driver,
        }
    }

    async fn stream(&mut self) -> Stream {
        self.streams.recv().await.unwrap()
    }

    fn inbound(&self) -> InboundHandle {
        self.discover.inbound()
    }
}

impl Stream {
    async fn message(&mut self) -> Message {
        self.from.recv().await.unwrap().message.unwrap()
    }

    /// Reads until `resource` is subscribed to; returns id and version.
    async fn subscribed(&mut self, resource: Resource) -> (u32, u64) {
        while !self.seen.contains_key(&resource) {
            if let Message::Subscribe(at) = self.message().await {
                let key = decode::resource(&at.resource.unwrap()).unwrap();
                self.seen.insert(key, (at.id, at.version));
            }
        }
        self.seen[&resource]
    }

    async fn answered(&mut self) -> Message {
        loop {
            let message = self.message().await;
            if matches!(message, Message::Ack(_) | Message::Nack(_)) {
                return message;
            }
        }
    }

    fn say(&self, id: u32, version: u64, body: Body) {
        self.to
            .send(Ok(encode::response(&[Item { id, version, body }])))
            .unwrap();
    }
}

fn inbound(workload: &str) -> Body {
    let (ports, allow, probes) = Default::default();
    Body::Inbound(Inbound {
        workload: workload.into(),
        access: Access::Strict,
        ports,
        allow,
        probes,
        rate_limits: Vec::new(),
        access_from: String::new(),
        explain_denials: false,
        metrics: Default::default(),
    })
}

fn target(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

#[tokio::test(start_paused = true)]
async fn policy_arrives_and_is_acknowledged() {
    let mut world = World::new();
    let (mut stream, mut handle) = (world.stream().await, world.inbound());
    assert!(matches!(stream.message().await, Message::Hello(hello) if hello.pod == "web-1"));
    assert!(handle.load().is_none());
    let (id, version) = stream.subscribed(Resource::Inbound).await;
    assert_eq!(version, 0);
    stream.say(id, 5, inbound("deploy/web"));
    handle.changed().await;
    assert_eq!(handle.load().unwrap().inbound.workload, "deploy/web");
    assert_eq!(
        stream.answered().await,
        Message::Ack(pb::Ack { id, version: 5 })
    );
}

#[tokio::test(start_paused = true)]
async fn a_malformed_update_is_refused_and_the_last_good_one_stays() {
    let mut world = World::new();
    let (mut stream, mut handle) = (world.stream().await, world.inbound());
    let (id, _) = stream.subscribed(Resource::Inbound).await;
    stream.say(id, 5, inbound("deploy/web"));
    handle.changed().await;
    let mut broken = encode::response(&[Item {
        id,
        version: 6,
        body: inbound("deploy/web"),
    }]);
    broken.strings.clear();
    stream.to.send(Ok(broken)).unwrap();
    stream.answered().await;
    assert!(
        matches!(stream.answered().await, Message::Nack(nack) if nack.version == 6 && !nack.reason.is_empty())
    );
    assert_eq!(handle.load().unwrap().version, 5);
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_asked_for_once_and_then_found() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.subscribed(Resource::Inbound).await;
    let ask = |port| {
        let discover = world.discover.clone();
        tokio::spawn(async move { discover.outbound(target(port)).await })
    };
    let (one, two) = (ask(80), ask(80));
    let (id, _) = stream.subscribed(Resource::Outbound(target(80))).await;
    stream.say(id, 9, Body::Outbound(Outbound::PassThrough));
    let (one, two) = (
        one.await.unwrap().ok().unwrap(),
        two.await.unwrap().ok().unwrap(),
    );
    assert!(Arc::ptr_eq(&one, &two) && matches!(**one.plan(), OutboundPlan::PassThrough(_)));
    let again = world
        .discover
        .outbound(target(80))
        .now_or_never()
        .unwrap()
        .ok()
        .unwrap();
    assert!(Arc::ptr_eq(&one, &again), "found without waiting");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_controller_that_is_away() {
    let mut world = World::new();
    world.up.send_replace(false);
    let stream = world.stream().await;
    drop(stream);
    let start = Instant::now();
    let error = world.discover.outbound(target(80)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ControlUnreachable);
    assert!(start.elapsed() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_know_is_not_waited_for_forever() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.subscribed(Resource::Inbound).await;
    world.discover.connected().wait_for(|up| *up).await.unwrap();
    let start = Instant::now();
    assert!(world.discover.outbound(target(80)).await.is_err());
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_resumes_with_what_is_held() {
    let mut world = World::new();
    let (mut stream, mut handle) = (world.stream().await, world.inbound());
    let (id, _) = stream.subscribed(Resource::Inbound).await;
    stream.say(id, 5, inbound("deploy/web"));
    handle.changed().await;
    let lost = Instant::now();
    drop(stream);
    let mut stream = world.stream().await;
    assert!(stream.at - lost <= Duration::from_millis(100), "back soon");
    let metrics = &world.discover.shared.metrics;
    let reconnects = metrics.counter(&catalogue::CONTROL_RECONNECTS, &[]);
    assert_eq!(reconnects.get(), 1);
    assert_eq!(stream.subscribed(Resource::Inbound).await, (id, 5));
    stream.say(id, 5, Body::Unchanged);
    assert_eq!(
        stream.answered().await,
        Message::Ack(pb::Ack { id, version: 5 })
    );
    assert_eq!(handle.load().unwrap().version, 5, "as before");
}

#[tokio::test(start_paused = true)]
async fn wishes_made_while_the_controller_is_away_are_said_when_it_is_back() {
    let mut world = World::new();
    world.up.send_replace(false);
    drop(world.stream().await);
    assert!(world.discover.outbound(target(81)).await.is_err());
    world.up.send_replace(true);
    let mut stream = loop {
        let stream = world.stream().await;
        if !stream.to.is_closed() {
            break stream;
        }
    };
    let (id, version) = stream.subscribed(Resource::Outbound(target(81))).await;
    assert_eq!(version, 0);
    stream.say(id, 3, Body::Outbound(Outbound::PassThrough));
    assert!(world.discover.outbound(target(81)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn attempts_slow_down_while_the_controller_is_away() {
    let mut world = World::new();
    world.up.send_replace(false);
    let start = Instant::now();
    let mut attempts = 0;
    while start.elapsed() < Duration::from_secs(120) {
        world.stream().await;
        attempts += 1;
    }
    // Five seconds on average once it has slowed down.
    assert!(
        (12..80).contains(&attempts),
        "{attempts} attempts in two minutes"
    );
}

#[tokio::test(start_paused = true)]
async fn discovery_ends_with_the_last_who_could_ask() {
    let mut world = World::new();
    let _stream = world.stream().await;
    drop(world.discover);
    world.driver.await.unwrap();
}
