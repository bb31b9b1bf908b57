//! What clients send.

use super::*;

#[tokio::test]
async fn a_client_that_breaks_a_rule_of_frames_is_told_which() {
    let oversized = frame(DATA, 0, 1, &vec![0; 16_385]);
    let rows: Vec<(&str, Vec<u8>, Told)> = vec![
        ("a request", get(1), Answers(200)),
        (
            "an unknown frame is ignored",
            [frame(0x42, 0xff, 0, b"?"), get(1)].concat(),
            Answers(200),
        ),
        (
            "a PRIORITY frame is ignored",
            [frame(PRIORITY, 0, 1, &[0; 5]), get(1)].concat(),
            Answers(200),
        ),
        (
            "a frame larger than allowed",
            [post(1, &[]), oversized].concat(),
            Ends(FRAME_SIZE),
        ),
        (
            "HEADERS on stream 0",
            frame(HEADERS, WHOLE, 0, &fields(&GET)),
            Ends(PROTOCOL),
        ),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), Ends(PROTOCOL)),
        ("an even stream", get(2), Ends(PROTOCOL)),
        (
            "a stream below the last",
            [get(5), get(3)].concat(),
            Ends(PROTOCOL),
        ),
        (
            "DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"x"),
            Ends(PROTOCOL),
        ),
        (
            "DATA behind the end of a stream",
            [get(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Ends(PROTOCOL),
        ),
        (
            "HEADERS behind the end of a stream",
            [get(1), get(1)].concat(),
            Ends(PROTOCOL),
        ),
        (
            "RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 1, &number(0)),
            Ends(PROTOCOL),
        ),
        (
            "RST_STREAM on stream 0",
            frame(RST_STREAM, 0, 0, &number(0)),
            Ends(PROTOCOL),
        ),
        (
            "RST_STREAM of the wrong size",
            [post(1, &[]), frame(RST_STREAM, 0, 1, b"xyz")].concat(),
            Ends(PROTOCOL),
        ),
        (
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Ends(PROTOCOL),
        ),
        (
            "SETTINGS of the wrong size",
            frame(SETTINGS, 0, 0, b"xyz"),
            Ends(PROTOCOL),
        ),
        (
            "an acknowledgement with settings",
            frame(SETTINGS, ACK, 0, &setting(3, 1)),
            Ends(PROTOCOL),
        ),
        (
            "ENABLE_PUSH of 2",
            frame(SETTINGS, 0, 0, &setting(2, 2)),
            Ends(PROTOCOL),
        ),
        (
            "INITIAL_WINDOW_SIZE beyond 2^31",
            frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
            Ends(PROTOCOL),
        ),
        (
            "MAX_FRAME_SIZE too small",
            frame(SETTINGS, 0, 0, &setting(5, 100)),
            Ends(PROTOCOL),
        ),
        (
            "MAX_FRAME_SIZE too large",
            frame(SETTINGS, 0, 0, &setting(5, 1 << 24)),
            Ends(PROTOCOL),
        ),
        (
            "an unknown setting is ignored",
            [frame(SETTINGS, 0, 0, &setting(0xabc, 1)), get(1)].concat(),
            Answers(200),
        ),
        (
            "PING on a stream",
            frame(PING, 0, 1, &[0; 8]),
            Ends(PROTOCOL),
        ),
        (
            "PING of the wrong size",
            frame(PING, 0, 0, &[0; 7]),
            Ends(PROTOCOL),
        ),
        (
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Ends(PROTOCOL),
        ),
        (
            "WINDOW_UPDATE of 0",
            frame(WINDOW_UPDATE, 0, 0, &number(0)),
            Ends(PROTOCOL),
        ),
        (
            "WINDOW_UPDATE of 0 on a stream",
            [post(1, &[]), frame(WINDOW_UPDATE, 0, 1, &number(0))].concat(),
            Ends(PROTOCOL),
        ),
        (
            "WINDOW_UPDATE of the wrong size",
            frame(WINDOW_UPDATE, 0, 0, b"xyz"),
            Ends(PROTOCOL),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &number(1)),
            Ends(PROTOCOL),
        ),
        (
            "a window beyond 2^31",
            frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff)),
            Ends(FLOW_CONTROL),
        ),
        (
            "a stream's window beyond 2^31",
            [
                post(1, &[]),
                frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff)),
            ]
            .concat(),
            Resets(FLOW_CONTROL),
        ),
        (
            "a frame between HEADERS and CONTINUATION",
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET)),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "CONTINUATION of another stream",
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET)),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &fields(&GET)),
            Ends(PROTOCOL),
        ),
        (
            "HEADERS in two frames",
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET[..2])),
                frame(CONTINUATION, END_HEADERS, 1, &fields(&GET[2..])),
            ]
            .concat(),
            Answers(200),
        ),
        (
            "PUSH_PROMISE of a client",
            frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&number(2)[..], &fields(&GET)].concat(),
            ),
            Ends(PROTOCOL),
        ),
        (
            "PRIORITY of the wrong size",
            [post(1, &[]), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            Ends(PROTOCOL),
        ),
        (
            "more padding than payload",
            [post(1, &[]), frame(DATA, PADDED, 1, &[5, 0])].concat(),
            Ends(PROTOCOL),
        ),
        (
            "an index beyond the tables",
            frame(HEADERS, WHOLE, 1, &[0xff, 0x80, 0x01]),
            Ends(PROTOCOL),
        ),
        (
            "an integer without end",
            frame(HEADERS, WHOLE, 1, &[&[0xff][..], &[0x80; 20]].concat()),
            Ends(PROTOCOL),
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn a_head_that_http1_could_read_differently_goes_no_further() {
    let long = "x".repeat(120);
    let many: Vec<(&str, &str)> = (0..100).map(|_| ("cookie", "a=b")).collect();
    let large: Vec<(&str, &str)> = (0..300).map(|_| ("x", long.as_str())).collect();
    let no_path: Vec<_> = GET
        .iter()
        .copied()
        .filter(|(name, _)| *name != ":path")
        .collect();
    let no_method = &GET[1..];
    let mut late = GET.to_vec();
    late.swap(0, 3);
    let rows: Vec<(&str, Vec<u8>, Told)> = vec![
        (
            "a name in capitals",
            with(&[("Upper", "x")]),
            Ends(PROTOCOL),
        ),
        ("a name with a blank", with(&[("a b", "x")]), Ends(PROTOCOL)),
        ("an empty name", with(&[("", "x")]), Ends(PROTOCOL)),
        (
            "CR LF in a value",
            with(&[("x", "a\r\nb: c")]),
            Ends(PROTOCOL),
        ),
        ("NUL in a value", with(&[("x", "a\0b")]), Ends(PROTOCOL)),
        (
            "connection",
            with(&[("connection", "close")]),
            Resets(PROTOCOL),
        ),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
            Resets(PROTOCOL),
        ),
        ("upgrade", with(&[("upgrade", "h2c")]), Resets(PROTOCOL)),
        ("keep-alive", with(&[("keep-alive", "1")]), Resets(PROTOCOL)),
        (
            "te other than trailers",
            with(&[("te", "gzip")]),
            Resets(PROTOCOL),
        ),
        ("te: trailers", with(&[("te", "trailers")]), Answers(200)),
        (
            "an unknown pseudo-field",
            with(&[(":unknown", "x")]),
            Ends(PROTOCOL),
        ),
        (
            ":status of a client",
            with(&[(":status", "200")]),
            Resets(PROTOCOL),
        ),
        (
            "a pseudo-field twice",
            with(&[(":path", "/2")]),
            Resets(PROTOCOL),
        ),
        (
            "a pseudo-field behind others",
            only(&[&[("x", "y")][..], &GET].concat()),
            Resets(PROTOCOL),
        ),
        ("no path", only(&no_path), Resets(PROTOCOL)),
        ("no method", only(no_method), Resets(PROTOCOL)),
        ("pseudo-fields in any order", only(&late), Answers(200)),
        (
            "an empty path",
            only(&[GET[0], GET[1], (":path", ""), GET[3]]),
            Resets(PROTOCOL),
        ),
        (
            "a path without a slash",
            only(&[GET[0], GET[1], (":path", "a"), GET[3]]),
            Resets(PROTOCOL),
        ),
        (
            "a path with a blank",
            only(&[GET[0], GET[1], (":path", "/a b"), GET[3]]),
            Resets(PROTOCOL),
        ),
        (
            "a path above the root",
            only(&[GET[0], GET[1], (":path", "/../a"), GET[3]]),
            Answers(400),
        ),
        (
            "userinfo in the authority",
            only(&[GET[0], GET[1], GET[2], (":authority", "a@w")]),
            Answers(400),
        ),
        (
            "host against authority",
            with(&[("host", "other")]),
            Answers(400),
        ),
        ("neither host nor authority", only(&GET[..3]), Answers(400)),
        (
            "CONNECT",
            only(&[(":method", "CONNECT"), (":authority", "w:443")]),
            Answers(501),
        ),
        (
            "a length that is no number",
            with(&[("content-length", "+1")]),
            Resets(PROTOCOL),
        ),
        (
            "a length without a body",
            with(&[("content-length", "3")]),
            Resets(PROTOCOL),
        ),
        (
            "less than its length",
            [
                post(1, &[("content-length", "3")]),
                frame(DATA, END_STREAM, 1, b"ab"),
            ]
            .concat(),
            Resets(PROTOCOL),
        ),
        (
            "more than its length",
            [
                post(1, &[("content-length", "3")]),
                frame(DATA, END_STREAM, 1, b"abcd"),
            ]
            .concat(),
            Resets(PROTOCOL),
        ),
        (
            // The codec drops them; nothing of them goes on.
            "pseudo-fields in trailers",
            [
                post(1, &[]),
                frame(HEADERS, WHOLE, 1, &fields(&[(":path", "/2")])),
            ]
            .concat(),
            Answers(200),
        ),
        (
            "trailers that end nothing",
            [
                post(1, &[]),
                frame(HEADERS, END_HEADERS, 1, &fields(&[("x", "y")])),
            ]
            .concat(),
            Resets(PROTOCOL),
        ),
        ("too many crumbs of a cookie", with(&many), Answers(431)),
        (
            "a head of more than 32 KiB",
            frames_of(&large),
            Answers(431),
        ),
    ];
    check(rows).await;
}

/// A head in as many frames as it takes.
fn frames_of(more: &[(&str, &str)]) -> Vec<u8> {
    let block = fields(&[&GET[..], more].concat());
    let mut pieces = block.chunks(16_000).peekable();
    let mut bytes = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(CONTINUATION, last, 1, piece));
    }
    bytes
}

#[tokio::test]
async fn a_preface_is_checked() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let other = [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &settings[..]].concat();
    assert!(matches!(
        raw_client(other, Ends(PROTOCOL)).await,
        Ends(PROTOCOL) | Closes
    ));
    // RFC 9113 section 3.4 wants settings first; the codec does not insist, and nothing depends on it.
    assert_eq!(
        raw_client([PREFACE, &get(1)].concat(), Answers(200)).await,
        Answers(200)
    );
}
