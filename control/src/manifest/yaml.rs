//! Text to trees. The one place that knows the YAML reader, and the limits a hostile file runs into.
//!
//! Values are read as Kubernetes reads them (YAML 1.1: `yes` is true, `0644` is octal), and every value keeps its line.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};
use std::fmt;

/// Most documents read of one file.
pub const MAX_DOCUMENTS: usize = 10_000;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Text that aliases may copy, bytes.
const MAX_COPIED: usize = 128 << 20;

/// A value and the line it was written at (of its key, inside a map).
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line in the file, from 1; 0: not known.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// What a document is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Null, or nothing written.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Names and values in the order of the file; each name once.
    Map(Vec<(String, Node)>),
}

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Line in the file.
    pub line: u32,
    /// Why.
    pub message: String,
}

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// Line it starts at, from 1.
    pub line: u32,
    /// Its text.
    pub text: &'a str,
}

impl Node {
    /// The value called `name` in a map; `None` if there is none or it is null.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(key, _)| key == name)?;
        (node.value != Value::Null).then_some(node)
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for messages: `a list`, `the number 7`.
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) => format!("the text {}", short(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// `text` in quotes, shortened to what a message can bear.
pub fn short(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

/// Cuts a file into its documents. A line that begins with `---` or `...` ends a document wherever it stands (YAML 1.2
/// section 9.1), so a document that cannot be read does not take the next one with it.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (line, content) in (1u32..).zip(text.split_inclusive('\n')) {
        if is_marker(content, "---") || is_marker(content, "...") {
            found.push(Document {
                line: start_line,
                text: &text[start..offset],
            });
            let after = if content.starts_with('.') {
                content.len()
            } else {
                3
            };
            (start, start_line) = (offset + after, line + u32::from(content.starts_with('.')));
        }
        offset += content.len();
    }
    found.push(Document {
        line: start_line,
        text: &text[start..],
    });
    found.retain(|document| !document.is_empty());
    found
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

impl Document<'_> {
    /// Only comments, directives and white space?
    fn is_empty(&self) -> bool {
        self.text
            .lines()
            .map(str::trim)
            .all(|line| line.is_empty() || line.starts_with(['#', '%']))
    }

    /// Line of its first content.
    pub fn first_line(&self) -> u32 {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.line + u32::try_from(self.text.lines().take_while(blank).count()).unwrap_or(u32::MAX)
    }

    /// Its trees: one, or several if it is JSON values one after the other.
    pub fn read(&self) -> Result<Vec<Node>, Unreadable> {
        let read: Result<Spanned<Raw>, _> =
            serde_saphyr::from_str_with_options(self.text, options(self.text.len()));
        let mut node = match read {
            Ok(read) => read.value.at(line_of(&read.referenced)),
            Err(error) => return self.read_json().ok_or_else(|| self.unreadable(&error)),
        };
        node.shift(self.line - 1);
        Ok(vec![node])
    }

    /// JSON has a few spellings that YAML lacks (surrogate pairs, values one after the other).
    fn read_json(&self) -> Option<Vec<Node>> {
        if !self.text.trim_start().starts_with('{') {
            return None;
        }
        let values: Result<Vec<serde_json::Value>, _> =
            serde_json::Deserializer::from_str(self.text)
                .into_iter()
                .take(MAX_DOCUMENTS)
                .collect();
        Some(
            values
                .ok()?
                .into_iter()
                .map(|value| from_json(value, self.first_line()))
                .collect(),
        )
    }

    fn unreadable(&self, error: &serde_saphyr::Error) -> Unreadable {
        let line = error
            .location()
            .map_or(1, |location| line_of(&location).max(1));
        let text = error.without_snippet().to_string();
        let text = text
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default();
        let message: String = text
            .trim_start_matches("error: ")
            .chars()
            .take(200)
            .collect();
        Unreadable {
            line: self.line - 1 + line,
            message: format!("the document cannot be read: {message}"),
        }
    }
}

/// Limits for a document of `length` bytes. Aliases copy at most the whole document each time, so bounding their number
/// by the length bounds the memory ("billion laughs").
fn options(length: usize) -> serde_saphyr::Options {
    let copies = (MAX_COPIED / length.max(1)).clamp(1, 100_000);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: 2_000_000,
            max_events: 6_000_000,
            max_aliases: copies.min(10_000),
            max_documents: 1,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: copies,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn from_json(json: serde_json::Value, line: u32) -> Node {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::Int(whole.into()),
            (_, Some(whole)) => Value::Int(whole.into()),
            _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| from_json(item, line))
                .collect(),
        ),
        Json::Object(map) => Value::Map(
            map.into_iter()
                .map(|(name, json)| (name, from_json(json, line)))
                .collect(),
        ),
    };
    Node { line, value }
}

fn line_of(location: &serde_saphyr::Location) -> u32 {
    u32::try_from(location.line()).unwrap_or(u32::MAX)
}

/// A value as the reader hands it over: its own line is not known yet.
struct Raw(Value);

impl Raw {
    fn at(self, line: u32) -> Node {
        Node {
            line,
            value: self.0,
        }
    }
}

impl Node {
    /// Lines of a document are counted from its own start; move them to where it stands in the file.
    fn shift(&mut self, by: u32) {
        if self.line > 0 {
            self.line += by;
        }
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.shift(by)),
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor).map(Raw)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Raw::deserialize(deserializer).map(|raw| raw.0)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Raw>>()? {
            let line = line_of(&item.referenced);
            items.push(item.value.at(line));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value: Raw = map.next_value()?;
            entries.push((key.value, value.at(line_of(&key.referenced))));
        }
        Ok(Value::Map(entries))
    }
}
