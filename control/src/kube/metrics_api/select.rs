//! Label selectors as `kubectl` writes them: `app=web,tier!=db,env in (a,b),!old`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, SelectorExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Longest selector looked at.
const MAX_TEXT: usize = 4096;

/// What must be true of labels; all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Expression>);

/// Reads one; the error says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Selector, String> {
    if text.len() > MAX_TEXT {
        return Err("is too long".into());
    }
    let parts = split(text)?.into_iter().filter(|part| !part.is_empty());
    Ok(Selector(parts.map(expression).collect::<Result<_, _>>()?))
}

impl Selector {
    /// Everything is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Do these labels fulfil it?
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|expression| expression.matches(labels))
    }

    /// As an object (`LabelSelector`), whose unequal is an expression.
    pub(super) fn document(&self) -> Value {
        let expressions = self.0.iter().cloned().map(|expression| match expression {
            Expression::NotEqual(key, value) => Expression::NotIn(key, [value].into()),
            other => other,
        });
        let selector: kube::core::Selector = expressions.collect();
        json!(LabelSelector::from(selector))
    }
}

/// Cut at the commas that are not in brackets.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err("has brackets that do not close".into()),
            ',' if !inside => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("has brackets that do not close".into());
    }
    parts.push(text[from..].trim());
    Ok(parts)
}

fn expression(text: &str) -> Result<Expression, String> {
    if let Some((left, values)) = text.split_once('(') {
        let values = values.strip_suffix(')').ok_or("goes on after a bracket")?;
        let values: BTreeSet<String> = values
            .split(',')
            .map(|value| word(value, true))
            .collect::<Result<_, _>>()?;
        return match left.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(Expression::In(word(key, false)?, values)),
            [key, "notin"] => Ok(Expression::NotIn(word(key, false)?, values)),
            _ => Err("has neither in nor notin before a bracket".into()),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(word(key, false)?, word(value, true)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(word(key, false)?, word(value, true)?));
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Expression::DoesNotExist(word(key, false)?)),
        None => Ok(Expression::Exists(word(text, false)?)),
    }
}

/// A key or a value of a label.
fn word(text: &str, may_be_empty: bool) -> Result<String, String> {
    let text = text.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match text.bytes().all(plain) && (may_be_empty || !text.is_empty()) {
        true => Ok(text.to_owned()),
        false => Err(format!("has {text:?} where a label is expected")),
    }
}
