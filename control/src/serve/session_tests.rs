//! What a proxy is told, and when it counts as current.
#![allow(clippy::unwrap_used)]

use super::*;
use std::time::Duration;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::outbound::{Endpoint, Outbound};
use weft_proxy_api::wire::encode;

fn endpoints(members: &[u8]) -> Body {
    let endpoint = |last: &u8| Endpoint {
        address: ([10, 0, 0, *last], 80).into(),
        identity: None,
        namespace: "default".into(),
        pod: format!("web-{last}"),
        workload: "deploy/web".into(),
        zone: String::new(),
        weight: 1,
        protocol: Protocol::Detect,
    };
    Body::Endpoints(members.iter().map(endpoint).collect())
}

fn view(version: u64, body: Body) -> Arc<View> {
    Arc::new(View { version, body })
}

fn refused(version: u64) -> Arc<View> {
    view(
        version,
        Body::Outbound(Outbound::Refused {
            reason: version.to_string(),
        }),
    )
}

/// One subscription (id 7) to a view that starts at version 1.
struct Story {
    tx: watch::Sender<Arc<View>>,
    subs: Subscriptions,
    start: Instant,
}

impl Story {
    fn new(first: Arc<View>, held: u64) -> Self {
        let (tx, start) = (watch::Sender::new(first), Instant::now());
        let mut subs = Subscriptions::default();
        subs.subscribe(7, tx.subscribe(), held, start).unwrap();
        Self { tx, subs, start }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// The view changes, and the session notices, at this second.
    async fn change(&mut self, view: Arc<View>, seconds: u64) {
        self.tx.send_replace(view);
        let now = self.at(seconds);
        self.subs.changed(|| now).await;
    }

    fn sent(&mut self) -> Vec<(u64, Body)> {
        self.subs
            .next_items()
            .into_iter()
            .map(|item| (item.version, item.body))
            .collect()
    }
}

#[tokio::test]
async fn the_newest_version_is_sent_once_and_is_current_when_acknowledged() {
    let mut story = Story::new(refused(1), 0);
    assert_eq!(story.subs.stale_since(), Some(story.start));
    assert_eq!(story.sent(), [(1, refused(1).body.clone())]);
    assert_eq!(story.sent(), []);
    assert!(story.subs.stale_since().is_some());
    story.subs.ack(7, 1);
    assert_eq!(story.subs.stale_since(), None);
    story.change(refused(2), 5).await;
    story.tx.send_replace(refused(3));
    assert_eq!(
        story.sent(),
        [(3, refused(3).body.clone())],
        "only the newest"
    );
    assert_eq!(story.subs.stale_since(), Some(story.at(5)));
    story.subs.ack(7, 2);
    assert!(
        story.subs.stale_since().is_some(),
        "2 is not what is current"
    );
    story.subs.ack(7, 3);
    assert_eq!(story.subs.stale_since(), None);
}

#[tokio::test]
async fn under_constant_change_a_proxy_lacks_only_what_came_after_what_it_took_over() {
    let mut story = Story::new(refused(1), 1);
    story.sent();
    story.change(refused(2), 1).await;
    story.sent();
    // Each version is sent before the one before it is acknowledged.
    for version in 3..10 {
        story.change(refused(version), version).await;
        story.sent();
        story.subs.ack(7, version - 1);
        let since = story.subs.stale_since();
        assert!(since >= Some(story.at(version - 1)), "{version}: {since:?}");
    }
    story.subs.nack(7, 9, story.at(20));
    assert!(story.subs.stale_since() <= Some(story.at(9)), "not taken");
    story.subs.ack(7, 9);
    assert_eq!(story.subs.stale_since(), None);
}

#[tokio::test]
async fn a_proxy_that_holds_the_version_is_told_so() {
    let mut story = Story::new(refused(1), 1);
    assert_eq!(story.sent(), [(1, Body::Unchanged)]);
    assert_eq!(story.subs.stale_since(), None);
    let mut other = Story::new(refused(1), 2);
    assert_eq!(other.sent(), [(1, refused(1).body.clone())]);
}

#[tokio::test]
async fn there_and_back_before_anything_was_sent_is_no_news() {
    let mut story = Story::new(refused(1), 1);
    story.sent();
    story.change(refused(2), 1).await;
    story.change(refused(1), 2).await;
    assert_eq!(story.sent(), []);
    assert_eq!(story.subs.stale_since(), None);
    let mut unacknowledged = Story::new(refused(1), 0);
    unacknowledged.sent();
    unacknowledged.change(refused(2), 1).await;
    unacknowledged.change(refused(1), 2).await;
    assert_eq!(unacknowledged.sent(), []);
    assert!(
        unacknowledged.subs.stale_since().is_some(),
        "version 1 is still not acknowledged"
    );
}

#[tokio::test]
async fn endpoints_change_by_delta_against_what_was_sent() {
    let mut story = Story::new(view(1, endpoints(&[1, 2, 3])), 1);
    story.sent();
    story.change(view(2, endpoints(&[1, 2, 3, 4])), 1).await;
    let Body::Endpoints(four) = endpoints(&[4]) else {
        panic!()
    };
    assert_eq!(
        story.sent(),
        [(
            2,
            Body::Delta {
                base: 1,
                upsert: four,
                remove: vec![]
            }
        )]
    );
    story.change(view(3, endpoints(&[1, 2, 3])), 1).await;
    let gone = vec![([10, 0, 0, 4], 80).into()];
    assert_eq!(
        story.sent(),
        [(
            3,
            Body::Delta {
                base: 2,
                upsert: vec![],
                remove: gone
            }
        )]
    );
    story.change(view(4, endpoints(&[9])), 1).await;
    assert_eq!(
        story.sent(),
        [(4, endpoints(&[9]))],
        "whole where a delta is not smaller"
    );
}

#[tokio::test]
async fn a_refused_delta_is_repeated_whole_and_a_refused_whole_is_not_repeated() {
    let mut story = Story::new(view(1, endpoints(&[1, 2, 3])), 1);
    story.sent();
    story.change(view(2, endpoints(&[1, 2])), 1).await;
    assert!(matches!(story.sent()[..], [(2, Body::Delta { .. })]));
    story.subs.nack(7, 2, story.at(2));
    assert_eq!(story.sent(), [(2, endpoints(&[1, 2]))]);
    story.subs.nack(7, 2, story.at(3));
    assert_eq!(story.sent(), []);
    assert!(
        story.subs.stale_since().is_some(),
        "it does not hold what is current"
    );
    story.change(view(3, endpoints(&[1])), 4).await;
    assert_eq!(
        story.sent(),
        [(3, endpoints(&[1]))],
        "whole: nobody knows what it holds"
    );
    story.subs.nack(7, 1, story.at(5));
    assert_eq!(
        story.sent(),
        [],
        "a refusal of something older changes nothing"
    );
    story.subs.ack(7, 3);
    assert_eq!(story.subs.stale_since(), None);
}

#[tokio::test]
async fn unsubscribing_frees_the_view() {
    let mut story = Story::new(refused(1), 0);
    assert!(story.tx.receiver_count() > 0);
    story.subs.unsubscribe(7);
    story.subs.unsubscribe(7);
    assert_eq!(
        (story.sent(), story.subs.stale_since(), story.subs.len()),
        (vec![], None, 0)
    );
    let idle = tokio::time::timeout(Duration::from_millis(1), story.subs.changed(Instant::now));
    assert!(idle.await.is_err());
    assert_eq!(story.tx.receiver_count(), 0);
    story
        .subs
        .subscribe(7, story.tx.subscribe(), 0, story.start)
        .unwrap();
    assert_eq!(story.sent().len(), 1);
}

#[tokio::test]
async fn a_view_that_nobody_publishes_any_more_stays_as_it_was() {
    let mut story = Story::new(refused(1), 0);
    story.tx = watch::Sender::new(refused(9));
    let idle = tokio::time::timeout(Duration::from_millis(1), story.subs.changed(Instant::now));
    assert!(idle.await.is_err());
    assert_eq!(story.sent(), [(1, refused(1).body.clone())]);
}

#[tokio::test]
async fn ids_and_numbers_are_bounded_and_messages_too() {
    let tx = watch::Sender::new(refused(1));
    let (mut subs, now) = (Subscriptions::default(), Instant::now());
    for id in 0..MAX_SUBSCRIPTIONS as u32 {
        subs.subscribe(id, tx.subscribe(), 0, now).unwrap();
    }
    assert_eq!(
        subs.subscribe(0, tx.subscribe(), 0, now),
        Err(SubscribeError::Duplicate(0))
    );
    assert_eq!(
        subs.subscribe(u32::MAX, tx.subscribe(), 0, now),
        Err(SubscribeError::TooMany)
    );
    let mut sizes = Vec::new();
    while let size @ 1.. = subs.next_items().len() {
        sizes.push(size);
    }
    assert!(sizes.iter().all(|size| *size <= MAX_ITEMS));
    assert_eq!(sizes.iter().sum::<usize>(), MAX_SUBSCRIPTIONS);
}

/// A set of this many endpoints, each with a name of its own.
fn large(count: u32, name: &str) -> Body {
    let Body::Endpoints(one) = endpoints(&[1]) else {
        panic!()
    };
    let address = |n: u32| (std::net::Ipv4Addr::from(0x0a00_0000 + n), 80).into();
    let set = (0..count).map(|n| Endpoint {
        address: address(n),
        pod: format!("{name}-{n:0>200}"),
        ..one[0].clone()
    });
    Body::Endpoints(set.collect())
}

#[tokio::test]
async fn large_sets_do_not_share_a_message() {
    let tx = watch::Sender::new(view(1, large(5_000, "web")));
    let (mut subs, now) = (Subscriptions::default(), Instant::now());
    for id in 0..3 {
        subs.subscribe(id, tx.subscribe(), 0, now).unwrap();
    }
    let sizes: Vec<usize> = (0..4).map(|_| subs.next_items().len()).collect();
    assert_eq!(sizes, [1, 1, 1, 0]);
}

/// What a proxy holds after a message, which must be one that it takes.
fn take_over(
    holds: &mut (
        u64,
        std::collections::BTreeMap<std::net::SocketAddr, Endpoint>,
    ),
    items: &[Item],
) {
    use prost::Message;
    assert!(encode::response(items).encoded_len() < 4 << 20);
    for item in items {
        match &item.body {
            Body::Endpoints(all) => {
                holds.1 = all.iter().map(|one| (one.address, one.clone())).collect();
            }
            Body::Delta {
                base,
                upsert,
                remove,
            } => {
                assert_eq!(*base, holds.0);
                remove.iter().for_each(|one| drop(holds.1.remove(one)));
                holds
                    .1
                    .extend(upsert.iter().map(|one| (one.address, one.clone())));
            }
            other => panic!("{other:?}"),
        }
        holds.0 = item.version;
    }
}

#[tokio::test]
async fn a_set_too_large_for_a_message_comes_in_parts() {
    let set = |count, name| {
        let body = large(count, name);
        view(encode::version(&body), body)
    };
    let mut story = Story::new(set(30_000, "web"), 0);
    let mut holds = (0, std::collections::BTreeMap::new());
    let mut steps = vec![set(29_000, "web"), set(60_000, "new")];
    loop {
        let mut messages = 0;
        while let items @ [_, ..] = &story.subs.next_items()[..] {
            take_over(&mut holds, items);
            messages += 1;
            assert!(messages < 30);
        }
        let current = story.tx.borrow().clone();
        let all: Vec<Endpoint> = holds.1.values().cloned().collect();
        assert!(current.version == holds.0 && current.body == Body::Endpoints(all));
        assert!(story.subs.stale_since().is_some());
        story.subs.ack(7, holds.0);
        assert_eq!(story.subs.stale_since(), None);
        let Some(next) = steps.pop() else { break };
        story.change(next, 1).await;
    }
}

#[tokio::test]
async fn a_refused_first_part_is_not_repeated() {
    let mut story = Story::new(view(1, large(30_000, "web")), 0);
    let first = story.sent().remove(0);
    assert!(matches!(&first, (version, Body::Endpoints(_)) if *version != 1));
    assert!(matches!(story.sent()[..], [(_, Body::Delta { .. }), ..]));
    story.subs.nack(7, first.0, story.at(1));
    assert_eq!(story.sent(), []);
    story.change(refused(2), 2).await;
    assert_eq!(story.sent(), [(2, refused(2).body.clone())]);
}

#[tokio::test]
async fn what_is_too_large_and_cannot_be_parted_is_kept_back_alone() {
    let huge = Outbound::Refused {
        reason: "x".repeat(3 << 20),
    };
    let mut story = Story::new(view(1, Body::Outbound(huge)), 0);
    let other = watch::Sender::new(refused(5));
    story
        .subs
        .subscribe(8, other.subscribe(), 0, story.start)
        .unwrap();
    assert_eq!(story.sent(), [(5, refused(5).body.clone())]);
    assert!(story.subs.too_large().is_some_and(|size| size > 3 << 20));
    assert_eq!((story.sent(), story.subs.too_large()), (vec![], None));
    assert!(story.subs.stale_since().is_some());
    story.change(refused(2), 1).await;
    assert_eq!(story.sent(), [(2, refused(2).body.clone())]);
}
