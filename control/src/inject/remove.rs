//! The way back: what is ours is found by its names and taken out, exactly as it was put in.

use super::spans::{Kind, Node};
use super::splice::Refusal;
use super::text::{self, Edit};
use super::workload::{LISTS, is_our_annotation};
use std::ops::Range;
use weft_proxy_api::names::keys;

/// The edits that take everything of ours out of a pod or template.
pub(super) fn plan(text: &str, pod: &Node, record: &[&str]) -> Result<Vec<Edit>, Refusal> {
    let mut remover = Remover {
        text,
        record,
        edits: vec![],
    };
    remover.pod(pod)?;
    Ok(remover.edits)
}

/// What the injector wrote down in this pod.
pub(super) fn record(pod: &Node) -> Vec<&str> {
    let annotations = pod.get("metadata").and_then(|m| m.get("annotations"));
    let record = annotations
        .and_then(|a| a.get(keys::INJECTED_KEYS))
        .and_then(Node::as_str);
    record
        .into_iter()
        .flat_map(|text| text.split(','))
        .collect()
}

struct Remover<'a> {
    text: &'a str,
    record: &'a [&'a str],
    edits: Vec<Edit>,
}

/// What becomes of an entry of a mapping.
enum Fate {
    Stays,
    Goes,
    /// Goes, and this stands in its place again.
    Becomes(String),
}

impl Remover<'_> {
    fn pod(&mut self, pod: &Node) -> Result<(), Refusal> {
        if let Some(metadata) = pod.get("metadata") {
            let alone = metadata.entries().len() == 1;
            let ours = |a: &Node| a.entries().iter().all(|(key, _)| self.owns_annotation(key));
            let fate = match metadata.get("annotations") {
                Some(annotations) if alone && ours(annotations) => self.fate("metadata"),
                _ => Fate::Stays,
            };
            self.carry_out(pod, "metadata", fate, Self::metadata)?;
        }
        match pod.get("spec") {
            Some(spec) => self.spec(spec),
            None => Ok(()),
        }
    }

    fn metadata(&mut self, metadata: &Node) -> Result<(), Refusal> {
        let Some(annotations) = metadata.get("annotations") else {
            return Ok(());
        };
        let all = annotations
            .entries()
            .iter()
            .all(|(key, _)| self.owns_annotation(key));
        let fate = if all {
            self.fate("annotations")
        } else {
            Fate::Stays
        };
        self.carry_out(metadata, "annotations", fate, Self::annotations)
    }

    fn annotations(&mut self, annotations: &Node) -> Result<(), Refusal> {
        let owned = annotations
            .entries()
            .iter()
            .map(|(key, _)| self.owns_annotation(key))
            .collect();
        self.take(annotations, owned)
    }

    fn spec(&mut self, spec: &Node) -> Result<(), Refusal> {
        let mut whole_entries = vec![false; spec.entries().len()];
        for (key, is_ours) in LISTS {
            let Some(index) = spec
                .entries()
                .iter()
                .position(|(k, _)| k.as_str() == Some(key))
            else {
                continue;
            };
            let list = &spec.entries()[index].1;
            let owned: Vec<bool> = list
                .items()
                .iter()
                .map(|item| item.get("name").and_then(Node::as_str).is_some_and(is_ours))
                .collect();
            let all = !owned.is_empty() && owned.iter().all(|o| *o);
            match if all { self.fate(key) } else { Fate::Stays } {
                Fate::Goes => whole_entries[index] = true,
                Fate::Becomes(text) => self.edits.push(Edit {
                    range: list.range.clone(),
                    text,
                }),
                Fate::Stays => self.take(list, owned)?,
            }
        }
        self.take(spec, whole_entries)
    }

    fn carry_out(
        &mut self,
        map: &Node,
        key: &str,
        fate: Fate,
        otherwise: fn(&mut Self, &Node) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Some(value) = map.get(key) else {
            return Ok(());
        };
        match fate {
            Fate::Stays => otherwise(self, value),
            Fate::Goes => self.take(
                map,
                map.entries()
                    .iter()
                    .map(|(k, _)| k.as_str() == Some(key))
                    .collect(),
            ),
            Fate::Becomes(text) => {
                self.edits.push(Edit {
                    range: value.range.clone(),
                    text,
                });
                Ok(())
            }
        }
    }

    /// What the record says about a key with nothing but ours in it.
    fn fate(&self, key: &str) -> Fate {
        let null = |text: &&str| ["~", "null", "Null", "NULL"].contains(text);
        let written = self
            .record
            .iter()
            .find_map(|r| r.strip_prefix(key)?.strip_prefix('='))
            .filter(null);
        match written {
            Some(null) => Fate::Becomes(null.to_owned()),
            None if self.record.contains(&key) => Fate::Goes,
            None => Fate::Stays,
        }
    }

    fn owns_annotation(&self, key: &Node) -> bool {
        key.as_str()
            .is_some_and(|key| is_our_annotation(key, self.record))
    }

    /// Takes those children of a collection out that are marked.
    fn take(&mut self, collection: &Node, marked: Vec<bool>) -> Result<(), Refusal> {
        let (flow, children): (bool, Vec<Range<usize>>) = match &collection.kind {
            Kind::Map { flow, entries } => (
                *flow,
                entries
                    .iter()
                    .map(|(key, value)| key.range.start..value.content_end().max(key.range.end))
                    .collect(),
            ),
            Kind::Seq { flow, items } => (
                *flow,
                items
                    .iter()
                    .map(|item| item.range.start..item.content_end())
                    .collect(),
            ),
            _ => return Ok(()),
        };
        let marked: Vec<usize> = (0..children.len())
            .filter(|i| marked.get(*i) == Some(&true))
            .collect();
        match flow {
            true => self.take_flow(collection.range.start + 1, &children, &marked),
            false => marked
                .iter()
                .try_for_each(|i| self.take_lines(&children[*i])),
        }
    }

    /// The lines of a child, together with the line break in front of them: that is what was put in.
    fn take_lines(&mut self, child: &Range<usize>) -> Result<(), Refusal> {
        if text::column(self.text, child.start).is_none() {
            let line = self.text[..child.start].matches('\n').count() + 1;
            return Err(format!(
                "line {line}: something else stands on the same line as what is to be taken out"
            ));
        }
        let range =
            text::previous_line_end(self.text, child.start)..text::line_end(self.text, child.end);
        self.edits.push(Edit {
            range,
            text: String::new(),
        });
        Ok(())
    }

    fn take_flow(
        &mut self,
        open: usize,
        children: &[Range<usize>],
        marked: &[usize],
    ) -> Result<(), Refusal> {
        let run = marked
            .iter()
            .enumerate()
            .take_while(|(n, i)| n == *i)
            .count();
        if run > 0 {
            let end = self.end_of_run(children, run);
            self.edits.push(Edit {
                range: open..end,
                text: String::new(),
            });
        }
        for i in &marked[run..] {
            self.edits.push(Edit {
                range: children[i - 1].end..children[*i].end,
                text: String::new(),
            });
        }
        Ok(())
    }

    /// Behind the comma (and blank) that follows the first `run` children, if there are more.
    fn end_of_run(&self, children: &[Range<usize>], run: usize) -> usize {
        let last = children[run - 1].end;
        let Some(next) = children.get(run) else {
            return last;
        };
        let comma = self.text[last..next.start]
            .find(',')
            .map_or(next.start, |at| last + at + 1);
        if self.text[comma..].starts_with(' ') {
            comma + 1
        } else {
            comma
        }
    }
}
