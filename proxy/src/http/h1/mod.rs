//! Our HTTP/1.1 codec (RFC 9112). What both ends share is pure: [`decode`] takes a body out of what was read, [`encode`]
//! frames one that is sent. [`outgoing`] holds what is to be written, so that a message leaves in as few writes as possible.

#[allow(dead_code, reason = "not all of it is in use yet")]
pub(in crate::http) mod decode;
#[allow(dead_code, reason = "not all of it is in use yet")]
pub(in crate::http) mod encode;
#[allow(dead_code, reason = "not all of it is in use yet")]
pub(in crate::http) mod outgoing;
