//! A YAML document as a tree that knows where in the text each node stands, in bytes. Only what splicing needs: no tags
//! are applied and no aliases are followed.

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use std::collections::BTreeSet;
use std::ops::Range;

/// One document of a stream.
#[derive(Debug)]
pub struct Document {
    /// Its part of the text, from the end of the document before it to its own end.
    pub range: Range<usize>,
    /// Its root, unless it is empty.
    pub root: Option<Node>,
    /// Anchors that an alias of this document refers to.
    pub aliased: BTreeSet<usize>,
}

/// A node and where it stands.
#[derive(Debug)]
pub struct Node {
    /// Its text, without anchor and tag. A block collection starts at its first dash or key, or behind the dash if its
    /// dashes are not indented, and may end anywhere before what follows.
    pub range: Range<usize>,
    /// 1-based line of its start.
    pub line: usize,
    /// Anchor defined on it, or 0.
    pub anchor: usize,
    /// Does it carry an explicit tag?
    pub tagged: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// A single value.
    Scalar {
        /// The value, escapes resolved.
        value: String,
        /// Without quotes?
        plain: bool,
    },
    /// A list.
    Seq {
        /// In brackets?
        flow: bool,
        /// What is in it.
        items: Vec<Node>,
    },
    /// A mapping.
    Map {
        /// In braces?
        flow: bool,
        /// What is in it, in order.
        entries: Vec<(Node, Node)>,
    },
    /// `*name`.
    Alias,
}

impl Node {
    /// Entries of a mapping, nothing for anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Map { entries, .. } => entries,
            _ => &[],
        }
    }

    /// Items of a list, nothing for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Seq { items, .. } => items,
            _ => &[],
        }
    }

    /// Key and value of an entry.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries().iter().find(|(k, _)| k.as_str() == Some(key))
    }

    /// Value of an entry.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Text of a scalar.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Is it nothing, `null` or `~`?
    pub fn is_null(&self) -> bool {
        let null = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.kind, Kind::Scalar { value, plain: true } if null(value)) && !self.tagged
    }

    /// End of the last scalar or closing bracket in it: exact where `range` is not.
    pub fn content_end(&self) -> usize {
        match &self.kind {
            Kind::Seq { flow: false, items } => {
                items.last().map_or(self.range.start, Node::content_end)
            }
            Kind::Map {
                flow: false,
                entries,
            } => entries
                .last()
                .map_or(self.range.start, |(key, value)| match value.range.len() {
                    0 => key.range.end,
                    _ => value.content_end(),
                }),
            _ => self.range.end,
        }
    }
}

/// Why a text could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// 1-based line.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// Reads all documents of a text.
pub fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let options = granit_parser::options! { emit_comments: false, block_nesting_limit: 100, flow_nesting_limit: 100 };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| SyntaxError {
            line: e.marker().line(),
            message: e.info(),
        })?;
        builder.take(event, &span);
    }
    if let Some(last) = builder.documents.last_mut() {
        last.range.end = text.len();
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    open: Vec<Open>,
    aliased: BTreeSet<usize>,
}

/// A collection whose end has not come yet, with its finished children.
struct Open {
    node: Node,
    key: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) {
        match event {
            Event::DocumentStart(..) => self.start_document(),
            Event::DocumentEnd => self.end_document(span),
            Event::Alias(id) => {
                self.aliased.insert(id);
                self.finish(node(span, 0, false, Kind::Alias));
            }
            Event::Scalar(value, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                self.finish(node(
                    span,
                    anchor,
                    tag.is_some(),
                    Kind::Scalar {
                        value: value.into_owned(),
                        plain,
                    },
                ));
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.begin(node(
                    span,
                    anchor,
                    tag.is_some(),
                    Kind::Seq {
                        flow: style == StructureStyle::Flow,
                        items: vec![],
                    },
                ));
            }
            Event::MappingStart(style, anchor, tag) => {
                self.begin(node(
                    span,
                    anchor,
                    tag.is_some(),
                    Kind::Map {
                        flow: style == StructureStyle::Flow,
                        entries: vec![],
                    },
                ));
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            _ => {}
        }
    }

    fn start_document(&mut self) {
        let start = self.documents.last().map_or(0, |d| d.range.end);
        self.documents.push(Document {
            range: start..start,
            root: None,
            aliased: BTreeSet::new(),
        });
    }

    fn end_document(&mut self, span: &Span) {
        if let Some(document) = self.documents.last_mut() {
            document.range.end = bytes(span).end.max(document.range.start);
            document.aliased = std::mem::take(&mut self.aliased);
        }
    }

    fn begin(&mut self, node: Node) {
        self.open.push(Open { node, key: None });
    }

    fn end(&mut self, span: &Span) {
        if let Some(mut open) = self.open.pop() {
            open.node.range.end = bytes(span).end.max(open.node.range.start);
            self.finish(open.node);
        }
    }

    fn finish(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            if let Some(document) = self.documents.last_mut() {
                document.root = Some(node);
            }
            return;
        };
        match &mut open.node.kind {
            Kind::Seq { items, .. } => items.push(node),
            Kind::Map { entries, .. } => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => open.key = Some(node),
            },
            Kind::Scalar { .. } | Kind::Alias => {}
        }
    }
}

fn node(span: &Span, anchor: usize, tagged: bool, kind: Kind) -> Node {
    Node {
        range: bytes(span),
        line: span.start.line(),
        anchor,
        tagged,
        kind,
    }
}

fn bytes(span: &Span) -> Range<usize> {
    span.byte_range().unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root(text: &str) -> Node {
        parse(text).unwrap().remove(0).root.unwrap()
    }

    #[test]
    fn ranges_are_bytes() {
        let text = "☃: ä # ö\nb:\n- x\n- {y: 1}\nc: \"q\"\n";
        let root = root(text);
        let at = |n: &Node| text[n.range.clone()].to_owned();
        assert_eq!(at(root.get("☃").unwrap()), "ä");
        assert_eq!(at(&root.get("b").unwrap().items()[0]), "x");
        assert_eq!(at(&root.get("b").unwrap().items()[1]), "{y: 1}");
        assert_eq!(at(root.get("c").unwrap()), "\"q\"");
    }

    #[test]
    fn indented_lists_start_at_their_dash_and_others_behind_it() {
        for text in [
            "a:\n  - b: 1\n",
            "a:\n# c\n\n  - b: 1\n",
            "a:\n- b: 1\n",
            "- a:\n  - b: 1\n",
            "- a:\n    - b: 1",
        ] {
            let root = root(text);
            let map = if root.items().is_empty() {
                &root
            } else {
                &root.items()[0]
            };
            let list = map.get("a").unwrap();
            let unindented = ["a:\n- b: 1\n", "- a:\n  - b: 1\n"].contains(&text);
            assert!(
                text[list.range.start..].starts_with(if unindented { "b" } else { "- b" }),
                "{text:?} {list:?}"
            );
            assert_eq!(&text[list.items()[0].range.start..][..1], "b");
            assert!(text[..list.content_end()].ends_with('1'));
        }
    }

    #[test]
    fn nulls_are_empty_ranges() {
        let text = "a:\nb: # c\nc: ~\nd: ''\n";
        let root = root(text);
        assert!(root.get("a").unwrap().is_null() && root.get("a").unwrap().range.is_empty());
        assert!(root.get("b").unwrap().is_null() && root.get("b").unwrap().range.is_empty());
        assert_eq!(&text[root.get("c").unwrap().range.clone()], "~");
        assert!(!root.get("d").unwrap().is_null());
    }

    #[test]
    fn documents_cover_the_text() {
        let text = "# head\n---\na: 1\n---\n# nothing\n---\nb: &x 1\nc: *x\n...\n---\nd: 1";
        let documents = parse(text).unwrap();
        let parts: String = documents.iter().map(|d| &text[d.range.clone()]).collect();
        assert_eq!(parts, text);
        assert_eq!(
            documents
                .iter()
                .map(|d| d.aliased.len())
                .collect::<Vec<_>>(),
            [0, 0, 1, 0]
        );
        for document in &documents {
            parse(&text[document.range.clone()]).unwrap();
        }
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse("a: 1\nb: c: d\n").unwrap_err().line, 2);
        assert_eq!(parse(&"[".repeat(10_000)).unwrap_err().line, 1);
        assert!(parse("a: [\n").is_err());
    }
}
