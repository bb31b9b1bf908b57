//! What passes the scanner in pieces of any size, and what is refused where.
use super::*;

/// Scans in pieces of `size`; gives back what passed, and the refusal.
fn scan(input: &[u8], size: usize) -> (usize, Option<Refusal>) {
    let mut scanner = Scanner::default();
    let (mut passed, mut seen) = (0, 0);
    while seen < input.len() {
        seen = (seen + size).min(input.len());
        let scanned = scanner.scan(&input[passed..seen]);
        passed += scanned.passed;
        if scanned.refused.is_some() {
            return (passed, scanned.refused);
        }
    }
    (passed, None)
}

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
            assert_eq!(
                scan(input, size),
                (input.len(), None),
                "{} by {size}",
                input.escape_ascii()
            );
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
            assert_eq!(
                scan(&input, size),
                (good.len(), Some(refusal)),
                "{} by {size}",
                input.escape_ascii()
            );
        }
    }
}

#[test]
fn a_refusal_survives_its_way_through_a_field() {
    for refusal in Refusal::ALL {
        let ending = refusal.ending(Place::Head);
        let value = ending
            .trim_end()
            .rsplit_once(' ')
            .map(|(_, value)| value.as_bytes());
        assert_eq!(value.and_then(Refusal::from_value), Some(refusal));
    }
    for unknown in [&b"9"[..], b"", b"z", b"A"] {
        assert_eq!(Refusal::from_value(unknown), None);
    }
}

#[test]
fn whatever_passes_needs_no_answer_of_the_codec() {
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
            let (passed, refused) = scan(&input, input.len());
            if refused.is_none() && passed == input.len() {
                assert!(the_codec_takes(&input), "{}", input.escape_ascii());
            }
        }
    }
}

/// The parts of which the codec is made.
fn the_codec_takes(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input).into_owned();
    let mut lines = text.trim_start().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    http::Method::from_bytes(method.as_bytes()).is_ok()
        && http::Uri::try_from(target).is_ok()
        && lines.take_while(|line| !line.is_empty()).all(|line| {
            line.split_once(':')
                .is_some_and(|(name, _)| http::HeaderName::from_bytes(name.as_bytes()).is_ok())
        })
}
