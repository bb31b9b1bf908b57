//! Objects as YAML, one document each.

use crate::inject::emit;
use serde_json::Value;

/// A stream of documents.
pub fn yaml(objects: &[Value]) -> String {
    objects.iter().map(document).collect()
}

/// One document, with the line that separates it from the one before.
pub fn document(object: &Value) -> String {
    let lines = emit::entries(object, 0);
    format!("---\n{}\n", lines.join("\n"))
}
