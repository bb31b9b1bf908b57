//! Which requests pass, in which form, and which are refused.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::http::Body;

fn check(
    version: Version,
    method: &str,
    uri: &str,
    fields: &[(&str, &str)],
) -> Result<Request, Error> {
    let mut head = http::Request::builder()
        .version(version)
        .method(method)
        .uri(uri);
    for (name, value) in fields {
        head = head.header(*name, *value);
    }
    let mut head = head.body(Body::empty()).unwrap();
    request(&mut head, "10.0.0.7:8080".parse().unwrap()).map(|()| head)
}

const H1: Version = Version::HTTP_11;
const H10: Version = Version::HTTP_10;
const H2: Version = Version::HTTP_2;

#[test]
fn what_two_programs_could_read_differently_is_refused() {
    let host = ("host", "web");
    type Row<'a> = (Version, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: &[Row<'_>] = &[
        (
            H1,
            "POST",
            "/",
            &[
                host,
                ("content-length", "3"),
                ("transfer-encoding", "chunked"),
            ],
            "both Content-Length",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "3"), ("content-length", "4")],
            "more than one Content-Length",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "3"), ("content-length", "3")],
            "more than one Content-Length",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "3, 3")],
            "not a number",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "+3")],
            "not a number",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "")],
            "not a number",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("content-length", "9223372036854775808")],
            "not a number",
        ),
        (
            H1,
            "POST",
            "/",
            &[host, ("transfer-encoding", "gzip, chunked")],
            "something else",
        ),
        (
            H1,
            "POST",
            "/",
            &[
                host,
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            "something else",
        ),
        (
            H10,
            "POST",
            "/",
            &[host, ("transfer-encoding", "chunked")],
            "HTTP/1.1 only",
        ),
        (H1, "GET", "/", &[], "no Host"),
        (
            H1,
            "GET",
            "/",
            &[host, ("host", "web")],
            "more than one Host",
        ),
        (H1, "GET", "/", &[("host", "")], "Host is not valid"),
        (H1, "GET", "/", &[("host", "we b")], "Host is not valid"),
        (H1, "GET", "/", &[("host", "a@web")], "Host is not valid"),
        (
            H1,
            "GET",
            "/",
            &[("host", "web:99999")],
            "Host is not valid",
        ),
        (H1, "GET", "/", &[("host", "web/path")], "Host is not valid"),
        (
            H1,
            "GET",
            "http://a@web/",
            &[host],
            "authority of the target",
        ),
        (
            H1,
            "GET",
            "http://other/",
            &[host],
            "contradicts the target",
        ),
        (
            H1,
            "GET",
            "http://web:81/",
            &[host],
            "contradicts the target",
        ),
        (H1, "GET", "ftp://web/", &[host], "neither http nor https"),
        (H1, "GET", "web:80", &[host], "no path"),
        (H1, "GET", "*", &[host], "belongs to OPTIONS"),
        (H1, "GET", "/a%2fb", &[host], "escaped slash"),
        (H1, "GET", "/../x", &[host], "above the root"),
        (H1, "GET", "/a%00", &[host], "NUL"),
        (H1, "GET", "/a%zz", &[host], "hexadecimal"),
        (
            H2,
            "GET",
            "http://web/",
            &[("host", "other")],
            "contradicts :authority",
        ),
        (
            H2,
            "GET",
            "http://web/",
            &[("host", "web"), ("host", "web")],
            "more than one Host",
        ),
        (H2, "GET", "http://a@web/", &[], ":authority is not valid"),
        (H2, "GET", "/", &[], "neither"),
    ];
    for (version, method, uri, fields, why) in rows {
        let error = check(*version, method, uri, fields).expect_err(why);
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{uri} {fields:?}");
        assert!(
            error.detail().contains(why),
            "{uri} {fields:?}: {} has no {why:?}",
            error.detail()
        );
    }
}

#[test]
fn connect_is_refused_by_a_clear_error() {
    let error = check(H1, "CONNECT", "web:443", &[("host", "web:443")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedUpgrade);
}

#[test]
fn what_passes_is_in_one_form() {
    type Row<'a> = (
        Version,
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a str,
        Option<&'a str>,
        &'a str,
    );
    let rows: &[Row<'_>] = &[
        (
            H1,
            "/a?b=%2f",
            &[("host", "Web:80")],
            "/a?b=%2f",
            Some("Web:80"),
            "web",
        ),
        (
            H1,
            "/a/./b//c/../d?x",
            &[("host", "web.")],
            "/a/b/d?x",
            Some("web."),
            "web",
        ),
        (H1, "/%61%7e", &[("host", "web")], "/a~", Some("web"), "web"),
        (
            H1,
            "http://web/a",
            &[("host", "web:80")],
            "/a",
            Some("web"),
            "web",
        ),
        (H1, "http://WEB:8080", &[], "/", Some("WEB:8080"), "web"),
        (H1, "http://web?x", &[], "/?x", Some("web"), "web"),
        (H10, "/", &[], "/", Some("10.0.0.7:8080"), "10.0.0.7"),
        (
            H1,
            "/",
            &[("host", "[::1]:80")],
            "/",
            Some("[::1]:80"),
            "[::1]",
        ),
        (
            H2,
            "http://web:50051/p.S/m",
            &[("host", "WEB:50051")],
            "http://web:50051/p.S/m",
            None,
            "web",
        ),
        (H2, "/m", &[("host", "web")], "http://web/m", None, "web"),
        (H2, "https://web/a//b", &[], "https://web/a/b", None, "web"),
        (H2, "http://web?x", &[], "http://web/?x", None, "web"),
    ];
    for (version, uri, fields, target, host_field, seen) in rows {
        let head = check(*version, "GET", uri, fields).unwrap();
        assert_eq!(head.uri().to_string(), *target, "{uri}");
        let path = head.uri().path_and_query().unwrap();
        assert!(path.as_str().starts_with('/'), "{uri}: {path}");
        assert_eq!(
            head.headers().get(HOST).map(|host| host.to_str().unwrap()),
            *host_field,
            "{uri}"
        );
        assert_eq!(host(&head), *seen, "{uri}");
    }
}

#[test]
fn an_upgrade_is_asked_for_by_two_fields() {
    let asks = |fields: &[(&str, &str)]| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                http::HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        asks_for_upgrade(&map)
    };
    assert!(asks(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket")
    ]));
    assert!(asks(&[
        ("connection", "keep-alive"),
        ("connection", "upgrade"),
        ("upgrade", "websocket")
    ]));
    assert!(!asks(&[("upgrade", "websocket")]));
    assert!(!asks(&[("connection", "upgrade")]));
    assert!(!asks(&[
        ("connection", "upgraded"),
        ("upgrade", "websocket")
    ]));
}
