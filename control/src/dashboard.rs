//! The dashboard: one page of plain files, compiled in, that asks the controller's API for everything it shows. No build
//! step, no request to anywhere else.
//!
//! The controller serves it at its admin port, `meshctl dashboard` on this machine. What it may do is in the headers:
//! its own scripts and styles, requests to where it came from, and nothing more. A name that somebody else can give to
//! this address (DNS rebinding) is refused.

pub mod document;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Response};
use http_body_util::Full;
use std::net::IpAddr;

const JS: &str = "text/javascript; charset=utf-8";
/// Path, type and text of every file.
const FILES: [(&str, &str, &str); 9] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("dashboard/page.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/page.css"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_str!("dashboard/icon.svg"),
    ),
    ("/page.js", JS, include_str!("dashboard/page.js")),
    ("/graph.js", JS, include_str!("dashboard/graph.js")),
    ("/layout.js", JS, include_str!("dashboard/layout.js")),
    ("/tables.js", JS, include_str!("dashboard/tables.js")),
    ("/tap.js", JS, include_str!("dashboard/tap.js")),
    ("/show.js", JS, include_str!("dashboard/show.js")),
];

/// What browsers must hold the page to.
const GUARDS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The file at this path.
pub fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, kind, text) = FILES.iter().find(|(at, ..)| *at == path)?;
    let mut response = Response::new(Full::from(Bytes::from_static(text.as_bytes())));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    guard(fields);
    Some(response)
}

/// Adds the headers that hold for everything the page consists of.
pub fn guard(fields: &mut HeaderMap) {
    for (name, value) in &GUARDS {
        fields.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
}

/// Could a stranger's page have led a browser here? It can, by a name of its own that it points at this address; not by
/// an address, and not by a name that no public zone can give away.
pub fn may_be_rebound(fields: &HeaderMap) -> bool {
    let Some(host) = fields.get(header::HOST) else {
        return false; // browsers always send it
    };
    let Some(host) = host.to_str().ok().and_then(|at| at.parse().ok()) else {
        return true;
    };
    let host: Authority = host;
    let name = host.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let private = match name.rsplit_once('.') {
        None => true,
        Some((_, last)) => ["localhost", "svc", "local", "internal"].contains(&last),
    };
    !private && address.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_file_the_page_asks_for_is_there_and_guarded() {
        for (from, _, text) in &FILES {
            for (at, _) in text.match_indices("from \"./") {
                let name = text[at + 8..].split('"').next().unwrap();
                assert!(file(&format!("/{name}")).is_some(), "{from} wants {name}");
            }
            let outside = text.replace("http://www.w3.org/", "");
            assert!(!outside.contains("://"), "{from} speaks of another place");
        }
        let page = file("/").unwrap();
        assert_eq!(page.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str();
        assert!(policy.unwrap().starts_with("default-src 'none'"));
        let html = FILES[0].2;
        for forbidden in ["style=\"", "onclick", "<style", "<script>"] {
            assert!(!html.contains(forbidden), "the policy forbids {forbidden}");
        }
        assert!(file("/nothing").is_none());
    }

    #[test]
    fn a_name_of_a_stranger_is_refused() {
        for (host, rebound) in [
            ("127.0.0.1:8085", false),
            ("[::1]:8085", false),
            ("localhost", false),
            ("weft-control:8085", false),
            ("weft-control.weft.svc:8085", false),
            ("weft-control.weft.svc.cluster.local", false),
            ("evil.example", true),
            ("127.0.0.1.evil.example:8085", true),
            ("localhost.evil.example", true),
            ("a b", true),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::HOST, host.parse().unwrap());
            assert_eq!(may_be_rebound(&fields), rebound, "{host}");
        }
        assert!(!may_be_rebound(&HeaderMap::new()));
    }
}
