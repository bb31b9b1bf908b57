//! HTTPRouteGroups: matches that say nothing, or nothing new.

use super::{About, Code};
use crate::smi::specs::HttpRouteGroup;
use weft_proxy_api::policy::matching::{HttpMatch, TextMatch};

/// Comparing each match with each other is not worth it beyond.
const MOST: usize = 200;

pub(super) fn findings(group: &HttpRouteGroup, about: &mut About<'_>) {
    if !about.thorough {
        return;
    }
    if group.matches.is_empty() {
        let message = "it has no match, so it describes no request"; // D05
        return about.hint(Code::EmptyGroup, "spec.matches", message);
    }
    let matches = group.matches.iter().take(MOST).enumerate();
    for (index, narrow) in matches {
        let wider = group
            .matches
            .iter()
            .take(MOST)
            .enumerate()
            .find(|(at, wide)| {
                // Of two that are alike the first stays.
                *at != index && covers(wide, narrow) && (*at < index || !covers(narrow, wide))
            });
        if let Some((_, wider)) = wider {
            let message = format!(
                "match {} fits everything that {} fits",
                wider.name, narrow.name
            );
            about.hint(
                Code::RedundantMatch,
                format!("spec.matches[{index}]"),
                message,
            );
        }
    }
}

/// Does `wide` certainly fit every request that `narrow` fits? False where it cannot be told.
pub(super) fn covers(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let methods = wide.methods.is_empty()
        || (!narrow.methods.is_empty()
            && narrow.methods.iter().all(|it| wide.methods.contains(it)));
    let path = match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => text_covers(wide, narrow),
    };
    // All headers of a match must fit: the fewer, the wider.
    let headers = wide.headers.iter().all(|it| narrow.headers.contains(it));
    methods && path && headers
}

fn text_covers(wide: &TextMatch, narrow: &TextMatch) -> bool {
    match (wide, narrow) {
        (TextMatch::Prefix(wide), TextMatch::Prefix(narrow) | TextMatch::Exact(narrow)) => {
            narrow.starts_with(wide)
        }
        (wide, TextMatch::Exact(narrow)) => wide.fits(narrow),
        (wide, narrow) => wide == narrow,
    }
}
