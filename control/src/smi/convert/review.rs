//! ConversionReview (`apiextensions.k8s.io/v1`): what an API server sends, and what it gets back.

use super::convert;
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "apiextensions.k8s.io/v1";
const KIND: &str = "ConversionReview";

/// Not a review at all; anything else is answered within one.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is no JSON, or has not the fields of a review.
    #[error("not a ConversionReview: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another kind, or another version of it.
    #[error("not a ConversionReview of {API_VERSION}")]
    Other,
    /// An answer in place of a question.
    #[error("a ConversionReview without a request")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired_api_version: String,
    #[serde(default)]
    objects: Vec<Value>,
}

/// The answer to a review. It succeeds for all objects, or fails and says which of them cannot be converted.
pub fn review(body: &[u8]) -> Result<Vec<u8>, ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    if (review.api_version.as_str(), review.kind.as_str()) != (API_VERSION, KIND) {
        return Err(ReviewError::Other);
    }
    let Request {
        uid,
        desired_api_version: to,
        objects,
    } = review.request.ok_or(ReviewError::NoRequest)?;
    let converted: Result<Vec<Value>, _> = objects
        .into_iter()
        .map(|object| convert(object, &to))
        .collect();
    let response = match converted {
        Ok(objects) => json!({
            "uid": uid,
            "convertedObjects": objects,
            "result": {"status": "Success"},
        }),
        Err(error) => json!({
            "uid": uid,
            "convertedObjects": [],
            "result": {"status": "Failure", "message": error.to_string()},
        }),
    };
    let answer = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
    Ok(serde_json::to_vec(&answer)?)
}
