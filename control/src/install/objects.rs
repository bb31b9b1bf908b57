//! All objects of an installation, in order: what others refer to comes first.

use super::{CONFIG_KEY, CONFIG_MAP, Source, metrics, rbac, webhooks, workload};
use crate::crd::{self, Conversion};
use serde_json::{Value, json};
use weft_proxy_api::names;

/// The value by which the old name of a group counts.
pub(super) const LEGACY: &str = "legacySpecGroup";

/// An object, and the values (flags) it depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// The object.
    pub(crate) object: Value,
    /// It is there if all of these are true.
    pub(crate) when: &'static [&'static str],
}

/// All of them.
pub(crate) fn all(source: &impl Source) -> Vec<Part> {
    let always = |object| Part { object, when: &[] };
    let when = |when: &'static [&'static str]| move |object| Part { object, when };
    let mut parts = vec![always(namespace(source))];
    parts.extend(definitions(source).into_iter().map(when(&["crds"])));
    let legacy = labelled(crd::legacy()).into_iter();
    parts.extend(legacy.map(when(&["crds", LEGACY])));
    parts.extend(rbac::objects(source).into_iter().map(always));
    parts.extend(rbac::legacy(source).into_iter().map(when(&[LEGACY])));
    parts.push(always(config(source)));
    parts.extend(workload::objects(source).into_iter().map(always));
    parts.extend(
        workload::monitors(source)
            .into_iter()
            .map(when(&["podMonitor"])),
    );
    let api = metrics::objects(source).into_iter();
    parts.extend(api.map(when(&["metricsApi"])));
    // Last: nothing is sent to a webhook before what answers it was applied.
    parts.extend(webhooks::objects(source).into_iter().map(always));
    parts.extend(webhooks::legacy(source).into_iter().map(when(&[LEGACY])));
    parts
}

/// The definitions of all kinds, with the webhook that converts between their versions.
pub(crate) fn definitions(source: &impl Source) -> Vec<Value> {
    let conversion = Conversion {
        namespace: source.namespace(),
        ca_bundle: String::new(), // the controller fills it in
    };
    labelled(crd::all(Some(&conversion)))
}

fn labelled(mut definitions: Vec<Value>) -> Vec<Value> {
    for definition in &mut definitions {
        let name = definition["metadata"]["name"].clone();
        definition["metadata"] = json!({"name": name, "labels": labels()});
    }
    definitions
}

fn namespace(source: &impl Source) -> Value {
    let mut labels = labels();
    // Its own pods need no sidecar, and what injects must not wait for itself.
    labels[names::keys::INJECT] = "disabled".into();
    labels["pod-security.kubernetes.io/enforce"] = "restricted".into();
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": source.namespace(), "labels": labels},
    })
}

/// The values of this installation, for `meshctl upgrade`.
fn config(source: &impl Source) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(source, CONFIG_MAP),
        "data": {CONFIG_KEY: source.chosen(), "version": names::VERSION},
    })
}

/// Labels of every object.
pub(super) fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "weft",
        "app.kubernetes.io/part-of": "weft",
        "app.kubernetes.io/version": names::VERSION,
    })
}

/// Name, namespace and labels of an object beside the controller.
pub(super) fn metadata(source: &impl Source, name: &str) -> Value {
    json!({"name": name, "namespace": source.namespace(), "labels": labels()})
}

/// Name and labels of an object without a namespace.
pub(super) fn cluster_metadata(name: &str) -> Value {
    json!({"name": name, "labels": labels()})
}
