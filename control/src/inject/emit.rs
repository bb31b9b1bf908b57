//! Values as YAML text: lines for block style, one line (or indented JSON) for flow style. Only for what the injector
//! itself adds; what a user wrote is never written anew.

use serde_json::Value;

/// An entry of a block mapping, as lines.
pub(super) fn entry(key: &str, value: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    let is_annotation = key.contains('/');
    let key = scalar(key);
    match value {
        // Their values must be strings, and people who change them should see that.
        Value::String(text) if is_annotation => vec![format!("{pad}{key}: {}", quoted(text))],
        Value::Object(map) if !map.is_empty() => {
            prefixed(format!("{pad}{key}:"), entries(value, indent + 2))
        }
        Value::Array(list) if !list.is_empty() => {
            prefixed(format!("{pad}{key}:"), items(value, indent))
        }
        other => vec![format!("{pad}{key}: {}", leaf(other))],
    }
}

/// All entries of a mapping, as lines.
pub(crate) fn entries(map: &Value, indent: usize) -> Vec<String> {
    map.as_object()
        .into_iter()
        .flatten()
        .flat_map(|(key, value)| entry(key, value, indent))
        .collect()
}

/// All items of a list, as lines; `indent` is that of the dash.
pub(super) fn items(list: &Value, indent: usize) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .flat_map(|value| item(value, indent))
        .collect()
}

/// An item of a block list, as lines.
pub(super) fn item(value: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut lines = entries(value, indent + 2);
            if let Some(first) = lines.first_mut() {
                *first = format!("{pad}- {}", first.trim_start());
            }
            lines
        }
        other => vec![format!("{pad}- {}", leaf(other))],
    }
}

/// A value on one line, in JSON, which is YAML too.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), flow(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// A value as indented JSON, every line but the first behind `indent`.
pub(super) fn pretty(value: &Value, indent: &str, newline: &str) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| flow(value));
    text.replace('\n', &format!("{newline}{indent}"))
}

/// A text in double quotes.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn prefixed(head: String, mut lines: Vec<String>) -> Vec<String> {
    lines.insert(0, head);
    lines
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => flow(other),
    }
}

/// A text without quotes where no YAML reader, of version 1.1 or 1.2, could take it for something else.
fn scalar(text: &str) -> String {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let reserved = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf",
    ];
    match starts_well
        && text.bytes().all(word)
        && !reserved.iter().any(|r| text.eq_ignore_ascii_case(r))
    {
        true => text.to_owned(),
        false => quoted(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn block_style() {
        let value = json!({ "name": "a", "args": ["--x", "1", "on"], "env": [{ "name": "B", "value": "" }], "none": {}, "count": 5, "deep": { "x": true } });
        let expected = "- name: a\n  args:\n  - \"--x\"\n  - \"1\"\n  - \"on\"\n  env:\n  - name: B\n    value: \"\"\n  none: {}\n  count: 5\n  deep:\n    x: true";
        assert_eq!(item(&value, 0).join("\n"), expected);
    }

    #[test]
    fn flow_style() {
        assert_eq!(
            flow(&json!({ "a": [1, "x\n", { "b": null }], "c": {} })),
            r#"{"a": [1, "x\n", {"b": null}], "c": {}}"#
        );
    }
}
