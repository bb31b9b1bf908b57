//! The node's use of the injector: whatever makes pods passes through it, as it would in a cluster.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::inject;
use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use weft_proxy_api::names::keys;

/// Objects as they came, and as they are after injection.
#[derive(Default)]
pub(crate) struct Injected {
    done: HashMap<ObjectKey, Done>,
    settings: inject::Settings,
}

/// What was made of an object.
#[derive(Default)]
struct Done {
    /// Is it of the object as it is now?
    fresh: bool,
    /// The last that could be injected: what runs goes on while there is a mistake.
    last: Option<Object>,
    mistake: Option<String>,
}

impl Injected {
    /// What was made of an object is old, or of everything when a Namespace changed.
    pub(crate) fn changed(&mut self, key: &ObjectKey) {
        if key.kind == Kind::Namespace {
            self.done.values_mut().for_each(|done| done.fresh = false);
        } else if let Some(done) = self.done.get_mut(key) {
            done.fresh = false;
        }
    }

    /// An object is gone.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.changed(key);
        self.done.remove(key);
    }

    /// The object with its sidecar, if it or its namespace asks for one: as it is now, or as it was before a mistake; and
    /// that mistake.
    pub(crate) fn of(
        &mut self,
        loaded: &Loaded,
        objects: &BTreeMap<ObjectKey, Loaded>,
    ) -> (Option<Object>, Option<String>) {
        let done = self.done.entry(loaded.key.clone()).or_default();
        if !done.fresh {
            let asks = namespace_asks(&loaded.key.namespace, objects);
            done.mistake = match with_sidecar(loaded, asks, &self.settings) {
                Ok(object) => {
                    done.last = Some(object);
                    None
                }
                Err(why) => Some(why),
            };
            done.fresh = true;
        }
        (done.last.clone(), done.mistake.clone())
    }
}

fn namespace_asks(namespace: &str, objects: &BTreeMap<ObjectKey, Loaded>) -> bool {
    match objects
        .get(&ObjectKey::new(Kind::Namespace, "", namespace))
        .map(|l| &l.object)
    {
        Some(Object::Namespace(ns)) => {
            let meta = &ns.metadata;
            let said = meta
                .annotations
                .get(keys::INJECT)
                .or_else(|| meta.labels.get(keys::INJECT));
            said.is_some_and(|value| value == "enabled")
        }
        _ => false,
    }
}

/// As the admission webhook decides: the pod's own word counts, else that of its namespace.
fn asks(loaded: &Loaded, namespace_asks: bool) -> bool {
    let annotations = match &loaded.object {
        Object::Pod(o) => &o.metadata.annotations,
        Object::Deployment(o)
        | Object::StatefulSet(o)
        | Object::DaemonSet(o)
        | Object::ReplicaSet(o) => &o.spec.template.metadata.annotations,
        Object::Job(o) => &o.spec.template.metadata.annotations,
        _ => return false,
    };
    match annotations.get(keys::INJECT) {
        Some(word) => word != "disabled",
        None => namespace_asks,
    }
}

fn outcome(outcome: &inject::Outcome) -> String {
    match outcome {
        inject::Outcome::Error(why) | inject::Outcome::Warning(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

fn with_sidecar(
    loaded: &Loaded,
    namespace_asks: bool,
    settings: &inject::Settings,
) -> Result<Object, String> {
    if !asks(loaded, namespace_asks) {
        return Ok(loaded.object.clone());
    }
    let text = manifest(loaded)?;
    let output = inject::inject(&text, settings);
    if output.failed() {
        let mistakes: Vec<_> = output
            .report
            .iter()
            .filter(|l| l.is_error())
            .map(|l| outcome(&l.outcome))
            .collect();
        return Err(mistakes.join("; "));
    }
    let (again, problems) = crate::manifest::parse("injected", &output.text);
    match again.into_iter().find(|l| l.key == loaded.key) {
        Some(loaded) => Ok(loaded.object),
        None => Err(problems
            .first()
            .map_or("the injector lost it".into(), ToString::to_string)),
    }
}

/// An object as a manifest again: what the injector reads. Only the fields the node knows of are left, which are all
/// that it runs.
fn manifest(loaded: &Loaded) -> Result<String, String> {
    let (api_version, fields) = match &loaded.object {
        Object::Pod(o) => ("v1", serde_json::to_value(&**o)),
        Object::Deployment(o)
        | Object::StatefulSet(o)
        | Object::DaemonSet(o)
        | Object::ReplicaSet(o) => ("apps/v1", serde_json::to_value(&**o)),
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
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect(),
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

    fn containers(namespace: Option<&str>, pod: &str) -> Vec<String> {
        let word = |word: &str| format!("{{weft.mesh/inject: {word}}}");
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {}}}\n---\n{}",
            namespace.map_or("{}".into(), word),
            POD.replace("{weft.mesh/inject: enabled}", pod)
        );
        let objects: BTreeMap<_, _> = crate::manifest::parse("f", &text)
            .0
            .into_iter()
            .map(|l| (l.key.clone(), l))
            .collect();
        let key = ObjectKey::new(Kind::Deployment, "shop", "web");
        match Injected::default().of(&objects[&key], &objects).0.unwrap() {
            Object::Deployment(o) => {
                let spec = &o.spec.template.spec;
                spec.init_containers
                    .iter()
                    .chain(&spec.containers)
                    .map(|c| c.name.clone())
                    .collect()
            }
            _ => vec![],
        }
    }

    #[test]
    fn the_pod_decides_else_its_namespace() {
        let meshed = ["weft-init", "weft-proxy", "app"];
        assert_eq!(containers(None, "{weft.mesh/inject: enabled}"), meshed);
        assert_eq!(containers(Some("enabled"), "{}"), meshed);
        assert_eq!(
            containers(Some("enabled"), "{weft.mesh/inject: disabled}"),
            ["app"]
        );
        assert_eq!(containers(None, "{}"), ["app"]);
    }

    #[test]
    fn what_runs_goes_on_while_there_is_a_mistake() {
        let objects = |text: &str| -> BTreeMap<ObjectKey, Loaded> {
            let (all, _) = crate::manifest::parse("f", text);
            all.into_iter().map(|l| (l.key.clone(), l)).collect()
        };
        let wrong = "enabled, config.weft.mesh/opaque-ports: many}";
        let (good, bad) = (objects(POD), objects(&POD.replace("enabled}", wrong)));
        let key = ObjectKey::new(Kind::Deployment, "shop", "web");
        let mut injected = Injected::default();
        let (before, mistake) = injected.of(&good[&key], &good);
        assert!(before.is_some() && mistake.is_none());
        injected.changed(&key);
        let (now, mistake) = injected.of(&bad[&key], &bad);
        assert!(mistake.unwrap().contains("opaque-ports"));
        assert_eq!(now, before);
        injected.forget(&key);
        assert_eq!(injected.of(&bad[&key], &bad).0, None);
    }

    #[test]
    fn a_manifest_written_again_means_the_same() {
        let (loaded, problems) = crate::manifest::parse("f", POD);
        assert_eq!(problems, []);
        let text = manifest(&loaded[0]).unwrap();
        let (again, problems) = crate::manifest::parse("f", &text);
        assert_eq!(
            (problems.len(), &again[0].object),
            (0, &loaded[0].object),
            "{text}"
        );
    }
}
