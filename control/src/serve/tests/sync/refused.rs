//! Who gets no answer, and what a proxy may not say.

use super::*;
use crate::serve::proxies::MAX_OF_POD;

#[tokio::test]
async fn who_may_not_is_refused() {
    let controller = Controller::start().await;
    controller.table.add_pod("db-1", "db");
    let mut other_account = Proxy::hello(&controller, "web", "db-1").await;
    let status = other_account.refusal().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("runs as db"), "{status}");

    controller.table.add_pod("web-2", "web");
    let sibling = controller.certificate("web", "web-2");
    let mut sibling = Proxy::hello_with(&controller, sibling, "web-1").await;
    let status = sibling.refusal().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("default/web-2"), "{status}");
    let mut nobody = Proxy::hello_with(&controller, anyones(&controller), "web-1").await;
    let status = nobody.refusal().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");

    let channel = controller.channel(None).await;
    let status = PolicyClient::new(channel)
        .sync(tokio_stream::empty())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");

    let own = Proxy::hello(&controller, "web", "web-1").await;
    own.subscribe(1, &web(), 0).await;
    eventually("served", || controller.table.watchers(&web()) > 0).await;
}

/// A certificate of the account `web` that is bound to no pod.
fn anyones(controller: &Controller) -> Certificate {
    let id = SpiffeId::new("cluster.local", "default", "web").unwrap();
    let (ttl, now) = (Duration::from_secs(60), SystemTime::now());
    let (leaf, key) = controller.shared.ca.issue_own(&id, ttl, now).unwrap();
    (leaf.chain, key)
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_certificate() {
    let controller = Controller::start().await;
    let ttl = Duration::from_secs(100);
    let certificate = controller.short_lived("web", "web-1", ttl);
    let mut short = Proxy::hello_with(&controller, certificate, "web-1").await;
    let mut long = Proxy::hello(&controller, "web", "web-1").await;
    for proxy in [&mut short, &mut long] {
        proxy.subscribe(1, &web(), 0).await;
        proxy.item().await;
    }
    tokio::time::pause();
    tokio::time::advance(ttl).await;
    tokio::time::resume();
    controller.table.set(web(), refused("within the skew"));
    short.item().await;
    long.item().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let status = short.refusal().await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    controller.table.set(web(), refused("later"));
    assert_eq!(long.item().await.body, refused("later"));
}

#[tokio::test]
async fn a_pod_has_so_many_streams_and_no_more() {
    let (controller, pod) = (Controller::start().await, PodRef::new("default", "web-1"));
    let mut all = Vec::new();
    for _ in 0..MAX_OF_POD {
        all.push(Proxy::hello(&controller, "web", "web-1").await);
    }
    let open = || controller.shared.proxies.streams_of(&pod);
    eventually("all are open", || open() == MAX_OF_POD).await;
    let mut more = Proxy::hello(&controller, "web", "web-1").await;
    let status = more.refusal().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    drop(all.pop());
    eventually("one has ended", || open() < MAX_OF_POD).await;
    let own = Proxy::hello(&controller, "web", "web-1").await;
    own.subscribe(1, &web(), 0).await;
    eventually("served", || controller.table.watchers(&web()) > 0).await;
}

#[tokio::test]
async fn what_a_proxy_says_of_itself_is_kept_in_bounds() {
    let controller = Controller::start().await;
    let certificate = || controller.certificate("web", "web-1");
    let hello = |zone: String| {
        Message::Hello(pb::Hello {
            namespace: "default".into(),
            pod: "web-1".into(),
            zone,
            ..Default::default()
        })
    };
    let proxy = Proxy::silent(&controller, certificate()).await;
    proxy.say(hello("z\n".repeat(10_000))).await;
    eventually("connected", || !controller.shared.proxies.list().is_empty()).await;
    assert_eq!(controller.shared.proxies.list()[0].zone, "z".repeat(100));
    let mut greedy = Proxy::silent(&controller, certificate()).await;
    greedy.say(hello("z".repeat(1 << 20))).await;
    let status = greedy.refusal().await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn a_pod_that_comes_a_little_later_is_waited_for() {
    let controller = Controller::start().await;
    controller.table.set(web(), refused("one"));
    let mut early = Proxy::hello(&controller, "late", "late-1").await;
    early.subscribe(1, &web(), 0).await;
    controller.table.add_pod("late-1", "late");
    assert_eq!(early.item().await.body, refused("one"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_comes_is_a_clear_refusal() {
    let controller = Controller::start().await;
    let hello = pb::Hello {
        namespace: "default".into(),
        pod: "ghost".into(),
        ..Default::default()
    };
    let caller = tls::Peer {
        id: SpiffeId::new("cluster.local", "default", "web").unwrap(),
        common_name: "default/ghost".into(),
        not_after: u64::MAX / 4,
    };
    let status = controller.shared.greet(&hello, &caller).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("knows no pod default/ghost"),
        "{status}"
    );
}

#[tokio::test]
async fn messages_out_of_order_end_the_stream_with_a_reason() {
    let subscribe = |id| {
        let resource = Some(encode::resource(&web()));
        Message::Subscribe(pb::Subscribe {
            id,
            resource,
            version: 0,
        })
    };
    let no_resource = Message::Subscribe(pb::Subscribe {
        id: 5,
        resource: None,
        version: 0,
    });
    let table = [
        (
            vec![Message::Hello(pb::Hello::default())],
            Code::InvalidArgument,
            "only the first message may be a hello",
        ),
        (
            vec![subscribe(1), subscribe(1)],
            Code::ResourceExhausted,
            "subscription 1 exists",
        ),
        (vec![no_resource], Code::InvalidArgument, ""),
    ];
    for (messages, code, text) in table {
        let controller = Controller::start().await;
        let mut proxy = Proxy::hello(&controller, "web", "web-1").await;
        for message in messages {
            proxy.say(message).await;
        }
        let status = loop {
            if let Err(status) = proxy.answers.message().await {
                break status;
            }
        };
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
}
