//! A case and its negative twin for each decision that concerns reading, named by its number.
#![allow(clippy::unwrap_used)]
use super::access::{Rule, Subject, TrafficTarget};
use super::binding::IdentityBinding;
use super::routes::TcpRoute;
use super::specs::{HttpRouteGroup, MAX_PATTERNS};
use super::split::{Backend, TrafficSplit};
use crate::manifest::{Object, Problem, Severity, parse};
use std::sync::Arc;
use weft_proxy_api::policy::inbound::Ports;
use weft_proxy_api::policy::matching::TextMatch;

mod access;
mod binding;
mod decisions;
mod hostile;
mod routes;
mod specs;
mod split;
mod versions;

/// The object (if it was accepted) and the problems, as `severity field: message`.
fn read(text: &str) -> (Option<Object>, Vec<String>) {
    let (mut loaded, problems) = parse("t", text);
    let line = |problem: &Problem| {
        format!(
            "{} {}: {}",
            problem.severity,
            problem.field.clone().unwrap_or_default(),
            problem.message
        )
    };
    assert!(loaded.len() <= 1);
    assert_eq!(
        loaded.is_empty(),
        problems
            .iter()
            .any(|problem| problem.severity == Severity::Error),
        "{problems:?}"
    );
    (
        loaded.pop().map(|loaded| loaded.object),
        problems.iter().map(line).collect(),
    )
}

fn accepted(text: &str) -> Object {
    let (object, problems) = read(text);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    object.unwrap()
}

/// Accepted, with one warning that says this.
fn warned(text: &str, expected: &str) -> Object {
    let (object, problems) = read(text);
    assert_eq!(problems.len(), 1, "{problems:?}\n{text}");
    assert!(
        problems[0].starts_with("warning ") && problems[0].contains(expected),
        "{problems:?}"
    );
    object.unwrap()
}

/// Refused, with an error that begins with this field and says this.
fn refused(text: &str, field: &str, expected: &str) {
    let (object, problems) = read(text);
    assert_eq!(object, None, "{text}");
    let fits = |problem: &String| {
        problem.starts_with(&format!("error {field}: ")) && problem.contains(expected)
    };
    assert!(
        problems.iter().any(fits),
        "{field}: {expected}\n{problems:?}\n{text}"
    );
}

fn head(api_version: &str, kind: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\n")
}

fn group_text(matches: &str) -> String {
    format!(
        "{}spec: {{matches: {matches}}}\n",
        head("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup")
    )
}

fn target_text(spec: &str) -> String {
    format!(
        "{}spec: {{{spec}}}\n",
        head("access.smi-spec.io/v1alpha3", "TrafficTarget")
    )
}

fn split_text(spec: &str) -> String {
    format!(
        "{}spec: {{{spec}}}\n",
        head("split.smi-spec.io/v1alpha4", "TrafficSplit")
    )
}

fn tcp_text(spec: &str) -> String {
    format!(
        "{}spec: {spec}\n",
        head("specs.smi-spec.io/v1alpha4", "TCPRoute")
    )
}

fn group(object: Object) -> Arc<HttpRouteGroup> {
    let Object::HttpRouteGroup(group) = object else {
        panic!("{object:?}")
    };
    group
}

fn target(object: Object) -> Arc<TrafficTarget> {
    let Object::TrafficTarget(target) = object else {
        panic!("{object:?}")
    };
    target
}

fn split(object: Object) -> Arc<TrafficSplit> {
    let Object::TrafficSplit(split) = object else {
        panic!("{object:?}")
    };
    split
}

fn binding(object: Object) -> Arc<IdentityBinding> {
    let Object::IdentityBinding(binding) = object else {
        panic!("{object:?}")
    };
    binding
}

fn tcp(object: Object) -> Arc<TcpRoute> {
    let Object::TcpRoute(route) = object else {
        panic!("{object:?}")
    };
    route
}

const SA: &str = "kind: ServiceAccount, name: web";

const SOURCES: &str = "sources: [{kind: ServiceAccount, name: front}]";

const RULES: &str = "rules: [{kind: HTTPRouteGroup, name: g}]";

const BACKENDS: &str = "backends: [{service: v1, weight: 1}]";

/// A target with this destination.
fn to(destination: &str) -> String {
    target_text(&format!(
        "destination: {{{destination}}}, {SOURCES}, {RULES}"
    ))
}

/// A target with these sources.
fn from(sources: &str) -> String {
    target_text(&format!(
        "destination: {{{SA}}}, sources: {sources}, {RULES}"
    ))
}

/// A target with these rules.
fn ruled(rules: &str) -> String {
    target_text(&format!("destination: {{{SA}}}, {SOURCES}, rules: {rules}"))
}

/// A split with these backends.
fn backed(backends: &str) -> String {
    split_text(&format!("service: web, backends: {backends}"))
}

fn weights(text: &str) -> Vec<(String, u64)> {
    split(read(text).0.unwrap())
        .backends
        .iter()
        .map(|it| (it.service.clone(), it.weight))
        .collect()
}
