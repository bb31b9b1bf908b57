//! Where a patch goes in the text. Everything is put at the *head* of the mapping or list it belongs to, directly behind
//! the line of its key or the opening bracket: the one place that can be found again exactly, whatever follows.

use super::emit;
use super::patch::Patch;
use super::spans::{Document, Kind, Node};
use super::text::{self, Edit};
use serde_json::{Map, Value};

/// Why a patch cannot be put into this text.
pub(super) type Refusal = String;

/// What is added under a key.
enum Add {
    /// Entries at the head of the mapping.
    Entries(Vec<(&'static str, Add)>),
    /// Annotations at the head of the mapping.
    Values(Map<String, Value>),
    /// Items at the head of the list.
    Items(Vec<Value>),
}

impl Add {
    fn to_value(&self) -> Value {
        match self {
            Self::Entries(entries) => entries
                .iter()
                .map(|(key, add)| ((*key).to_owned(), add.to_value()))
                .collect::<Map<_, _>>()
                .into(),
            Self::Values(map) => map.clone().into(),
            Self::Items(items) => items.clone().into(),
        }
    }
}

/// The edits that put a patch into the pod or template whose text is the last of `path`; the others are its ancestors,
/// each with its key.
pub(super) fn plan(
    text: &str,
    document: &Document,
    path: &[(Option<&Node>, &Node)],
    patch: Patch,
) -> Result<Vec<Edit>, Refusal> {
    let mut splicer = Splicer {
        text,
        document,
        edits: vec![],
    };
    for (_, node) in path {
        splicer.guard(node)?;
    }
    let Some((key, pod)) = path.last() else {
        return Ok(vec![]);
    };
    splicer.add_to_map(*key, pod, &additions(patch))?;
    Ok(splicer.edits)
}

fn additions(patch: Patch) -> Vec<(&'static str, Add)> {
    let lists = [
        ("initContainers", patch.init_containers),
        ("containers", patch.containers),
        ("volumes", patch.volumes),
    ];
    let lists = lists
        .into_iter()
        .filter(|(_, items)| !items.is_empty())
        .map(|(key, items)| (key, Add::Items(items)));
    let metadata = vec![("annotations", Add::Values(patch.annotations))];
    vec![
        ("metadata", Add::Entries(metadata)),
        ("spec", Add::Entries(lists.collect())),
    ]
}

/// What uninjection must know: which keys are not there yet, and what stands for those that are `null` in so many letters.
pub(super) fn record(text: &str, pod: &Node) -> Vec<String> {
    let absent = |map: Option<&Node>, key: &str| match map.and_then(|map| map.get(key)) {
        None => Some(key.to_owned()),
        Some(value) if value.is_null() && !value.range.is_empty() => {
            Some(format!("{key}={}", &text[value.range.clone()]))
        }
        Some(_) => None,
    };
    let metadata =
        absent(Some(pod), "metadata").or_else(|| absent(pod.get("metadata"), "annotations"));
    let lists = ["initContainers", "volumes"].map(|key| absent(pod.get("spec"), key));
    metadata
        .into_iter()
        .chain(lists.into_iter().flatten())
        .collect()
}

struct Splicer<'a> {
    text: &'a str,
    document: &'a Document,
    edits: Vec<Edit>,
}

impl Splicer<'_> {
    /// Text put into a node that is used elsewhere too, or that is put together from elsewhere, would not mean what it says.
    fn guard(&self, node: &Node) -> Result<(), Refusal> {
        if matches!(node.kind, Kind::Alias) {
            return Err(format!(
                "line {}: it is put together with a YAML alias (*name); write it out",
                node.line
            ));
        }
        if node.anchor != 0 && self.document.aliased.contains(&node.anchor) {
            return Err(format!(
                "line {}: a YAML alias (*name) uses this part elsewhere too; write it out",
                node.line
            ));
        }
        if node.tagged {
            return Err(format!("line {}: it carries a YAML tag (!name)", node.line));
        }
        if node.get("<<").is_some() {
            return Err(format!(
                "line {}: it is put together with a YAML merge key (<<); write it out",
                node.line
            ));
        }
        Ok(())
    }

    fn add_to_map(
        &mut self,
        key: Option<&Node>,
        map: &Node,
        adds: &[(&'static str, Add)],
    ) -> Result<(), Refusal> {
        let mut new = Map::new();
        for (name, add) in adds {
            match map.entry(name) {
                Some((key, value)) => self.under(key, value, add, is_flow(map))?,
                None => drop(new.insert((*name).to_owned(), add.to_value())),
            }
        }
        self.head_of_map(key, map, &new)
    }

    fn under(&mut self, key: &Node, value: &Node, add: &Add, in_flow: bool) -> Result<(), Refusal> {
        self.guard(value)?;
        if value.is_null() {
            return self.fill(key, value, &add.to_value(), in_flow);
        }
        match (add, &value.kind) {
            (Add::Entries(adds), Kind::Map { .. }) => self.add_to_map(Some(key), value, adds),
            (Add::Values(map), Kind::Map { .. }) => self.head_of_map(Some(key), value, map),
            (Add::Items(items), Kind::Seq { .. }) => self.head_of_list(key, value, items),
            _ => Err(format!(
                "line {}: {} is neither a mapping nor a list",
                value.line,
                key.as_str().unwrap_or_default()
            )),
        }
    }

    /// In place of nothing, or of a written `null`.
    fn fill(
        &mut self,
        key: &Node,
        null: &Node,
        value: &Value,
        in_flow: bool,
    ) -> Result<(), Refusal> {
        if !null.range.is_empty() {
            self.edits.push(Edit {
                range: null.range.clone(),
                text: emit::flow(value),
            });
            return Ok(());
        }
        if in_flow {
            return Err(exotic(key));
        }
        let column = text::column(self.text, key.range.start).ok_or_else(|| exotic(key))?;
        let lines = if value.is_array() {
            emit::items(value, column)
        } else {
            emit::entries(value, column + 2)
        };
        self.behind_line(key.range.end, &lines);
        Ok(())
    }

    fn head_of_map(
        &mut self,
        key: Option<&Node>,
        map: &Node,
        new: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        if new.is_empty() {
            return Ok(());
        }
        let Kind::Map {
            flow: false,
            entries,
        } = &map.kind
        else {
            let first = map.entries().first().map(|(key, _)| key);
            let elements: Vec<_> = new
                .iter()
                .map(|(key, value)| (format!("{}: ", emit::quoted(key)), value))
                .collect();
            self.head_of_flow(map, first, &elements);
            return Ok(());
        };
        let (Some(key), Some((first, _))) = (key, entries.first()) else {
            return Err(exotic(map));
        };
        let column = text::column(self.text, first.range.start).ok_or_else(|| exotic(first))?;
        self.behind_line(key.range.end, &emit::entries(&new.clone().into(), column));
        Ok(())
    }

    fn head_of_list(&mut self, key: &Node, list: &Node, items: &[Value]) -> Result<(), Refusal> {
        if let Kind::Seq {
            flow: true,
            items: present,
        } = &list.kind
        {
            let elements: Vec<_> = items.iter().map(|value| (String::new(), value)).collect();
            self.head_of_flow(list, present.first(), &elements);
            return Ok(());
        }
        // A list whose dashes are not indented starts, for the parser, behind its first dash.
        let indented = self.text[list.range.start..].starts_with(['-'])
            && self.text[list.range.start + 1..].starts_with(char::is_whitespace);
        let dash = if indented {
            list.range.start
        } else {
            key.range.start
        };
        let column = text::column(self.text, dash).ok_or_else(|| exotic(list))?;
        self.behind_line(key.range.end, &emit::items(&items.to_vec().into(), column));
        Ok(())
    }

    /// Behind an opening bracket: on lines of their own where the first element has one, else on the same line. Each new
    /// element is what stands before its value (a key), and the value.
    fn head_of_flow(&mut self, collection: &Node, first: Option<&Node>, new: &[(String, &Value)]) {
        let at = collection.range.start + 1;
        let on_one_line = || {
            new.iter()
                .map(|(key, value)| format!("{key}{}", emit::flow(value)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let text = match first {
            None => on_one_line(),
            Some(first) if text::line_end(self.text, at) == at => {
                let newline = text::newline(self.text, at);
                let indent =
                    &self.text[text::line_start(self.text, first.range.start)..first.range.start];
                let element = |(key, value): &(String, &Value)| {
                    format!(
                        "{newline}{indent}{key}{},",
                        emit::pretty(value, indent, newline)
                    )
                };
                new.iter().map(element).collect()
            }
            Some(_) => on_one_line() + ", ",
        };
        self.edits.push(Edit {
            range: at..at,
            text,
        });
    }

    fn behind_line(&mut self, at: usize, lines: &[String]) {
        let end = text::line_end(self.text, at);
        let newline = text::newline(self.text, at);
        let text = lines
            .iter()
            .map(|line| format!("{newline}{line}"))
            .collect();
        self.edits.push(Edit {
            range: end..end,
            text,
        });
    }
}

fn is_flow(node: &Node) -> bool {
    matches!(
        node.kind,
        Kind::Map { flow: true, .. } | Kind::Seq { flow: true, .. }
    )
}

fn exotic(node: &Node) -> Refusal {
    format!(
        "line {}: it is written in a style that text cannot be put into safely",
        node.line
    )
}
