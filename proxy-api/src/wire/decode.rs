//! Protobuf to checked values.

use super::{Item, Resource, generated as pb};

/// Which field of a message is malformed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DecodeError {
    /// Path of the field, e.g. `items[2].outbound.service.routes[0].matches[1].path`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The items of a response. A malformed item is an error of its own, with the id and version to refuse;
/// the others are unharmed.
pub fn response(message: &pb::SyncResponse) -> Vec<Result<Item, BadItem>> {
    let _ = message;
    todo!()
}

/// An item that must be refused (Nack).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadItem {
    /// The subscription.
    pub id: u32,
    /// The version refused.
    pub version: u64,
    /// Why.
    pub error: DecodeError,
}

/// What a subscription asks for.
pub fn resource(message: &pb::Resource) -> Result<Resource, DecodeError> {
    let _ = message;
    todo!()
}
