//! Checked values to protobuf.

use super::{Body, Item, Resource, generated as pb};

/// A response with every string interned once.
pub fn response(items: &[Item]) -> pb::SyncResponse {
    let _ = items;
    todo!()
}

/// A subscription's resource.
pub fn resource(resource: &Resource) -> pb::Resource {
    let _ = resource;
    todo!()
}

/// The version of a body: a hash of its encoded content that is the same in every process and build; never 0.
/// For `Body::Delta` and `Body::Unchanged` there is none of their own (they carry that of the whole set): returns 0.
pub fn version(body: &Body) -> u64 {
    let _ = body;
    todo!()
}
