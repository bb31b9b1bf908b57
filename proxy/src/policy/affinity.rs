//! What ties requests of a Service together, found in a request as it is forwarded. Pure; allocates nothing.

use crate::balance::key_of;
use crate::http::Request;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use weft_proxy_api::policy::settings::{BalancerPolicy, HashKey};

/// Where the key of a request is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashSource {
    /// The first value of a header.
    Header(HeaderName),
    /// The first cookie of this name.
    Cookie(String),
    /// The address of the client.
    Client,
}

impl HashSource {
    /// Of a Service; `None`: its requests are not tied together (or by a header that cannot be).
    pub fn of(policy: &BalancerPolicy) -> Option<Self> {
        match policy {
            BalancerPolicy::RingHash(HashKey::Header(name)) => {
                HeaderName::from_bytes(name.as_bytes())
                    .ok()
                    .map(Self::Header)
            }
            BalancerPolicy::RingHash(HashKey::Cookie(name)) => Some(Self::Cookie(name.clone())),
            BalancerPolicy::RingHash(HashKey::Source) => Some(Self::Client),
            _ => None,
        }
    }

    /// The key of a request; `None`: it has none.
    pub fn key(&self, request: &Request) -> Option<u64> {
        match self {
            Self::Header(name) => request
                .headers()
                .get(name)
                .map(HeaderValue::as_bytes)
                .map(key_of),
            Self::Cookie(name) => cookie(request.headers(), name.as_bytes()).map(key_of),
            Self::Client => request.body().client(),
        }
    }

    /// The key of a connection of bytes from a client with this key.
    pub fn key_of_bytes(&self, client: u64) -> Option<u64> {
        (*self == Self::Client).then_some(client)
    }
}

/// The value of a cookie (RFC 6265 §4.2.1): fields hold pairs, and pairs are separated by semicolons.
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?;
        value.strip_prefix(b"=").map(<[u8]>::trim_ascii)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;

    fn request(fields: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Body::empty());
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_key_is_found_where_the_policy_says() {
        let header = BalancerPolicy::RingHash(HashKey::Header("x-user".into()));
        let cookie = BalancerPolicy::RingHash(HashKey::Cookie("session".into()));
        let ada = Some(key_of(b"ada"));
        type Row<'a> = (&'a BalancerPolicy, &'a [(&'a str, &'a str)], Option<u64>);
        let rows: [Row<'_>; 10] = [
            (&header, &[("x-user", "ada")], ada),
            (&header, &[("x-user", "ada"), ("x-user", "bob")], ada),
            (&header, &[("x-other", "ada")], None),
            (&cookie, &[("cookie", "session=ada")], ada),
            (&cookie, &[("cookie", "a=b; session=ada;c=d")], ada),
            (
                &cookie,
                &[("cookie", "a=b"), ("cookie", " session=ada ")],
                ada,
            ),
            (&cookie, &[("cookie", "xsession=ada; sessionx=bob")], None),
            (&cookie, &[("cookie", "session")], None),
            (&cookie, &[("x-user", "session=ada")], None),
            (&cookie, &[], None),
        ];
        for (at, (policy, fields, expected)) in rows.into_iter().enumerate() {
            let source = HashSource::of(policy).unwrap();
            assert_eq!(source.key(&request(fields)), expected, "row {at}");
        }
    }

    #[test]
    fn a_client_is_known_by_its_address() {
        let source = HashSource::of(&BalancerPolicy::RingHash(HashKey::Source)).unwrap();
        let mut request = request(&[]);
        assert_eq!(source.key(&request), None);
        request.body_mut().set_client(7);
        assert_eq!(source.key(&request), Some(7));
        assert_eq!(source.key_of_bytes(7), Some(7));
        assert_eq!(HashSource::of(&BalancerPolicy::Ewma), None);
        let bad = BalancerPolicy::RingHash(HashKey::Header("not a name".into()));
        assert_eq!(HashSource::of(&bad), None);
    }
}
