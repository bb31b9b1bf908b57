//! Tables of paths and hosts, and what every canonical form has in common.
#![allow(clippy::unwrap_used)]

use super::PathError::*;
use super::*;

#[test]
fn d02_a_path_has_one_form() {
    for (path, expected) in [
        ("", ""),
        ("*", "*"),
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/public/../admin", "/admin"),
        ("/public/%2e%2E/admin", "/admin"),
        ("/public/.%2e/admin", "/admin"),
        ("/a/./b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/.", "/"),
        ("//", "/"),
        ("//a///b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/%61%7e%2D", "/a~-"),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/é"),
        ("/%20%3f%23", "/%20%3F%23"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/..c", "/a..b/..c"),
        ("/A", "/A"),
        ("/a;p=1/b", "/a;p=1/b"),
        ("a/b", "/a/b"),
    ] {
        assert_eq!(normalise(path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn d02_a_path_that_parsers_read_differently_is_refused() {
    for (path, expected) in [
        ("/a%", BadEscape),
        ("/a%4", BadEscape),
        ("/a%g0", BadEscape),
        ("/a%+1", BadEscape),
        ("/%é1", BadEscape),
        ("/a%00b", Nul),
        ("/a\0", Nul),
        ("/a%2fb", EscapedSlash),
        ("/a%2Fb", EscapedSlash),
        ("/a%5cb", EscapedSlash),
        ("/a\\b", EscapedSlash),
        ("/..", AboveRoot),
        ("/a/../../b", AboveRoot),
        ("/%2e%2e/etc", AboveRoot),
    ] {
        assert_eq!(normalise(path), Err(expected), "{path}");
    }
}

#[test]
fn the_usual_path_is_borrowed() {
    for path in ["/", "/a/b.txt", "/.well-known", "/%20", "/a/..."] {
        assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
    }
}

/// Every text over a small hostile alphabet: the canonical form is its own, and has no dot segment left.
#[test]
fn the_canonical_form_is_stable() {
    let pieces = ["/", ".", "%2e", "%2F", "%41", "a", "%", "\\", "%c3", "//"];
    let total = pieces.len().pow(5);
    for number in 0..total {
        let mut rest = number;
        let mut path = String::from("/");
        for _ in 0..5 {
            path.push_str(pieces[rest % pieces.len()]);
            rest /= pieces.len();
        }
        let Ok(once) = normalise(&path) else { continue };
        assert_eq!(normalise(&once).unwrap(), once, "{path}");
        assert!(!once.contains("//"), "{path}");
        assert!(
            once.split('/')
                .all(|segment| segment != "." && segment != ".."),
            "{path}"
        );
    }
}

#[test]
fn a_host_has_one_form() {
    for (authority, expected) in [
        ("", ""),
        ("web", "web"),
        ("Web.Default.SVC", "web.default.svc"),
        ("web:80", "web"),
        ("web:", "web"),
        (
            "web.default.svc.cluster.local.",
            "web.default.svc.cluster.local",
        ),
        ("web.:8080", "web"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("my_service", "my_service"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]"),
    ] {
        assert_eq!(
            normalise_host(authority).as_deref(),
            Some(expected),
            "{authority}"
        );
    }
}

#[test]
fn what_is_not_a_host_is_refused() {
    for authority in [
        "user@web",
        "user:pw@web",
        "web:80:80",
        "web:http",
        "web:65536",
        "web:+80",
        "::1",
        "[::1",
        "[::1]80",
        "[fe80::1%eth0]",
        "[web]",
        "a b",
        "a,b",
        "web/..",
        "web\0",
        ".",
        "..",
        "web..",
        "a..b",
        ":80",
        "wéb",
        "a%41",
    ] {
        assert_eq!(normalise_host(authority), None, "{authority}");
    }
}
