//! Objects from one version into another, as an API server asks for it (D33). Pure: no state, no other objects.
//!
//! ```text
//! any version ──raise──▶ the layout of v1alpha4 ──lower──▶ any version
//! ```
//!
//! What the version asked for cannot show goes into one annotation ([`preserved`]) and comes back from there. So nothing
//! that narrows what is allowed is ever lost; where that cannot be had, there is an error.

mod access;
pub mod preserved;
mod review;
mod specs;
mod split;
#[cfg(test)]
mod tests;

use super::{Supported, Version};
use crate::manifest::Kind;
use crate::manifest::yaml::short;
use preserved::Preserved;
pub use review::{ReviewError, review};
use serde_json::{Map, Value};

/// An object that cannot be converted. Shown as one line: `TrafficSplit shop/web: spec.service: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {message}")]
pub struct ConvertError {
    /// Which object, e.g. `TrafficSplit shop/web`.
    pub object: String,
    /// Which field, e.g. `spec.backends[1].weight`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// The fields of an object.
type Fields = Map<String, Value>;

/// Why a step fails: the field, and what is wrong with it.
#[derive(Debug)]
struct Refused(String, String);

fn refuse<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(field.into(), message.into()))
}

/// The object in the version `to`, an apiVersion such as `split.smi-spec.io/v1alpha1`. `metadata` keeps all but the
/// annotation of what is preserved.
pub fn convert(object: Value, to: &str) -> Result<Value, ConvertError> {
    let title = title(&object);
    let converted = match object {
        Value::Object(fields) => whole(fields, to).map(Value::Object),
        _ => refuse("the object", "must be a map"),
    };
    converted.map_err(|Refused(field, message)| ConvertError {
        object: title,
        field,
        message,
    })
}

fn whole(mut object: Fields, to: &str) -> Result<Fields, Refused> {
    let kind = text(&object, "kind")?.to_owned();
    let (from_group, from, row) = version(text(&object, "apiVersion")?, &kind)?;
    let (to_group, wanted, _) = version(to, &kind)?;
    if from_group != to_group {
        return refuse("apiVersion", format!("{kind} is not in {}", short(to)));
    }
    if from == wanted {
        return Ok(object);
    }
    let mut kept = Preserved::take(&mut object, from)?;
    match row.kind {
        Kind::TrafficSplit => {
            split::raise(&mut object, from, &mut kept)?;
            split::lower(&mut object, wanted, &mut kept)?;
        }
        Kind::TrafficTarget => {
            access::raise(&mut object, from, &mut kept)?;
            access::lower(&mut object, wanted, &mut kept)?;
        }
        Kind::HttpRouteGroup => {
            specs::raise_group(&mut object, from, &mut kept)?;
            specs::lower_group(&mut object, wanted, &mut kept)?;
        }
        Kind::TcpRoute => {
            specs::raise_tcp(&mut object, from, &mut kept)?;
            specs::lower_tcp(&mut object, wanted, &mut kept)?;
        }
        // The others have one version.
        _ => {}
    }
    kept.store(&mut object)?;
    object.insert("apiVersion".to_owned(), to.into());
    Ok(object)
}

fn version<'a>(
    api_version: &'a str,
    kind: &str,
) -> Result<(&'a str, Version, &'static Supported), Refused> {
    let known = api_version.split_once('/').and_then(|(group, version)| {
        let row = Supported::find(group, kind)?;
        let version = Version::parse(version).filter(|it| row.versions.contains(it))?;
        Some((group, version, row))
    });
    match known {
        Some(known) => Ok(known),
        None => refuse(
            "apiVersion",
            format!("{} is not a version of {}", short(api_version), short(kind)),
        ),
    }
}

/// `Kind namespace/name`, as far as it can be told.
fn title(object: &Value) -> String {
    let cut = |value: Option<&Value>| -> String {
        let text = value.and_then(Value::as_str).unwrap_or("?");
        text.chars().take(80).collect()
    };
    let metadata = object.get("metadata");
    let of = |name| cut(metadata.and_then(|metadata| metadata.get(name)));
    format!(
        "{} {}/{}",
        cut(object.get("kind")),
        of("namespace"),
        of("name")
    )
}

fn text<'a>(object: &'a Fields, name: &str) -> Result<&'a str, Refused> {
    match object.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => refuse(name, "is missing"),
    }
}

/// The field `spec`, made if it is missing.
fn spec(object: &mut Fields) -> Result<&mut Fields, Refused> {
    let spec = object.entry("spec").or_insert(Value::Null);
    if spec.is_null() {
        *spec = Value::Object(Map::new());
    }
    match spec.as_object_mut() {
        Some(spec) => Ok(spec),
        None => refuse("spec", "must be a map"),
    }
}

/// The items of a list that may be missing.
fn items<'a>(
    parent: &'a mut Fields,
    name: &str,
    path: &str,
) -> Result<Option<&'a mut Vec<Value>>, Refused> {
    match parent.get_mut(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => refuse(path, "must be a list"),
    }
}

/// Takes the items that a version cannot show out of a list, each with its place.
fn take_items(list: &mut Vec<Value>, hide: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut taken = Vec::new();
    let mut shown = Vec::new();
    for (at, value) in std::mem::take(list).into_iter().enumerate() {
        match hide(&value) {
            true => taken.push(serde_json::json!({"at": at, "value": value})),
            false => shown.push(value),
        }
    }
    *list = shown;
    taken
}

/// Puts them back to their places, or to the end of a list that has become shorter.
fn put_items(list: &mut Vec<Value>, taken: Vec<Value>) -> Result<(), Refused> {
    for mut entry in taken {
        let at = entry.get("at").and_then(Value::as_u64);
        let at = at.and_then(|at| usize::try_from(at).ok());
        let value = entry.get_mut("value").map(Value::take);
        match at.zip(value) {
            Some((at, value)) if value.is_object() => list.insert(at.min(list.len()), value),
            _ => return preserved::broken(),
        }
    }
    Ok(())
}
