//! One proxy and its policy stream.

mod refused;

use super::*;
use prost::Message as _;

/// A proxy's end of a Sync stream.
struct Proxy {
    requests: mpsc::Sender<pb::SyncRequest>,
    answers: Streaming<pb::SyncResponse>,
    _channel: Channel,
}

impl Proxy {
    /// Connects as a service account and says hello as a pod.
    async fn hello(controller: &Controller, account: &str, pod: &str) -> Self {
        let certificate = controller.certificate(account, pod);
        Self::hello_with(controller, certificate, pod).await
    }

    async fn hello_with(controller: &Controller, certificate: Certificate, pod: &str) -> Self {
        let proxy = Self::silent(controller, certificate).await;
        let hello = pb::Hello {
            namespace: "default".into(),
            pod: pod.into(),
            version: "1".into(),
            zone: "a".into(),
        };
        proxy.say(Message::Hello(hello)).await;
        proxy
    }

    async fn silent(controller: &Controller, certificate: Certificate) -> Self {
        let channel = controller.channel(Some(certificate)).await;
        let (requests, outgoing) = mpsc::channel(100);
        // The stream is opened before anything is said: the controller must not wait with its head.
        let answers = PolicyClient::new(channel.clone())
            .sync(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        Self {
            requests,
            answers,
            _channel: channel,
        }
    }

    async fn say(&self, message: Message) {
        self.requests
            .send(pb::SyncRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn subscribe(&self, id: u32, resource: &Resource, version: u64) {
        let resource = Some(encode::resource(resource));
        self.say(Message::Subscribe(pb::Subscribe {
            id,
            resource,
            version,
        }))
        .await;
    }

    async fn ack(&self, item: &Item) {
        self.say(Message::Ack(pb::Ack {
            id: item.id,
            version: item.version,
        }))
        .await;
    }

    /// The next answer, which must have one item.
    async fn item(&mut self) -> Item {
        let mut items = self.items().await;
        assert_eq!(items.len(), 1, "{items:?}");
        items.remove(0)
    }

    async fn items(&mut self) -> Vec<Item> {
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.message())
            .await
            .expect("an answer");
        decode::response(&answer.unwrap().unwrap())
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }

    /// The status the stream ends with.
    async fn refusal(&mut self) -> tonic::Status {
        tokio::time::timeout(Duration::from_secs(60), self.answers.message())
            .await
            .expect("an end")
            .unwrap_err()
    }
}

fn web() -> Resource {
    Resource::Outbound(([10, 0, 0, 1], 80).into())
}

fn set() -> Resource {
    Resource::Endpoints("default/web:80".into())
}

fn refused(reason: &str) -> Body {
    Body::Outbound(Outbound::Refused {
        reason: reason.into(),
    })
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        address: ([10, 0, 0, last], 80).into(),
        identity: Some("spiffe://cluster.local/ns/default/sa/web".parse().unwrap()),
        namespace: "default".into(),
        pod: format!("web-{last}"),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Http1,
    }
}

#[tokio::test]
async fn subscribe_update_acknowledge_reconnect() {
    let controller = Controller::start().await;
    let first = controller.table.set(web(), refused("one"));
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    proxy.subscribe(1, &web(), 0).await;
    let item = proxy.item().await;
    assert_eq!(
        (item.id, item.version, &item.body),
        (1, first, &refused("one"))
    );
    let synced = || {
        controller
            .shared
            .proxies
            .list()
            .iter()
            .all(|proxy| proxy.synced())
    };
    assert!(!synced(), "it was sent, but not taken over");
    proxy.ack(&item).await;
    eventually("synced", synced).await;

    let second = controller.table.set(web(), refused("two"));
    let item = proxy.item().await;
    assert_eq!(
        (item.id, item.version, &item.body),
        (1, second, &refused("two"))
    );
    proxy.ack(&item).await;
    drop(proxy);
    eventually("everything of the proxy is gone", || {
        controller.shared.proxies.list().is_empty() && controller.table.watchers(&web()) == 0
    })
    .await;

    let mut again = Proxy::hello(&controller, "web", "web-1").await;
    again.subscribe(9, &web(), second).await;
    let item = again.item().await;
    assert_eq!(
        (item.id, item.version, &item.body),
        (9, second, &Body::Unchanged)
    );
    let status = controller.shared.proxies.list().remove(0);
    assert_eq!(
        (
            status.zone.as_str(),
            status.version.as_str(),
            status.subscriptions
        ),
        ("a", "1", 1)
    );
    eventually("synced", synced).await;
}

#[tokio::test]
async fn endpoint_sets_travel_as_deltas_and_roots_are_told() {
    let controller = Controller::start().await;
    let base = controller
        .table
        .set(set(), Body::Endpoints((1..=5).map(endpoint).collect()));
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    proxy.subscribe(1, &set(), 0).await;
    assert!(matches!(proxy.item().await.body, Body::Endpoints(all) if all.len() == 5));
    let version = controller
        .table
        .set(set(), Body::Endpoints((2..=6).map(endpoint).collect()));
    let item = proxy.item().await;
    let gone = vec![([10, 0, 0, 1], 80).into()];
    assert_eq!(
        (item.version, item.body),
        (
            version,
            Body::Delta {
                base,
                upsert: vec![endpoint(6)],
                remove: gone
            }
        )
    );

    proxy.subscribe(2, &Resource::Trust, 0).await;
    assert_eq!(
        proxy.item().await.body,
        Body::Trust(controller.shared.ca.trust())
    );
}

#[tokio::test]
async fn a_refused_delta_is_repeated_whole_and_told_in_the_status() {
    let controller = Controller::start().await;
    controller
        .table
        .set(set(), Body::Endpoints((1..=5).map(endpoint).collect()));
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    proxy.subscribe(1, &set(), 0).await;
    proxy.item().await;
    let version = controller
        .table
        .set(set(), Body::Endpoints((2..=5).map(endpoint).collect()));
    assert!(matches!(proxy.item().await.body, Body::Delta { .. }));
    proxy
        .say(Message::Nack(pb::Nack {
            id: 1,
            version,
            reason: "what\nbase?".into(),
        }))
        .await;
    let item = proxy.item().await;
    assert!(matches!(&item.body, Body::Endpoints(all) if all.len() == 4));
    let status = controller.shared.proxies.list().remove(0);
    assert_eq!(
        (status.synced(), status.last_nack.as_deref()),
        (false, Some("whatbase?"))
    );
    assert_eq!(controller.shared.counters.nacks.get(), 1);
}

#[tokio::test]
async fn a_proxy_that_does_not_read_gets_only_the_newest_when_it_does() {
    let controller = Controller::start().await;
    let reason = |n: u32| format!("{n:06}{}", "x".repeat(8000));
    controller.table.set(web(), refused(&reason(0)));
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    proxy.subscribe(1, &web(), 0).await;
    eventually("first is sent", || {
        controller.shared.counters.messages.get() == 1
    })
    .await;
    let mut last = 0;
    for n in 1..=1000 {
        last = controller.table.set(web(), refused(&reason(n)));
        tokio::task::yield_now().await;
    }
    let mut received = 1;
    while proxy.item().await.version != last {
        received += 1;
    }
    assert!(
        received < 600,
        "{received} of 1001 versions were kept for a proxy that did not read"
    );
}

#[tokio::test]
async fn many_subscriptions_share_messages() {
    let controller = Controller::start().await;
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    for port in 1..=90 {
        proxy
            .subscribe(
                u32::from(port),
                &Resource::Outbound(([10, 0, 0, 1], port).into()),
                0,
            )
            .await;
    }
    let mut items = 0;
    while items < 90 {
        items += proxy.items().await.len();
    }
    let messages = controller.shared.counters.messages.get();
    assert!(messages < 45, "{messages} messages for 90 items");
}

#[tokio::test]
async fn a_stopping_controller_says_so_and_ends() {
    let mut controller = Controller::start().await;
    let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
    proxy.subscribe(1, &web(), 0).await;
    proxy.item().await;
    controller.shared.stopping.send_replace(true);
    assert_eq!(proxy.refusal().await.code(), Code::Unavailable);
    drop(proxy);
    controller
        ._serving
        .join_next()
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// A stream on which `web-1` reports.
async fn reporting(
    controller: &Controller,
) -> (
    mpsc::Sender<pb::ObserveEvent>,
    Streaming<pb::ObserveCommand>,
) {
    let channel = controller
        .channel(Some(controller.certificate("web", "web-1")))
        .await;
    let (events, outgoing) = mpsc::channel(10);
    let commands = ObserveClient::new(channel)
        .attach(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let hello = pb::Hello {
        namespace: "default".into(),
        pod: "web-1".into(),
        ..Default::default()
    };
    let event = Some(pb::observe_event::Event::Hello(hello));
    events.send(pb::ObserveEvent { event }).await.unwrap();
    (events, commands)
}

/// How a stream ends, whatever is asked on it before.
async fn end(commands: &mut Streaming<pb::ObserveCommand>) -> Code {
    loop {
        match commands.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test]
async fn summaries_fill_the_edge_table() {
    let controller = Controller::start().await;
    let (events, mut commands) = reporting(&controller).await;
    let say = |event| events.send(pb::ObserveEvent { event: Some(event) });
    let asked = commands.message().await.unwrap().unwrap().command;
    assert!(
        matches!(asked, Some(pb::observe_command::Command::Summary(every)) if every.interval_ms == 5000)
    );
    let edge = pb::Edge {
        direction: 1,
        peer_workload_ref: 1,
        requests: 3,
        ..Default::default()
    };
    let summary = pb::Summary {
        strings: vec!["deploy/a".into()],
        edges: vec![edge.clone()],
        ..Default::default()
    };
    say(pb::observe_event::Event::Summary(summary.encode_to_vec()))
        .await
        .unwrap();
    eventually("an edge", || controller.shared.traffic.len() == 1).await;
    let bad = pb::Summary {
        edges: vec![edge],
        ..Default::default()
    };
    let bad = pb::observe_event::Event::Summary(bad.encode_to_vec());
    say(bad).await.unwrap();
    assert_eq!(
        commands.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn who_reports_without_a_pause_is_ended() {
    let controller = Controller::start().await;
    let (events, mut commands) = reporting(&controller).await;
    let summary = || pb::ObserveEvent {
        event: Some(pb::observe_event::Event::Summary(Vec::new())),
    };
    let flood = async {
        while events.send(summary()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        code = end(&mut commands) => code,
        () = flood => Code::Ok,
    };
    assert_eq!(ended, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_report_that_would_unfold_to_far_more_than_it_is_ends_its_stream() {
    use pb::observe_event::Event;
    let controller = Controller::start().await;
    // Empty entries of a list, in two bytes each: edges, and looks.
    let edges = Event::Summary([0x1a, 0].repeat(1 << 20));
    let looks = Event::Taps([0x0a, 0].repeat(1 << 20));
    let pods = BTreeSet::from([PodRef::new("default", "web-1")]);
    let _tap = controller.shared.taps.start(pb::TapStart::default(), pods);
    for hostile in [edges, looks] {
        let (events, mut commands) = reporting(&controller).await;
        loop {
            // It says nothing of requests before it was asked to look at them.
            let asked = commands.message().await.unwrap().unwrap().command;
            if matches!(asked, Some(pb::observe_command::Command::Tap(_))) {
                break;
            }
        }
        let event = Some(hostile);
        events.send(pb::ObserveEvent { event }).await.unwrap();
        assert_eq!(end(&mut commands).await, Code::InvalidArgument);
    }
}
