#![allow(clippy::unwrap_used)]
use super::*;
use crate::connection::Direction;
use crate::tell::{Ending, Place, Teller};
use http::HeaderValue;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A story that ended so.
fn story(status: u16, milliseconds: u64, error: Option<&'static str>) -> Box<Story> {
    let place = Place {
        direction: Direction::Inbound,
        client: Some("10.1.0.1:4000".parse().unwrap()),
        identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
        target: "10.1.0.2:8080".parse().unwrap(),
        service: None,
    };
    let teller = Teller {
        access: None,
        tracer: None,
    };
    Box::new(Story {
        teller: Arc::new(teller),
        place: Arc::new(place),
        at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042),
        started: Instant::now(),
        method: http::Method::GET,
        uri: "/cart%22?card=4111".parse().unwrap(),
        version: http::Version::HTTP_11,
        host: Some(HeaderValue::from_static("web:8080")),
        agent: Some(HeaderValue::from_static("a \"quoted\" one")),
        span: None,
        status,
        error: error.map(HeaderValue::from_static),
        ending: Some(Ending {
            bytes: 5,
            grpc: None,
            body: Some(End::Complete),
            took: Duration::from_millis(milliseconds),
        }),
    })
}

#[test]
fn a_filter_names_what_it_wants_and_may_take_a_share_of_the_rest() {
    let wants = |filter: &str, story: &Story, chance: f64| {
        filter.parse::<Filter>().unwrap().wants(story, chance)
    };
    let (good, bad, slow) = (
        story(200, 1, None),
        story(503, 1, None),
        story(200, 300, None),
    );
    let denied = story(403, 1, Some("E111 denied"));
    let rows = [
        ("", [true, true, true, true]),
        ("5xx", [false, true, false, false]),
        ("4xx,5xx", [false, true, false, true]),
        ("slower=250ms", [false, false, true, false]),
        ("denied", [false, false, false, true]),
        ("errors", [false, false, false, true]),
        ("sample=0.5", [true; 4]),
        ("sample=0.1, 2xx", [true, false, true, false]),
    ];
    for (filter, expected) in rows {
        let found = [&good, &bad, &slow, &denied].map(|story| wants(filter, story, 0.3));
        assert_eq!(found, expected, "{filter}");
    }
    for wrong in ["6xx", "slow", "slower=x", "sample=2", "sample=", "5xx;4xx"] {
        assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
    }
}

fn line(story: &Story, form: Form, query: bool) -> String {
    let mut out = Vec::new();
    line::write(&mut out, story, form, query);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_story_that_has_to_wait_holds_what_is_told_of_it_and_little_more() {
    for uri in [
        "/cart?card=4111",
        "http://web.shop:80/cart?card=4111",
        "http://ann:4111@web.shop:80/cart",
        "*",
    ] {
        let mut story = story(403, 2, Some("E111 denied"));
        story.uri = uri.parse().unwrap();
        let before = line(&story, Form::Json, true);
        story.detach();
        assert_eq!(line(&story, Form::Json, true), before);
    }
    let mut story = story(200, 1, None);
    let long = "x".repeat(30_000);
    story.uri = format!("/{long}").parse().unwrap();
    story.agent = Some(long.parse().unwrap());
    let before = line(&story, Form::Common, false);
    story.detach();
    let held = story.uri.path().len() + story.agent.as_ref().unwrap().len();
    assert_eq!(held, 2048);
    assert_eq!(line(&story, Form::Common, false), before);
}

#[test]
fn a_line_says_what_happened_and_hides_queries() {
    let denied = story(403, 2, Some("E111 denied"));
    assert_eq!(
        line(&denied, Form::Common, false),
        "10.1.0.1 - spiffe://cluster.local/ns/shop/sa/web [14/Nov/2023:22:13:20 +0000] \"GET /cart%22?- HTTP/1.1\" 403 5 \
         2.000ms inbound 10.1.0.2:8080 \"web:8080\" \"a \\x22quoted\\x22 one\" complete error=\"E111 denied\"\n"
    );
    let shown = line(&denied, Form::Common, true);
    assert!(shown.contains("/cart%22?card=4111 HTTP"), "{shown}");
    let text = line(&denied, Form::Json, false);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["time"], "2023-11-14T22:13:20.000042Z");
    assert_eq!(
        (&value["path"], &value["query"]),
        (&"/cart%22".into(), &"-".into())
    );
    assert_eq!(value["status"], 403);
    assert_eq!(value["duration_us"], 2000);
    assert_eq!(value["error"], "E111 denied");
    assert!(!text.contains("4111"), "{text}");
    let mut named = story(400, 2, Some("E101 bad-request"));
    named.uri = "http://ann:4111@web.shop:80/cart".parse().unwrap();
    for form in [Form::Json, Form::Common] {
        let text = line(&named, form, false);
        assert!(
            text.contains("web.shop:80") && !text.contains("4111"),
            "{text}"
        );
    }
}

/// Blocks until it is let go.
#[derive(Clone, Default)]
struct Slow(Arc<(Mutex<bool>, parking_lot::Condvar)>);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (open, changed) = &*self.0;
        changed.wait_while(&mut open.lock(), |open| !*open);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn whoever_reads_slowly_loses_lines_and_holds_up_nobody() {
    let metrics = Metrics::new("shop");
    let settings = Settings {
        form: Form::Json,
        filter: Filter::default(),
        query: false,
    };
    let out = Slow::default();
    let log = AccessLog::start(settings, &metrics, out.clone()).unwrap();
    let all = QUEUE + 2000;
    (0..all).for_each(|_| log.tell(story(200, 1, None)));
    *out.0.0.lock() = true;
    out.0.1.notify_all();
    let value = |result| metrics.access_lines(result).get();
    assert!(value("dropped") > 0);
    // The writer is free now, and gets through what waits.
    while value("dropped") + value("written") < all as u64 {
        log.flush();
    }
}
