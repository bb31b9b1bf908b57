//! The installation as a Helm chart: the same objects, with a template's expressions in place of what can be chosen.
//!
//! Values are rendered as marks in texts, which become expressions when the text is written. What may be in a value is
//! said by a schema that Helm checks, so none of them can become YAML of its own.

use super::Source;
use super::objects::{self, Part};
use super::text;
use super::values::{Form, ROWS, Row, tree};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use weft_proxy_api::names;

/// Around the name of a value; `#` before it: not in quotes.
const MARKS: [char; 2] = ['\u{27e6}', '\u{27e7}'];
const NAMESPACE: &str = "@namespace";
const CHOSEN: &str = "#@values";

/// Where the values of a chart come from.
struct Chart;

impl Source for Chart {
    fn value(&self, key: &'static str) -> Value {
        let bare =
            Row::find(key).is_some_and(|row| matches!(row.form, Form::Flag | Form::Count(..)));
        mark(&format!("{}{key}", if bare { "#" } else { "" })).into()
    }

    /// Within a text it stays in quotes, whatever its form.
    fn text(&self, key: &'static str) -> String {
        mark(key)
    }

    fn namespace(&self) -> String {
        mark(NAMESPACE)
    }

    fn chosen(&self) -> String {
        mark(CHOSEN)
    }
}

fn mark(name: &str) -> String {
    format!("{}{name}{}", MARKS[0], MARKS[1])
}

/// All files of the chart, by path, each with its text.
pub fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), chart()),
        ("values.yaml".to_owned(), values()),
        ("values.schema.json".to_owned(), format!("{:#}\n", schema())),
    ]);
    for part in objects::all(&Chart) {
        let kind = part.object["kind"].as_str().unwrap_or_default();
        // The namespace of a release is Helm's business.
        if kind != "Namespace" {
            let path = format!("templates/{}.yaml", kind.to_lowercase());
            files.entry(path).or_default().push_str(&template(&part));
        }
    }
    files
}

fn template(part: &Part) -> String {
    let text = expressions(&text::document(&part.object));
    match part.when {
        [] => text,
        [key] => format!("{{{{- if .Values.{key} }}}}\n{text}{{{{- end }}}}\n"),
        all => {
            let all: Vec<String> = all.iter().map(|key| format!(".Values.{key}")).collect();
            let all = all.join(" ");
            format!("{{{{- if and {all} }}}}\n{text}{{{{- end }}}}\n")
        }
    }
}

/// Puts expressions in place of the marks.
fn expressions(text: &str) -> String {
    let mut all = vec![
        (
            format!("\"{}\"", mark(CHOSEN)),
            "{{ .Values | toJson | quote }}".to_owned(),
        ),
        (mark(NAMESPACE), "{{ .Release.Namespace }}".to_owned()),
    ];
    for Row { key, .. } in ROWS {
        let expression = format!("{{{{ .Values.{key} }}}}");
        all.push((
            format!("\"{}\"", mark(&format!("#{key}"))),
            expression.clone(),
        ));
        all.push((mark(key), expression));
    }
    let replace =
        |text: String, (mark, expression): &(String, String)| text.replace(mark, expression);
    all.iter().fold(text.to_owned(), replace)
}

fn chart() -> String {
    let version = names::VERSION;
    format!(
        "apiVersion: v2\nname: weft\ndescription: A service mesh that speaks the Service Mesh Interface\ntype: application\n\
         version: {version}\nappVersion: \"{version}\"\nkubeVersion: \">=1.30.0-0\"\n"
    )
}

/// Every value with its meaning, groups indented.
fn values() -> String {
    let mut text = String::from(
        "# Made by `meshctl install --chart`, from the table that meshctl itself uses.\n",
    );
    let mut group = "";
    for row in ROWS {
        let (outer, name) = row.key.split_once('.').unwrap_or(("", row.key));
        if outer != group && !outer.is_empty() {
            let _ = writeln!(text, "{outer}:");
        }
        group = outer;
        let indent = if outer.is_empty() { "" } else { "  " };
        let _ = writeln!(
            text,
            "{indent}# {}\n{indent}{name}: {}",
            row.meaning,
            row.default()
        );
    }
    text
}

/// What Helm checks (JSON Schema): the forms of the table, and that nothing else is said.
fn schema() -> Value {
    let forms = tree(ROWS.iter().map(|row| (row.key, form(row))));
    let mut properties = Map::new();
    for (name, form) in forms.as_object().into_iter().flatten() {
        let is_group = !ROWS.iter().any(|row| row.key == name);
        let form = match is_group {
            true => json!({"type": "object", "additionalProperties": false, "properties": form}),
            false => form.clone(),
        };
        properties.insert(name.clone(), form);
    }
    properties.insert("global".into(), json!({"type": "object"}));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object", "additionalProperties": false, "properties": properties,
    })
}

fn form(row: &Row) -> Value {
    let mut schema = match row.form {
        Form::Flag => json!({"type": "boolean"}),
        Form::Count(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Form::Word(words) => json!({"type": "string", "enum": words}),
        Form::Text(set) => {
            json!({"type": "string", "maxLength": 512, "pattern": format!("^[{set}]+$")})
        }
    };
    schema["description"] = row.meaning.into();
    schema
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::install::{CONFIG_KEY, Install};
    use std::path::Path;

    /// What Helm makes of a template for the default values, as far as these templates go.
    fn rendered(text: &str) -> String {
        let mut text = text.replace("{{ .Release.Namespace }}", names::SYSTEM_NAMESPACE);
        text = text.replace("{{ .Values | toJson | quote }}", "\"{}\"");
        for row in ROWS {
            let value = match row.default() {
                Value::String(text) => text,
                other => other.to_string(),
            };
            text = text.replace(&format!("{{{{ .Values.{} }}}}", row.key), &value);
        }
        let mut kept = Vec::new();
        let mut on = true;
        for line in text.lines() {
            match line.strip_prefix("{{- if ") {
                Some(rest) => {
                    let keys = rest.trim_start_matches("and ").trim_end_matches(" }}");
                    let mut keys = keys.split(' ').map(|it| it.trim_start_matches(".Values."));
                    on = keys.all(|key| Row::find(key).unwrap().default() == true)
                }
                None if line == "{{- end }}" => on = true,
                None if on => kept.push(line),
                None => {}
            }
        }
        kept.join("\n")
    }

    #[test]
    fn by_default_it_is_what_meshctl_prints() {
        let mut objects = Vec::new();
        for (path, text) in files() {
            if !path.starts_with("templates/") {
                continue;
            }
            let text = rendered(&text);
            assert!(
                !text.contains("{{") && !text.contains(MARKS),
                "{path}: {text}"
            );
            for part in text.split("---\n").filter(|part| !part.trim().is_empty()) {
                objects.push(serde_saphyr::from_str::<Value>(part).unwrap());
            }
        }
        let wanted: Vec<Value> = Install::default().render();
        let wanted: Vec<Value> = wanted
            .into_iter()
            .filter(|it| it["kind"] != "Namespace")
            .collect();
        assert_eq!(objects.len(), wanted.len());
        for object in &wanted {
            assert!(objects.contains(object), "{object}");
        }
        assert!(wanted.iter().any(|it| it["data"][CONFIG_KEY] == "{}"));
    }

    #[test]
    fn the_values_are_the_table() {
        let read: Value = serde_saphyr::from_str(&values()).unwrap();
        assert_eq!(read, tree(ROWS.iter().map(|row| (row.key, row.default()))));
        let schema = schema();
        for row in ROWS {
            let path = row.key.replace('.', "/properties/");
            assert!(
                schema["properties"].pointer(&format!("/{path}")).is_some(),
                "{}",
                row.key
            );
        }
    }

    /// The chart beside the sources is the one that is made now. `WEFT_BLESS=1` writes it anew.
    #[test]
    fn the_chart_that_is_kept_is_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart");
        let bless = std::env::var_os("WEFT_BLESS").is_some();
        for (path, text) in files() {
            let path = folder.join(path);
            if bless {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == text,
                "{} is stale: WEFT_BLESS=1 writes it anew",
                path.display()
            );
        }
    }
}
