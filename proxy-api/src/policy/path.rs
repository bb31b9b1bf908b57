//! One canonical form of a path, and of a host: what policy judges is what is forwarded.

use std::borrow::Cow;
use std::net::Ipv6Addr;

#[cfg(test)]
mod tests;

/// Longest name of DNS, as text.
const MAX_NAME: usize = 254;

/// Why a path has no canonical form that every parser would read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `%` without two hexadecimal digits.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    BadEscape,
    /// NUL, escaped or not.
    #[error("the path contains a NUL")]
    Nul,
    /// An escaped slash or a backslash: parsers disagree about it.
    #[error("the path contains an escaped slash or a backslash")]
    EscapedSlash,
    /// `..` leads above the root.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// The canonical form of the path of an origin-form target, without query (RFC 3986 section 6.2.2): unreserved
/// characters decoded, escapes in upper case, `.` and `..` (in any spelling) resolved, empty segments merged.
/// `*` and the empty path are returned as they are. Borrows when nothing had to change.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if matches!(path, "" | "*") || is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    let resolved = resolve(&decoded)?;
    Ok(if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    })
}

/// True for nearly every path: absolute, and without any byte that could need a change.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            // A dot is only suspect at the start of a segment, a slash only after another one.
            let suspect =
                matches!(byte, b'%' | b'\\' | 0) || (before == b'/' && matches!(byte, b'.' | b'/'));
            before = byte;
            !suspect
        })
}

/// Unreserved characters decoded, the other escapes in upper case.
fn decode(path: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\', '\0']) {
        decoded.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'%' => push_escape(&mut decoded, rest.as_bytes(), at)?,
            b'\\' => return Err(PathError::EscapedSlash),
            _ => return Err(PathError::Nul),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

fn push_escape(decoded: &mut String, bytes: &[u8], at: usize) -> Result<(), PathError> {
    match (digit(bytes, at + 1)? << 4) | digit(bytes, at + 2)? {
        0 => return Err(PathError::Nul),
        b'/' | b'\\' => return Err(PathError::EscapedSlash),
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
            decoded.push(byte.into());
        }
        byte => decoded.push_str(&format!("%{byte:02X}")),
    }
    Ok(())
}

fn digit(bytes: &[u8], at: usize) -> Result<u8, PathError> {
    bytes
        .get(at)
        .and_then(|byte| char::from(*byte).to_digit(16))
        .and_then(|digit| u8::try_from(digit).ok())
        .ok_or(PathError::BadEscape)
}

/// Empty and dot segments resolved. The result starts with a slash, and ends with one where a directory was meant.
fn resolve(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop().ok_or(PathError::AboveRoot)?),
            _ => kept.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len() + 1);
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    let is_directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    if is_directory || kept.is_empty() {
        resolved.push('/');
    }
    Ok(resolved)
}

/// The server that a TLS client names (SNI, RFC 6066 section 3: a DNS name, without port, in ASCII) as matches see it:
/// lower case, without trailing dot. `None`: it is no host name.
pub fn server_name(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let dns = !text.is_empty() && text.len() <= MAX_NAME;
    let dns = dns
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    dns.then(|| text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
        .filter(|host| !host.is_empty())
}

/// The canonical form of an authority or Host: lower case, without port, without trailing dot; an IPv6 literal keeps its
/// brackets and gets its shortest form. An empty one stays empty. `None`: userinfo, or not a host at all.
pub fn normalise_host(authority: &str) -> Option<Cow<'_, str>> {
    if let Some(name) = plain_host(authority) {
        return Some(Cow::Borrowed(name));
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (literal, port) = rest.split_once(']')?;
        let address: Ipv6Addr = literal.parse().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?))
            .then(|| Cow::Owned(format!("[{address}]")));
    }
    let host = match authority.split_once(':') {
        Some((host, port)) if !host.is_empty() && is_port(port) => host,
        Some(_) => return None,
        None => authority,
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = name.split('.').all(is_label) || authority.is_empty();
    is_name.then(|| lower(name))
}

/// The host, where it is one like nearly every one: small letters, digits and hyphens between single dots, in one look.
fn plain_host(authority: &str) -> Option<&str> {
    let (mut label, mut end) = (0, authority.len());
    for (at, byte) in authority.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => label += 1,
            b'.' if label > 0 => label = 0,
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    let port = authority.get(end + 1..).unwrap_or_default();
    (label > 0 && is_port(port)).then(|| &authority[..end])
}

/// The port may be empty (RFC 3986 section 3.2.3).
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok())
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    !label.is_empty() && label.bytes().all(allowed)
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
