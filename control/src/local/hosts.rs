//! The hosts file of a pod: Services and peers by name, without a DNS server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::loopback::{self, Targets};

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Cluster addresses, or the pods' for a headless Service.
    pub(crate) ips: Vec<IpAddr>,
    /// Pods of a headless Service by host name (`web-0.web.ns.svc`).
    pub(crate) members: Vec<(String, IpAddr)>,
}

impl Named {
    /// The same for a pod whose proxy listens in place of redirection: a Service it does not listen for has no name
    /// there. Headless Services and the controller are called at their own addresses.
    pub(crate) fn called_by(&self, pod: u16, listens: &Targets) -> Self {
        let ip = |ip: &IpAddr| match loopback::outbound(pod, *ip) {
            Some(own) => listens.lead_to(*ip).then_some(own),
            None => Some(*ip),
        };
        Self {
            ips: self.ips.iter().filter_map(ip).collect(),
            ..self.clone()
        }
    }
}

/// A pod's own place in its hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) namespace: String,
    pub(crate) hostname: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) aliases: Vec<(String, Vec<String>)>,
}

/// The whole file. `services` must be sorted, so that the same state gives the same bytes.
pub(crate) fn render(own: &Own, services: &[Named]) -> String {
    let mut text = String::from(
        "# Written by meshctl local; changes are lost.\n127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
    );
    for ip in &own.ips {
        let _ = writeln!(text, "{ip} {}", own.hostname);
    }
    for (ip, names) in &own.aliases {
        let _ = writeln!(text, "{ip} {}", names.join(" "));
    }
    for service in services {
        let names = service_names(service, &own.namespace);
        for ip in &service.ips {
            let _ = writeln!(text, "{ip} {names}");
        }
        for (host, ip) in &service.members {
            let Named {
                namespace, name, ..
            } = service;
            let long = format!("{host}.{name}.{namespace}.svc");
            let short = if *namespace == own.namespace {
                format!(" {host}.{name}")
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "{ip} {long}.cluster.local {long} {host}.{name}.{namespace}{short}"
            );
        }
    }
    text
}

fn service_names(service: &Named, from: &str) -> String {
    let Named {
        namespace, name, ..
    } = service;
    let mut names =
        format!("{name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace}");
    if namespace == from {
        let _ = write!(names, " {name}");
    }
    names
}

/// Order and merge, for [`render`].
pub(crate) fn sorted(services: impl IntoIterator<Item = Named>) -> Vec<Named> {
    let by_name: BTreeMap<_, _> = services
        .into_iter()
        .map(|s| ((s.namespace.clone(), s.name.clone()), s))
        .collect();
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn short_names_only_at_home() {
        let own = Own {
            namespace: "shop".into(),
            hostname: "web-1".into(),
            ips: vec!["10.42.1.1".parse().unwrap()],
            aliases: vec![("192.0.2.1".into(), vec!["bank".into()])],
        };
        let service = |namespace: &str, name: &str, ip: &str| Named {
            namespace: namespace.into(),
            name: name.into(),
            ips: vec![ip.parse().unwrap()],
            members: vec![],
        };
        let mut db = service("shop", "db", "10.42.1.9");
        db.members = vec![("db-0".into(), "10.42.1.9".parse().unwrap())];
        let services = sorted([
            service("shop", "web", "10.43.1.1"),
            service("other", "web", "10.43.1.2"),
            db,
        ]);
        assert_eq!(
            render(&own, &services),
            "# Written by meshctl local; changes are lost.\n\
             127.0.0.1 localhost\n::1 localhost ip6-localhost\n\
             10.42.1.1 web-1\n192.0.2.1 bank\n\
             10.43.1.2 web.other.svc.cluster.local web.other.svc web.other\n\
             10.42.1.9 db.shop.svc.cluster.local db.shop.svc db.shop db\n\
             10.42.1.9 db-0.db.shop.svc.cluster.local db-0.db.shop.svc db-0.db.shop db-0.db\n\
             10.43.1.1 web.shop.svc.cluster.local web.shop.svc web.shop web\n"
        );
    }
}
