//! HTTP/2 frames no peer should send, written by hand: what RFC 9113 asks for is what happens, at the side of the
//! client and at that of the endpoint.

use super::*;

mod clients;
mod endpoints;
mod floods;

/// Payload of the PING whose answer says that everything before it was read.
const LAST: &[u8] = b"the last";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

// Their flags.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WHOLE: u8 = END_STREAM | END_HEADERS;

/// What a peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The connection ends with this error code.
    Ends(u32),
    /// The stream ends with this error code; the connection lives.
    Resets(u32),
    /// The stream is answered with this status.
    Answers(u16),
    /// Nothing is wrong, and there is nothing to say.
    Nothing,
    /// The connection just ends.
    Closes,
}
use Told::*;

// Error codes (RFC 9113 section 7). The codec says PROTOCOL also where there is a code of its own for a mistake, which
// section 5.4 leaves to it; and it ends the connection where ending the stream would do.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const FRAME_SIZE: u32 = 6;
const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field list without any compression (RFC 7541 section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "w"),
];
const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "w"),
];

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &fields(&GET))
}

/// A request with these fields behind (or in place of) the usual ones.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &fields(&[&GET[..], more].concat()))
}

fn only(list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &fields(list))
}

fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let list = [&POST[..], more].concat();
    frame(HEADERS, END_HEADERS, stream, &fields(&list))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// The first thing the proxy says about what it was sent, or how it ends the connection if that is what is waited for;
/// `Nothing`: it has answered our last PING instead.
async fn told(io: &mut DuplexStream, wanted: Told) -> Told {
    let other = !matches!(wanted, Ends(_));
    let mut read = Vec::new();
    loop {
        while read.len() >= 9 {
            let length = u32::from_be_bytes([0, read[0], read[1], read[2]]) as usize;
            if read.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = read.drain(..9 + length).collect();
            let payload = &frame[9..];
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match frame[3] {
                GOAWAY => return Ends(code(4)),
                RST_STREAM if other => return Resets(code(0)),
                HEADERS if other => return Answers(status(payload)),
                PING if frame[4] & ACK != 0 && payload == LAST => return Nothing,
                _ => {}
            }
        }
        if io.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return Closes;
        }
    }
}

/// The status, which is always the first field of our answers (RFC 7541 appendix A has seven of them by number).
fn status(block: &[u8]) -> u16 {
    match block[0] {
        byte @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
        _ => {
            // A literal with the indexed name `:status`; three digits take two bytes by Huffman's code or three plain.
            let text = &block[2..];
            match block[1] & 0x80 {
                0 => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
                _ => huffman_digits(&text[..usize::from(block[1] & 0x7f)]),
            }
        }
    }
}

/// Digits are 5 bits (0, 1, 2) or 6 bits (the others) long.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let (mut at, mut number) = (0, 0);
    while at + 5 <= bits.len() {
        let value = |length: usize| {
            bits.get(at..at + length).map(|bits| {
                bits.iter()
                    .fold(0u16, |all, bit| all << 1 | u16::from(*bit))
            })
        };
        let (digit, length) = match value(5) {
            Some(short @ 0..=2) => (short, 5),
            _ => match value(6) {
                Some(long @ 0x19..=0x1f) => (long - 0x19 + 3, 6),
                _ => break,
            },
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}

/// What a client is told that sends a preface, its settings and then these bytes.
async fn client_sends(bytes: &[u8], wanted: Told) -> Told {
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    raw_client([&start, bytes].concat(), wanted).await
}

async fn raw_client(sent: Vec<u8>, wanted: Told) -> Told {
    let (client, _) = application(echo, HttpVersion::Http2);
    let proxy = proxy(client, HttpVersion::Http2);
    let _drain = proxy.drain;
    let (mut read, mut write) = tokio::io::split(proxy.io);
    // Both at once: a flood is not read to its end by whoever ends the connection, nor by whoever waits to be read.
    let sending = tokio::spawn(async move {
        let _ = write.write_all(&sent).await;
        std::future::pending::<()>().await;
    });
    let (mut ours, mut theirs) = duplex(1 << 20);
    let relay = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut read, &mut theirs).await;
    });
    let told = told(&mut ours, wanted).await;
    sending.abort();
    relay.abort();
    told
}

async fn check(rows: Vec<(&str, Vec<u8>, Told)>) {
    let mut wrong = Vec::new();
    for (name, mut bytes, wanted) in rows {
        if matches!(wanted, Nothing | Ends(_)) {
            bytes.extend(frame(PING, 0, 0, LAST));
        }
        let got = client_sends(&bytes, wanted).await;
        if got != wanted {
            wrong.push(format!("{name}: {got:?} in place of {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
