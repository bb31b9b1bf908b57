//! Where an address leads, from protobuf.

use super::strings::Strings;
use super::{At, DecodeError, each, malformed, missing, pb, port, protocol, socket};
use crate::policy::ServicePort;
use crate::policy::outbound::{Backend, Endpoint, Outbound, Route, Service};
use std::collections::HashSet;

impl Strings<'_> {
    pub(super) fn outbound(&self, message: &pb::Outbound) -> Result<Outbound, DecodeError> {
        use pb::outbound::Kind;
        Ok(
            match message.kind.as_ref().ok_or_else(|| missing("kind"))? {
                Kind::Service(service) => Outbound::Service(self.service(service).at("service")?),
                Kind::Endpoint(endpoint) => {
                    Outbound::Endpoint(self.endpoint(endpoint).at("endpoint")?)
                }
                Kind::PassThrough(_) => Outbound::PassThrough,
                Kind::Refused(refused) => {
                    let reason = self
                        .required("reason_ref", refused.reason_ref)
                        .at("refused")?;
                    Outbound::Refused { reason }
                }
            },
        )
    }

    fn service(&self, message: &pb::Service) -> Result<Service, DecodeError> {
        let routes = each("routes", &message.routes, |route| self.route(route))?;
        match routes.last() {
            None => return Err(missing("routes")),
            Some(last) if !last.matches.is_empty() => {
                let field = format!("routes[{}].matches", routes.len() - 1);
                return Err(malformed(field, "the last route must fit everything"));
            }
            Some(_) => {}
        }
        let name = self.service_port(message.namespace_ref, message.name_ref, message.port)?;
        Ok(Service {
            name,
            protocol: protocol(message.protocol)?,
            routes,
            settings: Box::new(self.settings(message.settings.as_ref()).at("settings")?),
        })
    }

    pub(super) fn service_port(
        &self,
        namespace: u32,
        name: u32,
        number: u32,
    ) -> Result<ServicePort, DecodeError> {
        Ok(ServicePort {
            namespace: self.required("namespace_ref", namespace)?,
            name: self.required("name_ref", name)?,
            port: port("port", number)?,
        })
    }

    fn route(&self, message: &pb::Route) -> Result<Route, DecodeError> {
        Ok(Route {
            object: self
                .get("object_ref", message.object_ref)?
                .map(str::to_owned),
            matches: self.matches("matches", &message.matches)?,
            backends: each("backends", &message.backends, |backend| {
                self.backend(backend)
            })?,
        })
    }

    fn backend(&self, message: &pb::Backend) -> Result<Backend, DecodeError> {
        Ok(Backend {
            name: self.service_port(message.namespace_ref, message.name_ref, message.port)?,
            weight: message.weight,
            endpoints: self.required("endpoints_ref", message.endpoints_ref)?,
        })
    }

    /// A list of endpoints, each address once.
    pub(super) fn endpoints(
        &self,
        field: &str,
        list: &[pb::Endpoint],
    ) -> Result<Vec<Endpoint>, DecodeError> {
        let endpoints = each(field, list, |endpoint| self.endpoint(endpoint))?;
        let mut seen = HashSet::new();
        match endpoints
            .iter()
            .position(|endpoint| !seen.insert(endpoint.address))
        {
            Some(index) => Err(malformed(
                format!("{field}[{index}].address"),
                "the same address twice",
            )),
            None => Ok(endpoints),
        }
    }

    fn endpoint(&self, message: &pb::Endpoint) -> Result<Endpoint, DecodeError> {
        let address = message.address.as_ref().ok_or_else(|| missing("address"))?;
        Ok(Endpoint {
            address: socket(address).at("address")?,
            identity: self.identity("identity_ref", message.identity_ref)?,
            namespace: self.optional("namespace_ref", message.namespace_ref)?,
            pod: self.optional("pod_ref", message.pod_ref)?,
            workload: self.optional("workload_ref", message.workload_ref)?,
            zone: self.optional("zone_ref", message.zone_ref)?,
            weight: message.weight.max(1),
            protocol: protocol(message.protocol)?,
        })
    }
}
