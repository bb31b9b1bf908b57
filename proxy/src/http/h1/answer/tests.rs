//! Which framing and which fields an answer gets.
#![allow(clippy::unwrap_used)]
use super::*;
use http::{HeaderName, HeaderValue, Response};

/// The head without its date; how the body follows; does the connection live on?
fn written(
    status: u16,
    fields: &[(&'static str, &'static str)],
    length: Option<u64>,
    form: Form,
    mut keep: bool,
) -> (String, Encoder, bool) {
    let mut answer = Response::builder().status(status).body(()).unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        answer
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    }
    let hint = length.map_or(SizeHint::default(), SizeHint::with_exact);
    let mut out = Outgoing::default();
    let framing = write(&answer.into_parts().0, &hint, form, &mut keep, &mut out);
    let text = String::from_utf8(out.take_all()).unwrap();
    let (head, end) = text.rsplit_once("date: ").unwrap();
    assert!(end.ends_with(" GMT\r\n\r\n"), "{end}");
    (head.to_owned(), framing, keep)
}

fn form(old: bool, head: bool) -> Form {
    let says = Says {
        old,
        ..Says::default()
    };
    Form {
        says,
        head,
        upgrade: false,
    }
}

#[test]
fn framing_follows_the_status_the_method_and_the_length() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let (new, old, head) = (form(false, false), form(true, false), form(false, true));
    let length: &[(&str, &str)] = &[("content-length", "7"), ("a", "b")];
    let rows = [
        (
            200,
            length,
            Some(7),
            new,
            format!("{OK}a: b\r\ncontent-length: 7\r\n"),
            Encoder::Length(7),
        ),
        (
            200,
            length,
            None,
            new,
            format!("{OK}a: b\r\ncontent-length: 7\r\n"),
            Encoder::Length(7),
        ),
        (
            200,
            length,
            Some(3),
            new,
            format!("{OK}a: b\r\ncontent-length: 3\r\n"),
            Encoder::Length(3),
        ),
        (
            200,
            &[],
            Some(0),
            new,
            format!("{OK}content-length: 0\r\n"),
            Encoder::Length(0),
        ),
        (
            200,
            &[],
            None,
            new,
            format!("{OK}transfer-encoding: chunked\r\n"),
            Encoder::chunked(&HeaderMap::new()),
        ),
        (
            200,
            length,
            Some(0),
            head,
            format!("{OK}a: b\r\ncontent-length: 7\r\n"),
            Encoder::Nothing,
        ),
        (
            200,
            &[],
            Some(5),
            head,
            format!("{OK}content-length: 5\r\n"),
            Encoder::Nothing,
        ),
        (200, &[], Some(0), head, OK.into(), Encoder::Nothing),
        (
            204,
            length,
            Some(0),
            new,
            "HTTP/1.1 204 No Content\r\na: b\r\n".into(),
            Encoder::Nothing,
        ),
        (
            204,
            length,
            Some(0),
            head,
            "HTTP/1.1 204 No Content\r\na: b\r\n".into(),
            Encoder::Nothing,
        ),
        (
            304,
            length,
            Some(0),
            new,
            "HTTP/1.1 304 Not Modified\r\na: b\r\ncontent-length: 7\r\n".into(),
            Encoder::Nothing,
        ),
        (
            200,
            length,
            Some(7),
            old,
            "HTTP/1.0 200 OK\r\na: b\r\ncontent-length: 7\r\nconnection: keep-alive\r\n".into(),
            Encoder::Length(7),
        ),
    ];
    for (status, fields, length, form, expected, framing) in rows {
        let found = written(status, fields, length, form, true);
        assert_eq!(
            found,
            (expected, framing, true),
            "{status} {fields:?} {form:?}"
        );
    }
}

#[test]
fn the_end_of_a_connection_is_said() {
    let new = form(false, false);
    let close = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n";
    for (fields, keep) in [(&[][..], false), (&[("connection", "x, Close")][..], true)] {
        let found = written(200, fields, Some(1), new, keep);
        assert_eq!(found, (close.to_owned(), Encoder::Length(1), false));
    }
    let found = written(200, &[], None, form(true, false), true);
    let head = "HTTP/1.0 200 OK\r\nconnection: close\r\n".to_owned();
    assert_eq!(found, (head, Encoder::UntilClose, false));
}

#[test]
fn another_protocol_and_another_reason_are_passed_on() {
    let mut upgrade = form(false, false);
    upgrade.upgrade = true;
    let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
    let (head, framing, _) = written(101, &fields, Some(0), upgrade, true);
    let expected =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    assert_eq!((head.as_str(), framing), (expected, Encoder::Nothing));
    let mut answer = Response::new(()).into_parts().0;
    answer
        .extensions
        .insert(ReasonPhrase::from_static(b"Fine by me"));
    let mut out = Outgoing::default();
    let hint = SizeHint::with_exact(0);
    write(&answer, &hint, form(false, false), &mut true, &mut out);
    assert!(out.take_all().starts_with(b"HTTP/1.1 200 Fine by me\r\n"));
}

#[test]
fn numbers_are_decimal() {
    for number in [0, 9, 10, 65_535, u64::MAX] {
        let mut out = BytesMut::new();
        write_number(number, &mut out);
        assert_eq!(out, number.to_string());
    }
}
