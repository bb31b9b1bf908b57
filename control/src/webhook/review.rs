//! AdmissionReview (`admission.k8s.io/v1`): the envelope of a question, and of its answer.

use super::server::Answer;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// A warning is shown whole up to this length by those who ask; longer ones are cut.
const MAX_WARNING: usize = 240;
/// Warnings in one answer.
const MAX_WARNINGS: usize = 16;

/// Not a question at all; anything else is answered within a review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is no JSON, or has not the fields of a review.
    #[error("not an AdmissionReview: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another kind, or another version of it.
    #[error("not an AdmissionReview of {API_VERSION}")]
    Other,
    /// An answer in place of a question.
    #[error("an AdmissionReview without a request")]
    NoRequest,
}

/// A question.
#[derive(Debug)]
pub struct Review(Request);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Tells the answer from others.
    pub uid: String,
    /// Namespace of the object; empty for kinds without one.
    #[serde(default)]
    pub namespace: String,
    /// Name, if it has one already.
    #[serde(default)]
    pub name: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(default)]
    pub operation: String,
    /// `pods`, `trafficsplits`, …
    #[serde(default)]
    pub resource: Resource,
    /// `status`, …; empty: the object itself.
    #[serde(default)]
    pub sub_resource: String,
    /// As it is to be stored.
    #[serde(default)]
    pub object: Value,
    /// As it was.
    #[serde(default)]
    pub old_object: Value,
}

/// Which resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// Group; empty: the core group.
    #[serde(default)]
    pub group: String,
    /// In the plural.
    #[serde(default)]
    pub resource: String,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Response {
    refusal: Option<Refusal>,
    patch: Vec<Value>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Refusal {
    message: String,
    /// Field, and what is wrong with it.
    causes: Vec<(String, String)>,
}

impl Review {
    /// Reads a question.
    pub fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let envelope: Envelope = serde_json::from_slice(body)?;
        if (envelope.api_version.as_str(), envelope.kind.as_str()) != (API_VERSION, KIND) {
            return Err(ReviewError::Other);
        }
        envelope.request.map(Self).ok_or(ReviewError::NoRequest)
    }

    /// What it asks.
    pub fn request(&self) -> &Request {
        &self.0
    }

    /// Answers it.
    pub fn answer(&self, decide: impl FnOnce(&Request) -> Response) -> Answer {
        let response = decide(&self.0);
        let json = response.to_json(&self.0.uid);
        let review = json!({"apiVersion": API_VERSION, "kind": KIND, "response": json});
        Answer::json(review.to_string().into_bytes(), response.outcome())
    }
}

impl Response {
    /// The object passes as it is.
    pub fn allowed() -> Self {
        Self::default()
    }

    /// The object passes, changed by a JSON patch.
    pub fn patched(operations: Vec<Value>) -> Self {
        Self {
            patch: operations,
            ..Self::default()
        }
    }

    /// The object is refused; each cause names a field.
    pub fn refused(message: String, causes: Vec<(String, String)>) -> Self {
        Self {
            refusal: Some(Refusal { message, causes }),
            ..Self::default()
        }
    }

    /// Shown by `kubectl` to whoever sent the object.
    pub fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let cut = |text: String| match text.char_indices().nth(MAX_WARNING) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        };
        self.warnings.extend(warnings.into_iter().map(cut));
        self.warnings.truncate(MAX_WARNINGS);
        self
    }

    /// Does the object pass?
    pub fn is_allowed(&self) -> bool {
        self.refusal.is_none()
    }

    fn outcome(&self) -> &'static str {
        match (self.is_allowed(), self.patch.is_empty()) {
            (false, _) => "refused",
            (true, true) => "passed",
            (true, false) => "injected",
        }
    }

    fn to_json(&self, uid: &str) -> Value {
        let mut response = Map::new();
        response.insert("uid".into(), uid.into());
        response.insert("allowed".into(), self.is_allowed().into());
        if let Some(Refusal { message, causes }) = &self.refusal {
            let causes: Vec<Value> = causes
                .iter()
                .map(|(field, message)| {
                    json!({"reason": "FieldValueInvalid", "field": field, "message": message})
                })
                .collect();
            let status = json!({
                "status": "Failure", "code": 422, "reason": "Invalid",
                "message": message, "details": {"causes": causes},
            });
            response.insert("status".into(), status);
        }
        if !self.patch.is_empty() && self.is_allowed() {
            let patch = Value::from(self.patch.clone()).to_string().into_bytes();
            response.insert("patchType".into(), "JSONPatch".into());
            response.insert("patch".into(), json!(ByteString(patch)));
        }
        if !self.warnings.is_empty() {
            response.insert("warnings".into(), json!(self.warnings));
        }
        response.into()
    }
}
