//! Failures in the form of the Kubernetes API.

use super::Answer;
use http::StatusCode;
use serde_json::json;

/// Longest text said back: part of it is what was asked.
const MAX_MESSAGE: usize = 1024;

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: StatusCode,
    reason: &'static str,
    pub message: String,
}

impl Refusal {
    /// Whoever asks has not shown who they are.
    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// The question makes no sense.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// Only reading, and not as a stream.
    pub(super) fn method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into().chars().take(MAX_MESSAGE).collect(),
        }
    }

    /// As a `Status`.
    pub(super) fn answer(&self) -> Answer {
        let document = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        (self.code, document)
    }
}
