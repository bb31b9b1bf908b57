//! The node's use of the injector: whatever makes pods passes through it, as it would in a cluster.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use weft_proxy_api::names::keys;

/// Objects as they came, and as they are after injection.
#[derive(Default)]
pub(crate) struct Injected {
    done: HashMap<ObjectKey, Result<Object, String>>,
}

impl Injected {
    /// Forget what was made of an object, or of everything when a Namespace changed.
    pub(crate) fn changed(&mut self, key: &ObjectKey) {
        if key.kind == Kind::Namespace {
            self.done.clear();
        } else {
            self.done.remove(key);
        }
    }

    /// The object with its sidecar, if it or its namespace asks for one.
    pub(crate) fn of(&mut self, loaded: &Loaded, objects: &BTreeMap<ObjectKey, Loaded>) -> Result<Object, String> {
        if let Some(done) = self.done.get(&loaded.key) {
            return done.clone();
        }
        let done = inject(loaded, namespace_asks(&loaded.key.namespace, objects));
        self.done.insert(loaded.key.clone(), done.clone());
        done
    }
}

fn namespace_asks(namespace: &str, objects: &BTreeMap<ObjectKey, Loaded>) -> bool {
    match objects.get(&ObjectKey::new(Kind::Namespace, "", namespace)).map(|l| &l.object) {
        Some(Object::Namespace(ns)) => {
            let meta = &ns.metadata;
            let said = meta.annotations.get(keys::INJECT).or_else(|| meta.labels.get(keys::INJECT));
            said.is_some_and(|value| value == "enabled")
        }
        _ => false,
    }
}

/// As the admission webhook decides: the pod's own word counts, else that of its namespace.
fn asks(loaded: &Loaded, namespace_asks: bool) -> bool {
    let annotations = match &loaded.object {
        Object::Pod(o) => &o.metadata.annotations,
        Object::Deployment(o) | Object::StatefulSet(o) | Object::DaemonSet(o) | Object::ReplicaSet(o) => {
            &o.spec.template.metadata.annotations
        }
        Object::Job(o) => &o.spec.template.metadata.annotations,
        _ => return false,
    };
    match annotations.get(keys::INJECT) {
        Some(word) => word != "disabled",
        None => namespace_asks,
    }
}

fn inject(loaded: &Loaded, namespace_asks: bool) -> Result<Object, String> {
    if !asks(loaded, namespace_asks) {
        return Ok(loaded.object.clone());
    }
    let text = manifest(loaded)?;
    let injected = text; // INJECT
    let (again, problems) = crate::manifest::parse("injected", &injected);
    match again.into_iter().find(|l| l.key == loaded.key) {
        Some(loaded) => Ok(loaded.object),
        None => Err(problems.first().map_or("the injector lost it".into(), ToString::to_string)),
    }
}

/// An object as a manifest again: what the injector reads. Only the fields the node knows of are left, which are all
/// that it runs.
fn manifest(loaded: &Loaded) -> Result<String, String> {
    let (api_version, fields) = match &loaded.object {
        Object::Pod(o) => ("v1", serde_json::to_value(&**o)),
        Object::Deployment(o) | Object::StatefulSet(o) | Object::DaemonSet(o) | Object::ReplicaSet(o) => {
            ("apps/v1", serde_json::to_value(&**o))
        }
        Object::Job(o) => ("batch/v1", serde_json::to_value(&**o)),
        _ => return Err("it makes no pods".into()),
    };
    let mut all = serde_json::Map::new();
    all.insert("apiVersion".into(), api_version.into());
    all.insert("kind".into(), loaded.key.kind.as_str().into());
    if let Value::Object(fields) = without_nulls(fields.map_err(|e| e.to_string())?) {
        all.extend(fields);
    }
    // JSON is YAML in which nothing can be taken for a number or for "yes".
    serde_json::to_string_pretty(&all).map_err(|e| e.to_string())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {a: "true", b: "0123"}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {weft.mesh/inject: enabled}}
    spec:
      containers:
      - name: app
        command: [sh, -c, "while true; do\n  echo 'x: # y'; sleep 1\ndone\n"]
        env: [{name: PORT, value: "8080"}, {name: M, value: "off"}, {name: E, value: ""}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}}
"#;

    #[test]
    fn a_manifest_written_again_means_the_same() {
        let (loaded, problems) = crate::manifest::parse("f", POD);
        assert_eq!(problems, []);
        let text = manifest(&loaded[0]).unwrap();
        let (again, problems) = crate::manifest::parse("f", &text);
        assert_eq!((problems.len(), &again[0].object), (0, &loaded[0].object), "{text}");
    }
}
