//! Which heads are taken over in pieces of any size, what they say, and what is refused where.
#![allow(clippy::unwrap_used)]
use super::super::look::requests;
use super::*;

#[test]
fn well_formed_requests_pass_in_pieces_of_any_size() {
    let inputs: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\ncGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    for input in inputs {
        for size in 1..=input.len() {
            let seen = requests(input, size);
            let ends = seen.requests.last().map(|(_, end)| *end);
            let text = input.escape_ascii();
            assert_eq!(ends, Some(input.len()), "{text} by {size}");
            assert_eq!(seen, requests(input, input.len()), "{text} by {size}");
        }
    }
}

#[test]
fn what_the_codec_would_repair_is_refused_at_its_line() {
    let rows: [(&[u8], &[u8], Refusal); 10] = [
        (b"GET / HTTP/1.1\r\n", b"host: a\n\r\n", Refusal::BareLf),
        (b"", b"GET / HTTP/1.1\nhost: a\r\n\r\n", Refusal::BareLf),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b" b\r\n\r\n",
            Refusal::Folded,
        ),
        (
            b"GET / HTTP/1.1\r\n",
            b"host : a\r\n\r\n",
            Refusal::FieldName,
        ),
        (b"GET / HTTP/1.1\r\n", b"host\r\n\r\n", Refusal::FieldName),
        (
            b"P / HTTP/1.1\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n",
            Refusal::TwoFramings,
        ),
        (
            b"P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n",
            b"content-length: 3\r\n\r\n",
            Refusal::TwoFramings,
        ),
        (
            b"P / HTTP/1.1\r\ncontent-length: 3\r\n",
            b"content-length: 3\r\n\r\n",
            Refusal::TwoLengths,
        ),
        (
            b"P / HTTP/1.1\r\n",
            b"content-length: 3, 3\r\n\r\n",
            Refusal::Length,
        ),
        (
            b"P / HTTP/1.1\r\ncontent-length: 1\r\n\r\nxG / HTTP/1.1\r\n",
            b"a: b\n\r\n",
            Refusal::BareLf,
        ),
    ];
    for (good, bad, refusal) in rows {
        let input = [good, bad].concat();
        for size in 1..=input.len() {
            let refused = requests(&input, size).refused;
            assert_eq!(refused, Some(refusal), "{} by {size}", input.escape_ascii());
            assert_eq!(requests(good, size).refused, None);
        }
    }
}

#[test]
fn every_byte_is_taken_or_refused_however_it_comes() {
    // Every single byte, at every place of a request where the rules differ.
    let places: [(&[u8], &[u8]); 7] = [
        (b"", b"ET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (b"G", b"T / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (b"GET /", b" HTTP/1.1\r\nhost: a\r\n\r\n"),
        (b"GET /?", b" HTTP/1.1\r\nhost: a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\n", b"host: a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx", b": a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx:", b"\r\n\r\n"),
    ];
    for (before, after) in places {
        for byte in 0..=255 {
            let input = [before, &[byte], after].concat();
            let (whole, pieces) = (requests(&input, input.len()), requests(&input, 1));
            assert_eq!(whole, pieces, "{}", input.escape_ascii());
            let taken = whole.requests.len() == 1 && whole.refused.is_none();
            let refused = whole.requests.is_empty() && whole.refused.is_some();
            assert!(taken || refused, "{}", input.escape_ascii());
        }
    }
}

fn parsed(head: &str) -> Head {
    let mut read = BytesMut::from(head);
    let head = Parser::default().parse(&mut read).unwrap().unwrap();
    assert!(read.is_empty());
    head
}

#[test]
fn a_head_says_what_becomes_of_its_connection_and_body() {
    let says = |version: &str, fields: &str| {
        parsed(&format!("GET /a?b HTTP/{version}\r\n{fields}\r\n")).says
    };
    let rows = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
        ("1.1", "X-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, expected) in rows {
        assert_eq!(
            says(version, fields).is_persistent(),
            expected,
            "{version} {fields}"
        );
    }
    let said = says(
        "1.1",
        "Expect: 100-Continue\r\nTE: gzip, trailers\r\nContent-Length: 007\r\n",
    );
    let expected = Says {
        length: Some(7),
        expects: true,
        trailers: true,
        ..Says::default()
    };
    assert_eq!(said, expected);
    assert!(said.has_body());
    assert!(!says("1.1", "Content-Length: 0\r\n").has_body());
    assert!(says("1.1", "Transfer-Encoding: CHUNKED\r\n").chunked);
}

#[test]
fn values_stay_where_they_were_read_without_blanks_around_them() {
    let head = "GET /p?q=1 HTTP/1.1\r\nHost:\tw \r\nX: \r\nX:a  b\r\n\r\n";
    let mut read = BytesMut::from(head);
    let at = read.as_ptr() as usize;
    let head = Parser::default().parse(&mut read).unwrap().unwrap();
    let request = head.into_request(Body::empty());
    let values: Vec<_> = request.headers().get_all("x").iter().collect();
    assert_eq!(values, ["", "a  b"]);
    let host = &request.headers()["host"];
    assert_eq!(host, "w");
    assert_eq!(host.as_bytes().as_ptr() as usize - at, 27);
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri(), "/p?q=1");
    assert_eq!(request.version(), Version::HTTP_11);
}

#[test]
fn a_refused_head_is_a_request_that_says_why() {
    let rows = [
        (
            "POST /a HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\nx y\r\n",
            "POST /a [w]",
        ),
        ("POST /a\r\n", "GET / [refused]"),
        ("\r\nPOST /a HTTP/1.0\r\n : x\r\n", "POST /a []"),
    ];
    for (bytes, expected) in rows {
        let mut parser = Parser::default();
        let why = parser.parse(&mut BytesMut::from(bytes)).unwrap_err();
        assert!(parser.has_begun() || expected.starts_with("GET"));
        let (request, says) = parser.refused(why);
        assert!(!says.has_body() && !parser.has_begun());
        let host = request.headers().get("host");
        let host = host.map_or("", |host| host.to_str().unwrap());
        let found = format!("{} {} [{host}]", request.method(), request.uri());
        assert_eq!(found, expected);
        assert_eq!(request.extensions().get(), Some(&why));
    }
}

#[test]
fn a_head_has_limits_however_it_comes() {
    let start = "GET / HTTP/1.1\r\n";
    let fields = |count, length| {
        format!(
            "{start}{}\r\n",
            format!("a: {}\r\n", "b".repeat(length)).repeat(count)
        )
    };
    let rows = [
        (fields(MAX_FIELDS, 1), None),
        (fields(MAX_FIELDS + 1, 1), Some(Refusal::TooLarge)),
        (fields(1, MAX_LINE - 3), None),
        (fields(1, MAX_LINE - 2), Some(Refusal::TooLarge)),
        (fields(3, MAX_LINE - 100), Some(Refusal::TooLarge)),
        (
            format!("GET /{}", "a".repeat(MAX_LINE)),
            Some(Refusal::TooLarge),
        ),
        ("\r\n".repeat(MAX_HEAD / 2 + 1), Some(Refusal::TooLarge)),
        ("\r\n".repeat(MAX_HEAD / 2), None),
    ];
    for (bytes, expected) in rows {
        for size in [bytes.len(), 1, 1000] {
            assert_eq!(
                requests(bytes.as_bytes(), size).refused,
                expected,
                "{} by {size}",
                &bytes[..20]
            );
        }
    }
}
