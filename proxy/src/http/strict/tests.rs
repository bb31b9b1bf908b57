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
        let ending = refusal.ending(true);
        let value = ending
            .trim_end()
            .rsplit_once(' ')
            .map(|(_, value)| value.as_bytes());
        assert_eq!(value.and_then(Refusal::from_value), Some(refusal));
    }
    assert_eq!(Refusal::from_value(b"9"), None);
    assert_eq!(Refusal::from_value(b""), None);
}
