//! Trees of JSON, as an API server sends them, in the form the readers take. They have no lines.

use super::yaml::{Node, Value};
use serde_json::Value as Json;

/// The same tree without lines.
pub(super) fn tree(json: Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i128() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(tree).collect()),
        Json::Object(fields) => {
            let fields = fields.into_iter();
            Value::Map(fields.map(|(name, json)| (name, tree(json))).collect())
        }
    };
    Node { line: 0, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value() {
        let json = serde_json::json!({"a": [null, true, -3, 1.5, "x", u64::MAX], "b": {}});
        let Value::Map(fields) = tree(json).value else {
            panic!("a map")
        };
        let texts: Vec<String> = match &fields[0].1.value {
            Value::List(items) => items.iter().map(|item| item.value.describe()).collect(),
            other => panic!("{other:?}"),
        };
        let expected = [
            "nothing",
            "the truth value true",
            "the number -3",
            "the number 1.5",
            "the text \"x\"",
            "the number 18446744073709551615",
        ];
        assert_eq!(texts, expected);
        assert_eq!(fields[1].1.value, Value::Map(vec![]));
    }
}
