//! A whole file: its documents, the items of its lists, each object once, and all that is wrong.

use super::object::{self, Outcome};
use super::report::Finding;
use super::yaml::{Document, MAX_DOCUMENTS, Node, documents};
use super::{Loaded, MAX_FILE, ObjectKey, Origin, Parsed, Problem, Severity};
use crate::smi::Groups;
use std::collections::HashMap;
use std::sync::Arc;

/// Most problems reported of one file.
const MAX_PROBLEMS: usize = 200;
/// Lists in lists, at most.
const MAX_LISTS: usize = 4;

/// Reads a file.
pub(super) fn file(file: &str, text: &str, groups: Groups) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        groups,
        parsed: Parsed::default(),
        places: HashMap::new(),
    };
    if text.len() > MAX_FILE {
        reader.unreadable(
            0,
            format!(
                "the file has {} bytes; at most {MAX_FILE} are read",
                text.len()
            ),
        );
        return reader.parsed;
    }
    let documents = documents(text);
    if documents.len() > MAX_DOCUMENTS {
        reader.unreadable(
            0,
            format!(
                "the file has {} documents; at most {MAX_DOCUMENTS} are read",
                documents.len()
            ),
        );
        return reader.parsed;
    }
    for document in &documents {
        reader.document(document);
    }
    reader.finish()
}

/// Reads one object that is a tree already.
pub(super) fn tree(file: &str, node: &Node, groups: Groups) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        groups,
        parsed: Parsed::default(),
        places: HashMap::new(),
    };
    reader.object(node, 0, None);
    reader.finish()
}

struct Reader {
    file: Arc<str>,
    groups: Groups,
    parsed: Parsed,
    /// Where an object stands in `parsed.loaded`.
    places: HashMap<ObjectKey, usize>,
}

impl Reader {
    fn document(&mut self, document: &Document<'_>) {
        match document.read() {
            Ok(nodes) => nodes
                .iter()
                .for_each(|node| self.tree(node, document.first_line(), None, 0)),
            Err(error) => {
                self.unreadable(error.line, error.message);
                if let Some(problem) = self.parsed.problems.last_mut() {
                    problem.object = guess(document.text);
                }
            }
        }
    }

    /// A list is its items; anything else is an object.
    fn tree(&mut self, node: &Node, line: u32, item_of: Option<(&str, &str)>, depth: usize) {
        let kind = node.get("kind").and_then(Node::text);
        let is_list = kind.is_some_and(|kind| kind.ends_with("List"))
            && node
                .get("metadata")
                .is_none_or(|it| it.get("name").is_none());
        match node.get("items") {
            Some(items) if is_list && depth < MAX_LISTS => self.list(node, items, depth),
            None if is_list => {}
            _ => self.object(node, line, item_of),
        }
    }

    fn list(&mut self, list: &Node, items: &Node, depth: usize) {
        let text = |name| list.get(name).and_then(Node::text).unwrap_or_default();
        // The items of a `PodList` need not say that they are Pods; those of a `List` must.
        let item_of = match text("kind").strip_suffix("List") {
            None | Some("") => None,
            Some(kind) => Some((text("apiVersion"), kind)),
        };
        match &items.value {
            super::yaml::Value::List(items) => {
                items
                    .iter()
                    .for_each(|item| self.tree(item, item.line, item_of, depth + 1));
            }
            other => self.unreadable(
                items.line,
                format!("items must be a list, not {}", other.describe()),
            ),
        }
    }

    fn object(&mut self, node: &Node, line: u32, item_of: Option<(&str, &str)>) {
        let outcome = object::build(
            node,
            item_of.map(|of| of.0),
            item_of.map(|of| of.1),
            self.groups,
        );
        let name = outcome
            .key
            .as_ref()
            .map(ObjectKey::to_string)
            .or_else(|| guess_tree(node));
        let Outcome {
            key,
            object,
            report,
            ignored,
        } = outcome;
        let failed = report.failed();
        let file = self.file.clone();
        let problems = report.into_problems(|finding| problem(&file, line, name.clone(), finding));
        self.parsed.problems.extend(problems);
        match (key, object) {
            (Some(key), Some(object)) => {
                let origin = Origin { file, line };
                if ignored {
                    let message = "this kind is of no concern to the mesh: ignored".to_owned();
                    self.note(line, name, message, Severity::Info);
                }
                self.keep(
                    Loaded {
                        key,
                        origin,
                        object,
                    },
                    ignored,
                );
            }
            (Some(key), None) => drop(self.parsed.broken.insert(key)),
            (None, _) => self.parsed.unreadable |= failed,
        }
    }

    /// The same object twice: the last wins (D36).
    fn keep(&mut self, loaded: Loaded, ignored: bool) {
        if ignored {
            return self.parsed.loaded.push(loaded);
        }
        match self.places.get(&loaded.key).copied() {
            None => {
                self.places
                    .insert(loaded.key.clone(), self.parsed.loaded.len());
                self.parsed.loaded.push(loaded);
            }
            Some(place) => {
                let first = self.parsed.loaded[place].origin.line;
                let message = format!("is in this file twice: line {first} is overridden");
                self.note(
                    loaded.origin.line,
                    Some(loaded.key.to_string()),
                    message,
                    Severity::Warning,
                );
                self.parsed.loaded[place] = loaded;
            }
        }
    }

    fn unreadable(&mut self, line: u32, message: String) {
        self.parsed.unreadable = true;
        self.note(line, None, message, Severity::Error);
    }

    fn note(&mut self, line: u32, object: Option<String>, message: String, severity: Severity) {
        let origin = Origin {
            file: self.file.clone(),
            line,
        };
        self.parsed.problems.push(Problem {
            origin,
            object,
            field: None,
            message,
            severity,
        });
    }

    /// The worst problems come first when there are too many of them.
    fn finish(mut self) -> Parsed {
        let count = self.parsed.problems.len();
        if count > MAX_PROBLEMS {
            self.parsed
                .problems
                .sort_by_key(|problem| std::cmp::Reverse(problem.severity));
            self.parsed.problems.truncate(MAX_PROBLEMS);
            let severity = self
                .parsed
                .problems
                .last()
                .map_or(Severity::Info, |last| last.severity);
            self.note(
                0,
                None,
                format!("{} further problems are not shown", count - MAX_PROBLEMS),
                severity,
            );
        }
        self.parsed
    }
}

fn problem(file: &Arc<str>, line: u32, object: Option<String>, finding: Finding) -> Problem {
    let line = if finding.line == 0 {
        line
    } else {
        finding.line
    };
    Problem {
        origin: Origin {
            file: file.clone(),
            line,
        },
        object,
        field: (!finding.field.is_empty()).then_some(finding.field),
        message: finding.message,
        severity: finding.severity,
    }
}

/// A name for an object that could not be read properly, for messages only.
fn guess_tree(node: &Node) -> Option<String> {
    let metadata = node.get("metadata");
    let text = |name| {
        metadata
            .and_then(|it| it.get(name))
            .and_then(Node::text)
            .map(cut)
    };
    name_for_people(
        node.get("kind").and_then(Node::text).map(cut),
        text("namespace"),
        text("name"),
    )
}

/// The same from the text of a document that is no tree: its lines `kind:` and, inside `metadata:`, `name:`.
fn guess(text: &str) -> Option<String> {
    let (mut kind, mut namespace, mut name, mut within) = (None, None, None, false);
    for line in text.lines().take(1000) {
        if !line.starts_with([' ', '\t', '#']) && !line.trim().is_empty() {
            within = line.starts_with("metadata:");
        }
        let value = |key: &str| {
            line.trim()
                .strip_prefix(key)
                .map(|rest| cut(rest.trim().trim_matches(['"', '\''])))
        };
        if line.starts_with("kind:") {
            kind = kind.or(value("kind:"));
        }
        if within {
            name = name.or_else(|| value("name:"));
            namespace = namespace.or_else(|| value("namespace:"));
        }
    }
    name_for_people(kind, namespace, name)
}

fn name_for_people(
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
) -> Option<String> {
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    match (kind, name) {
        (Some(kind), Some(name)) => Some(format!("{kind} {namespace}/{name}")),
        (Some(kind), None) => Some(format!("{kind} without a name")),
        (None, _) => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
