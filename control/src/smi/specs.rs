//! HTTPRouteGroup: what requests look like; TrafficSplit and TrafficTarget refer to it.

use super::{TOP, Version};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};
use std::collections::HashSet;
use weft_proxy_api::names::keys::PATH_MATCH;
use weft_proxy_api::policy::matching::{
    HeaderMatch, HttpMatch, MAX_COMPILED, PatternError, TextMatch,
};

/// Most matches of a group.
pub const MAX_MATCHES: usize = 10_000;
/// Most patterns of a group that are more than a literal text (D38).
pub const MAX_PATTERNS: usize = 200;
/// What the patterns of a group may take together, compiled, bytes. Every proxy that calls a Service with such a split, or
/// serves such a target, holds them (D38).
const MAX_TOGETHER: usize = 32 << 20;

/// The methods of the published schema (D05).
pub const METHODS: [&str; 9] = [
    "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// An HTTPRouteGroup.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRouteGroup {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Descriptions of requests, each name once; none describes nothing (D05).
    pub matches: Vec<HttpMatch>,
}

/// Reads an HTTPRouteGroup. `None` if something is wrong; what, is in the report.
pub fn read(
    root: &Field<'_>,
    metadata: ObjectMeta,
    version: Version,
    report: &mut Report,
) -> Option<HttpRouteGroup> {
    let spec = root.get("spec");
    spec.expect_map(report)?;
    root.warn_unknown(&[&TOP[..], &["matches"]].concat(), report);
    spec.warn_unknown(&["matches"], report);
    let field = matches_field(root, &spec, version, report)?;
    let paths = read_paths(root, &metadata, report);
    let matches = read_matches(&field, &metadata, (version, paths), report)?;
    let patterns = matches
        .iter()
        .flat_map(texts)
        .filter(|text| is_pattern(text))
        .count();
    if patterns > MAX_PATTERNS {
        let message = format!(
            "has {patterns} regular expressions that are more than a literal text; at most {MAX_PATTERNS}"
        );
        report.error(&field, message);
        return None;
    }
    // So many of the largest would be too much; of fewer each is bounded already.
    let most = MAX_TOGETHER / patterns.max(1);
    let fits = |text: &TextMatch| most >= MAX_COMPILED || text.compiles_within(most);
    if let Some(large) = matches.iter().find(|item| !texts(item).all(fits)) {
        let message = format!(
            "has {patterns} regular expressions, so that each may compile to {most} bytes; match {} has a larger one",
            short(&large.name)
        );
        report.error(&field, message);
        return None;
    }
    Some(HttpRouteGroup { metadata, matches })
}

/// What of a path a pattern must fit (D01).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// Its start.
    Open,
    /// All of it.
    Full,
}

/// What the annotation asks for; whatever it is that cannot be read, the narrower reading lets nobody in.
fn read_paths(root: &Field<'_>, metadata: &ObjectMeta, report: &mut Report) -> Paths {
    match metadata.annotations.get(PATH_MATCH).map(String::as_str) {
        None | Some("prefix") => Paths::Open,
        Some("full") => Paths::Full,
        Some(other) => {
            let annotation = root.get("metadata").get("annotations").get(PATH_MATCH);
            let message = format!(
                "{} is neither full nor prefix; full is applied",
                short(other)
            );
            report.warn(&annotation, message);
            Paths::Full
        }
    }
}

/// Until v1alpha2 `matches` stands beside `metadata`, since then under `spec`. People mix it up, and it can only mean
/// one thing (D34).
fn matches_field<'a>(
    root: &Field<'a>,
    spec: &Field<'a>,
    version: Version,
    report: &mut Report,
) -> Option<Field<'a>> {
    let (flat, nested) = (root.get("matches"), spec.get("matches"));
    let since = version >= Version::V1Alpha3;
    let (home, away) = if since {
        (nested, flat)
    } else {
        (flat, nested)
    };
    match (home.is_present(), away.is_present()) {
        (true, true) => {
            report.error(
                &away,
                format!("is there twice: here and at {}", home.path()),
            );
            None
        }
        (false, true) => {
            let place = if since {
                "under spec since v1alpha3"
            } else {
                "beside metadata until v1alpha2"
            };
            report.warn(&away, format!("belongs {place}; it is read nevertheless"));
            Some(away)
        }
        (_, false) => Some(home),
    }
}

fn texts(item: &HttpMatch) -> impl Iterator<Item = &TextMatch> {
    item.path
        .iter()
        .chain(item.headers.iter().map(|header| &header.value))
}

fn is_pattern(text: &TextMatch) -> bool {
    matches!(text, TextMatch::RegexPrefix(_) | TextMatch::RegexFull(_))
}

fn read_matches(
    field: &Field<'_>,
    metadata: &ObjectMeta,
    form: (Version, Paths),
    report: &mut Report,
) -> Option<Vec<HttpMatch>> {
    let items = field.items(report)?;
    if items.len() > MAX_MATCHES {
        report.error(
            field,
            format!("has {} matches; at most {MAX_MATCHES}", items.len()),
        );
        return None;
    }
    if items.is_empty() {
        report.warn(field, "has no matches: it describes nothing");
    }
    let object = format!("HTTPRouteGroup {}/{}", metadata.namespace, metadata.name);
    let mut names = HashSet::new();
    let mut matches = Vec::new();
    let mut patterns = 0;
    for item in &items {
        let Some(found) = read_match(item, &object, form, report) else {
            continue;
        };
        if !names.insert(found.name.clone()) {
            report.error(
                &item.get("name"),
                format!("{} is the name of a match before", short(&found.name)),
            );
        }
        patterns += texts(&found).filter(|text| is_pattern(text)).count();
        matches.push(found);
        // Compiling goes no further than what is accepted in the end.
        if patterns > MAX_PATTERNS {
            break;
        }
    }
    (!report.failed()).then_some(matches)
}

fn read_match(
    field: &Field<'_>,
    object: &str,
    (version, paths): (Version, Paths),
    report: &mut Report,
) -> Option<HttpMatch> {
    field.expect_map(report)?;
    field.reject_unknown(&["name", "pathRegex", "methods", "headers"], report);
    // Ignored, they would describe more than was meant (D35).
    if version < Version::V1Alpha2 && field.get("headers").is_present() {
        report.error(&field.get("headers"), "is known since v1alpha2");
    }
    let name = field.get("name").text(report);
    let path = read_path(&field.get("pathRegex"), paths, report);
    let methods = read_methods(&field.get("methods"), report);
    let headers = read_headers(&field.get("headers"), report);
    let (name, path, methods, headers) = (name?.to_owned(), path?, methods?, headers?);
    Some(HttpMatch {
        object: object.to_owned(),
        name,
        path,
        methods,
        headers,
    })
}

fn read_path(field: &Field<'_>, paths: Paths, report: &mut Report) -> Option<Option<TextMatch>> {
    let pattern = match field.text_if_any(report)? {
        None | Some("") => return Some(None),
        Some(pattern) => pattern,
    };
    let read = match (paths, TextMatch::regex_prefix(pattern)) {
        // `/api/.*` is the start of a path in either reading.
        (Paths::Full, Ok(TextMatch::Prefix(start))) if pattern.ends_with(".*") => {
            Ok(TextMatch::Prefix(start))
        }
        (Paths::Full, Ok(_)) => TextMatch::regex_full(pattern),
        (_, open) => open,
    };
    pattern_or(read, field, report).map(Some)
}

fn read_methods(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = field.items(report)?;
    let methods: Vec<Option<&str>> = items.iter().map(|item| read_method(item, report)).collect();
    let methods: Vec<&str> = methods.into_iter().collect::<Option<_>>()?;
    let any = methods.contains(&"*");
    Some(
        methods
            .into_iter()
            .filter(|_| !any)
            .map(str::to_owned)
            .collect(),
    )
}

fn read_method<'a>(field: &Field<'a>, report: &mut Report) -> Option<&'a str> {
    let method = field.text(report)?;
    if method == "*" || METHODS.contains(&method) {
        return Some(method);
    }
    report.error(
        field,
        format!(
            "{} is not a method; write * or one of {}",
            short(method),
            METHODS.join(", ")
        ),
    );
    None
}

/// A map, or a list of maps with one entry each: both are written (D04). A name that is there twice must match twice.
fn read_headers(field: &Field<'_>, report: &mut Report) -> Option<Vec<HeaderMatch>> {
    let Some(Value::List(_)) = field.value() else {
        return read_header_map(field, report);
    };
    let mut headers = Vec::new();
    for item in field.items(report)? {
        let entries = item.entries(report)?;
        if entries.len() != 1 {
            report.error(
                &item,
                format!("must have exactly one header, not {}", entries.len()),
            );
            return None;
        }
        headers.extend(read_header_map(&item, report)?);
    }
    Some(headers)
}

fn read_header_map(field: &Field<'_>, report: &mut Report) -> Option<Vec<HeaderMatch>> {
    let entries = field.entries(report)?;
    let headers: Vec<Option<HeaderMatch>> = entries
        .iter()
        .map(|(name, value)| read_header(name, value, report))
        .collect();
    headers.into_iter().collect()
}

fn read_header(name: &str, field: &Field<'_>, report: &mut Report) -> Option<HeaderMatch> {
    let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) else {
        report.error(
            field,
            format!("{} is not the name of a header", short(name)),
        );
        return None;
    };
    let Some(pattern) = field.text_if_any(report)? else {
        report.error(field, "must have a value: a regular expression in quotes");
        return None;
    };
    let value = pattern_or(TextMatch::regex_full(pattern), field, report)?;
    Some(HeaderMatch {
        name: name.as_str().to_owned(),
        value,
    })
}

fn pattern_or(
    read: Result<TextMatch, PatternError>,
    field: &Field<'_>,
    report: &mut Report,
) -> Option<TextMatch> {
    match read {
        Ok(text) => Some(text),
        Err(error) => {
            // The engine draws the pattern over several lines; the reason is in the last.
            let reason = error.to_string();
            let reason = reason
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or_default();
            let reason: String = reason
                .trim()
                .trim_start_matches("error: ")
                .chars()
                .take(200)
                .collect();
            let prefix = if reason.starts_with("not a regular") || reason.starts_with("the pattern")
            {
                ""
            } else {
                "not a regular expression: "
            };
            report.error(field, format!("{prefix}{reason}"));
            None
        }
    }
}
