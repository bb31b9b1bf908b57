//! Reading a tree by hand: fields that know their path, and a report that collects everything wrong in one go.

use super::yaml::{Node, Value, short};
use super::{Problem, Severity};

/// Most problems reported of one object; the rest is only counted.
const MOST: usize = 50;

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line of the field.
    pub line: u32,
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How bad.
    pub severity: Severity,
}

/// Everything that is wrong with one object.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    left_out: usize,
    failed: bool,
}

impl Report {
    /// The field makes the object unacceptable.
    pub fn error(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.failed = true;
        self.add(field, message.into(), Severity::Error);
    }

    /// The field is probably not what was meant.
    pub fn warn(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.add(field, message.into(), Severity::Warning);
    }

    /// Was there an error?
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn add(&mut self, field: &Field<'_>, message: String, severity: Severity) {
        if self.findings.len() >= MOST {
            self.left_out += 1;
            return;
        }
        self.findings.push(Finding {
            line: field.line,
            field: field.path.clone(),
            message,
            severity,
        });
    }

    /// The findings as problems.
    pub fn into_problems(self, problem: impl Fn(Finding) -> Problem) -> Vec<Problem> {
        let left_out = (self.left_out > 0).then(|| Finding {
            line: self.findings.first().map_or(0, |first| first.line),
            field: String::new(),
            message: format!("{} further problems are not shown", self.left_out),
            severity: if self.failed {
                Severity::Error
            } else {
                Severity::Warning
            },
        });
        self.findings
            .into_iter()
            .chain(left_out)
            .map(problem)
            .collect()
    }
}

/// A place in a tree: perhaps a value, always a path and a line.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    node: Option<&'a Node>,
    path: String,
    line: u32,
}

impl<'a> Field<'a> {
    /// The whole object.
    pub fn root(node: &'a Node) -> Self {
        Field {
            node: Some(node),
            path: String::new(),
            line: node.line,
        }
    }

    /// The field `name`; absent if it is missing or null.
    pub fn get(&self, name: &str) -> Field<'a> {
        self.child(name, self.node.and_then(|node| node.get(name)))
    }

    /// Null is the same as absent, but still has a line.
    fn child(&self, name: &str, node: Option<&'a Node>) -> Field<'a> {
        let dot = if self.path.is_empty() { "" } else { "." };
        // A name is as long as its writer likes; a path is for people.
        let name: String = name.chars().take(64).collect();
        Field {
            node: node.filter(|node| node.value != Value::Null),
            path: format!("{}{dot}{name}", self.path),
            line: node.map_or(self.line, |node| node.line),
        }
    }

    /// Is there a value?
    pub fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// The value.
    pub fn value(&self) -> Option<&'a Value> {
        self.node.map(|node| &node.value)
    }

    /// The path, e.g. `spec.backends[1].weight`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A text that must be there and not be empty.
    pub fn text(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.text_if_any(report)?;
        match text {
            None => report.error(self, "is missing"),
            Some("") => report.error(self, "must not be empty"),
            Some(text) => return Some(text),
        }
        None
    }

    /// A text that may be missing: `Some(None)`. `None`: it is something else, and reported.
    pub fn text_if_any(&self, report: &mut Report) -> Option<Option<&'a str>> {
        match self.value() {
            None => Some(None),
            Some(Value::Text(text)) => Some(Some(text)),
            Some(other) => {
                report.error(
                    self,
                    format!("must be a text (in quotes), not {}", other.describe()),
                );
                None
            }
        }
    }

    /// The items of a list; none if it is absent.
    pub fn items(&self, report: &mut Report) -> Option<Vec<Field<'a>>> {
        let items = match self.value() {
            None => return Some(Vec::new()),
            Some(Value::List(items)) => items,
            Some(other) => {
                report.error(self, format!("must be a list, not {}", other.describe()));
                return None;
            }
        };
        let item = |(index, node): (usize, &'a Node)| Field {
            node: (node.value != Value::Null).then_some(node),
            path: format!("{}[{index}]", self.path),
            line: node.line,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The fields of a map with their names; none if it is absent.
    pub fn entries(&self, report: &mut Report) -> Option<Vec<(&'a str, Field<'a>)>> {
        match self.value() {
            None => Some(Vec::new()),
            Some(Value::Map(entries)) => Some(
                entries
                    .iter()
                    .map(|(name, node)| (name.as_str(), self.child(name, Some(node))))
                    .collect(),
            ),
            Some(other) => {
                report.error(self, format!("must be a map, not {}", other.describe()));
                None
            }
        }
    }

    /// Checks that the field, if present, is a map.
    pub fn expect_map(&self, report: &mut Report) -> Option<()> {
        match self.value() {
            None | Some(Value::Map(_)) => Some(()),
            Some(other) => {
                report.error(self, format!("must be a map, not {}", other.describe()));
                None
            }
        }
    }

    /// Fields that nobody knows, warned about: they are ignored (D35).
    pub fn warn_unknown(&self, known: &[&str], report: &mut Report) {
        for field in self.unknown(known) {
            report.warn(
                &field,
                format!(
                    "is not a known field and is ignored; known: {}",
                    known.join(", ")
                ),
            );
        }
    }

    /// Fields that nobody knows, where ignoring them could allow more than was meant (D35).
    pub fn reject_unknown(&self, known: &[&str], report: &mut Report) {
        for field in self.unknown(known) {
            report.error(
                &field,
                format!("is not a known field; known: {}", known.join(", ")),
            );
        }
    }

    fn unknown(&self, known: &[&str]) -> Vec<Field<'a>> {
        let Some(Value::Map(entries)) = self.value() else {
            return Vec::new();
        };
        // Null is the same as absent; what is absent is not unknown either.
        let unknown = |(name, node): &&(String, Node)| {
            !known.contains(&name.as_str()) && node.value != Value::Null
        };
        let unknown = entries.iter().filter(unknown).take(MOST + 1);
        unknown
            .map(|(name, node)| self.child(name, Some(node)))
            .collect()
    }

    /// A text that must be a DNS name, as names of Kubernetes objects are.
    pub fn name(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.text(report)?;
        match check_name(text) {
            Ok(()) => Some(text),
            Err(message) => {
                report.error(self, message);
                None
            }
        }
    }
}

/// Is it a DNS subdomain (RFC 1123), as names of objects must be?
pub fn check_name(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err(format!(
            "{} is too long for a name: at most 253 characters",
            short(text)
        ));
    }
    match text.split('.').all(is_label) {
        true => Ok(()),
        false => Err(format!(
            "{} is not a name: lower-case letters, digits, '-' and '.' only",
            short(text)
        )),
    }
}

/// Is it a DNS label (RFC 1123): 1 to 63 of lower-case letters, digits and inner dashes? A subdomain's label may be longer
/// than 63 in Kubernetes, but then it resolves nowhere.
pub fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(fits)
}

impl Field<'_> {
    /// A place found by other means: nothing to read there, only to report.
    pub fn at(path: String, line: u32) -> Field<'static> {
        Field {
            node: None,
            path,
            line,
        }
    }
}
