//! The first message of a TLS client (RFC 8446 section 4.1.2), as far as we need it: who is called, and what is offered.

use super::MAX_BYTES;
use weft_proxy_api::policy::path::server_name;

/// Content type of a handshake record, first byte of every TLS connection.
pub(super) const RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Name of the server the client wants: lower case, without trailing dot; `None` also where it is no host name.
    pub sni: Option<String>,
    /// Application protocols the client offers.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// Does it come from a proxy of ours?
    pub fn is_ours(&self) -> bool {
        self.alpn
            .iter()
            .any(|name| crate::tls::Alpn::from_bytes(name).is_some())
    }
}

pub(super) enum Parsed {
    Hello(ClientHello),
    Incomplete,
    NotTls,
}

/// Looks for a ClientHello at the start of `bytes`, over as many records as it takes.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        // The length of the message, once its header is there.
        if let [kind, a, b, c, body @ ..] = message.as_slice() {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO || length > MAX_BYTES {
                return Parsed::NotTls;
            }
            if body.len() >= length {
                return body_of(&body[..length]).map_or(Parsed::NotTls, Parsed::Hello);
            }
        } else if let Parsed::NotTls = unfinished(&message) {
            // The same as before the record was whole: an answer is not taken back.
            return Parsed::NotTls;
        }
        match record(rest) {
            Record::Part {
                payload,
                complete,
                after,
            } => {
                message.extend_from_slice(payload);
                if !complete {
                    return unfinished(&message);
                }
                rest = after;
            }
            Record::Incomplete => return Parsed::Incomplete,
            Record::Wrong => return Parsed::NotTls,
        }
    }
}

/// A message whose last record is not whole: wrong already, or not yet known.
fn unfinished(message: &[u8]) -> Parsed {
    let wrong_kind = message.first().is_some_and(|kind| *kind != CLIENT_HELLO);
    let too_long = message.get(1).is_some_and(|high| *high != 0);
    if wrong_kind || too_long {
        Parsed::NotTls
    } else {
        Parsed::Incomplete
    }
}

enum Record<'a> {
    Part {
        payload: &'a [u8],
        complete: bool,
        after: &'a [u8],
    },
    Incomplete,
    Wrong,
}

/// One record, or as much of it as is there.
fn record(bytes: &[u8]) -> Record<'_> {
    if bytes.first().is_some_and(|t| *t != RECORD) || bytes.get(1).is_some_and(|major| *major != 3)
    {
        return Record::Wrong;
    }
    let [_, _, _, high, low, body @ ..] = bytes else {
        return Record::Incomplete;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > 1 << 14 {
        return Record::Wrong;
    }
    match body.split_at_checked(length) {
        Some((payload, after)) => Record::Part {
            payload,
            complete: true,
            after,
        },
        None => Record::Part {
            payload: body,
            complete: false,
            after: &[],
        },
    }
}

/// The fields of a whole ClientHello; `None` if it is malformed.
fn body_of(bytes: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    let mut r = Reader(bytes);
    r.take(2 + 32)?; // version, random
    r.vec8()?; // session
    r.vec16()?; // cipher suites
    r.vec8()?; // compression
    if r.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(r.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vec16()?;
        match kind {
            SERVER_NAME => hello.sni = first_name(body)?,
            ALPN => hello.alpn = protocols(body)?,
            _ => {}
        }
    }
    Some(hello)
}

fn first_name(body: &[u8]) -> Option<Option<String>> {
    let mut list = Reader(Reader(body).vec16()?);
    while !list.0.is_empty() {
        let kind = list.take(1)?;
        let name = list.vec16()?;
        if kind == [0] {
            return Some(server_name(name));
        }
    }
    Some(None)
}

fn protocols(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(Reader(body).vec16()?);
    let mut names = Vec::new();
    while !list.0.is_empty() {
        names.push(list.vec8()?.to_vec());
    }
    Some(names)
}

/// Takes from the front of a slice, never beyond its end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
    fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = self.take(1)?[0];
        self.take(n.into())
    }
    fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }
}
