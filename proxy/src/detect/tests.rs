#![allow(clippy::unwrap_used)]
use super::*;

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

/// A ClientHello message, padded by an unknown extension of `padding` bytes.
fn message(sni: &str, alpn: &[&[u8]], padding: usize) -> Vec<u8> {
    let mut name = vec![0];
    name.extend((sni.len() as u16).to_be_bytes());
    name.extend(sni.as_bytes());
    let mut names = (name.len() as u16).to_be_bytes().to_vec();
    names.extend(name);
    let list: Vec<u8> = alpn
        .iter()
        .flat_map(|p| [&[p.len() as u8], *p].concat())
        .collect();
    let mut protocols = (list.len() as u16).to_be_bytes().to_vec();
    protocols.extend(list);
    let extensions = [
        extension(0, &names),
        extension(21, &vec![0; padding]),
        extension(16, &protocols),
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut out = vec![1, 0];
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|c| [&[22, 3, 1], &(c.len() as u16).to_be_bytes()[..], c].concat())
        .collect()
}

fn hello(padding: usize, record: usize) -> Vec<u8> {
    records(
        &message("web.default", &[b"h2", b"weft-h2"], padding),
        record,
    )
}

fn tls() -> Protocol {
    Protocol::Tls(ClientHello {
        sni: Some("web.default".into()),
        alpn: vec![b"h2".to_vec(), b"weft-h2".to_vec()],
    })
}

/// What a client sends, and what it is.
fn table() -> Vec<(Vec<u8>, Protocol)> {
    let text = |t: &str| t.as_bytes().to_vec();
    vec![
        (text("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Protocol::Http1),
        (text("\r\n\r\nGET / HTTP/1.1\r\n"), Protocol::Http1),
        (text("get / http/1.1\n"), Protocol::Http1),
        (text("M-SEARCH * HTTP/1.1\r\n"), Protocol::Http1),
        (text("GET  /a b HTTP/9.9\r\n"), Protocol::Http1),
        (text("GET /\0 HTTP/1.1\r\n"), Protocol::Http1),
        (text("GE{T} / HTTP/1.1\r\n"), Protocol::Http1),
        (text("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), Protocol::Http1),
        (
            text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"),
            Protocol::Http2,
        ),
        (text("PRINT hello\r\n"), Protocol::Opaque),
        (text("GET key\r\n"), Protocol::Opaque),
        (text("EHLO mail\r\n"), Protocol::Opaque),
        (text("*1\r\n$4\r\nPING\r\n"), Protocol::Opaque),
        (text("SSH-2.0-OpenSSH_9\r\n"), Protocol::Opaque),
        (text(" GET / HTTP/1.1\r\n"), Protocol::Http1),
        (text("AMQP\0\0\x09\x01"), Protocol::Opaque),
        (vec![0, 0, 0, 8, 4, 210, 22, 47], Protocol::Opaque),
        (vec![0xff; 20], Protocol::Opaque),
        (vec![22, 3, 1, 0, 5, 2, 0, 0, 1, 0], Protocol::Opaque),
        (vec![22, 3, 1, 0, 0], Protocol::Opaque),
        (vec![22, 3, 1, 0, 3, 1, 34, 0, 0, 1, 0], Protocol::Opaque),
        (vec![22, 9, 1, 0, 5], Protocol::Opaque),
        (hello(0, 16384), tls()),
        (hello(1700, 16384), tls()),
        (hello(9000, 1000), tls()),
        (hello(10, 7), tls()),
        (hello(10, 1), tls()),
    ]
}

#[test]
fn the_first_bytes_tell_wherever_they_are_cut() {
    for (bytes, expected) in table() {
        let mut answer = Answer::NeedMore;
        for cut in 0..=bytes.len() {
            let next = detect(&bytes[..cut], false);
            if answer != Answer::NeedMore {
                assert_eq!(
                    next,
                    answer,
                    "changed its mind at byte {cut} of {:?}",
                    bytes.escape_ascii().to_string()
                );
            }
            answer = next;
        }
        assert_eq!(
            answer,
            Answer::Is(expected),
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
}

#[test]
fn the_end_always_brings_an_answer() {
    for (bytes, _) in table() {
        for cut in 0..=bytes.len() {
            assert_ne!(detect(&bytes[..cut], true), Answer::NeedMore);
        }
    }
    assert_eq!(detect(b"", true), Answer::Is(Protocol::Opaque));
    assert_eq!(detect(b"POST /slow", true), Answer::Is(Protocol::Http1));
    assert_eq!(detect(b"PRI * HT", true), Answer::Is(Protocol::Http1));
    assert_eq!(detect(b"hello", true), Answer::Is(Protocol::Opaque));
    let long = [b"GET /".to_vec(), vec![b'a'; MAX_BYTES]].concat();
    assert_eq!(detect(&long, false), Answer::Is(Protocol::Http1));
    assert_eq!(
        detect(&vec![b'a'; MAX_BYTES], false),
        Answer::Is(Protocol::Opaque)
    );
}

#[test]
fn only_our_own_protocols_make_a_hello_ours() {
    let Answer::Is(Protocol::Tls(ours)) = detect(&hello(0, 100), false) else {
        panic!()
    };
    assert!(ours.is_ours());
    let foreign = records(&message("x", &[b"h2", b"http/1.1"], 0), 100);
    let Answer::Is(Protocol::Tls(foreign)) = detect(&foreign, false) else {
        panic!()
    };
    assert!(!foreign.is_ours());
}

#[test]
fn a_server_name_is_one_of_dns_in_one_spelling() {
    let rows = [
        ("Web.Example", Some("web.example")),
        ("web.example.", Some("web.example")),
        ("_web-1.example", Some("_web-1.example")),
        ("", None),
        (".", None),
        ("web example", None),
        ("web\r\nx: y", None),
        ("wéb", None),
        ("web:443", None),
    ];
    for (sent, expected) in rows {
        let Answer::Is(seen) = detect(&records(&message(sent, &[b"h2"], 0), 100), false) else {
            panic!()
        };
        assert_eq!(seen.server_name(), expected, "{sent:?}");
    }
    let long = "a".repeat(300);
    let Answer::Is(seen) = detect(&records(&message(&long, &[b"h2"], 0), 1000), false) else {
        panic!()
    };
    assert_eq!(seen.server_name(), None);
}

/// Mutates every row of the table many times; the generator is seeded, so a failure repeats.
#[test]
fn no_mutation_panics_or_reads_beyond_the_bound() {
    let mut random = fastrand::Rng::with_seed(2102);
    for (bytes, _) in table() {
        for _ in 0..400 {
            let mut mutant = bytes.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(0..mutant.len());
                match random.u8(0..4) {
                    0 => mutant[at] = random.u8(..),
                    1 => mutant.insert(at, random.u8(..)),
                    2 if mutant.len() > 1 => drop(mutant.remove(at)),
                    _ => mutant[at] ^= 1 << random.u8(0..8),
                }
            }
            detect(&mutant, false);
            assert_ne!(detect(&mutant, true), Answer::NeedMore);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_line_is_put_together() {
    use tokio::io::AsyncWriteExt;
    let (mut client, mut server) = tokio::io::duplex(64);
    let write = async {
        for byte in b"GET / HTTP/1.1\r\n" {
            client.write_all(&[*byte]).await.unwrap();
        }
        std::future::pending::<()>().await
    };
    let mut buffer = BytesMut::new();
    tokio::select! {
        protocol = read(&mut server, &mut buffer) => assert_eq!(protocol.unwrap(), Protocol::Http1),
        () = write => {}
    }
    assert_eq!(&buffer[..], b"GET / HTTP/1.1\r\n");
}

#[tokio::test(start_paused = true)]
async fn time_and_end_of_input_decide_what_bytes_do_not() {
    use tokio::io::AsyncWriteExt;
    let (mut client, mut server) = tokio::io::duplex(64);
    client.write_all(b"hello").await.unwrap();
    assert_eq!(
        read(&mut server, &mut BytesMut::new()).await.unwrap(),
        Protocol::Opaque
    );
    client.write_all(b"GET /").await.unwrap();
    drop(client);
    assert_eq!(
        read(&mut server, &mut BytesMut::new()).await.unwrap(),
        Protocol::Http1
    );
    assert_eq!(
        read(&mut server, &mut BytesMut::new()).await.unwrap(),
        Protocol::Opaque
    );
}
