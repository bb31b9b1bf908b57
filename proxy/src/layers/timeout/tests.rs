#![allow(clippy::unwrap_used)]
use super::*;
use crate::http::Body;
use http_body_util::BodyExt;
use tower::service_fn;

fn request(fields: &[(&str, &str)]) -> Request {
    let mut request = http::Request::builder().version(http::Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_peer_ends_the_request() {
    let below = service_fn(async |asked: Outgoing| {
        assert!(!asked.request.headers().contains_key("weft-deadline-ms"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Error>(Response::new(Body::empty()))
    });
    let metrics = Metrics::new("shop");
    let mut stack = TimeoutLayer::inbound(&metrics).layer(below);
    for (name, value, kept) in [
        ("weft-deadline-ms", "99", false),
        ("weft-deadline-ms", "101", true),
        ("weft-deadline-ms", "0", false),
        ("weft-deadline-ms", "soon", true),
        ("weft-deadline-ms", "18446744073709551615", true),
        ("grpc-timeout", "99m", false),
        ("grpc-timeout", "101m", true),
        ("grpc-timeout", "99999999H", true),
        ("grpc-timeout", "0n", false),
        ("grpc-timeout", "m", true),
        ("grpc-timeout", "-1m", true),
        ("grpc-timeout", "123456789n", true),
    ] {
        let answer = stack.call(request(&[(name, value)])).await;
        assert_eq!(answer.is_ok(), kept, "{name}: {value}");
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::RequestTimeout);
        }
    }
    assert_eq!(metrics.timeouts(Direction::Inbound, "request").get(), 4);
}

/// An answer whose head comes at once and whose body never ends.
async fn endless(asked: Outgoing) -> Result<Response, Error> {
    drop(asked);
    Ok(Response::new(Body::frames_then_nothing([Ok(
        http_body::Frame::data("begun".into()),
    )])))
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_with_the_time_of_its_request_and_grpc_says_so_in_trailers() {
    let metrics = Metrics::new("shop");
    let mut stack = TimeoutLayer::inbound(&metrics).layer(service_fn(endless));
    let plain = stack.call(request(&[("weft-deadline-ms", "50")])).await;
    let error = plain.unwrap().into_body().collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);

    let grpc = [
        ("content-type", "application/grpc"),
        ("grpc-timeout", "50m"),
    ];
    let answer = stack.call(request(&grpc)).await.unwrap();
    let all = answer.into_body().collect().await.unwrap();
    let trailers = all.trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "4");
    assert_eq!(trailers["weft-error"], "E116 request-timeout");
    assert_eq!(all.to_bytes(), "begun");
    assert_eq!(metrics.timeouts(Direction::Inbound, "request").get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_pauses_ends_with_the_time_of_its_request_too() {
    let whole = Some(Instant::now() + Duration::from_secs(1));
    let limits = Limits {
        whole,
        ..Limits::default()
    };
    let piece = || Ok(http_body::Frame::data("piece".into()));
    let mut body = Body::frames([piece(), piece(), piece()]);
    body.limit(Watch::new(limits, None, false));
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_last_but_not_be_silent() {
    let began = Instant::now();
    let limits = Limits {
        idle: Some(Idle::new(Duration::from_secs(10))),
        ..Limits::default()
    };
    // Five pieces nine seconds apart, and then silence.
    let mut body = Body::ticking(Duration::from_secs(9), 5);
    body.limit(Watch::new(limits, None, false));
    let error = body.collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IdleTimeout);
    assert_eq!(began.elapsed().as_secs(), 55);
}

#[test]
fn the_time_left_is_told_to_whom_it_concerns() {
    let told = |grpc: bool, peer, left| {
        let fields = [("content-type", "application/grpc"), ("grpc-timeout", "9S")];
        let mut request = request(if grpc { &fields } else { &[] });
        tell(&mut request, left, peer);
        let value = |name| {
            let value = request.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        (value("weft-deadline-ms"), value("grpc-timeout"))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let second = Duration::from_secs(1);
    assert_eq!(told(false, true, second), pair("1000", ""));
    assert_eq!(told(false, false, second), pair("", ""));
    assert_eq!(told(true, true, second), pair("1000", "1000m"));
    assert_eq!(told(true, false, Duration::from_nanos(1)), pair("", "1m"));
    assert_eq!(told(true, false, 200_000 * second), pair("", "200000S"));
}

#[tokio::test(start_paused = true)]
async fn what_fails_when_the_time_is_up_failed_because_of_that() {
    for (kind, after, told) in [
        (ErrorKind::ClientGone, 100, ErrorKind::RequestTimeout),
        (ErrorKind::UpstreamReset, 100, ErrorKind::RequestTimeout),
        (ErrorKind::ClientGone, 50, ErrorKind::ClientGone),
        (ErrorKind::UpstreamReset, 50, ErrorKind::UpstreamReset),
        (ErrorKind::BreakerOpen, 100, ErrorKind::BreakerOpen),
    ] {
        let below = service_fn(move |_: Outgoing| async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            Err::<Response, _>(Error::new(kind))
        });
        let metrics = Metrics::new("shop");
        let mut stack = TimeoutLayer::inbound(&metrics).layer(below);
        let request = request(&[("weft-deadline-ms", "100")]);
        let error = stack.call(request).await.unwrap_err();
        assert_eq!(error.kind(), told, "{kind:?} after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_tells_whether_it_waits_for_its_client() {
    let whole = Some(Instant::now() + Duration::from_secs(60));
    let limits = Limits {
        whole,
        ..Limits::default()
    };
    let piece = || Ok(http_body::Frame::data("piece".into()));
    for (mut body, waits) in [
        (Body::frames_then_nothing([piece()]), true),
        (Body::frames([piece(), piece()]), false),
    ] {
        let (mut watch, upload) = (
            Watch::new(limits.clone(), None, false),
            Arc::<Upload>::default(),
        );
        watch.tell(upload.clone());
        body.limit(watch);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(!upload.waits_for_client(), "nobody asks for more");
        let more = tokio::time::timeout(Duration::from_secs(1), body.frame()).await;
        assert_eq!((more.is_err(), upload.waits_for_client()), (waits, waits));
    }
}
