//! Protobuf to checked values.

mod inbound;
mod outbound;
mod settings;
mod strings;

#[cfg(test)]
mod tests;

use super::{Body, Item, Resource, Trust, generated as pb};
pub use inbound::metrics_tier;

use crate::policy::Protocol;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use strings::Strings;

/// Which field of a message is malformed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DecodeError {
    /// Path of the field, e.g. `items[2].outbound.service.routes[0].matches[1].path`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
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

/// The items of a response. A malformed item is an error of its own, with the id and version to refuse;
/// the others are unharmed.
pub fn response(message: &pb::SyncResponse) -> Vec<Result<Item, BadItem>> {
    let strings = Strings::new(&message.strings);
    let refuse = |item: &pb::Item, index, error: DecodeError| BadItem {
        id: item.id,
        version: item.version,
        error: error.inside(format_args!("items[{index}]")),
    };
    let items = message.items.iter().enumerate();
    items
        .map(|(index, item)| {
            decode_item(item, &strings).map_err(|error| refuse(item, index, error))
        })
        .collect()
}

/// What a subscription asks for.
pub fn resource(message: &pb::Resource) -> Result<Resource, DecodeError> {
    use pb::resource::Key;
    match message.key.as_ref().ok_or_else(|| missing("key"))? {
        Key::Inbound(_) => Ok(Resource::Inbound),
        Key::Outbound(address) => Ok(Resource::Outbound(socket(address).at("outbound")?)),
        Key::Endpoints(name) if name.is_empty() => Err(missing("endpoints")),
        Key::Endpoints(name) if name.len() > strings::MAX_STRING => {
            Err(malformed("endpoints", "the name is too long"))
        }
        Key::Endpoints(name) => Ok(Resource::Endpoints(name.clone())),
        Key::Trust(_) => Ok(Resource::Trust),
    }
}

fn decode_item(item: &pb::Item, strings: &Strings<'_>) -> Result<Item, DecodeError> {
    if item.version == 0 {
        return Err(malformed("version", "0 is no version"));
    }
    let body = body(item.body.as_ref().ok_or_else(|| missing("body"))?, strings)?;
    Ok(Item {
        id: item.id,
        version: item.version,
        body,
    })
}

fn body(body: &pb::item::Body, strings: &Strings<'_>) -> Result<Body, DecodeError> {
    use pb::item::Body as Wire;
    Ok(match body {
        Wire::Unchanged(_) => Body::Unchanged,
        Wire::Inbound(message) => Body::Inbound(strings.inbound(message).at("inbound")?),
        Wire::Outbound(message) => Body::Outbound(strings.outbound(message).at("outbound")?),
        Wire::Endpoints(set) => Body::Endpoints(
            strings
                .endpoints("endpoints", &set.endpoints)
                .at("endpoints")?,
        ),
        Wire::Delta(message) => delta(message, strings).at("delta")?,
        Wire::Trust(message) => Body::Trust(trust(message, strings).at("trust")?),
    })
}

fn delta(message: &pb::EndpointDelta, strings: &Strings<'_>) -> Result<Body, DecodeError> {
    if message.base == 0 {
        return Err(malformed("base", "0 is no version"));
    }
    let upsert = strings.endpoints("upsert", &message.upsert)?;
    let remove = each("remove", &message.remove, socket)?;
    let both: HashSet<_> = upsert.iter().map(|endpoint| endpoint.address).collect();
    match remove.iter().position(|address| both.contains(address)) {
        Some(index) => Err(malformed(
            format!("remove[{index}]"),
            "the same address is in upsert",
        )),
        None => Ok(Body::Delta {
            base: message.base,
            upsert,
            remove,
        }),
    }
}

fn trust(message: &pb::Trust, strings: &Strings<'_>) -> Result<Trust, DecodeError> {
    let domain = strings.required("trust_domain_ref", message.trust_domain_ref)?;
    match message.roots.iter().position(Vec::is_empty) {
        _ if message.roots.is_empty() => Err(missing("roots")),
        Some(index) => Err(missing(format!("roots[{index}]"))),
        None => Ok(Trust {
            roots: message.roots.clone(),
            domain,
        }),
    }
}

fn socket(message: &pb::Socket) -> Result<SocketAddr, DecodeError> {
    Ok(SocketAddr::new(
        ip("ip", &message.ip)?,
        port("port", message.port)?,
    ))
}

fn ip(field: impl fmt::Display, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(bytes);
    octets.map(IpAddr::from).map_err(|_| {
        malformed(
            field,
            format!("an address has 4 or 16 bytes, not {}", bytes.len()),
        )
    })
}

fn port(field: impl fmt::Display, number: u32) -> Result<u16, DecodeError> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(malformed(field, format!("{number} is not a port"))),
    }
}

fn protocol(number: i32) -> Result<Protocol, DecodeError> {
    match pb::Protocol::try_from(number) {
        Ok(pb::Protocol::Detect) => Ok(Protocol::Detect),
        Ok(pb::Protocol::Http1) => Ok(Protocol::Http1),
        Ok(pb::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(pb::Protocol::Grpc) => Ok(Protocol::Grpc),
        Ok(pb::Protocol::Tls) => Ok(Protocol::Tls),
        Ok(pb::Protocol::Opaque) => Ok(Protocol::Opaque),
        Err(_) => Err(malformed("protocol", format!("{number} is not a protocol"))),
    }
}

/// Every element of a repeated field; an error names its index.
fn each<M, T>(
    field: &str,
    list: &[M],
    decode: impl Fn(&M) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let list = list.iter().enumerate();
    list.map(|(index, message)| {
        decode(message).map_err(|error| error.inside(format_args!("{field}[{index}]")))
    })
    .collect()
}

fn missing(field: impl fmt::Display) -> DecodeError {
    malformed(field, "missing")
}

fn malformed(field: impl fmt::Display, reason: impl fmt::Display) -> DecodeError {
    DecodeError {
        field: field.to_string(),
        reason: reason.to_string(),
    }
}

impl DecodeError {
    /// The same error as seen from one message further out.
    fn inside(self, outer: impl fmt::Display) -> Self {
        let field = match self.field.as_str() {
            "" => outer.to_string(),
            inner => format!("{outer}.{inner}"),
        };
        Self { field, ..self }
    }
}

/// Says in which field of the outer message an error happened.
trait At: Sized {
    fn at(self, field: &str) -> Self;
}

impl<T> At for Result<T, DecodeError> {
    fn at(self, field: &str) -> Self {
        self.map_err(|error| error.inside(field))
    }
}
