//! What is known of one kind, and what follows from the next thing the API server says. Pure: the time comes in.

use super::super::Event;
use super::kinds::Watched;
use super::ledger::Ledger;
use super::trim::trim;
use crate::manifest::{ObjectKey, Parsed, parse_json};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A list that is suddenly empty is believed when it still is after this time: a broken store or a proxy in between
/// must not take every endpoint from the mesh.
pub const GRACE: Duration = Duration::from_secs(30);

/// One kind as far as it is known.
pub struct Feed {
    watched: &'static Watched,
    known: HashMap<ObjectKey, Known>,
    ledger: Arc<Ledger>,
    /// Counts the lists, so that what an older one knew can be told from what this one named.
    list: u64,
    /// Since when the list is empty that was not.
    doubted: Option<Instant>,
}

struct Known {
    /// Tells an object from a later one of the same name.
    uid: Option<String>,
    /// The last list that named it.
    list: u64,
    /// It has problems that were told.
    troubled: bool,
}

impl Feed {
    /// Nothing is known yet.
    pub fn new(watched: &'static Watched, ledger: Arc<Ledger>) -> Self {
        Self {
            watched,
            known: HashMap::new(),
            ledger,
            list: 0,
            doubted: None,
        }
    }

    /// What is known for whoever writes status.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A list begins.
    pub fn begin(&mut self) {
        self.list += 1;
    }

    /// An object is there, as it was listed or as it now is.
    pub fn apply(&mut self, mut object: Value, events: &mut Vec<Event>) {
        let has_status = self.watched.custom && !self.watched.legacy;
        let whole = has_status.then(|| object.clone());
        trim(self.watched.kind, &mut object);
        let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
        let file = origin(self.watched, &object);
        let mut parsed = parse_json(&file, object);
        let Some(key) = key_of(&mut parsed) else {
            return events.push(problems(file, parsed));
        };
        if let Some(whole) = whole {
            let now = std::time::Instant::now();
            self.ledger.note(self.watched, &key, &whole, now);
        }
        self.doubted = None;
        let before = self.known.get(&key);
        // What was valid before stays in force, but only of the same object (D37).
        let other = before.is_some_and(|before| before.uid != uid);
        if other && parsed.loaded.is_empty() {
            events.push(self.gone(&key));
        }
        let (was, is) = (
            before.is_some_and(|it| it.troubled),
            !parsed.problems.is_empty(),
        );
        let known = Known {
            uid,
            list: self.list,
            troubled: is,
        };
        self.known.insert(key, known);
        let applied = match self.watched.legacy {
            false => Event::Apply,
            true => Event::ApplyLegacy,
        };
        events.extend(parsed.loaded.drain(..).map(applied));
        if was || is {
            events.push(problems(file, parsed));
        }
    }

    /// An object is gone: the watch says so.
    pub fn delete(&mut self, object: &Value, events: &mut Vec<Event>) {
        let file = origin(self.watched, object);
        let mut parsed = parse_json(&file, object.clone());
        if let Some(key) = key_of(&mut parsed) {
            self.forget(&key, events);
        }
    }

    /// The list is complete: what it did not name is gone, unless it is empty all of a sudden. Then the answer is when to
    /// list again.
    pub fn end(&mut self, now: Instant, events: &mut Vec<Event>) -> Option<Instant> {
        let missing = |known: &Known| known.list < self.list;
        let gone: Vec<ObjectKey> = self
            .known
            .iter()
            .filter(|(_, known)| missing(known))
            .map(|(key, _)| key.clone())
            .collect();
        if gone.len() == self.known.len() && !gone.is_empty() {
            let until = *self.doubted.get_or_insert(now) + GRACE;
            if now < until {
                return Some(until);
            }
        }
        self.doubted = None;
        gone.iter().for_each(|key| self.forget(key, events));
        None
    }

    fn forget(&mut self, key: &ObjectKey, events: &mut Vec<Event>) {
        let Some(known) = self.known.remove(key) else {
            return;
        };
        if !self.watched.legacy {
            self.ledger.forget(key);
        }
        if known.troubled {
            let file = self.watched.origin(&key.namespace, &key.name);
            events.push(problems(file.into(), Parsed::default()));
        }
        events.push(self.gone(key));
    }

    fn gone(&self, key: &ObjectKey) -> Event {
        match self.watched.legacy {
            false => Event::Delete(key.clone()),
            true => Event::DeleteLegacy(key.clone()),
        }
    }
}

fn key_of(parsed: &mut Parsed) -> Option<ObjectKey> {
    let loaded = parsed.loaded.first().map(|loaded| loaded.key.clone());
    loaded.or_else(|| parsed.broken.pop_first())
}

fn problems(file: Arc<str>, parsed: Parsed) -> Event {
    Event::Problems {
        file,
        problems: parsed.problems,
    }
}

fn origin(watched: &Watched, object: &Value) -> Arc<str> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    watched.origin(text("namespace"), text("name")).into()
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
