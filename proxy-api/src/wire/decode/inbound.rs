//! The policy of a workload, from protobuf.

use super::settings::at_most;
use super::strings::Strings;
use super::{At, DecodeError, each, ip, malformed, missing, pb, port, protocol};
use crate::identity::SpiffeId;
use crate::policy::inbound::{Allow, Inbound, Ports, Probe, Source, Traffic};
use crate::policy::matching::{HeaderMatch, HttpMatch, TextMatch};
use crate::policy::settings::bounds;
use crate::policy::{Access, MetricsTier, Protocol};
use std::fmt;
use std::net::IpAddr;

impl Strings<'_> {
    pub(super) fn inbound(&self, message: &pb::Inbound) -> Result<Inbound, DecodeError> {
        at_most("rate_limits", &message.rate_limits, bounds::MAX_RULES)?;
        Ok(Inbound {
            workload: self.required("workload_ref", message.workload_ref)?,
            access: access(message.access)?,
            ports: each("ports", &message.ports, declared_port)?,
            allow: each("allow", &message.allow, |allow| self.allow(allow))?,
            probes: each("probes", &message.probes, |probe| self.probe(probe))?,
            rate_limits: each("rate_limits", &message.rate_limits, |limit| {
                self.rate_limit(limit)
            })?,
            access_from: self.optional("access_from_ref", message.access_from_ref)?,
            explain_denials: message.explain_denials,
            metrics: metrics_tier(message.metrics)?,
        })
    }

    fn allow(&self, message: &pb::Allow) -> Result<Allow, DecodeError> {
        Ok(Allow {
            object: self.required("object_ref", message.object_ref)?,
            sources: each("sources", &message.sources, |source| self.source(source))?,
            ports: ports(message)?,
            traffic: self.traffic(message)?,
        })
    }

    fn traffic(&self, message: &pb::Allow) -> Result<Traffic, DecodeError> {
        match message.http_only {
            true => Ok(Traffic::Http(self.matches("requests", &message.requests)?)),
            false if message.requests.is_empty() => Ok(Traffic::Any),
            // To read it as "any bytes" would widen what somebody meant to narrow.
            false => Err(malformed(
                "requests",
                "not empty although http_only is false",
            )),
        }
    }

    fn source(&self, message: &pb::Source) -> Result<Source, DecodeError> {
        let identity = self.identity("identity_ref", message.identity_ref)?;
        let identity = identity.ok_or_else(|| missing("identity_ref"))?;
        Ok(Source {
            identity,
            addresses: addresses(message)?,
        })
    }

    pub(super) fn identity(
        &self,
        field: impl fmt::Display,
        reference: u32,
    ) -> Result<Option<SpiffeId>, DecodeError> {
        let text = self.get(&field, reference)?;
        text.map(|text| text.parse().map_err(|error| malformed(field, error)))
            .transpose()
    }

    fn probe(&self, message: &pb::Probe) -> Result<Probe, DecodeError> {
        let path = self.get("path_ref", message.path_ref)?;
        Ok(Probe {
            port: port("port", message.port)?,
            path: path.map(str::to_owned),
        })
    }

    pub(super) fn matches(
        &self,
        field: &str,
        list: &[pb::HttpMatch],
    ) -> Result<Vec<HttpMatch>, DecodeError> {
        each(field, list, |message| self.http_match(message))
    }

    fn http_match(&self, message: &pb::HttpMatch) -> Result<HttpMatch, DecodeError> {
        let path = message.path.as_ref();
        Ok(HttpMatch {
            object: self.required("object_ref", message.object_ref)?,
            name: self.required("name_ref", message.name_ref)?,
            path: path
                .map(|path| self.text_match(path).at("path"))
                .transpose()?,
            methods: each("method_refs", &message.method_refs, |method| {
                self.required("", *method)
            })?,
            headers: each("headers", &message.headers, |header| self.header(header))?,
        })
    }

    fn header(&self, message: &pb::HeaderMatch) -> Result<HeaderMatch, DecodeError> {
        let name = self.required("name_ref", message.name_ref)?;
        // Only a name in lower case is ever found.
        if http::HeaderName::from_lowercase(name.as_bytes()).is_err() {
            return Err(malformed(
                "name_ref",
                "not the name of a header field in lower case",
            ));
        }
        let value = message.value.as_ref().ok_or_else(|| missing("value"))?;
        Ok(HeaderMatch {
            name,
            value: self.text_match(value).at("value")?,
        })
    }

    fn text_match(&self, message: &pb::TextMatch) -> Result<TextMatch, DecodeError> {
        use pb::text_match::Kind;
        let kind = Kind::try_from(message.kind).unwrap_or(Kind::Unspecified);
        if kind == Kind::Unspecified {
            return Err(malformed(
                "kind",
                format!("{} is not a kind of match", message.kind),
            ));
        }
        let text = self.required("text_ref", message.text_ref)?;
        match kind {
            Kind::Prefix => Ok(TextMatch::Prefix(text)),
            Kind::RegexPrefix => {
                TextMatch::regex_prefix(&text).map_err(|error| malformed("text_ref", error))
            }
            Kind::RegexFull => {
                TextMatch::regex_full(&text).map_err(|error| malformed("text_ref", error))
            }
            Kind::Exact | Kind::Unspecified => Ok(TextMatch::Exact(text)),
        }
    }
}

fn access(number: i32) -> Result<Access, DecodeError> {
    match pb::Access::try_from(number) {
        Ok(pb::Access::Strict) => Ok(Access::Strict),
        Ok(pb::Access::Permissive) => Ok(Access::Permissive),
        Ok(pb::Access::Audit) => Ok(Access::Audit),
        _ => Err(malformed(
            "access",
            format!("{number} is not a mode of access"),
        )),
    }
}

/// Not said by an older controller: as it was before there was anything to say.
pub fn metrics_tier(number: i32) -> Result<MetricsTier, DecodeError> {
    match pb::MetricsTier::try_from(number) {
        Ok(pb::MetricsTier::Unspecified) => Ok(MetricsTier::default()),
        Ok(pb::MetricsTier::Edges) => Ok(MetricsTier::Edges),
        Ok(pb::MetricsTier::Routes) => Ok(MetricsTier::Routes),
        Ok(pb::MetricsTier::Endpoints) => Ok(MetricsTier::Endpoints),
        Err(_) => Err(malformed(
            "metrics",
            format!("{number} is not a tier of metrics"),
        )),
    }
}

fn declared_port(message: &pb::InboundPort) -> Result<(u16, Protocol), DecodeError> {
    Ok((port("port", message.port)?, protocol(message.protocol)?))
}

fn ports(message: &pb::Allow) -> Result<Ports, DecodeError> {
    let list = each("ports", &message.ports, |number| port("", *number))?;
    match message.any_port {
        false => Ok(Ports::Only(list)),
        true if list.is_empty() => Ok(Ports::Any),
        true => Err(malformed("ports", "not empty although any_port is true")),
    }
}

fn addresses(message: &pb::Source) -> Result<Option<Vec<IpAddr>>, DecodeError> {
    let list = each("addresses", &message.addresses, |bytes| ip("", bytes))?;
    match message.any_address {
        false => Ok(Some(list)),
        true if list.is_empty() => Ok(None),
        true => Err(malformed(
            "addresses",
            "not empty although any_address is true",
        )),
    }
}
