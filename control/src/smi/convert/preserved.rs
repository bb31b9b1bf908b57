//! The annotation with what a version cannot show: a JSON map, each part of it under its own name.
//!
//! | part | of | until | holds |
//! |---|---|---|---|
//! | `matches` | TrafficSplit, TCPRoute | v1alpha2, v1alpha3 | `spec.matches` |
//! | `weights` | TrafficSplit | (of v1alpha1) | quantities as they were written, and the whole numbers they became |
//! | `destination` | TrafficTarget | v1alpha3 | a destination that is an IdentityBinding |
//! | `sources` | TrafficTarget | v1alpha3 | sources that are IdentityBindings, with their places |
//! | `groups` | TrafficTarget | v1alpha3 | the group of each ServiceAccount that has one |
//! | `rules` | TrafficTarget | v1alpha2 | UDPRoutes among the rules, with their places |
//! | `headers` | HTTPRouteGroup | v1alpha1 | the name of every match, and its headers |
//! | `empty` | TrafficTarget | (of v1alpha2) | `sources` or `rules`, where it is empty: since v1alpha3 that is a mistake |
//!
//! Anybody who may write the object may write it, so it is only read for what the object's own version lacks, and what is
//! read from it is checked like anything else.

use super::{Fields, Refused, Version, refuse};
use serde_json::{Map, Value};
use weft_proxy_api::names::keys::SMI_PRESERVED;

/// Which fields could not be shown. Nothing of it narrows or widens: it is only how somebody wrote it.
pub const WEIGHTS: &str = "weights";
/// Which lists of a TrafficTarget are empty on purpose. Who has it allows nothing, so that it can widen nothing either.
pub const EMPTY: &str = "empty";

/// The parts.
#[derive(Debug, Default)]
pub(super) struct Preserved(Map<String, Value>);

/// Does the annotation hold a part without which the object would mean something else?
pub fn is_needed(annotation: &str) -> bool {
    match serde_json::from_str::<Map<String, Value>>(annotation) {
        Ok(parts) => parts.keys().any(|part| part != WEIGHTS && part != EMPTY),
        Err(_) => true,
    }
}

/// Does the annotation say that this list of a TrafficTarget was written empty, in a version that allows it (D15)?
pub fn is_empty_on_purpose(annotation: &str, list: &str) -> bool {
    let parts: Map<String, Value> = serde_json::from_str(annotation).unwrap_or_default();
    let lists = parts.get(EMPTY).and_then(Value::as_array);
    lists.is_some_and(|lists| lists.iter().any(|name| name.as_str() == Some(list)))
}

impl Preserved {
    /// Takes the annotation off an object. In the newest version it is of no importance, so it may be anything.
    pub(super) fn take(object: &mut Fields, from: Version) -> Result<Self, Refused> {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Ok(Self::default());
        };
        let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        else {
            return Ok(Self::default());
        };
        let Some(annotation) = annotations.shift_remove(SMI_PRESERVED) else {
            return Ok(Self::default());
        };
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
        let text = annotation.as_str().unwrap_or_default();
        match serde_json::from_str(text) {
            Ok(parts) => Ok(Self(parts)),
            Err(_) if from == Version::V1Alpha4 => Ok(Self::default()),
            Err(_) => broken(),
        }
    }

    /// Writes the annotation, if there is anything to preserve.
    pub(super) fn store(self, object: &mut Fields) -> Result<(), Refused> {
        if self.0.is_empty() {
            return Ok(());
        }
        let text = Value::Object(self.0).to_string();
        let metadata = object.entry("metadata").or_insert(Value::Null);
        let annotations = child(metadata)
            .and_then(|metadata| child(metadata.entry("annotations").or_insert(Value::Null)));
        match annotations {
            Some(annotations) => annotations.insert(SMI_PRESERVED.to_owned(), text.into()),
            None => return refuse("metadata.annotations", "must be a map"),
        };
        Ok(())
    }

    /// Takes a part out.
    pub(super) fn remove(&mut self, part: &str) -> Option<Value> {
        self.0.shift_remove(part)
    }

    /// Takes a part out that is a list.
    pub(super) fn remove_list(&mut self, part: &str) -> Result<Vec<Value>, Refused> {
        match self.remove(part) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => broken(),
        }
    }

    /// Keeps a part.
    pub(super) fn keep(&mut self, part: &str, value: Value) {
        self.0.insert(part.to_owned(), value);
    }

    /// Keeps a list, or forgets the part where it is empty.
    pub(super) fn keep_list(&mut self, part: &str, list: Vec<Value>) {
        match list.is_empty() {
            true => drop(self.remove(part)),
            false => self.keep(part, list.into()),
        }
    }
}

fn child(value: &mut Value) -> Option<&mut Fields> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// Somebody wrote into it.
pub(super) fn broken<T>() -> Result<T, Refused> {
    refuse(
        format!("metadata.annotations[{SMI_PRESERVED}]"),
        "cannot be read, and what it preserves must not be lost: write the object as v1alpha4",
    )
}
