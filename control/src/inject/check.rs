//! The second opinion: texts are read as values, the way Kubernetes reads them, and the spliced text must say exactly
//! what the same change to the original's value says.

use super::patch::Patch;
use super::workload::{LISTS, is_our_annotation};
use serde_json::{Map, Value};

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let budget =
        serde_saphyr::budget! { max_depth: 100, max_nodes: 2_000_000, max_events: 5_000_000 };
    let options = serde_saphyr::options! { legacy_octal_numbers: true, budget: budget };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        e.to_string()
            .lines()
            .next()
            .unwrap_or("unreadable")
            .to_owned()
    })
}

/// Makes the change to a value.
pub(super) fn apply(pod: &mut Value, patch: &Patch) -> Option<()> {
    let metadata = object(pod, "metadata")?;
    let annotations = object_in(metadata, "annotations")?;
    let mut all = patch.annotations.clone();
    all.append(annotations);
    *annotations = all;
    let spec = object(pod, "spec")?;
    for (key, items) in [
        ("initContainers", &patch.init_containers),
        ("containers", &patch.containers),
        ("volumes", &patch.volumes),
    ] {
        if !items.is_empty() {
            put_first(spec, key, items)?;
        }
    }
    Some(())
}

fn object<'v>(of: &'v mut Value, key: &str) -> Option<&'v mut Map<String, Value>> {
    object_in(of.as_object_mut()?, key)
}

fn object_in<'v>(map: &'v mut Map<String, Value>, key: &str) -> Option<&'v mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Map::new().into();
    }
    value.as_object_mut()
}

fn put_first(spec: &mut Map<String, Value>, key: &str, items: &[Value]) -> Option<()> {
    let value = spec.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(vec![]);
    }
    value.as_array_mut()?.splice(0..0, items.iter().cloned());
    Some(())
}

/// Takes everything out of a pod that is ours, and what is empty then: two texts that differ only in that are alike.
pub(super) fn without_ours(pod: &mut Value, record: &[&str]) {
    if let Some(annotations) = pod
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| !is_our_annotation(key, record));
    }
    for (key, is_ours) in LISTS {
        if let Some(items) = pod["spec"].get_mut(key).and_then(Value::as_array_mut) {
            items.retain(|item| !item["name"].as_str().is_some_and(is_ours));
        }
    }
    for (parent, keys) in [
        ("/metadata", ["annotations"].as_slice()),
        ("/spec", &["initContainers", "volumes"]),
        ("", &["metadata"]),
    ] {
        if let Some(map) = pod.pointer_mut(parent).and_then(Value::as_object_mut) {
            keys.iter()
                .filter(|key| map.get(**key).is_some_and(is_empty))
                .copied()
                .collect::<Vec<_>>()
                .iter()
                .for_each(|key| drop(map.shift_remove(*key)));
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_object().is_some_and(Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}
