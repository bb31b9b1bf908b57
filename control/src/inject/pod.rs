//! One pod as an API server has it: the decision and the patch are those of a text, and what comes out is a JSON patch
//! (RFC 6902) in place of edits.

use super::changes::Injection;
use super::patch::{self, Patch};
use super::settings::{Config, Settings, Trust};
use super::workload::{self, Decision};
use serde_json::{Map, Value, json};
use weft_proxy_api::names::{inject as ours, proxy_env as env};

/// What is to become of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It gets the sidecar, or what the one that it has lacks.
    Inject {
        /// Operations of a JSON patch.
        operations: Vec<Value>,
        /// What works, but perhaps not as somebody expects.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Leave {
        /// Why.
        why: String,
        /// Somebody should know.
        warn: bool,
    },
    /// It cannot be injected: these things are wrong.
    Refuse(Vec<String>),
}

/// Decides about a pod. What was injected already is left alone, but for whom it trusts.
pub fn pod(pod: &Value, settings: &Settings) -> Verdict {
    if let Err(mistake) = settings.check() {
        return Verdict::Refuse(vec![mistake]);
    }
    if let Some(mistake) = misshapen(pod) {
        return Verdict::Refuse(vec![mistake]);
    }
    let trusting = told_whom_to_trust(pod, &settings.trust);
    if !trusting.is_empty() {
        return Verdict::Inject {
            operations: trusting,
            warnings: Vec::new(),
        };
    }
    match workload::decide(settings, pod) {
        Decision::Skip(why) => Verdict::Leave { why, warn: false },
        Decision::SkipWithWarning(why) => Verdict::Leave { why, warn: true },
        Decision::Refuse(mistakes) => Verdict::Refuse(mistakes),
        Decision::Inject { config, scrape } => Verdict::Inject {
            operations: operations(pod, patch_of(pod, settings, &config, scrape)),
            warnings: workload::warnings(pod, &[], pod),
        },
    }
}

/// A pod injected by hand may look for whom to trust in a ConfigMap that nobody has made: told the roots themselves, it needs
/// none.
fn told_whom_to_trust(pod: &Value, trust: &Trust) -> Vec<Value> {
    let mut operations = Vec::new();
    if !matches!(trust, Trust::Text(_)) || !workload::is_injected(pod) {
        return operations;
    }
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        for (at, container) in containers.enumerate() {
            if container["name"] != ours::PROXY_CONTAINER {
                continue;
            }
            let variables = container["env"].as_array().into_iter().flatten();
            for (place, variable) in variables.enumerate() {
                let from = &variable["valueFrom"]["configMapKeyRef"]["name"];
                if variable["name"] == env::TRUST_ANCHORS && *from == ours::TRUST_CONFIG_MAP {
                    operations.push(json!({
                        "op": "replace", "path": format!("/spec/{list}/{at}/env/{place}"),
                        "value": patch::trust_anchors(trust),
                    }));
                }
            }
        }
    }
    operations
}

/// What an API server never sends, and what no patch could be put into.
fn misshapen(pod: &Value) -> Option<String> {
    let is_map = |place: &str, needed: bool| match pod.pointer(place) {
        None | Some(Value::Null) => !needed,
        Some(value) => value.is_object(),
    };
    let is_list = |name: &str| matches!(&pod["spec"][name], Value::Null | Value::Array(_));
    let maps = [
        ("", "the pod", true),
        ("/metadata", "metadata", false),
        ("/metadata/annotations", "metadata.annotations", false),
        ("/spec", "spec", true),
    ];
    let lists = ["initContainers", "containers", "volumes"];
    let map = maps
        .iter()
        .find(|(place, _, needed)| !is_map(place, *needed));
    let list = lists.iter().find(|name| !is_list(name));
    map.map(|(_, name, _)| format!("{name} is not a map"))
        .or_else(|| list.map(|name| format!("spec.{name} is not a list")))
}

fn patch_of(pod: &Value, settings: &Settings, config: &Config, scrape: bool) -> Patch {
    let record = Injection::record(absent(pod), config, scrape);
    patch::build(settings, config, scrape, &record)
}

/// What uninjection must know: which keys are not there yet, and which of them say `null`.
fn absent(pod: &Value) -> Vec<String> {
    let absent = |map: Option<&Value>, key: &str| match map.and_then(|map| map.get(key)) {
        None => Some(key.to_owned()),
        Some(Value::Null) => Some(format!("{key}=null")),
        Some(_) => None,
    };
    let metadata =
        absent(Some(pod), "metadata").or_else(|| absent(pod.get("metadata"), "annotations"));
    let lists = ["initContainers", "volumes"].map(|key| absent(pod.get("spec"), key));
    let lists = lists.into_iter().flatten();
    metadata.into_iter().chain(lists).collect()
}

fn operations(pod: &Value, patch: Patch) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut add = |path: String, value: Value| {
        operations.push(json!({"op": "add", "path": path, "value": value}));
    };
    let is_there = |place: &str| pod.pointer(place).is_some_and(|value| !value.is_null());
    match (is_there("/metadata"), is_there("/metadata/annotations")) {
        (false, _) => add(
            "/metadata".to_owned(),
            json!({"annotations": patch.annotations}),
        ),
        (true, false) => add("/metadata/annotations".to_owned(), patch.annotations.into()),
        (true, true) => {
            let present = pod.pointer("/metadata/annotations");
            let present = present.and_then(Value::as_object);
            for (key, value) in missing(patch.annotations, present) {
                let key = key.replace('~', "~0").replace('/', "~1");
                add(format!("/metadata/annotations/{key}"), value);
            }
        }
    }
    for (name, items) in [
        ("initContainers", patch.init_containers),
        ("containers", patch.containers),
        ("volumes", patch.volumes),
    ] {
        let path = format!("/spec/{name}");
        match is_there(&path) {
            _ if items.is_empty() => {}
            false => add(path, items.into()),
            true => {
                for (at, item) in items.into_iter().enumerate() {
                    add(format!("{path}/{at}"), item);
                }
            }
        }
    }
    operations
}

/// What a pod says itself is not written over.
fn missing(
    annotations: Map<String, Value>,
    present: Option<&Map<String, Value>>,
) -> impl Iterator<Item = (String, Value)> {
    annotations
        .into_iter()
        .filter(move |(key, _)| !present.is_some_and(|present| present.contains_key(key)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::inject::{Outcome, inject, uninject};

    fn patched(pod: &Value, operations: &[Value]) -> Value {
        let patch: json_patch::Patch =
            serde_json::from_value(Value::from(operations.to_vec())).unwrap();
        let mut pod = pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    fn pods() -> Vec<Value> {
        let spec = json!({"containers": [{"name": "app", "image": "x"}]});
        let full = json!({
            "containers": [{"name": "app", "ports": [{"containerPort": 80}]}],
            "initContainers": [{"name": "first"}], "volumes": [{"name": "data"}],
        });
        let opaque = json!({"config.weft.mesh/opaque-ports": "25"});
        [
            json!({"spec": spec}),
            json!({"metadata": null, "spec": spec}),
            json!({"metadata": {"name": "a", "annotations": null}, "spec": spec}),
            json!({"metadata": {"generateName": "a-", "annotations": {}}, "spec": full}),
            json!({"metadata": {"annotations": opaque}, "spec": full}),
            json!({"metadata": {}, "spec": {"containers": [{"name": "a"}], "volumes": null, "initContainers": []}}),
        ]
        .map(|mut pod| {
            pod["apiVersion"] = "v1".into();
            pod["kind"] = "Pod".into();
            pod
        })
        .to_vec()
    }

    #[test]
    fn a_pod_becomes_what_its_manifest_would_become() {
        let mut flags = Settings::default();
        flags
            .set("config.weft.mesh/proxy-log-level", "debug")
            .unwrap();
        for (settings, before) in [Settings::default(), flags]
            .iter()
            .flat_map(|settings| pods().into_iter().map(move |pod| (settings, pod)))
        {
            let Verdict::Inject { operations, .. } = pod(&before, settings) else {
                panic!("{before}")
            };
            let after = patched(&before, &operations);
            let text = inject(&before.to_string(), settings);
            assert_eq!(text.report.last().unwrap().outcome, Outcome::Injected);
            let written: Value = serde_json::from_str(&text.text).unwrap();
            assert_eq!(after, written, "{before}");
            let again = pod(&after, settings);
            assert!(
                matches!(again, Verdict::Leave { warn: false, .. }),
                "{again:?}"
            );
            let back: Value = serde_json::from_str(&uninject(&after.to_string()).text).unwrap();
            assert_eq!(back, before);
        }
    }

    #[test]
    fn a_pod_injected_by_hand_is_told_whom_to_trust() {
        let text = |pem: &str| Settings {
            trust: Trust::Text(pem.to_owned()),
            ..Settings::default()
        };
        for before in pods() {
            let Verdict::Inject { operations, .. } = pod(&before, &Settings::default()) else {
                panic!("{before}")
            };
            let by_hand = patched(&before, &operations);
            let Verdict::Inject { operations, .. } = pod(&by_hand, &text("roots")) else {
                panic!("{by_hand}")
            };
            let told = patched(&by_hand, &operations);
            let Verdict::Inject { operations, .. } = pod(&before, &text("roots")) else {
                panic!("{before}")
            };
            assert_eq!(told, patched(&before, &operations));
            // What it was told stays, and what names other places.
            assert!(matches!(pod(&told, &text("other")), Verdict::Leave { .. }));
            let place = Trust::File("/roots.pem".into());
            let own = Settings {
                trust: place,
                ..Settings::default()
            };
            let Verdict::Inject { operations, .. } = pod(&before, &own) else {
                panic!("{before}")
            };
            let own = patched(&before, &operations);
            assert!(matches!(pod(&own, &text("other")), Verdict::Leave { .. }));
        }
    }

    #[test]
    fn what_no_patch_fits_is_refused_with_its_field() {
        let table = [
            (json!(3), "the pod is not a map"),
            (json!({}), "spec is not a map"),
            (json!({"metadata": [], "spec": {}}), "metadata is not a map"),
            (
                json!({"metadata": {"annotations": "x"}, "spec": {}}),
                "metadata.annotations is not a map",
            ),
            (
                json!({"spec": {"containers": [], "volumes": {}}}),
                "spec.volumes is not a list",
            ),
        ];
        for (value, why) in table {
            let expected = Verdict::Refuse(vec![why.to_owned()]);
            assert_eq!(pod(&value, &Settings::default()), expected, "{value}");
        }
    }
}
