//! One line of a head, judged by itself. Pure.

use super::Refusal;

/// A first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Start<'a> {
    pub(in crate::http) method: &'a [u8],
    pub(in crate::http) target: &'a [u8],
    /// HTTP/1.0, which has no Transfer-Encoding.
    pub(in crate::http) old: bool,
}

/// `method SP target SP version` (RFC 9112 section 3), with single spaces.
pub(in crate::http) fn start(line: &[u8]) -> Result<Start<'_>, Refusal> {
    let words = before(b' ', line)
        .and_then(|(method, rest)| before(b' ', rest).map(|(target, rest)| (method, target, rest)));
    let Some((method, target, version)) = words else {
        return Err(not_a_request(line));
    };
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ if version.contains(&b' ') => return Err(not_a_request(line)),
        _ if names_http(version) => return Err(Refusal::Version),
        _ => return Err(Refusal::NotHttp),
    };
    if !is_token(method) {
        return Err(Refusal::StartLine);
    }
    let start = Start {
        method,
        target,
        old,
    };
    is_target(target).then_some(start).ok_or(Refusal::Target)
}

/// What stands before and behind the first `byte`.
fn before(byte: u8, text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A line that names HTTP is a broken request; any other is not HTTP at all.
fn not_a_request(line: &[u8]) -> Refusal {
    let mut words = line.split(|byte| !byte.is_ascii_graphic());
    match words.any(names_http) {
        true => Refusal::StartLine,
        false => Refusal::NotHttp,
    }
}

fn names_http(word: &[u8]) -> bool {
    word.len() >= 5 && word[..5].eq_ignore_ascii_case(b"HTTP/")
}

/// Any of the four forms; which of them fits the method is judged with the whole head.
fn is_target(target: &[u8]) -> bool {
    match target {
        [b'/', ..] => is_path_and_query(target),
        b"*" => true,
        // Rare: it is read once more when the request is made. A fragment never leaves a client, and would be dropped there.
        _ => !target.contains(&b'#') && target.is_ascii() && http::Uri::try_from(target).is_ok(),
    }
}

fn is_path_and_query(target: &[u8]) -> bool {
    let mut allowed = PATH;
    target.iter().all(|byte| {
        if *byte == b'?' {
            allowed = QUERY;
        }
        CLASS[usize::from(*byte)] & allowed != 0
    })
}

/// Name and value of a field. The name is a token right in front of its colon.
pub(in crate::http) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Folded);
    }
    let token = |byte: &&u8| CLASS[usize::from(**byte)] & TOKEN != 0;
    let (name, rest) = line.split_at(line.iter().take_while(token).count());
    let Some((b':', value)) = rest.split_first().filter(|_| !name.is_empty()) else {
        return Err(Refusal::FieldName);
    };
    if !is_text(value) {
        return Err(Refusal::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

/// The size of a chunk and the length of its extensions, which nobody needs.
pub(in crate::http) fn chunk(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, extension) = line.split_at(digits);
    if !matches!(digits, 1..=16) || !matches!(extension.first(), None | Some(b';')) {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    (i64::try_from(size).is_ok() && is_text(extension)).then_some((size, extension.len()))
}

fn is_token(word: &[u8]) -> bool {
    let token = |byte: &u8| CLASS[usize::from(*byte)] & TOKEN != 0;
    !word.is_empty() && word.iter().all(token)
}

/// No control characters but tabs: no NUL, no CR.
fn is_text(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let plain = words
        .iter()
        .fold(true, |plain, word| plain & is_plain(*word));
    let plain = plain
        && match value.last_chunk::<8>() {
            // The end once more with bytes before it: one step in place of up to seven.
            Some(last) => is_plain(*last),
            None => rest.iter().all(|byte| is_plain([*byte; 8])),
        };
    // Tabs are rare.
    plain
        || !value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

/// Has none of the eight bytes a value below that of a space, or that of DEL?
fn is_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(bytes);
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let other = word ^ (ONES * 0x7f);
    let delete = other.wrapping_sub(ONES) & !other;
    (below | delete) & HIGH == 0
}

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;

/// What a byte may be part of: tokens as RFC 9110 section 5.6.2 says; paths and queries as the URI type takes them, but
/// ASCII only and without fragments.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[at] |= TOKEN;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'?' | b'`') {
            table[at] |= PATH;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'"') {
            table[at] |= QUERY;
        }
        at += 1;
    }
    table
};
