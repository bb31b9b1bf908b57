//! Why something does not apply: the same conditions as the verdict, taken apart. Asked by people, never per request.

use super::inbound::{Allow, Caller, Traffic};
use super::matching::{HeaderMatch, HttpMatch, RequestView, TextMatch};
use std::fmt;

/// The first condition of a permission that the traffic does not meet.
#[derive(Debug, Clone, PartialEq)]
pub enum Miss<'a> {
    /// The caller proved no identity.
    NoIdentity,
    /// The caller is none of its sources.
    Source,
    /// The caller is one of its sources, but calls from an address that does not belong to it.
    Address,
    /// It opens other ports.
    Port,
    /// It allows HTTP only, and this is not HTTP.
    NotHttp,
    /// None of its matches describes the request; each with what does not fit. None at all: it describes nothing.
    Request(Vec<(&'a HttpMatch, Part<'a>)>),
}

/// The first part of a match that a request does not fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<'a> {
    /// The method is another.
    Method(&'a [String]),
    /// The path is another.
    Path(&'a TextMatch),
    /// The field is absent.
    Absent(&'a HeaderMatch),
    /// No value of the field fits.
    Header(&'a HeaderMatch),
}

impl Allow {
    /// Why this permission does not cover the traffic; `None`: it does. `request` is `None` for bytes.
    pub fn miss<'a>(
        &'a self,
        caller: Caller<'_>,
        port: u16,
        request: Option<&RequestView<'_>>,
    ) -> Option<Miss<'a>> {
        let listed = |identity| self.sources.iter().any(|s| &s.identity == identity);
        match caller.identity {
            None => return Some(Miss::NoIdentity),
            Some(identity) if !listed(identity) => return Some(Miss::Source),
            Some(_) if !self.sources.iter().any(|source| source.is(caller)) => {
                return Some(Miss::Address);
            }
            Some(_) if !self.ports.contains(port) => return Some(Miss::Port),
            Some(_) => {}
        }
        match (&self.traffic, request) {
            (Traffic::Any, _) => None,
            (Traffic::Http(_), None) => Some(Miss::NotHttp),
            (Traffic::Http(matches), Some(request)) => misses(matches, request).map(Miss::Request),
        }
    }
}

/// What of each match does not fit; `None`: one fits.
pub fn misses<'a>(
    matches: &'a [HttpMatch],
    request: &RequestView<'_>,
) -> Option<Vec<(&'a HttpMatch, Part<'a>)>> {
    matches
        .iter()
        .map(|one| one.miss(request).map(|part| (one, part)))
        .collect()
}

impl HttpMatch {
    /// What of it the request does not fit; `None`: it fits.
    pub fn miss(&self, request: &RequestView<'_>) -> Option<Part<'_>> {
        if !self.fits_method(request) {
            return Some(Part::Method(&self.methods));
        }
        if let Some(path) = self.path.as_ref().filter(|path| !path.fits(request.path)) {
            return Some(Part::Path(path));
        }
        let header = self.headers.iter().find(|header| !header.fits(request))?;
        let is_there = request.headers.contains_key(header.name.as_str())
            || (header.name == "host" && !request.host.is_empty());
        Some(match is_there {
            true => Part::Header(header),
            false => Part::Absent(header),
        })
    }
}

impl fmt::Display for Part<'_> {
    /// What would fit: `the method is not GET or HEAD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Method(methods) => write!(f, "the method is not {}", methods.join(" or ")),
            Part::Path(path) => write!(f, "the path {}", Not(path)),
            Part::Absent(header) => write!(f, "there is no header {}", header.name),
            Part::Header(header) => write!(f, "the header {} {}", header.name, Not(&header.value)),
        }
    }
}

struct Not<'a>(&'a TextMatch);

impl fmt::Display for Not<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            TextMatch::Exact(text) => write!(f, "is not {text}"),
            TextMatch::Prefix(text) => write!(f, "does not start with {text}"),
            TextMatch::RegexPrefix(pattern) => {
                write!(f, "does not start as {} describes", pattern.source())
            }
            TextMatch::RegexFull(pattern) => {
                write!(f, "as a whole does not fit {}", pattern.source())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::SpiffeId;
    use crate::policy::inbound::{Ports, Source};

    fn one() -> HttpMatch {
        HttpMatch {
            object: "HTTPRouteGroup default/api".into(),
            name: "read".into(),
            path: Some(TextMatch::regex_prefix("/a[0-9]").unwrap()),
            methods: vec!["GET".into(), "HEAD".into()],
            headers: vec![HeaderMatch {
                name: "x-beta".into(),
                value: TextMatch::regex_full("yes").unwrap(),
            }],
        }
    }

    fn allow() -> Allow {
        Allow {
            object: "TrafficTarget default/t".into(),
            sources: vec![Source {
                identity: id("a"),
                addresses: Some(vec![[10, 0, 0, 1].into()]),
            }],
            ports: Ports::Only(vec![80]),
            traffic: Traffic::Http(vec![one()]),
        }
    }

    fn id(account: &str) -> SpiffeId {
        SpiffeId::new("cluster.local", "default", account).unwrap()
    }

    /// `GET /a1 yes`: method, path, value of the header.
    fn with<T>(request: &str, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let mut words = request.split(' ');
        let mut headers = http::HeaderMap::new();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if let Some(value) = words.next() {
            headers.insert("x-beta", value.parse().unwrap());
        }
        look(&RequestView {
            method,
            path,
            host: "web",
            headers: &headers,
        })
    }

    #[test]
    fn the_first_part_that_does_not_fit_is_named() {
        for (request, expected) in [
            ("GET /a1 yes", None),
            ("POST /a1 yes", Some("the method is not GET or HEAD")),
            (
                "GET /ab yes",
                Some("the path does not start as /a[0-9] describes"),
            ),
            ("GET /a1", Some("there is no header x-beta")),
            ("GET /a1 no", Some("the header x-beta is not yes")),
        ] {
            let one = one();
            let (miss, fits) = with(request, |view| {
                (one.miss(view).map(|part| part.to_string()), one.fits(view))
            });
            assert_eq!(miss.as_deref(), expected, "{request}");
            assert_eq!(miss.is_none(), fits, "{request}");
        }
    }

    #[test]
    fn the_first_condition_that_is_not_met_is_named() {
        let (a, b) = (id("a"), id("b"));
        let named = |miss: Option<Miss<'_>>| match miss {
            None => "covered",
            Some(Miss::NoIdentity) => "identity",
            Some(Miss::Source) => "source",
            Some(Miss::Address) => "address",
            Some(Miss::Port) => "port",
            Some(Miss::NotHttp) => "bytes",
            Some(Miss::Request(_)) => "request",
        };
        for (identity, last, port, request, expected) in [
            (Some(&a), 1, 80, Some("GET /a1 yes"), "covered"),
            (None, 1, 80, Some("GET /a1 yes"), "identity"),
            (Some(&b), 1, 80, Some("GET /a1 yes"), "source"),
            (Some(&a), 2, 80, Some("GET /a1 yes"), "address"),
            (Some(&a), 1, 81, Some("GET /a1 yes"), "port"),
            (Some(&a), 1, 80, None, "bytes"),
            (Some(&a), 1, 80, Some("GET /b yes"), "request"),
        ] {
            let caller = Caller {
                identity,
                address: [10, 0, 0, last].into(),
            };
            let allow = allow();
            let seen = match request {
                Some(request) => with(request, |view| named(allow.miss(caller, port, Some(view)))),
                None => named(allow.miss(caller, port, None)),
            };
            assert_eq!(seen, expected, "{identity:?} {last} {port} {request:?}");
        }
    }
}
