//! Which requests are refused because two programs could read them differently, and the one form in which the others
//! are judged and forwarded. Pure; nothing is repaired.

use super::Request;
use super::strict::{self, Refusal};
use crate::error::{Error, ErrorKind};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use hyper::ext::Protocol;
use std::borrow::Cow;
use std::net::SocketAddr;
use weft_proxy_api::policy::path;

#[cfg(test)]
mod tests;

/// Most bytes of an HTTP/2 head, counted as RFC 9113 section 6.5.2 does.
pub const MAX_HEADER_LIST: usize = 32 * 1024;
/// What each field costs beyond its text.
const FIELD: usize = 32;

/// Checks the head of a request and brings its target into canonical form, in place. `target` is the Host of an
/// HTTP/1.0 request that names none.
pub fn request(request: &mut Request, target: SocketAddr) -> Result<(), Error> {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return Err(refused_before(*refusal));
    }
    let tunnel = request.method() == Method::CONNECT;
    if tunnel && !is_extended_connect(request).map_err(refused)? {
        let detail =
            "CONNECT is not carried: connect to the target itself, or list this port as opaque";
        return Err(Error::new(ErrorKind::UnsupportedUpgrade).with_detail(detail));
    }
    // Crumbs of a cookie are fields of their own here. HTTP/1 was counted as it was read.
    if request.headers().len() > strict::MAX_FIELDS {
        return Err(Error::new(ErrorKind::HeaderTooLarge).with_detail(Refusal::TooLarge.explain()));
    }
    if request.version() == Version::HTTP_2 && list_size(request) > MAX_HEADER_LIST {
        return Err(Error::new(ErrorKind::HeaderTooLarge).with_detail(Refusal::TooLarge.explain()));
    }
    framing(request.version(), request.headers()).map_err(refused)?;
    match request.version() {
        Version::HTTP_2 => authority_http2(request),
        _ => authority_http1(request, target),
    }
    .map_err(refused)?;
    canonical_path(request).map_err(refused)
}

/// Is it CONNECT to a protocol on one stream (RFC 8441 section 4)?
fn is_extended_connect(request: &Request) -> Result<bool, &'static str> {
    let Some(protocol) = request.extensions().get::<Protocol>() else {
        return Ok(false);
    };
    let protocol = protocol.as_ref();
    match !protocol.is_empty() && protocol.iter().all(|byte| is_token(*byte)) {
        true => Ok(request.version() == Version::HTTP_2),
        false => Err(":protocol is not a token"),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn list_size(request: &Request) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let path = request.uri().path_and_query();
    fields.sum::<usize>() + path.map_or(0, |path| path.as_str().len() + FIELD)
}

/// The codec did not take the head over.
fn refused_before(refusal: Refusal) -> Error {
    let kind = match refusal {
        Refusal::Late => ErrorKind::HeaderTimeout,
        Refusal::TooLarge => ErrorKind::HeaderTooLarge,
        Refusal::NotHttp => ErrorKind::NotHttp,
        _ => ErrorKind::BadRequest,
    };
    Error::new(kind).with_detail(refusal.explain())
}

fn refused(why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::BadRequest).with_detail(why)
}

/// One way only to find the end of the body.
fn framing(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if version != Version::HTTP_11 {
            return Err("Transfer-Encoding exists in HTTP/1.1 only");
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("Transfer-Encoding is something else than one `chunked`");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        if lengths.next().is_some() {
            return Err("more than one Content-Length");
        }
        if !is_length(length.as_bytes()) {
            return Err("Content-Length is not a number");
        }
    }
    Ok(())
}

fn is_length(value: &[u8]) -> bool {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits && std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
}

/// Exactly one valid Host, which an absolute target must agree with. Leaves an origin-form target and one Host.
fn authority_http1(request: &mut Request, target: SocketAddr) -> Result<(), &'static str> {
    let host = single_host(request.headers())?;
    let Some(authority) = request.uri().authority() else {
        return match host {
            Some(_) => Ok(()),
            None if request.version() == Version::HTTP_10 => {
                let value = HeaderValue::from_str(&target.to_string()).map_err(|_| "no Host")?;
                request.headers_mut().insert(HOST, value);
                Ok(())
            }
            None => Err("no Host"),
        };
    };
    if request.uri().scheme().is_none() {
        return Err("the target of the request has no path");
    }
    if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
        return Err("the scheme of the target is neither http nor https");
    }
    let named =
        checked(authority.as_str().as_bytes()).ok_or("the authority of the target is not valid")?;
    if host.is_some_and(|host| !same(named, host)) {
        return Err("Host contradicts the target");
    }
    let value =
        HeaderValue::from_str(named).map_err(|_| "the authority of the target is not valid")?;
    request.headers_mut().insert(HOST, value);
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok(())
}

/// `:authority` and Host must say the same; afterwards there is `:authority` alone.
fn authority_http2(request: &mut Request) -> Result<(), &'static str> {
    let host = single_host(request.headers())?;
    if let Some(authority) = request.uri().authority() {
        let named = checked(authority.as_str().as_bytes()).ok_or(":authority is not valid")?;
        match host {
            None => return Ok(()),
            Some(host) if !same(named, host) => return Err("Host contradicts :authority"),
            Some(_) => {}
        }
    } else {
        let host = host.ok_or("neither :authority nor Host")?;
        let authority = Authority::try_from(host).map_err(|_| "Host is not valid")?;
        let mut parts = request.uri().clone().into_parts();
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "Host is not valid")?;
    }
    request.headers_mut().remove(HOST);
    Ok(())
}

fn single_host(headers: &HeaderMap) -> Result<Option<&[u8]>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return Ok(None);
    };
    if hosts.next().is_some() {
        return Err("more than one Host");
    }
    checked(host.as_bytes()).ok_or("Host is not valid")?;
    Ok(Some(host.as_bytes()))
}

/// A host, with or without port, that is not empty and carries no userinfo.
fn checked(authority: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authority).ok()?;
    path::normalise_host(text).filter(|host| !host.is_empty())?;
    Some(text)
}

/// The same host and port, however they are spelled.
fn same(a: &str, b: &[u8]) -> bool {
    let Ok(b) = std::str::from_utf8(b) else {
        return false;
    };
    a.eq_ignore_ascii_case(b)
        || (path::normalise_host(a) == path::normalise_host(b) && port(a) == port(b))
}

fn port(authority: &str) -> &str {
    let after_literal = authority.rfind(']').map_or(0, |at| at + 1);
    let tail = &authority[after_literal..];
    let port = tail.rsplit_once(':').map_or("", |(_, port)| port);
    if port == "80" { "" } else { port }
}

fn canonical_path(request: &mut Request) -> Result<(), Cow<'static, str>> {
    let uri = request.uri();
    if uri.path() == "*" {
        let whole = request.method() == Method::OPTIONS;
        return if whole {
            Ok(())
        } else {
            Err("the target `*` belongs to OPTIONS".into())
        };
    }
    // None in front of a query is read as `/`, and has to be written so (RFC 9112 section 3.2.1).
    let written = uri.path_and_query();
    let written = written.is_none_or(|path| path.as_str().starts_with('/'));
    let canonical = match path::normalise(uri.path()) {
        Ok(Cow::Borrowed(_)) if written => return Ok(()),
        Ok(canonical) => canonical.into_owned(),
        Err(error) => return Err(error.to_string().into()),
    };
    let whole = match uri.query() {
        Some(query) => format!("{canonical}?{query}"),
        None => canonical,
    };
    let path = PathAndQuery::from_maybe_shared(bytes::Bytes::from(whole))
        .map_err(|_| "the path is not valid")?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the path is not valid")?;
    Ok(())
}

/// `:authority` or Host as policy sees it: lower case, without port and trailing dot.
pub fn host(request: &Request) -> Cow<'_, str> {
    let text = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
    };
    path::normalise_host(text).unwrap_or_default()
}

/// Does the head ask to change the protocol of its connection?
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| has_token(value, "upgrade"))
}

/// Is `token` one of the comma-separated words of a field?
pub fn has_token(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|word| word.eq_ignore_ascii_case(token.as_bytes()))
}

/// The comma-separated words of a field.
pub fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
}
