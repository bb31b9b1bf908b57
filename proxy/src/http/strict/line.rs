//! One line of a head, judged by itself: stricter than the codec, so that the codec never has to refuse anything with
//! an answer of its own. Pure.

use super::Refusal;

/// What the first line says about the framing that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// HTTP/1.0, which has no Transfer-Encoding.
    pub(super) old: bool,
}

/// `method SP target SP version` (RFC 9112 section 3), with single spaces.
pub(super) fn start(line: &[u8]) -> Result<Start, Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(not_a_request(line));
    };
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ if names_http(version) => return Err(Refusal::Version),
        _ => return Err(Refusal::NotHttp),
    };
    if !is_token(method) {
        return Err(Refusal::StartLine);
    }
    is_target(target)
        .then_some(Start { old })
        .ok_or(Refusal::Target)
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
        // Rare: what the codec will do is done once more. A fragment never leaves a client, and is dropped in silence.
        _ => !target.contains(&b'#') && target.is_ascii() && http::Uri::try_from(target).is_ok(),
    }
}

fn is_path_and_query(target: &[u8]) -> bool {
    let query = target.iter().position(|byte| *byte == b'?');
    let (path, query) = target.split_at(query.unwrap_or(target.len()));
    all(path, |class| class & PATH) && all(query, |class| class & QUERY)
}

/// Name and value of a field. The name is a token right in front of its colon.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Folded);
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or(Refusal::FieldName)?);
    if !is_token(name) {
        return Err(Refusal::FieldName);
    }
    if !is_text(&value[1..]) {
        return Err(Refusal::FieldValue);
    }
    Ok((name, value[1..].trim_ascii()))
}

/// The size of a chunk and the length of its extensions, which nobody needs.
pub(super) fn chunk(line: &[u8]) -> Option<(u64, usize)> {
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
    !word.is_empty() && all(word, |class| class & TOKEN)
}

/// No control characters but tabs: no NUL, no CR.
fn is_text(value: &[u8]) -> bool {
    // Without an early end, so that the compiler takes many bytes at a time.
    !value.iter().fold(false, |bad, byte| {
        bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f)
    })
}

fn all(bytes: &[u8], fits: impl Fn(u8) -> u8) -> bool {
    bytes.iter().fold(true, |good, byte| {
        good & (fits(CLASS[usize::from(*byte)]) != 0)
    })
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
