//! Tables of patterns and requests.
#![allow(clippy::unwrap_used)]

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue};

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

fn any() -> HttpMatch {
    HttpMatch {
        object: "HTTPRouteGroup default/api".into(),
        name: "m".into(),
        path: None,
        methods: vec![],
        headers: vec![],
    }
}

fn fits(m: &HttpMatch, method: &str, path: &str, fields: &[(&str, &str)]) -> bool {
    let headers = headers(fields);
    m.fits(&RequestView {
        method,
        path,
        host: "web.default",
        headers: &headers,
    })
}

#[test]
fn d01_a_path_pattern_is_anchored_at_the_start_and_open_at_the_end() {
    for (pattern, path, expected) in [
        ("/x", "/x", true),
        ("/x", "/xy", true),
        ("/x", "/x/y", true),
        ("/x", "/a/x", false),
        ("/x", "/X", false),
        ("/x|/y", "/y", true),
        ("/x|/y", "/a/y", false),
        ("/(a|ab)c", "/abc/d", true),
        ("/a$", "/ab", false),
        ("/a$", "/a", true),
        ("^/a", "/a/b", true),
        (".*", "/any", true),
        ("/api/.*", "/api/x", true),
        ("/api/.*", "/api", false),
        (".*/admin", "/a/admin", true),
        ("(?i)/x", "/Xy", true),
        ("/a\\.b", "/a.b", true),
        ("/a\\.b", "/axb", false),
        ("/v[12]/", "/v2/x", true),
        ("/v[12]/", "/v3/x", false),
        ("", "/any", true),
    ] {
        let m = HttpMatch {
            path: Some(TextMatch::regex_prefix(pattern).unwrap()),
            ..any()
        };
        assert_eq!(fits(&m, "GET", path, &[]), expected, "{pattern} on {path}");
    }
}

#[test]
fn d03_a_header_pattern_fits_the_whole_value() {
    for (pattern, value, expected) in [
        ("hello", "hello", true),
        ("hello", "hello world", false),
        ("hello", "say hello", false),
        ("a|ab", "ab", true),
        ("^hello$", "hello", true),
        (".*Firefox.*", "Mozilla Firefox/1", true),
        (".*", "", true),
        ("[0-9]+", "12", true),
        ("[0-9]+", "12a", false),
        ("a\\.b", "a.b", true),
        ("a\\.b", "axb", false),
    ] {
        let value_match = TextMatch::regex_full(pattern).unwrap();
        let m = HttpMatch {
            headers: vec![HeaderMatch {
                name: "x-a".into(),
                value: value_match,
            }],
            ..any()
        };
        assert_eq!(
            fits(&m, "GET", "/", &[("X-A", value)]),
            expected,
            "{pattern} on {value}"
        );
    }
}

#[test]
fn d03_an_absent_header_never_fits_and_any_of_several_may() {
    let header = |name: &str, pattern| HeaderMatch {
        name: name.into(),
        value: TextMatch::regex_full(pattern).unwrap(),
    };
    let m = HttpMatch {
        headers: vec![header("x-a", ".*")],
        ..any()
    };
    assert!(!fits(&m, "GET", "/", &[("x-b", "1")]));
    assert!(fits(&m, "GET", "/", &[("x-a", "")]));
    let m = HttpMatch {
        headers: vec![header("x-a", "2")],
        ..any()
    };
    assert!(fits(&m, "GET", "/", &[("x-a", "1"), ("x-a", "2")]));
    assert!(!fits(&m, "GET", "/", &[("x-a", "1"), ("x-a", "3")]));
    let m = HttpMatch {
        headers: vec![header("x-a", "1"), header("x-b", "2")],
        ..any()
    };
    assert!(fits(&m, "GET", "/", &[("x-a", "1"), ("x-b", "2")]));
    assert!(!fits(&m, "GET", "/", &[("x-a", "1")]));
}

#[test]
fn d03_host_also_means_the_authority() {
    let host = |pattern| HttpMatch {
        headers: vec![HeaderMatch {
            name: "host".into(),
            value: TextMatch::regex_full(pattern).unwrap(),
        }],
        ..any()
    };
    assert!(fits(&host("web\\.default"), "GET", "/", &[]));
    assert!(fits(
        &host("web.default"),
        "GET",
        "/",
        &[("host", "web.default:80")]
    ));
    assert!(!fits(&host("other"), "GET", "/", &[]));
    let headers = headers(&[]);
    assert!(!host(".*").fits(&RequestView {
        method: "GET",
        path: "/",
        host: "",
        headers: &headers
    }));
}

#[test]
fn a_value_that_is_not_text_fits_nothing() {
    let mut map = HeaderMap::new();
    map.insert("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    let m = HttpMatch {
        headers: vec![HeaderMatch {
            name: "x-a".into(),
            value: TextMatch::regex_full(".*").unwrap(),
        }],
        ..any()
    };
    assert!(!m.fits(&RequestView {
        method: "GET",
        path: "/",
        host: "",
        headers: &map
    }));
}

#[test]
fn d05_methods_are_exact_and_get_does_not_imply_head() {
    let m = HttpMatch {
        methods: vec!["GET".into(), "PUT".into()],
        ..any()
    };
    assert!(fits(&m, "GET", "/", &[]) && fits(&m, "PUT", "/", &[]));
    assert!(!fits(&m, "HEAD", "/", &[]) && !fits(&m, "get", "/", &[]));
    assert!(fits(&any(), "BREW", "/", &[]));
}

#[test]
fn everything_present_must_fit() {
    let m = HttpMatch {
        path: Some(TextMatch::regex_prefix("/a").unwrap()),
        methods: vec!["GET".into()],
        headers: vec![HeaderMatch {
            name: "x-a".into(),
            value: TextMatch::Exact("1".into()),
        }],
        ..any()
    };
    assert!(fits(&m, "GET", "/a", &[("x-a", "1")]));
    assert!(!fits(&m, "PUT", "/a", &[("x-a", "1")]));
    assert!(!fits(&m, "GET", "/b", &[("x-a", "1")]));
    assert!(!fits(&m, "GET", "/a", &[("x-a", "2")]));
}

#[test]
fn d38_what_needs_no_regex_is_lowered() {
    let prefix = |text: &str| TextMatch::Prefix(text.into());
    let exact = |text: &str| TextMatch::Exact(text.into());
    for (pattern, expected) in [
        ("/api", prefix("/api")),
        ("/api.*", prefix("/api")),
        ("^/api/.*", prefix("/api/")),
        (".*", prefix("")),
        (
            "/a\\.b\\.*",
            TextMatch::RegexPrefix(Pattern::compile("/a\\.b\\.*", "x").unwrap()),
        ),
        ("/a\\$", prefix("/a$")),
        ("/a$", exact("/a")),
        ("/a\\/b", prefix("/a/b")),
        (
            "/a\\d",
            TextMatch::RegexPrefix(Pattern::compile("/a\\d", "x").unwrap()),
        ),
    ] {
        assert_eq!(
            TextMatch::regex_prefix(pattern).unwrap(),
            expected,
            "{pattern}"
        );
    }
    assert_eq!(TextMatch::regex_full("^a-b$").unwrap(), exact("a-b"));
    assert_eq!(TextMatch::regex_full("a$b\\").ok(), None);
    assert!(matches!(
        TextMatch::regex_full("a.*").unwrap(),
        TextMatch::RegexFull(_)
    ));
}

#[test]
fn d38_hostile_patterns_are_refused() {
    for pattern in [
        "/a)|(?:.*",
        "/a)|(.*",
        "(a",
        "a\\",
        "(?=a)",
        "(?<!a)b",
        "(a)\\1",
        "(?x)a#",
        "[z-a]",
        "*",
        "\\p{NoSuch}",
        &"(".repeat(1000),
    ] {
        let error = TextMatch::regex_prefix(pattern).unwrap_err();
        assert!(
            matches!(error, PatternError::Syntax(_)),
            "{pattern}: {error}"
        );
        assert!(TextMatch::regex_full(pattern).is_err(), "{pattern}");
    }
    assert_eq!(
        TextMatch::regex_prefix(&"a".repeat(4097)),
        Err(PatternError::TooLong(4097))
    );
    assert_eq!(
        TextMatch::regex_prefix("(?:\\w{100}){100}"),
        Err(PatternError::TooBig)
    );
    assert!(TextMatch::regex_prefix(&"a".repeat(4096)).is_ok());
}

#[test]
fn d38_what_a_pattern_takes_can_be_asked() {
    let pattern = TextMatch::regex_prefix("/v[12]").unwrap();
    assert!(pattern.compiles_within(MAX_COMPILED) && !pattern.compiles_within(1));
    let literal = TextMatch::regex_full("beta").unwrap();
    assert!(literal.compiles_within(0));
}
