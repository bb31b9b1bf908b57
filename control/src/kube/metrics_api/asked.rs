//! What a request asks for. Whatever bytes it is made of.

use super::figures;
use super::refusal::Refusal;
use super::resource::Resource;
use super::select::{self, Selector};
use super::{GROUP, VERSIONS};
use crate::traffic::api::decoded;
use crate::traffic::table::LONGEST;
use http::Method;
use std::time::Duration;

/// Window where none is said.
const WINDOW: Duration = Duration::from_secs(30);
/// A shorter one has no figures: proxies report once in a second.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest name (RFC 1123).
const MAX_NAME: usize = 253;

/// What is asked.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// The versions.
    Group,
    /// The resources of a version.
    Resources(&'static str),
    /// Figures.
    Traffic(Traffic),
}

/// Which figures.
#[derive(Debug, PartialEq)]
pub(super) struct Traffic {
    pub version: &'static str,
    pub resource: &'static Resource,
    /// `None`: every one, or the resource knows none.
    pub namespace: Option<String>,
    /// `None`: a list.
    pub name: Option<String>,
    /// Those of its edges.
    pub edges: bool,
    pub window: Duration,
    pub selector: Selector,
    /// The path, as it is known to clients.
    pub path: String,
}

impl Asked {
    pub(super) fn read(method: &Method, path: &str, query: &str) -> Result<Self, Refusal> {
        if method != Method::GET {
            return Err(Refusal::method(format!(
                "there is only GET, not {method}: traffic is not written"
            )));
        }
        let path = path.trim_end_matches('/');
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let nothing = || Refusal::not_found("the server could not find the requested resource");
        match parts.as_slice() {
            ["apis", GROUP] => Ok(Self::Group),
            ["apis", GROUP, version, rest @ ..] => {
                let version = VERSIONS.iter().find(|known| *known == version);
                let version = version.ok_or_else(nothing)?;
                if rest.is_empty() {
                    return Ok(Self::Resources(version));
                }
                let mut traffic = Traffic::at(version, rest)?.ok_or_else(nothing)?;
                traffic.path = path.to_owned();
                traffic.refine(query)?;
                Ok(Self::Traffic(traffic))
            }
            _ => Err(nothing()),
        }
    }
}

impl Traffic {
    /// From the parts of a path; `None`: there is no such path.
    fn at(version: &'static str, parts: &[&str]) -> Result<Option<Self>, Refusal> {
        let (namespace, rest) = match parts {
            ["namespaces", _] | ["namespaces", _, "edges"] => (None, parts),
            ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
            _ => (None, parts),
        };
        let (plural, name, edges) = match rest {
            [plural] => (plural, None, false),
            [plural, name] => (plural, Some(*name), false),
            [plural, name, "edges"] => (plural, Some(*name), true),
            _ => return Ok(None),
        };
        let Some(resource) = Resource::named(plural) else {
            return Ok(None);
        };
        // What lives in a namespace has its name there, and what does not is in none.
        let in_place = match resource.is_namespaced() {
            true => namespace.is_some() || name.is_none(),
            false => namespace.is_none(),
        };
        if !in_place {
            return Ok(None);
        }
        for name in [namespace, name].into_iter().flatten() {
            if !is_name(name) {
                return Err(Refusal::bad(format!("{name:?} is not a name")));
            }
        }
        Ok(Some(Self {
            version,
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            edges,
            window: WINDOW,
            selector: Selector::default(),
            path: String::new(),
        }))
    }

    /// What the query adds. Words of the Kubernetes API that change nothing here are let through.
    fn refine(&mut self, query: &str) -> Result<(), Refusal> {
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = decoded(&value.replace('+', " "))
                .ok_or_else(|| Refusal::bad(format!("{key}: {value:?} is not text")))?;
            match (key, value.as_str()) {
                ("t", text) => self.window = window(text)?,
                ("labelSelector", text) => {
                    let read = select::read(text);
                    self.selector = read.map_err(|reason| {
                        Refusal::bad(format!("labelSelector: {text:?} {reason}"))
                    })?;
                }
                ("fieldSelector", text) if !text.is_empty() => {
                    return Err(Refusal::bad(
                        "fieldSelector: traffic has no fields to select",
                    ));
                }
                ("watch", "1" | "true") => {
                    return Err(Refusal::method("traffic is not watched: ask again"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn window(text: &str) -> Result<Duration, Refusal> {
    let window = figures::duration(text);
    window
        .filter(|window| (SHORTEST..=LONGEST).contains(window))
        .ok_or_else(|| {
            let longest = figures::go(LONGEST);
            Refusal::bad(format!("t: {text:?} is not a time from 1s to {longest}"))
        })
}

/// Lower-case letters, digits, `-` and `.`, as names of objects are (RFC 1123).
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= MAX_NAME
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes
            .iter()
            .all(|byte| plain(*byte) || b"-.".contains(byte))
}
