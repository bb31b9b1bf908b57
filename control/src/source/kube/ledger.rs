//! What a writer of status needs to know of the objects that are watched: their generation, and what their status says.
//! Only of kinds that have a status of ours; the objects themselves are in the index.

use super::kinds::Watched;
use crate::manifest::ObjectKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// A condition, as Kubernetes writes them (`meta/v1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Which generation of the object this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// One object.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its kind.
    pub watched: &'static Watched,
    /// The version it was read in.
    pub api_version: String,
    /// Tells it from a later one of the same name.
    pub uid: String,
    /// Counted up at every change of its spec.
    pub generation: i64,
    /// What its status says.
    pub conditions: Vec<Condition>,
    /// What it says of ports; an empty list where it says nothing.
    pub ports: Value,
    /// When this generation was first seen here.
    pub seen: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Mutex<Pages>,
    /// Objects are stored in a version that only we can turn into the one that we read.
    needed: AtomicBool,
}

#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<ObjectKey, Entry>,
    /// Objects whose status may not be right any more.
    touched: BTreeSet<ObjectKey>,
}

impl Ledger {
    /// The API server could not list objects, because it found nobody to convert them.
    pub fn converter_missed(&self) {
        self.needed.store(true, Relaxed);
    }

    /// Does the API server need our webhook to list what we wait for? Then the Service must lead to us before all is read.
    pub fn is_needed(&self) -> bool {
        self.needed.load(Relaxed)
    }

    /// An object as the API server sent it.
    pub fn note(&self, watched: &'static Watched, key: &ObjectKey, object: &Value, now: Instant) {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // A status that others wrote in another shape counts as none.
        let conditions = serde_json::from_value(object["status"]["conditions"].clone());
        let mut entry = Entry {
            watched,
            api_version: text(&object["apiVersion"]),
            uid: text(&metadata["uid"]),
            generation: metadata["generation"].as_i64().unwrap_or(0),
            conditions: conditions.unwrap_or_default(),
            ports: match &object["status"]["ports"] {
                Value::Array(ports) => ports.clone().into(),
                _ => Value::Array(vec![]),
            },
            seen: now,
        };
        let mut pages = self.pages.lock();
        if let Some(before) = pages.entries.get(key)
            && (&before.uid, before.generation) == (&entry.uid, entry.generation)
        {
            entry.seen = before.seen;
        }
        pages.entries.insert(key.clone(), entry);
        pages.touched.insert(key.clone());
    }

    /// An object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        let mut pages = self.pages.lock();
        pages.entries.remove(key);
        pages.touched.remove(key);
    }

    /// Something else is known of this object; of one that has no status of ours it does not matter.
    pub fn touch(&self, key: &ObjectKey) {
        let mut pages = self.pages.lock();
        if pages.entries.contains_key(key) {
            pages.touched.insert(key.clone());
        }
    }

    /// What was just written into the status of an object.
    pub fn wrote(&self, key: &ObjectKey, uid: &str, conditions: Vec<Condition>, ports: Value) {
        let mut pages = self.pages.lock();
        if let Some(entry) = pages.entries.get_mut(key).filter(|it| it.uid == uid) {
            entry.conditions = conditions;
            entry.ports = ports;
        }
    }

    /// One object.
    pub fn entry(&self, key: &ObjectKey) -> Option<Entry> {
        self.pages.lock().entries.get(key).cloned()
    }

    /// Every object with what is known of it, by key.
    pub fn all(&self) -> Vec<(ObjectKey, Entry)> {
        let pages = self.pages.lock();
        let all = pages.entries.iter();
        all.map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// The name of every object.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        self.pages.lock().entries.keys().cloned().collect()
    }

    /// The objects that were touched since this was last asked.
    pub fn take_touched(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.pages.lock().touched)
    }
}
