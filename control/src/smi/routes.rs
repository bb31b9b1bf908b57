//! TCPRoute and UDPRoute: traffic that is described by nothing but its port; TrafficTarget refers to them.

use super::{TOP, Version};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::Value;
use weft_proxy_api::policy::inbound::Ports;

/// A TCPRoute.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRoute {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Ports; absent or empty in the text: any. Before v1alpha4 there are none in the text.
    pub ports: Ports,
}

/// A UDPRoute. It is part of the computed policy, but the proxies carry no UDP.
#[derive(Debug, Clone, PartialEq)]
pub struct UdpRoute {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Ports; absent or empty in the text: any.
    pub ports: Ports,
}

/// Reads a TCPRoute. `None` if something is wrong; what, is in the report.
pub fn read_tcp(
    root: &Field<'_>,
    metadata: ObjectMeta,
    version: Version,
    report: &mut Report,
) -> Option<TcpRoute> {
    // Ignored, they would open every port (D35).
    let matches = root.get("spec").get("matches");
    if version < Version::V1Alpha4 && matches.is_present() {
        report.error(
            &matches,
            "is known since v1alpha4; before, a TCPRoute is every port",
        );
        return None;
    }
    let ports = read_ports(root, report)?;
    Some(TcpRoute { metadata, ports })
}

/// Reads a UDPRoute. `None` if something is wrong; what, is in the report.
pub fn read_udp(root: &Field<'_>, metadata: ObjectMeta, report: &mut Report) -> Option<UdpRoute> {
    let ports = read_ports(root, report)?;
    Some(UdpRoute { metadata, ports })
}

/// A field that is not known is refused everywhere: without `ports` a route means every port.
fn read_ports(root: &Field<'_>, report: &mut Report) -> Option<Ports> {
    let spec = root.get("spec");
    let matches = spec.get("matches");
    spec.expect_map(report)?;
    matches.expect_map(report)?;
    root.reject_unknown(&TOP, report);
    spec.reject_unknown(&["matches"], report);
    // The schema has a name there that nobody uses.
    matches.reject_unknown(&["name", "ports"], report);
    let items = matches.get("ports").items(report)?;
    let ports: Vec<Option<u16>> = items.iter().map(|item| read_port(item, report)).collect();
    let ports: Vec<u16> = ports.into_iter().collect::<Option<_>>()?;
    Some(if ports.is_empty() {
        Ports::Any
    } else {
        Ports::Only(ports)
    })
}

fn read_port(field: &Field<'_>, report: &mut Report) -> Option<u16> {
    match field.value() {
        Some(Value::Int(number @ 1..=65535)) => u16::try_from(*number).ok(),
        other => {
            let found = other.map_or("nothing".to_owned(), Value::describe);
            report.error(
                field,
                format!("must be a port from 1 to 65535, not {found}"),
            );
            None
        }
    }
}
