//! What requests are described by: HTTPRouteGroup.

use super::*;

#[test]
fn d01_d03_path_is_a_prefix_and_a_header_is_not() {
    let group = group(accepted(&group_text(
        "[{name: a, pathRegex: /api, headers: {X-A: b}}]",
    )));
    let found = &group.matches[0];
    assert_eq!(found.object, "HTTPRouteGroup shop/x");
    assert_eq!(found.path, Some(TextMatch::Prefix("/api".into())));
    assert_eq!(
        (found.headers[0].name.as_str(), &found.headers[0].value),
        ("x-a", &TextMatch::Exact("b".into()))
    );
}

#[test]
fn d01_a_group_may_ask_for_whole_paths() {
    let with = |said: &str, pattern: &str| {
        let text = group_text(&format!("[{{name: a, pathRegex: '{pattern}'}}]"));
        let annotated = format!("name: x, annotations: {{config.weft.mesh/path-match: {said}}}");
        text.replacen("name: x", &annotated, 1)
    };
    let fits = |said: &str, pattern: &str, path: &str| {
        let group = group(accepted(&with(said, pattern)));
        group.matches[0].path.as_ref().unwrap().fits(path)
    };
    for (pattern, path, open, full) in [
        ("/books", "/books", true, true),
        ("/books", "/books/1", true, false),
        ("/books.*", "/books/1", true, true),
        ("/a|/b.*", "/a/x", true, false),
        ("/a|/b.*", "/b/x", true, true),
        ("/v[12]", "/v1x", true, false),
        ("/x$", "/xy", false, false),
    ] {
        assert_eq!(fits("prefix", pattern, path), open, "{pattern} {path}");
        assert_eq!(fits("full", pattern, path), full, "{pattern} {path}");
    }
    // A typo never opens more.
    let narrow = group(warned(&with("ful", "/books"), "full is applied"));
    let path = narrow.matches[0].path.clone();
    assert_eq!(path, Some(TextMatch::Exact("/books".into())));
}

#[test]
fn d04_headers_as_map_or_list() {
    let map = group(accepted(&group_text(
        "[{name: a, headers: {X-A: b, x-c: d}}]",
    )));
    let list = group(accepted(&group_text(
        "[{name: a, headers: [{x-a: b}, {X-C: d}]}]",
    )));
    assert_eq!(map, list);
    let twice = group(accepted(&group_text(
        "[{name: a, headers: [{x-a: b}, {x-a: c}]}]",
    )));
    assert_eq!(twice.matches[0].headers.len(), 2);
    assert_eq!(
        group(accepted(&group_text("[{name: a, headers: []}]"))).matches[0].headers,
        []
    );

    refused(
        &group_text("[{name: a, headers: [{x-a: b, x-c: d}]}]"),
        "spec.matches[0].headers[0]",
        "exactly one",
    );
    refused(
        &group_text("[{name: a, headers: [{}]}]"),
        "spec.matches[0].headers[0]",
        "exactly one",
    );
    refused(
        &group_text("[{name: a, headers: {x-a: 1}}]"),
        "spec.matches[0].headers.x-a",
        "must be a text",
    );
    refused(
        &group_text("[{name: a, headers: {x-a: }}]"),
        "spec.matches[0].headers.x-a",
        "must have a value",
    );
    refused(
        &group_text("[{name: a, headers: {':authority': x}}]"),
        "spec.matches[0].headers.:authority",
        "not the name of a header",
    );
    refused(
        &group_text("[{name: a, headers: x}]"),
        "spec.matches[0].headers",
        "must be a map",
    );
}

#[test]
fn d05_empty_things_in_a_match() {
    for any in [
        "",
        ", pathRegex: '', methods: []",
        ", pathRegex: null, methods: null",
        ", methods: [GET, '*']",
    ] {
        let group = group(accepted(&group_text(&format!("[{{name: a{any}}}]"))));
        assert_eq!(
            (&group.matches[0].path, group.matches[0].methods.len()),
            (&None, 0)
        );
    }
    let get = group(accepted(&group_text("[{name: a, methods: [GET]}]")));
    assert_eq!(get.matches[0].methods, ["GET"], "GET does not imply HEAD");
    for nothing in ["[]", "null"] {
        assert_eq!(
            group(warned(&group_text(nothing), "describes nothing")).matches,
            []
        );
    }

    refused(
        &group_text("[{name: a, methods: [get]}]"),
        "spec.matches[0].methods[0]",
        "\"get\" is not a method",
    );
    refused(
        &group_text("[{name: a, methods: [QUERY]}]"),
        "spec.matches[0].methods[0]",
        "is not a method",
    );
    refused(
        &group_text("[{name: a, methods: GET}]"),
        "spec.matches[0].methods",
        "must be a list",
    );
    refused(
        &group_text("[{pathRegex: /a}]"),
        "spec.matches[0].name",
        "is missing",
    );
    refused(
        &group_text("[{name: ''}]"),
        "spec.matches[0].name",
        "must not be empty",
    );
    refused(
        &group_text("[{name: a}, {name: a}]"),
        "spec.matches[1].name",
        "the name of a match before",
    );
    refused(&group_text("[null]"), "spec.matches[0].name", "is missing");
    refused(&group_text("{name: a}"), "spec.matches", "must be a list");
}

#[test]
fn d38_patterns() {
    let path = |pattern: &str| group_text(&format!("[{{name: a, pathRegex: '{pattern}'}}]"));
    let header = |pattern: &str| group_text(&format!("[{{name: a, headers: {{x: '{pattern}'}}}}]"));
    for good in ["/a(b|c)+", "/x|/xy", "(?i)/api/.*", "^/v[0-9]+/"] {
        accepted(&path(good));
        accepted(&header(good));
    }
    for (bad, why) in [
        ("(a)\\1", "backreferences are not supported"),
        ("a(?=b)", "look-around"),
        ("/a)|(?:.*", "unopened group"),
        ("(", "unclosed group"),
        ("a\\", "incomplete escape"),
        ("((a{1,100}){1,100}){1,100}", "compiles to more than"),
    ] {
        refused(&path(bad), "spec.matches[0].pathRegex", why);
        refused(&header(bad), "spec.matches[0].headers.x", why);
    }
    refused(
        &path(&"a".repeat(5000)),
        "spec.matches[0].pathRegex",
        "at most 4096",
    );
    let many = |count: usize| {
        let matches: Vec<String> = (0..count)
            .map(|n| format!("{{name: m{n}, pathRegex: '/[a-b]{n}'}}"))
            .collect();
        group_text(&format!("[{}]", matches.join(",")))
    };
    accepted(&many(MAX_PATTERNS));
    // One that is fine by itself is not among so many: together they would take too much.
    let large = "(a{1,100}){1,40}";
    accepted(&path(large));
    refused(
        &many(MAX_PATTERNS).replace("/[a-b]7'", &format!("{large}'")),
        "spec.matches",
        "has a larger one",
    );
    refused(
        &many(MAX_PATTERNS + 1),
        "spec.matches",
        "more than a literal text",
    );
}
