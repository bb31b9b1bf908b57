#![allow(clippy::unwrap_used)]
use super::*;
use crate::http::Body;
use crate::metrics::Code;
use tokio::sync::mpsc::{Receiver, channel};

struct Story {
    metrics: Arc<Metrics>,
    looks: Receiver<Look>,
    edge: Attribution,
}

impl Story {
    /// A tap with room for `room` looks.
    fn new(fields: Fields, room: usize) -> Self {
        let (sender, looks) = channel(room);
        let metrics = Metrics::new("shop");
        let tap = Tap::new(7, Filter::default(), Limit::new(1000, 0), fields, sender);
        assert!(metrics.taps().start(tap));
        let edge = metrics.inbound_edge(None);
        Self {
            metrics,
            looks,
            edge,
        }
    }

    /// One exchange from head to end.
    fn exchange(&self, path: &str) {
        let request = http::Request::get(path)
            .header("authorization", "secret")
            .body(Body::empty())
            .unwrap();
        let started = Instant::now();
        let begun = self.metrics.taps().begin(Direction::Inbound, &request);
        let mut response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert("set-cookie", http::HeaderValue::from_static("secret"));
        let head = ResponseHead::of(&response);
        let followed = begun
            .and_then(|begun| begun.answered(&response, &head, &self.edge, started, &self.metrics));
        self.edge.answered(Code::Http(200), Duration::ZERO);
        if let Some(followed) = followed {
            followed.ended(End::Complete, 5, None, Instant::now());
        }
    }

    fn state(&self) -> State {
        self.metrics.taps().states()[0].1
    }
}

#[test]
fn an_exchange_is_seen_at_its_head_and_at_its_end() {
    let mut story = Story::new(Fields::Hidden, 8);
    story.exchange("/a?token=secret");
    let head = story.looks.try_recv().unwrap();
    assert_eq!((head.tap, head.path.as_str(), head.status), (7, "/a", 200));
    assert!(head.ended.is_none() && head.request_fields.is_empty());
    let end = story.looks.try_recv().unwrap();
    assert_eq!((end.ended, end.bytes), (Some(End::Complete), 5));
    assert_eq!(head.exchange, end.exchange);
}

#[test]
fn secrets_are_blotted_out_unless_asked_for() {
    for (fields, expected) in [(Fields::Redacted, "[redacted]"), (Fields::Plain, "secret")] {
        let mut story = Story::new(fields, 8);
        story.exchange("/");
        let look = story.looks.try_recv().unwrap();
        assert_eq!(
            look.request_fields,
            [("authorization".into(), expected.into())]
        );
        assert_eq!(
            look.response_fields,
            [("set-cookie".into(), expected.into())]
        );
    }
}

#[test]
fn a_password_before_the_host_is_not_shown() {
    for uri in ["http://ann:secret@web:80/a", "/a"] {
        let story = Story::new(Fields::Hidden, 8);
        let request = http::Request::get(uri)
            .header("host", "ann:secret@web:80")
            .body(Body::empty())
            .unwrap();
        let begun = story.metrics.taps().begin(Direction::Inbound, &request);
        assert_eq!(begun.unwrap().look.authority, "web:80", "{uri}");
    }
}

#[test]
fn whatever_is_called_a_secret_is_one() {
    for (name, secret) in [
        ("x-api-key", true),
        ("x-auth-token", true),
        ("proxy-authorization", true),
        ("x_api_key", true),
        ("x-session-id", true),
        ("x-goog-iap-jwt-assertion", true),
        ("x-request-id", false),
        ("user-agent", false),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(name, http::HeaderValue::from_static("value"));
        let shown = Fields::Redacted.of(&fields);
        assert_eq!(shown[0].1 == "[redacted]", secret, "{name}");
    }
}

#[test]
fn many_long_fields_are_not_all_kept() {
    let mut fields = HeaderMap::new();
    for n in 0..MAX_FIELDS {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        let value = http::HeaderValue::try_from("v".repeat(2 * MAX_VALUE)).unwrap();
        fields.insert(name, value);
    }
    let shown = Fields::Plain.of(&fields);
    assert_eq!(shown.len(), 7);
    let bytes = shown.iter().map(|(name, value)| name.len() + value.len());
    assert!(bytes.sum::<usize>() <= MAX_SHOWN);
}

#[test]
fn nobody_waits_for_who_does_not_read_and_losses_are_counted() {
    let mut story = Story::new(Fields::Hidden, 2);
    for _ in 0..3 {
        story.exchange("/");
    }
    let state = story.state();
    assert_eq!((state.seen, state.matched, state.skipped), (3, 3, 2));
    story.looks.try_recv().unwrap();
    story.looks.try_recv().unwrap();
    story.exchange("/");
    assert_eq!(story.looks.try_recv().unwrap().skipped, 2);
    let end = story.looks.try_recv().unwrap();
    assert!(end.ended.is_some() && end.skipped == 0);
}

#[test]
fn taps_come_and_go() {
    let story = Story::new(Fields::Hidden, 1);
    let taps = story.metrics.taps();
    assert!(taps.on());
    taps.stop(7);
    assert!(!taps.on());
    let tap = |id| {
        let (sender, _) = channel(1);
        Tap::new(
            id,
            Filter::default(),
            Limit::new(1, 0),
            Fields::Hidden,
            sender,
        )
    };
    let started = (0..20).filter(|id| taps.start(tap(*id))).count();
    assert_eq!(started, MAX_TAPS);
    taps.clear();
    assert!(!taps.on());
}
