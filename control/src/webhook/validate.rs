//! Objects that could not be honoured are refused when they are written, with the field named. Pure: the reader of the
//! sources judges, so what passes here is in force a moment later, and what does not would never have been.

use super::review::{Request, Response};
use crate::crd::STORAGE;
use crate::manifest::{Problem, Severity, parse_json};
use crate::smi::convert::convert;
use serde_json::Value;
use weft_proxy_api::names::keys::SMI_PRESERVED;

/// The answer about an object. What was there before is not judged again: somebody may want to take a finalizer away.
pub fn answer(request: &Request) -> Response {
    let object = &request.object;
    let judged = matches!(request.operation.as_str(), "CREATE" | "UPDATE")
        && request.sub_resource.is_empty()
        && object.is_object()
        && object["metadata"]["deletionTimestamp"].is_null()
        && content(object) != content(&request.old_object);
    if !judged {
        return Response::allowed();
    }
    let problems = parse_json("", whole(named(request))).problems;
    let of = |severity: Severity| problems.iter().filter(move |it| it.severity == severity);
    let warnings = of(Severity::Warning).map(|it| format!("weft: {}", line(it)));
    if of(Severity::Error).next().is_none() {
        return Response::allowed().warn(warnings);
    }
    let lines: Vec<String> = of(Severity::Error).map(line).collect();
    let cause = |it: &Problem| (it.field.clone().unwrap_or_default(), it.message.clone());
    Response::refused(lines.join("; "), of(Severity::Error).map(cause).collect())
}

/// The object with the name and namespace of the request, where it does not say them itself.
fn named(request: &Request) -> Value {
    let mut object = request.object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for (field, value) in [("name", &request.name), ("namespace", &request.namespace)] {
            if !value.is_empty() {
                metadata
                    .entry(field)
                    .or_insert_with(|| value.as_str().into());
            }
        }
    }
    object
}

/// What an old version cannot show comes back from an annotation when the object is stored; such an object is judged as it
/// will be stored. Any other is judged as it was written, so that a refusal names the fields of that version.
fn whole(object: Value) -> Value {
    let hides = object["metadata"]["annotations"][SMI_PRESERVED].is_string();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    match api_version.split_once('/') {
        Some((group, _)) if hides => {
            let stored = convert(object.clone(), &format!("{group}/{}", STORAGE.as_str()));
            // One that cannot be converted says so as it is.
            stored.unwrap_or(object)
        }
        _ => object,
    }
}

/// All but what the API server and controllers write.
fn content(object: &Value) -> Option<Vec<(&String, &Value)>> {
    let fields = object.as_object()?.iter();
    let fields = fields.filter(|(name, _)| !["metadata", "status"].contains(&name.as_str()));
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by_key(|(name, _)| *name);
    Some(fields)
}

fn line(problem: &Problem) -> String {
    match &problem.field {
        Some(field) => format!("{field}: {}", problem.message),
        None => problem.message.clone(),
    }
}
