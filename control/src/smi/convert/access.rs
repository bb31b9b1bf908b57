//! TrafficTarget: v1alpha1 has its fields beside `metadata` and calls the rules `specs`; UDPRoutes exist since v1alpha3,
//! IdentityBindings and groups of subjects since v1alpha4. `destination.port` is in every version (D11).

use super::preserved::{EMPTY, Preserved, broken};
use super::{Fields, Refused, Version, items, put_items, refuse, spec, take_items};
use serde_json::{Value, json};

const BINDING: &str = "IdentityBinding";
const UDP: &str = "UDPRoute";
/// What must not be empty since v1alpha3.
const LISTS: [&str; 2] = ["sources", "rules"];
/// What stands beside the fields of v1alpha1.
const RESERVED: [&str; 5] = ["apiVersion", "kind", "metadata", "status", "spec"];

/// To the layout of v1alpha4.
pub(super) fn raise(
    object: &mut Fields,
    from: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    if from == Version::V1Alpha1 {
        nest(object)?;
    }
    let spec = spec(object)?;
    if from < Version::V1Alpha3 {
        expect_no(spec, "rules", UDP, "v1alpha3")?;
        restore(spec, "rules", kept)?;
    }
    if from < Version::V1Alpha4 {
        expect_no(spec, "sources", BINDING, "v1alpha4")?;
        restore(spec, "sources", kept)?;
        restore_destination(spec, kept)?;
        restore_groups(spec, kept)?;
    }
    if from < Version::V1Alpha3 {
        // Whoever empties a list there means it: read as a mistake, the last valid state would stay in force (D15).
        let empty = LISTS.into_iter().filter(|list| is_empty(spec, list));
        kept.keep_list(EMPTY, empty.map(Value::from).collect());
    }
    Ok(())
}

/// From the layout of v1alpha4.
pub(super) fn lower(object: &mut Fields, to: Version, kept: &mut Preserved) -> Result<(), Refused> {
    let spec = spec(object)?;
    let told = kept.remove(EMPTY);
    if to >= Version::V1Alpha3 {
        let told = told.as_ref().and_then(Value::as_array);
        let still = told.into_iter().flatten();
        let still = still.filter(|list| list.as_str().is_some_and(|list| is_empty(spec, list)));
        kept.keep_list(EMPTY, still.cloned().collect());
    }
    if to < Version::V1Alpha4 {
        let groups = take_groups(spec)?;
        kept.keep_list("groups", groups);
        hide(spec, "sources", BINDING, kept)?;
        match spec.get("destination").is_some_and(|it| is(it, BINDING)) {
            true => drop(
                spec.shift_remove("destination")
                    .map(|it| kept.keep("destination", it)),
            ),
            false => drop(kept.remove("destination")),
        }
    }
    if to < Version::V1Alpha3 {
        hide(spec, "rules", UDP, kept)?;
    }
    match to {
        Version::V1Alpha1 => flatten(object),
        _ => Ok(()),
    }
}

/// Is there nothing in this list?
fn is_empty(spec: &Fields, list: &str) -> bool {
    match spec.get(list) {
        None | Some(Value::Null) => true,
        Some(items) => items.as_array().is_some_and(Vec::is_empty),
    }
}

fn is(value: &Value, kind: &str) -> bool {
    value.get("kind").and_then(Value::as_str) == Some(kind)
}

fn nest(object: &mut Fields) -> Result<(), Refused> {
    if object.get("spec").is_some_and(|spec| !spec.is_null()) {
        return refuse("spec", "does not exist in v1alpha1");
    }
    if object.contains_key("rules") {
        return refuse("rules", "is called specs in v1alpha1");
    }
    object.shift_remove("spec");
    let names: Vec<String> = object.keys().cloned().collect();
    let mut spec = Fields::new();
    for name in names
        .into_iter()
        .filter(|name| !RESERVED.contains(&name.as_str()))
    {
        let value = object.shift_remove(&name).unwrap_or_default();
        let name = if name == "specs" {
            "rules".to_owned()
        } else {
            name
        };
        spec.insert(name, value);
    }
    object.insert("spec".to_owned(), spec.into());
    Ok(())
}

fn flatten(object: &mut Fields) -> Result<(), Refused> {
    let Some(Value::Object(spec)) = object.shift_remove("spec") else {
        return Ok(());
    };
    for (name, value) in spec {
        if RESERVED.contains(&name.as_str()) || name == "specs" {
            return refuse(format!("spec.{name}"), "is not a field of v1alpha1");
        }
        let name = if name == "rules" {
            "specs".to_owned()
        } else {
            name
        };
        object.insert(name, value);
    }
    Ok(())
}

/// What a version does not know is not let in through it.
fn expect_no(spec: &mut Fields, list: &str, kind: &str, since: &str) -> Result<(), Refused> {
    let path = format!("spec.{list}");
    let list = items(spec, list, &path)?.map_or(&[][..], |list| &list[..]);
    match list.iter().position(|item| is(item, kind)) {
        Some(index) => refuse(
            format!("{path}[{index}].kind"),
            format!("{kind} is known since {since}"),
        ),
        None => Ok(()),
    }
}

fn hide(spec: &mut Fields, name: &str, kind: &str, kept: &mut Preserved) -> Result<(), Refused> {
    let list = items(spec, name, &format!("spec.{name}"))?;
    let taken = list.map_or_else(Vec::new, |list| take_items(list, |item| is(item, kind)));
    kept.keep_list(name, taken);
    Ok(())
}

fn restore(spec: &mut Fields, name: &str, kept: &mut Preserved) -> Result<(), Refused> {
    let taken = kept.remove_list(name)?;
    if taken.is_empty() {
        return Ok(());
    }
    let list = spec.entry(name).or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    match list.as_array_mut() {
        Some(list) => put_items(list, taken),
        None => refuse(format!("spec.{name}"), "must be a list"),
    }
}

/// A destination that somebody wrote in place of the hidden one is what he wants; none at all is nobody's wish.
fn restore_destination(spec: &mut Fields, kept: &mut Preserved) -> Result<(), Refused> {
    let hidden = kept.remove("destination");
    match (
        spec.get("destination").filter(|shown| !shown.is_null()),
        hidden,
    ) {
        (Some(shown), _) if is(shown, BINDING) => refuse(
            "spec.destination.kind",
            format!("{BINDING} is known since v1alpha4"),
        ),
        (Some(_), _) => Ok(()),
        (None, Some(hidden)) if is(&hidden, BINDING) => {
            spec.insert("destination".to_owned(), hidden);
            Ok(())
        }
        (None, Some(_)) => broken(),
        (None, None) => refuse("spec.destination", "is missing"),
    }
}

/// The subjects of a target that are shown in every version, each with a name for its place.
fn accounts(spec: &mut Fields) -> Result<Vec<(Value, &mut Fields)>, Refused> {
    let mut subjects = Vec::new();
    for (name, value) in spec {
        match (name.as_str(), value) {
            ("destination", subject) => subjects.push((json!("destination"), subject)),
            ("sources", Value::Array(sources)) => {
                let sources = sources.iter_mut().enumerate();
                subjects.extend(sources.map(|(at, subject)| (json!(at), subject)));
            }
            _ => {}
        }
    }
    let accounts = subjects
        .into_iter()
        .filter(|(_, subject)| !is(subject, BINDING));
    Ok(accounts
        .filter_map(|(at, subject)| Some((at, subject.as_object_mut()?)))
        .collect())
}

/// The group of a ServiceAccount says nothing that its kind does not say; it is kept for who compares.
fn take_groups(spec: &mut Fields) -> Result<Vec<Value>, Refused> {
    let taken = accounts(spec)?.into_iter().filter_map(|(at, subject)| {
        let group = subject.shift_remove("group")?;
        Some(json!({"at": at, "value": group}))
    });
    Ok(taken.collect())
}

fn restore_groups(spec: &mut Fields, kept: &mut Preserved) -> Result<(), Refused> {
    let groups = kept.remove_list("groups")?;
    for (at, subject) in accounts(spec)? {
        let group = groups
            .iter()
            .find(|entry| entry["at"] == at)
            .map(|entry| &entry["value"]);
        let sound = group.filter(|group| matches!(group.as_str(), None | Some("" | "core")));
        if let Some(group) = sound.filter(|_| !subject.contains_key("group")) {
            subject.insert("group".to_owned(), group.clone());
        }
    }
    Ok(())
}
