//! HTTPRouteGroup and TCPRoute: `matches` moved under `spec` in v1alpha3, headers exist since v1alpha2, ports of a
//! TCPRoute since v1alpha4.

use super::preserved::{Preserved, broken};
use super::{Fields, Refused, Version, items, refuse, spec};
use serde_json::{Value, json};

/// To the layout of v1alpha4.
pub(super) fn raise_group(
    object: &mut Fields,
    from: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    if from < Version::V1Alpha3 {
        let flat = object.shift_remove("matches");
        let spec = spec(object)?;
        match (flat, spec.contains_key("matches")) {
            (Some(_), true) => return refuse("matches", "is there twice: here and under spec"),
            (Some(flat), false) => drop(spec.insert("matches".to_owned(), flat)),
            // Under spec already, where a newer version has it: it can only mean one thing (D34).
            (None, _) => {}
        }
    }
    match from {
        Version::V1Alpha1 => restore_headers(object, kept),
        _ => Ok(()),
    }
}

/// From the layout of v1alpha4.
pub(super) fn lower_group(
    object: &mut Fields,
    to: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    let hidden = match to {
        Version::V1Alpha1 => take_headers(object)?,
        _ => Vec::new(),
    };
    kept.keep_list("headers", hidden);
    if to >= Version::V1Alpha3 {
        return Ok(());
    }
    let matches = spec(object)?.shift_remove("matches");
    drop_empty_spec(object);
    match matches {
        Some(_) if object.contains_key("matches") => {
            refuse("matches", "is there twice: here and under spec")
        }
        Some(matches) => {
            object.insert("matches".to_owned(), matches);
            Ok(())
        }
        None => Ok(()),
    }
}

fn drop_empty_spec(object: &mut Fields) {
    if object
        .get("spec")
        .and_then(Value::as_object)
        .is_some_and(Fields::is_empty)
    {
        object.shift_remove("spec");
    }
}

/// The matches, wherever they stand (D34), and their path.
fn matches(object: &mut Fields) -> Result<(String, &mut [Value]), Refused> {
    let (parent, path) = match object.get("matches").is_some_and(|flat| !flat.is_null()) {
        true => (object, "matches"),
        false => (spec(object)?, "spec.matches"),
    };
    let list = items(parent, "matches", path)?;
    Ok((path.to_owned(), list.map_or(&mut [], |list| &mut list[..])))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

/// Every match by its name, with its headers where it has any; nothing where none has.
fn take_headers(object: &mut Fields) -> Result<Vec<Value>, Refused> {
    let (path, matches) = matches(object)?;
    let mut hidden = Vec::with_capacity(matches.len());
    let mut any = false;
    for (index, item) in matches.iter_mut().enumerate() {
        let name = name(item).map(str::to_owned);
        let headers = item
            .as_object_mut()
            .and_then(|item| item.shift_remove("headers"));
        any |= headers.is_some();
        hidden.push(match (name, headers) {
            (Some(name), Some(headers)) => json!({"name": name, "headers": headers}),
            (Some(name), None) => json!({"name": name}),
            (None, Some(_)) => return refuse(format!("{path}[{index}].name"), "is missing"),
            (None, None) => continue,
        });
    }
    Ok(if any { hidden } else { Vec::new() })
}

/// A match gets its headers back by its name. One that is gone was deleted, unless there is one that was not there
/// before: then it may have got a new name, and without its headers it would describe more.
fn restore_headers(object: &mut Fields, kept: &mut Preserved) -> Result<(), Refused> {
    let hidden = kept.remove_list("headers")?;
    let (path, matches) = matches(object)?;
    if let Some(index) = matches
        .iter()
        .position(|item| item.get("headers").is_some())
    {
        return refuse(
            format!("{path}[{index}].headers"),
            "is known since v1alpha2",
        );
    }
    let is_new = |item: &&Value| hidden.iter().all(|known| name(known) != name(item));
    let newcomer = matches
        .iter()
        .find(is_new)
        .and_then(name)
        .map(str::to_owned);
    for known in &hidden {
        let Some(wanted) = name(known) else {
            return broken();
        };
        let Some(headers) = known.get("headers") else {
            continue;
        };
        let shown = matches.iter_mut().find(|item| name(item) == Some(wanted));
        match (shown.and_then(Value::as_object_mut), &newcomer) {
            (Some(shown), _) => drop(shown.insert("headers".to_owned(), headers.clone())),
            (None, None) => {}
            (None, Some(newcomer)) => {
                return refuse(
                    path,
                    format!(
                        "the match {wanted:?} has headers, which v1alpha1 cannot show; if {newcomer:?} takes its place, \
                         write the group as v1alpha2 or later"
                    ),
                );
            }
        }
    }
    Ok(())
}

/// To the layout of v1alpha4.
pub(super) fn raise_tcp(
    object: &mut Fields,
    from: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    if from == Version::V1Alpha4 {
        return Ok(());
    }
    let spec = spec(object)?;
    if spec.contains_key("matches") {
        return refuse("spec.matches", "is known since v1alpha4");
    }
    match kept.remove("matches") {
        None => Ok(()),
        Some(matches) if matches.is_object() || matches.is_null() => {
            spec.insert("matches".to_owned(), matches);
            Ok(())
        }
        Some(_) => broken(),
    }
}

/// From the layout of v1alpha4.
pub(super) fn lower_tcp(
    object: &mut Fields,
    to: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    if to == Version::V1Alpha4 {
        return Ok(());
    }
    match spec(object)?.shift_remove("matches") {
        Some(matches) => kept.keep("matches", matches),
        None => drop(kept.remove("matches")),
    }
    if to < Version::V1Alpha3 {
        drop_empty_spec(object);
    }
    Ok(())
}
