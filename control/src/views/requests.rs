//! The requests that are meant by whoever names groups of routes: a TrafficTarget, a split, a ServicePolicy.

use super::world::Reader;
use std::collections::{HashMap, HashSet};
use weft_proxy_api::policy::matching::HttpMatch;

/// The requests of these groups of a namespace, each with the names of its matches; without one it is all of them (D06).
/// A missing group or match contributes nothing (D07). Each match is there once, however often it is named: else an object
/// that names a long group many times would take all memory.
pub fn described<'n>(
    reader: &Reader<'_>,
    namespace: &str,
    groups: impl Iterator<Item = (&'n str, &'n [String])>,
) -> Vec<HttpMatch> {
    let mut order = Vec::new();
    // `None`: all of its matches.
    let mut wanted: HashMap<&str, Option<HashSet<&str>>> = HashMap::new();
    for (group, names) in groups {
        let known = wanted.entry(group).or_insert_with(|| {
            order.push(group);
            Some(HashSet::new())
        });
        if names.is_empty() {
            *known = None;
        } else if let Some(known) = known {
            known.extend(names.iter().map(String::as_str));
        }
    }
    let mut requests = Vec::new();
    for name in order {
        let Some(group) = reader.group(namespace, name) else {
            continue;
        };
        let names = wanted.get(name).and_then(Option::as_ref);
        let chosen = group
            .matches
            .iter()
            .filter(|m| names.is_none_or(|names| names.contains(m.name.as_str())));
        requests.extend(chosen.cloned());
    }
    requests
}
