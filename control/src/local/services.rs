//! Services as the node sees them: addresses, ready endpoints, names. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::addresses::{self, Numbers, Space};
use super::hosts::Named;
use super::nat::{Forward, Protocol};
use super::wire::{PortInfo, ServiceInfo};
use crate::manifest::k8s::{EndpointSlice, Endpoints, Labels, Service, ServicePort};
use crate::manifest::workload::Pod;

/// A pod as far as Services care.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) ready: bool,
}

/// One Service, resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) service: Service,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) headless: bool,
    pub(crate) ports: Vec<(ServicePort, Vec<SocketAddr>)>,
    pub(crate) members: Vec<(String, IpAddr)>,
}

/// Where a Service's endpoints come from, beside its selector.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) endpoints: Option<&'a Endpoints>,
    pub(crate) slices: &'a [&'a EndpointSlice],
}

/// The addresses of a Service: its own wish, else one that is free. An error says what is wrong with the wish.
pub(crate) fn cluster_ips(
    service: &Service,
    space: Space,
    numbers: &mut Numbers,
    known: &mut BTreeMap<String, IpAddr>,
) -> Result<Vec<IpAddr>, String> {
    let owner = format!("{}/{}", service.metadata.namespace, service.metadata.name);
    let spec = &service.spec;
    let wishes: Vec<_> = match spec.cluster_ips.as_slice() {
        [] => spec.cluster_ip.iter().filter(|ip| !ip.is_empty()).collect(),
        all => all.iter().collect(),
    };
    if wishes.iter().any(|ip| ip.as_str() == "None")
        || spec.type_.as_deref() == Some("ExternalName")
    {
        return Ok(vec![]);
    }
    if wishes.is_empty() {
        if let Some(ip) = known.get(&owner) {
            return Ok(vec![*ip]);
        }
        let number = numbers.take(&owner).ok_or("no Service address is left")?;
        let ip = space.service(number, false);
        known.insert(owner, ip);
        return Ok(vec![ip]);
    }
    let mut wanted = Vec::new();
    for wish in wishes {
        let ip: IpAddr = wish
            .parse()
            .map_err(|_| format!("clusterIP {wish} is not an address"))?;
        let number = addresses::service_number(ip)
            .ok_or_else(|| format!("clusterIP {wish} is outside of 10.43.0.0/16 and fd43::/112, the networks of this node"))?;
        wanted.push((wish, number, ip.is_ipv6()));
    }
    if !wanted.iter().all(|it| numbers.is_of(it.1, &owner)) {
        // What it had, or wished for, until now is free for others.
        numbers.release(&owner);
        known.remove(&owner);
    }
    let mut ips = Vec::new();
    for (wish, number, v6) in wanted {
        if !numbers.reserve(number, &owner) {
            return Err(format!("clusterIP {wish} is taken by another Service"));
        }
        ips.push(space.service(number, v6));
    }
    ips.dedup();
    Ok(ips)
}

/// Everything about a Service but its addresses, which are given.
pub(crate) fn resolve(
    service: &Service,
    cluster_ips: Vec<IpAddr>,
    pods: &[Member<'_>],
    given: Given<'_>,
) -> Resolved {
    let members: Vec<_> = pods
        .iter()
        .filter(|member| {
            member.pod.metadata.namespace == service.metadata.namespace
                && selected(&service.spec.selector, &member.pod.metadata.labels)
                && (member.ready || service.spec.publish_not_ready_addresses)
        })
        .collect();
    let headless = service.spec.cluster_ip.as_deref() == Some("None");
    let by_hand = given.endpoints.is_some() || !given.slices.is_empty();
    let ports = service.spec.ports.iter().map(|port| {
        let mut endpoints = if by_hand {
            listed(port, given)
        } else {
            computed(port, &members)
        };
        endpoints.sort_unstable();
        endpoints.dedup();
        (port.clone(), endpoints)
    });
    let named = members.iter().flat_map(|member| {
        let host = super::spec::hostname(member.pod);
        member.ips.iter().map(move |ip| (host.clone(), *ip))
    });
    Resolved {
        service: service.clone(),
        cluster_ips,
        headless,
        ports: ports.collect(),
        members: named.collect(),
    }
}

/// An empty selector selects nothing: such a Service has endpoints by hand.
pub(crate) fn selected(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

fn computed(port: &ServicePort, members: &[&Member<'_>]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for member in members {
        if let Some(number) = target(port, member.pod) {
            found.extend(member.ips.iter().map(|ip| SocketAddr::new(*ip, number)));
        }
    }
    found
}

pub(crate) fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    let Some(wanted) = &port.target_port else {
        return Some(port.port);
    };
    wanted.port().filter(|number| *number != 0).or_else(|| {
        let name = wanted.name()?;
        let all = pod
            .spec
            .init_containers
            .iter()
            .chain(&pod.spec.containers)
            .flat_map(|c| &c.ports);
        all.into_iter()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
    })
}

fn listed(port: &ServicePort, given: Given<'_>) -> Vec<SocketAddr> {
    let same =
        |name: &Option<String>| name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or("");
    let mut found = Vec::new();
    let mut add = |ip: &str, number: Option<u16>| {
        if let (Ok(ip), Some(number)) = (ip.parse(), number) {
            found.push(SocketAddr::new(ip, number));
        }
    };
    for subset in given.endpoints.iter().flat_map(|e| &e.subsets) {
        for listed in subset.ports.iter().filter(|p| same(&p.name)) {
            subset
                .addresses
                .iter()
                .for_each(|address| add(&address.ip, listed.port));
        }
    }
    for slice in given.slices {
        for listed in slice.ports.iter().filter(|p| same(&p.name)) {
            for endpoint in slice
                .endpoints
                .iter()
                .filter(|e| e.conditions.ready != Some(false))
            {
                endpoint
                    .addresses
                    .iter()
                    .for_each(|ip| add(ip, listed.port));
            }
        }
    }
    found
}

impl Resolved {
    /// Rules for its addresses.
    pub(crate) fn forwards(&self) -> Vec<Forward> {
        let mut all = Vec::new();
        for (port, endpoints) in &self.ports {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => continue,
            };
            for ip in &self.cluster_ips {
                let same_family = endpoints
                    .iter()
                    .filter(|e| e.is_ipv4() == ip.is_ipv4())
                    .copied()
                    .collect();
                let meta = &self.service.metadata;
                let name = format!("{}/{}:{}", meta.namespace, meta.name, port.port);
                all.push(Forward {
                    name,
                    to: *ip,
                    protocol,
                    port: port.port,
                    endpoints: same_family,
                });
            }
        }
        all
    }

    /// Its lines in hosts files.
    pub(crate) fn named(&self) -> Named {
        // One family, as Services have where nothing is said: an application often listens on IPv4 only.
        let usual = |ip: &IpAddr| ip.is_ipv4() || self.members.iter().all(|(_, ip)| ip.is_ipv6());
        let mut ips = self.cluster_ips.clone();
        if self.headless {
            ips = self.members.iter().map(|(_, ip)| *ip).collect();
            ips.extend(
                self.ports
                    .iter()
                    .flat_map(|(_, endpoints)| endpoints.iter().map(SocketAddr::ip)),
            );
            ips.retain(usual);
            ips.sort_unstable();
            ips.dedup();
        }
        let members = if self.headless {
            self.members.as_slice()
        } else {
            &[]
        };
        Named {
            namespace: self.service.metadata.namespace.clone(),
            name: self.service.metadata.name.clone(),
            ips,
            members: members
                .iter()
                .filter(|(_, ip)| usual(ip))
                .cloned()
                .collect(),
        }
    }

    /// As people see it.
    pub(crate) fn info(&self) -> ServiceInfo {
        let of_v4 = |endpoints: &[SocketAddr]| -> Vec<SocketAddr> {
            let v4: Vec<_> = endpoints.iter().filter(|e| e.is_ipv4()).copied().collect();
            if v4.is_empty() {
                endpoints.to_vec()
            } else {
                v4
            }
        };
        ServiceInfo {
            namespace: self.service.metadata.namespace.clone(),
            name: self.service.metadata.name.clone(),
            cluster_ips: self.cluster_ips.clone(),
            ports: self
                .ports
                .iter()
                .map(|(port, _)| PortInfo {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                    port: port.port,
                })
                .collect(),
            endpoints: self
                .ports
                .first()
                .map(|(_, endpoints)| of_v4(endpoints))
                .unwrap_or_default(),
        }
    }

    /// The object with its addresses filled in.
    pub(crate) fn object(&self) -> Service {
        let mut service = self.service.clone();
        if !self.headless {
            service.spec.cluster_ips = self.cluster_ips.iter().map(ToString::to_string).collect();
            service.spec.cluster_ip = service.spec.cluster_ips.first().cloned();
        }
        service
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::k8s::IntOrString;
    use crate::manifest::workload::{Container, ContainerPort};

    fn service(cluster_ip: Option<&str>) -> Service {
        let mut service = Service::default();
        service.metadata.name = "web".into();
        service.metadata.namespace = "default".into();
        service.spec.cluster_ip = cluster_ip.map(Into::into);
        service.spec.selector.insert("app".into(), "web".into());
        service.spec.ports = vec![ServicePort {
            port: 80,
            target_port: Some(IntOrString::String("http".into())),
            ..ServicePort::default()
        }];
        service
    }

    fn pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = name.into();
        pod.metadata.namespace = "default".into();
        pod.metadata.labels.insert("app".into(), "web".into());
        let ports = vec![ContainerPort {
            name: Some("http".into()),
            container_port: 8080,
            protocol: None,
        }];
        pod.spec.containers = vec![Container {
            ports,
            ..Container::default()
        }];
        pod
    }

    const NOTHING: Given<'static> = Given {
        endpoints: None,
        slices: &[],
    };

    #[test]
    fn ready_pods_are_endpoints_by_named_port() {
        let (a, b) = (pod("a"), pod("b"));
        let ips_a = ["10.42.1.1".parse().unwrap(), "fd42::101".parse().unwrap()];
        let ips_b = ["10.42.1.2".parse().unwrap()];
        let members = [
            Member {
                pod: &a,
                ips: &ips_a,
                ready: true,
            },
            Member {
                pod: &b,
                ips: &ips_b,
                ready: false,
            },
        ];
        let resolved = resolve(
            &service(None),
            vec!["10.43.1.1".parse().unwrap()],
            &members,
            NOTHING,
        );
        let forwards = resolved.forwards();
        assert_eq!(forwards.len(), 1);
        assert_eq!(forwards[0].endpoints, ["10.42.1.1:8080".parse().unwrap()]);
        assert_eq!(
            resolved.object().spec.cluster_ip.as_deref(),
            Some("10.43.1.1")
        );

        let headless = resolve(&service(Some("None")), vec![], &members, NOTHING);
        assert_eq!(
            headless.named().ips,
            ips_a[..1],
            "one family, as in Kubernetes"
        );
        assert!(headless.forwards().is_empty());
        assert_eq!(headless.object().spec.cluster_ip.as_deref(), Some("None"));
    }

    #[test]
    fn addresses_are_stable_and_wishes_checked() {
        let space = Space::Bridge;
        let (mut numbers, mut known) = (space.services(), BTreeMap::new());
        let mut ask = |service: &Service| cluster_ips(service, space, &mut numbers, &mut known);
        let first = ask(&service(None)).unwrap();
        assert_eq!(ask(&service(None)).unwrap(), first);
        let mut other = service(Some("10.43.9.9"));
        other.metadata.name = "other".into();
        assert_eq!(
            ask(&other).unwrap(),
            ["10.43.9.9".parse::<IpAddr>().unwrap()]
        );
        other.metadata.name = "third".into();
        assert!(ask(&other).unwrap_err().contains("taken"));
        let mut moved = service(Some("10.43.9.10"));
        moved.metadata.name = "other".into();
        assert!(ask(&moved).is_ok() && ask(&other).is_ok());
        assert!(
            ask(&service(Some("10.0.0.1")))
                .unwrap_err()
                .contains("outside")
        );
        assert!(ask(&service(Some("None"))).unwrap().is_empty());
    }
}
