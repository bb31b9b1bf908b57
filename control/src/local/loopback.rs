//! A pod without namespaces: what its proxy listens for in place of redirection, and what its containers are told in
//! place of mounts and names. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::addresses::{self, Space};
use super::enter::Mount;
use super::{probes, services};
use crate::manifest::k8s::Service;
use crate::manifest::workload::{Container, Pod};
use weft_proxy_api::names::{app_env, inject, ports, proxy_env};

/// Where a pod is, and what it may know of the others.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The programs of Weft.
    pub(crate) bin: PathBuf,
    /// The pod's own folder.
    pub(crate) dir: PathBuf,
    pub(crate) number: u16,
    /// Services with their addresses.
    pub(crate) services: Arc<Vec<Service>>,
    /// First port that this user may listen on.
    pub(crate) lowest: u16,
}

/// The listeners of a pod's proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Where it listens, and the address of the Service that is meant.
    outbound: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Where it listens, and where the application does.
    inbound: BTreeSet<(SocketAddr, SocketAddr)>,
}

/// Is this a pod with a proxy?
pub(crate) fn is_meshed(pod: &Pod) -> bool {
    let mut all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    all.any(|container| container.name == inject::PROXY_CONTAINER)
}

/// There is nothing to redirect without a network of the pod's own.
pub(crate) fn is_skipped(container: &Container) -> bool {
    container.name == inject::INIT_CONTAINER
}

impl Place {
    /// Where the application is to listen: behind its proxy if it has one.
    pub(crate) fn bind(&self, pod: &Pod) -> Ipv4Addr {
        if is_meshed(pod) {
            addresses::application(self.number)
        } else {
            self.address()
        }
    }

    fn address(&self) -> Ipv4Addr {
        Space::Loopback.pod(self.number).v4
    }

    /// Everything the proxy of the pod should listen for, as far as is known now.
    pub(crate) fn targets(&self, pod: &Pod) -> Targets {
        let mut targets = Targets::default();
        let apps = all(pod).filter(|container| container.name != inject::PROXY_CONTAINER);
        for port in apps.flat_map(|c| &c.ports).filter(|p| probes::is_tcp(p)) {
            self.inbound(&mut targets, port.container_port);
        }
        for service in self.services.iter() {
            let meta = &service.metadata;
            let ours = meta.namespace == pod.metadata.namespace
                && services::selected(&service.spec.selector, &pod.metadata.labels);
            let tcp = |protocol: Option<&str>| matches!(protocol, None | Some("TCP"));
            for port in (service.spec.ports.iter()).filter(|p| tcp(p.protocol.as_deref())) {
                if ours && let Some(number) = services::target(port, pod) {
                    self.inbound(&mut targets, number);
                }
                for (listen, ip) in self.ways_to(service) {
                    if port.port >= self.lowest {
                        let pair = (
                            SocketAddr::new(listen, port.port),
                            SocketAddr::new(ip, port.port),
                        );
                        targets.outbound.insert(pair);
                    }
                }
            }
        }
        targets
    }

    fn inbound(&self, targets: &mut Targets, port: u16) {
        if port >= self.lowest {
            let listen = SocketAddr::from((self.address(), port));
            let app = SocketAddr::from((addresses::application(self.number), port));
            targets.inbound.insert((listen, app));
        }
    }

    /// Each address of a Service, after that under which this pod calls it.
    fn ways_to(&self, service: &Service) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let ips = service
            .spec
            .cluster_ips
            .iter()
            .filter_map(|ip| ip.parse().ok());
        ips.filter_map(|ip| Some((outbound(self.number, ip)?, ip)))
    }

    /// What every container of the pod is told.
    pub(crate) fn facts(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        vec![
            (app_env::BIND, self.bind(pod).to_string()),
            (
                app_env::HOSTS_FILE,
                self.dir.join("hosts").display().to_string(),
            ),
            (
                app_env::VOLUMES,
                self.dir.join("volumes").display().to_string(),
            ),
            // What a container is found by when it left its process group.
            (POD_UID, pod.metadata.uid.clone().unwrap_or_default()),
        ]
    }

    /// What the proxy is told beside: addresses of its own, as all pods share the machine's.
    pub(crate) fn proxy_facts(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        let own = |port| SocketAddr::from((self.address(), port)).to_string();
        let control = SocketAddr::from((Space::Loopback.node(), ports::CONTROL));
        vec![
            (proxy_env::ADMIN_ADDR, own(ports::ADMIN)),
            (proxy_env::INBOUND_ADDR, own(ports::INBOUND)),
            (proxy_env::OUTBOUND_ADDR, own(ports::OUTBOUND)),
            (proxy_env::CONTROL_ADDR, control.to_string()),
            (proxy_env::FIXED_TARGETS, self.targets(pod).to_string()),
        ]
    }
}

/// Marks every process of a pod.
pub(crate) const POD_UID: &str = "WEFT_POD_UID";

/// Under which address a pod calls a Service.
pub(crate) fn outbound(pod: u16, service: IpAddr) -> Option<IpAddr> {
    let number = addresses::service_number(service)?;
    Some(addresses::outbound(pod, number).into())
}

fn all(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

impl Targets {
    /// Is there a listener for every port of the Service with this address?
    pub(crate) fn lead_to(&self, service: IpAddr) -> bool {
        self.outbound
            .iter()
            .any(|(_, target)| target.ip() == service)
    }

    /// What is needed now and was not when `then` was written down.
    pub(crate) fn without(&self, then: &Targets) -> Targets {
        Targets {
            outbound: self.outbound.difference(&then.outbound).copied().collect(),
            inbound: self.inbound.difference(&then.inbound).copied().collect(),
        }
    }

    /// Every address listened on.
    pub(crate) fn listens(&self) -> impl Iterator<Item = SocketAddr> {
        self.outbound
            .iter()
            .chain(&self.inbound)
            .map(|(listen, _)| *listen)
    }

    /// Nothing to listen for.
    pub(crate) fn is_empty(&self) -> bool {
        self.outbound.is_empty() && self.inbound.is_empty()
    }

    /// What is meant, for people.
    pub(crate) fn meant(&self) -> Vec<SocketAddr> {
        let outbound = self.outbound.iter().map(|(_, target)| *target);
        outbound
            .chain(self.inbound.iter().map(|(listen, _)| *listen))
            .collect()
    }
}

/// As the proxy reads it.
impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outbound = self
            .outbound
            .iter()
            .map(|(listen, target)| format!("outbound {listen}={target}"));
        let inbound = self
            .inbound
            .iter()
            .map(|(listen, app)| format!("inbound {listen}={listen}={app}"));
        write!(
            f,
            "{}",
            outbound.chain(inbound).collect::<Vec<_>>().join(",")
        )
    }
}

/// A text that names a path in a volume (by itself, or as `--option=PATH`), with the place where the volume really is.
pub(crate) fn real(text: &str, mounts: &[Mount]) -> String {
    if let Some(path) = real_path(text, mounts) {
        return path.display().to_string();
    }
    let option = text.split_once('=');
    match option.and_then(|(name, path)| Some((name, real_path(path, mounts)?))) {
        Some((name, path)) => format!("{name}={}", path.display()),
        None => text.to_owned(),
    }
}

/// The innermost mount counts: they come in the order of their paths.
fn real_path(path: &str, mounts: &[Mount]) -> Option<PathBuf> {
    let found = mounts.iter().rev().find_map(|mount| {
        let rest = Path::new(path).strip_prefix(&mount.target).ok()?;
        Some((&mount.source, rest))
    });
    let (source, rest) = found?;
    Some(if rest.as_os_str().is_empty() {
        source.clone()
    } else {
        source.join(rest)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::k8s::{IntOrString, ServicePort};
    use crate::manifest::workload::ContainerPort;

    fn service(name: &str, ip: &str, port: u16, target: u16) -> Service {
        let mut service = Service::default();
        service.metadata.name = name.into();
        service.metadata.namespace = "shop".into();
        service.spec.cluster_ips = vec![ip.into()];
        service.spec.selector.insert("app".into(), name.into());
        service.spec.ports = vec![ServicePort {
            port,
            target_port: Some(IntOrString::Int(target.into())),
            ..ServicePort::default()
        }];
        service
    }

    fn pod(meshed: bool) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "shop".into();
        pod.metadata.labels.insert("app".into(), "web".into());
        let container = |name: &str, port: u16| Container {
            name: name.into(),
            ports: vec![ContainerPort {
                name: None,
                container_port: port,
                protocol: None,
            }],
            ..Container::default()
        };
        if meshed {
            pod.spec
                .init_containers
                .push(container(inject::PROXY_CONTAINER, 4143));
        }
        pod.spec.containers.push(container("app", 8080));
        pod
    }

    fn place(services: Vec<Service>) -> Place {
        Place {
            bin: "/bin".into(),
            dir: "/state/pods/1".into(),
            number: 257,
            services: Arc::new(services),
            lowest: 1024,
        }
    }

    #[test]
    fn a_proxy_listens_for_its_application_and_for_every_service() {
        let services = vec![
            service("web", "127.43.1.1", 8000, 8081),
            service("db", "127.43.1.2", 5432, 5432),
            service("low", "127.43.1.3", 80, 8080),
        ];
        let place = place(services);
        let targets = place.targets(&pod(true));
        let (web, db) = (addresses::outbound(257, 257), addresses::outbound(257, 258));
        assert_eq!(
            targets.to_string(),
            format!(
                "outbound {web}:8000=127.43.1.1:8000,outbound {db}:5432=127.43.1.2:5432,\
                 inbound 127.42.1.1:8080=127.42.1.1:8080=127.41.1.1:8080,\
                 inbound 127.42.1.1:8081=127.42.1.1:8081=127.41.1.1:8081"
            )
        );
        assert!(targets.lead_to("127.43.1.2".parse().unwrap()));
        assert!(
            !targets.lead_to("127.43.1.3".parse().unwrap()),
            "a port this user may not have"
        );
    }

    #[test]
    fn a_service_that_comes_later_is_noticed() {
        let then = place(vec![]).targets(&pod(true));
        let now = place(vec![service("db", "127.43.1.2", 5432, 5432)]).targets(&pod(true));
        assert_eq!(
            now.without(&then).meant(),
            ["127.43.1.2:5432".parse().unwrap()]
        );
        assert!(then.without(&now).is_empty());
    }

    #[test]
    fn an_application_without_a_proxy_has_the_pods_address() {
        let place = place(vec![]);
        assert_eq!(place.bind(&pod(true)).to_string(), "127.41.1.1");
        assert_eq!(place.bind(&pod(false)).to_string(), "127.42.1.1");
    }

    #[test]
    fn paths_in_volumes_are_where_the_volumes_are() {
        let mount = |target: &str, source: &str| Mount {
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        let mounts = [mount("/data", "/v/data"), mount("/data/in", "/v/in")];
        for (text, want) in [
            ("/data", "/v/data"),
            ("/data/a/b", "/v/data/a/b"),
            ("/data/in/c", "/v/in/c"),
            ("/database", "/database"),
            ("--file=/data/x", "--file=/v/data/x"),
            ("see /data", "see /data"),
        ] {
            assert_eq!(real(text, &mounts), want);
        }
    }
}
