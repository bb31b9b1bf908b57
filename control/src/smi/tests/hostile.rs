//! Input of every wrong kind: the error names the field, and what stands beside it in the file is still read.

use super::*;
use crate::smi::SUPPORTED;
use crate::smi::whole::whole;
use serde_json::{Value, json};

const SOUND: &str =
    "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: sound, namespace: shop}\n";

/// Every place of a value: its path for people, and its JSON pointer.
fn places(value: &Value, path: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    if !path.is_empty() {
        found.push((path.to_owned(), pointer.to_owned()));
    }
    match value {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, value) in fields {
                places(
                    value,
                    &format!("{path}{dot}{name}"),
                    &format!("{pointer}/{name}"),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(
                    item,
                    &format!("{path}[{index}]"),
                    &format!("{pointer}/{index}"),
                    found,
                );
            }
        }
        _ => {}
    }
}

fn head_of(group: &str, kind: &str, version: &str, fields: &Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{group}/{version}"),
        "kind": kind,
        "metadata": {"name": "x", "namespace": "shop"},
    });
    for (name, value) in fields.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

/// The errors of a file with this object and a sound one, as fields; empty if it was accepted.
fn errors(object: &Value) -> Vec<String> {
    let (loaded, problems) = parse("t", &format!("{object}{SOUND}"));
    let names: Vec<&str> = loaded.iter().map(|it| it.key.name.as_str()).collect();
    assert!(names.contains(&"sound"), "{object}");
    let errors = problems.iter().filter(|it| it.severity == Severity::Error);
    let fields: Vec<String> = errors
        .map(|it| it.field.clone().unwrap_or_default())
        .collect();
    assert_eq!(fields.is_empty(), names.contains(&"x"), "{problems:?}");
    fields
}

#[test]
fn a_wrong_value_anywhere_is_told_with_its_field() {
    let junk = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("§ \u{0}"),
        json!("*"),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({"a": {"b": 1}}),
        json!([null]),
    ];
    let (mut refused, mut tried) = (0, 0);
    for row in SUPPORTED {
        for version in row.versions {
            let fields = whole(row.kind.as_str(), version.as_str());
            let object = head_of(row.group, row.kind.as_str(), version.as_str(), &fields);
            assert_eq!(errors(&object), [] as [&str; 0], "{object}");
            let mut found = Vec::new();
            places(&fields, "", "", &mut found);
            for (path, pointer) in found {
                for wrong in &junk {
                    let mut broken = object.clone();
                    *broken.pointer_mut(&pointer).unwrap() = wrong.clone();
                    let told = errors(&broken);
                    let near = |field: &String| {
                        field.starts_with(&path) || path.starts_with(field.as_str())
                    };
                    assert!(told.iter().all(near), "{path}: {told:?}\n{broken}");
                    tried += 1;
                    refused += usize::from(!told.is_empty());
                }
            }
        }
    }
    assert!(
        tried > 2000 && refused * 4 > tried * 3,
        "{refused} of {tried}"
    );
}

#[test]
fn a_misspelt_name_anywhere_is_told_or_refused() {
    for row in SUPPORTED {
        for version in row.versions {
            let fields = whole(row.kind.as_str(), version.as_str());
            let object = head_of(row.group, row.kind.as_str(), version.as_str(), &fields);
            let mut found = Vec::new();
            places(&fields, "", "", &mut found);
            for (_, pointer) in found {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                let mut broken = object.clone();
                let parent = broken.pointer_mut(parent).unwrap();
                // Names of labels and headers are the user's own.
                let own = name == "a" || name == "x";
                let Some(fields) = parent.as_object_mut().filter(|_| !own) else {
                    continue;
                };
                let value = fields.remove(name).unwrap();
                fields.insert(format!("{name}x"), value);
                let (_, problems) = parse("t", &broken.to_string());
                let told = problems.iter().any(|it| {
                    let field = it.field.as_deref().unwrap_or_default();
                    field.ends_with(&format!("{name}x")) || field.ends_with(name)
                });
                assert!(told, "{broken}\n{problems:?}");
            }
        }
    }
}

#[test]
fn a_file_of_thousands_is_read_around_its_mistakes() {
    let mut text = String::new();
    for number in 0..2000 {
        text += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n"
        );
        if number % 500 == 0 {
            let split = split_text(&format!(
                "service: s{number}, backends: [{{service: b, weight: -1}}]"
            ));
            text += &format!(
                "{}---\n",
                split.replace("name: x", &format!("name: x{number}"))
            );
        }
    }
    text += &backed("[{service: v1, weight: 1}]");
    let (loaded, problems) = parse("t", &text);
    assert_eq!((loaded.len(), problems.len()), (2001, 4));
    for problem in problems {
        assert_eq!(problem.field.as_deref(), Some("spec.backends[0].weight"));
        assert!(problem.origin.line > 1 && problem.object.is_some());
    }
}

#[test]
fn a_bomb_is_refused_and_the_rest_is_read() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (last, next) in ('a'..='h').zip('b'..='i') {
        bomb += &format!(
            "{next}: &{next} [{}]\n",
            vec![format!("*{last}"); 10].join(", ")
        );
    }
    let deep = "[".repeat(10_000);
    for hostile in [bomb.as_str(), deep.as_str(), "a: *b", "a: &a [*a]"] {
        let (loaded, problems) = parse("t", &format!("{hostile}{SOUND}"));
        assert_eq!(loaded.len(), 1, "{problems:?}");
        assert!(problems.iter().any(|it| it.severity == Severity::Error));
    }
    let many: Vec<String> = (0..3000)
        .map(|n| format!("{{service: b{n}, weight: {n}}}"))
        .collect();
    assert_eq!(
        weights(&backed(&format!("[{}]", many.join(",")))).len(),
        3000
    );
}
