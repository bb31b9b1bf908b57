//! Puts the sidecar into manifests, and takes it out again. Pure: text and settings in, text and report out.
//!
//! Text is *inserted*: every byte that was there stays, with its comments, order, quotes and line ends, and uninjection
//! gives back the very bytes. [`spans`] says where everything stands, [`workload`] what has pods, [`settings`] and `patch`
//! what goes in, `splice` where it goes, `remove` how it comes out, and `check` reads the result as Kubernetes would and
//! compares. [`pod`] does the same to one pod that an API server sends. What cannot be done safely (aliases in a pod template, exotic styles) is refused, with the reason.

mod changes;
mod check;
pub(crate) mod emit;
mod patch;
mod pod;
mod remove;
pub mod report;
pub mod settings;
pub mod spans;
mod splice;
mod text;
mod values;
mod workload;

#[cfg(test)]
mod tests;

pub use pod::{Verdict, pod};
pub use report::{Line, Outcome};
pub use settings::{Settings, Sidecar, Trust};
pub(crate) use workload::is_injected;

use changes::{Injection, Uninjection};
use serde_json::Value;
use spans::{Document, Node};
use std::ops::Range;
use text::Edit;
use workload::Object;

/// Longest text accepted, bytes.
pub const MAX_TEXT: usize = 32 << 20;

/// What came of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The text; objects with mistakes are in it as they were.
    pub text: String,
    /// What was done with each object, in order.
    pub report: Vec<Line>,
}

impl Output {
    /// Was there a mistake?
    pub fn failed(&self) -> bool {
        self.report.iter().any(Line::is_error)
    }
}

/// Puts the sidecar into every pod and pod template of a YAML or JSON text.
pub fn inject(text: &str, settings: &Settings) -> Output {
    match settings.check() {
        Ok(()) => each_document(text, &Injection { settings }),
        Err(mistake) => refused(text, 1, mistake),
    }
}

/// Takes the sidecar out of every pod and pod template of a YAML or JSON text.
pub fn uninject(text: &str) -> Output {
    each_document(text, &Uninjection)
}

/// A change to the pods of a document.
trait Change {
    /// What is to be done with this object, and how the outcome is to be checked.
    fn plan(&self, text: &str, document: &Document, value: &Value, object: &Object<'_>) -> Plan;
    /// Reported where it was done.
    fn done(&self) -> Outcome;
}

/// What is to be done with an object.
#[derive(Default)]
struct Plan {
    edits: Vec<Edit>,
    /// Makes the same change to the pod's value before and the one after, so that they are equal if all is well.
    check: Option<Check>,
    /// Reported, the last one in place of "done" if there are no edits.
    outcomes: Vec<Outcome>,
}

type Check = Box<dyn Fn(&mut Value, &mut Value) -> Option<()>>;

impl Plan {
    fn just(outcome: Outcome) -> Self {
        Self {
            outcomes: vec![outcome],
            ..Self::default()
        }
    }
}

fn each_document(text: &str, change: &dyn Change) -> Output {
    if text.len() > MAX_TEXT {
        return refused(
            text,
            1,
            format!("the text is longer than {} MiB", MAX_TEXT >> 20),
        );
    }
    // A byte order mark is no part of the first document.
    let (mark, body) = text.split_at(if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    });
    let documents = match spans::parse(body) {
        Ok(documents) => documents,
        Err(e) => return refused(text, e.line, e.message),
    };
    let mut output = Output {
        text: mark.to_owned(),
        report: vec![],
    };
    let mut done = 0;
    for document in &documents {
        let (part, report) = one_document(body, document, change);
        output.text.push_str(&part);
        output.report.extend(report);
        done = document.range.end;
    }
    output.text.push_str(&body[done..]);
    output
}

fn refused(text: &str, line: usize, mistake: String) -> Output {
    let line = Line {
        line,
        object: None,
        outcome: Outcome::Error(mistake),
    };
    Output {
        text: text.to_owned(),
        report: vec![line],
    }
}

fn one_document(body: &str, document: &Document, change: &dyn Change) -> (String, Vec<Line>) {
    let part = &body[document.range.clone()];
    let objects = workload::objects(document);
    if objects.iter().all(|object| object.template.is_none()) {
        return (
            part.to_owned(),
            objects
                .iter()
                .map(|o| line(o, Outcome::Skipped(None)))
                .collect(),
        );
    }
    let value = match check::read(part) {
        Ok(value) => value,
        Err(e) => {
            return (
                part.to_owned(),
                objects
                    .iter()
                    .map(|o| line(o, Outcome::Error(e.clone())))
                    .collect(),
            );
        }
    };
    let mut plans: Vec<Plan> = objects
        .iter()
        .map(|object| change.plan(body, document, &value, object))
        .collect();
    let original = Original {
        body,
        document,
        value: &value,
        objects: &objects,
    };
    let text = original.changed(&mut plans);
    let report = objects.iter().zip(plans).flat_map(|(object, plan)| {
        let done = (!plan.edits.is_empty()).then(|| change.done());
        plan.outcomes
            .into_iter()
            .chain(done)
            .map(|outcome| line(object, outcome))
    });
    (text, report.collect())
}

/// A document as it is.
struct Original<'a> {
    body: &'a str,
    document: &'a Document,
    value: &'a Value,
    objects: &'a [Object<'a>],
}

impl Original<'_> {
    fn text(&self) -> &str {
        &self.body[self.document.range.clone()]
    }

    /// The document with all plans carried out. Where that does not read as it should, the plans to blame are dropped.
    fn changed(&self, plans: &mut [Plan]) -> String {
        let all = 0..plans.len();
        if let Some(text) = self.carried_out(plans, &all) {
            return text;
        }
        self.drop_bad(plans, all.clone());
        if let Some(text) = self.carried_out(plans, &all) {
            return text;
        }
        drop_all(plans, "the objects of this document depend on each other");
        self.text().to_owned()
    }

    /// Halves the range until the plans to blame are alone.
    fn drop_bad(&self, plans: &mut [Plan], range: Range<usize>) {
        if range.is_empty() || self.carried_out(plans, &range).is_some() {
            return;
        }
        if range.len() == 1 {
            let why = "it is written in a style that cannot be changed safely; write it in plain block style";
            return drop_all(&mut plans[range], why);
        }
        let middle = range.start + range.len() / 2;
        self.drop_bad(plans, range.start..middle);
        self.drop_bad(plans, middle..range.end);
    }

    /// The document with some of the plans carried out, if it reads as it should then.
    fn carried_out(&self, plans: &[Plan], chosen: &Range<usize>) -> Option<String> {
        let plans = &plans[chosen.clone()];
        let edits: Vec<Edit> = plans
            .iter()
            .flat_map(|plan| plan.edits.iter().cloned())
            .collect();
        let text = text::apply(self.text(), self.document.range.start, &edits)?;
        if edits.is_empty() {
            return Some(text);
        }
        let (mut before, mut after) = (self.value.clone(), check::read(&text).ok()?);
        for (object, plan) in self.objects[chosen.clone()].iter().zip(plans) {
            if let Some(check) = &plan.check {
                check(object.pod_mut(&mut before)?, object.pod_mut(&mut after)?)?;
            }
        }
        (before == after).then_some(text)
    }
}

fn drop_all(plans: &mut [Plan], why: &str) {
    let changes = |plan: &&mut Plan| !plan.edits.is_empty();
    let error = || Plan::just(Outcome::Error(why.to_owned()));
    plans
        .iter_mut()
        .filter(changes)
        .for_each(|plan| *plan = error());
}

/// From the document's root to the pod or template, each node with its key.
fn way<'a>(root: &'a Node, object: &Object<'a>) -> Option<Vec<(Option<&'a Node>, &'a Node)>> {
    let mut way = vec![(None, root)];
    let mut here = root;
    for index in &object.items {
        let (key, list) = here.entry("items")?;
        here = list.items().get(*index)?;
        way.extend([(Some(key), list), (None, here)]);
    }
    for key in object.template? {
        let (key, value) = here.entry(key)?;
        here = value;
        way.push((Some(key), value));
    }
    Some(way)
}

fn line(object: &Object<'_>, outcome: Outcome) -> Line {
    Line {
        line: object.node.line,
        object: Some(object.title.clone()),
        outcome,
    }
}
