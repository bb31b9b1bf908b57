//! What manifests leave to a cluster: the pods of workloads, addresses, who is in the mesh. Made up here where it is missing,
//! and every guess that matters is noted with the object it is about.

use super::Files;
use crate::manifest::k8s::{
    EndpointPort, EndpointSlice, IntOrString, Labels, ObjectMeta, ObjectReference, OwnerReference,
    Service, SliceEndpoint,
};
use crate::manifest::workload::{Container, ContainerPort, Pod, PodIp, PodTemplate};
use crate::manifest::{Kind, Loaded, Object, ObjectKey, Origin};
use crate::pod_ref::PodRef;
use crate::views::world::{World, cluster_ips, selects};
use crate::views::{Mesh, pod, split};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use weft_proxy_api::names::keys;

/// Made-up addresses are of 240.0.0.0/4, which nobody can have (RFC 1112 section 4).
const SERVICES: u32 = 0xf000_0001;
const PODS: u32 = 0xf800_0001;
/// The file of what was made up.
pub const ASSUMED: &str = "assumed";
/// Of a caller of whom nothing but its identity is known.
pub(super) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(255, 255, 255, 254));

/// A world in which every pod has an address, and what was assumed about it.
#[derive(Debug)]
pub struct Completed {
    /// The world.
    pub world: World,
    /// By object.
    assumed: BTreeMap<ObjectKey, Vec<String>>,
    /// Pods that stand for a workload.
    made: BTreeMap<ObjectKey, PodRef>,
}

impl Completed {
    /// A world that nothing was added to. A ready pod stands for its workload.
    pub fn of(world: World) -> Self {
        let mut made = BTreeMap::new();
        for loaded in world.objects() {
            if let Object::Pod(pod) = &loaded.object
                && pod.status.is_ready()
                && let Some(key) = workload(pod)
            {
                let stands = PodRef::new(&key.namespace, &pod.metadata.name);
                made.entry(key).or_insert(stands);
            }
        }
        Self {
            world,
            assumed: BTreeMap::new(),
            made,
        }
    }

    /// What was assumed about an object.
    pub fn assumed(&self, key: &ObjectKey) -> &[String] {
        self.assumed.get(key).map_or(&[], Vec::as_slice)
    }

    /// The pod that stands for the workload of this name.
    pub fn pod_of_workload(&self, namespace: &str, name: &str) -> Option<&PodRef> {
        let named = |key: &&ObjectKey| key.namespace == namespace && key.name == name;
        let key = self.made.keys().find(named)?;
        self.made.get(key)
    }
}

/// What made a pod, as far as the pod says.
fn workload(pod: &Pod) -> Option<ObjectKey> {
    let label = pod::label(pod);
    let (kind, name) = label.split_once('/')?;
    let kind = match kind {
        "deploy" => Kind::Deployment,
        "sts" => Kind::StatefulSet,
        "ds" => Kind::DaemonSet,
        "rs" => Kind::ReplicaSet,
        "job" => Kind::Job,
        _ => return None,
    };
    Some(ObjectKey::new(kind, &pod.metadata.namespace, name))
}

/// The state that files describe, completed.
pub fn complete(files: &Files, mesh: Mesh) -> Completed {
    let objects = files.objects();
    let mut work = Completing {
        objects: objects.map(|it| (it.key.clone(), it.clone())).collect(),
        assumed: BTreeMap::new(),
        made: BTreeMap::new(),
        enrolled: BTreeSet::new(),
    };
    work.pods_of_workloads();
    work.pods_of_services();
    work.addresses();
    work.meshed();
    let mut world = World::new(mesh, work.enrolled);
    for loaded in work.objects.into_values() {
        world.apply(loaded, &mut HashSet::new());
    }
    Completed {
        world,
        assumed: work.assumed,
        made: work.made,
    }
}

struct Completing {
    objects: BTreeMap<ObjectKey, Loaded>,
    assumed: BTreeMap<ObjectKey, Vec<String>>,
    made: BTreeMap<ObjectKey, PodRef>,
    enrolled: BTreeSet<PodRef>,
}

impl Completing {
    /// One pod for each workload that has none in the files: all of its pods are alike.
    fn pods_of_workloads(&mut self) {
        let mut made = Vec::new();
        for (key, loaded) in &self.objects {
            let Some((template, replicas, owners)) = template(&loaded.object) else {
                continue;
            };
            let is_owned = owners.iter().any(|owner| owner.controller == Some(true));
            let has_pods = self
                .pods(&key.namespace)
                .any(|pod| owned(pod, key, template));
            if replicas > 0 && !is_owned && !has_pods {
                made.push((key.clone(), from_template(key, template)));
            }
        }
        for (key, pod) in made {
            let it = PodRef::new(&pod.metadata.namespace, &pod.metadata.name);
            self.made.insert(key, it);
            self.add_pod(pod);
        }
    }

    /// One pod for each Service that nothing in the files serves. The narrowest selectors come first: what they choose may
    /// serve a wider one as well.
    fn pods_of_services(&mut self) {
        let mut services: Vec<Arc<Service>> = self
            .objects
            .values()
            .filter_map(|loaded| match &loaded.object {
                Object::Service(service) => Some(service.clone()),
                _ => None,
            })
            .filter(|service| !split::is_external(service))
            .collect();
        services.sort_by_key(|service| std::cmp::Reverse(service.spec.selector.len()));
        for service in services {
            if !self.is_served(&service) {
                self.serve(&service);
            }
        }
    }

    fn is_served(&self, service: &Service) -> bool {
        let ObjectMeta {
            namespace, name, ..
        } = &service.metadata;
        let selected = |labels: &Labels| selects(&service.spec.selector, labels);
        // What is scaled to zero serves nobody, which is known and not assumed.
        let mut workloads = self.objects.values().filter_map(|loaded| {
            let (template, ..) = template(&loaded.object)?;
            (loaded.key.namespace == *namespace).then_some(template)
        });
        let slice = |loaded: &Loaded| match &loaded.object {
            Object::EndpointSlice(slice) => {
                slice.metadata.namespace == *namespace
                    && slice.metadata.labels.get(EndpointSlice::SERVICE_LABEL) == Some(name)
            }
            Object::Endpoints(old) => {
                old.metadata.namespace == *namespace && old.metadata.name == *name
            }
            _ => false,
        };
        self.pods(namespace)
            .any(|pod| selected(&pod.metadata.labels))
            || workloads.any(|template| selected(&template.metadata.labels))
            || self.objects.values().any(slice)
    }

    fn serve(&mut self, service: &Service) {
        let ObjectMeta {
            namespace, name, ..
        } = &service.metadata;
        let named = service.spec.ports.iter().filter_map(|port| {
            let name = port.target_port.as_ref()?.name()?;
            Some(ContainerPort {
                name: Some(name.to_owned()),
                container_port: port.port,
                protocol: port.protocol.clone(),
            })
        });
        let container = Container {
            name: "assumed".to_owned(),
            ports: named.collect(),
            ..Container::default()
        };
        let mut pod = Pod::default();
        pod.metadata.name = format!("{name}-assumed");
        pod.metadata.namespace.clone_from(namespace);
        pod.metadata.labels = service.spec.selector.clone();
        pod.spec.containers = vec![container];
        self.note(
            &key_of(&pod),
            format!(
                "nothing in these files says who serves Service {namespace}/{name}: a pod of the service account \
                 {namespace}/default is assumed"
            ),
        );
        if service.spec.selector.is_empty() {
            let slice = slice_of(service, &pod);
            self.add(Kind::EndpointSlice, &slice.metadata.clone(), |_| {
                Object::EndpointSlice(Arc::new(slice))
            });
        }
        self.add_pod(pod);
    }

    /// An address for each pod that may have one, and for each Service that wants one.
    fn addresses(&mut self) {
        let (mut pods, mut services) = (PODS, SERVICES);
        let mut slices = BTreeMap::new();
        for loaded in self.objects.values_mut() {
            match &mut loaded.object {
                Object::Pod(pod) if wants_address(pod) => {
                    let ip = Ipv4Addr::from(pods).to_string();
                    pods += 1;
                    let meta = &pod.metadata;
                    let it = PodRef::new(&meta.namespace, &meta.name);
                    slices.insert(it, ip.clone());
                    let status = &mut Arc::make_mut(pod).status;
                    status.pod_ips = vec![PodIp { ip: ip.clone() }];
                    status.pod_ip = Some(ip);
                }
                Object::Service(service) if wants_cluster_ip(service) => {
                    let ip = Ipv4Addr::from(services).to_string();
                    services += 1;
                    Arc::make_mut(service).spec.cluster_ip = Some(ip);
                }
                _ => {}
            }
        }
        for loaded in self.objects.values_mut() {
            if let Object::EndpointSlice(slice) = &mut loaded.object {
                fill_in(slice, &slices);
            }
        }
    }

    /// Every pod that does not say otherwise is in the mesh.
    fn meshed(&mut self) {
        let mut notes = Vec::new();
        for loaded in self.objects.values() {
            let Object::Pod(pod) = &loaded.object else {
                continue;
            };
            let said = self.asks(pod);
            if said != Some(false) {
                let it = PodRef::new(&pod.metadata.namespace, &pod.metadata.name);
                self.enrolled.insert(it);
            }
            if said.is_none()
                && !pod
                    .metadata
                    .annotations
                    .contains_key(keys::INJECTED_AT_VERSION)
            {
                let note = format!(
                    "Pod {}/{} has a proxy (nothing says otherwise)",
                    pod.metadata.namespace, pod.metadata.name
                );
                notes.push((loaded.key.clone(), note));
            }
        }
        for (key, note) in notes {
            self.note(&key, note);
        }
    }

    /// What a pod says about a proxy, or its namespace where it says nothing.
    fn asks(&self, pod: &Pod) -> Option<bool> {
        let namespace = ObjectKey::new(Kind::Namespace, "", &pod.metadata.namespace);
        let of_namespace = || match &self.objects.get(&namespace)?.object {
            Object::Namespace(it) => {
                let meta = &it.metadata;
                meta.annotations
                    .get(keys::INJECT)
                    .or(meta.labels.get(keys::INJECT))
            }
            _ => None,
        };
        let own = pod.metadata.annotations.get(keys::INJECT);
        own.or_else(of_namespace).map(|word| word != "disabled")
    }

    fn pods(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let namespace = namespace.to_owned();
        self.objects
            .values()
            .filter_map(move |loaded| match &loaded.object {
                Object::Pod(pod) if pod.metadata.namespace == namespace => Some(pod),
                _ => None,
            })
    }

    fn add_pod(&mut self, pod: Pod) {
        let meta = pod.metadata.clone();
        self.add(Kind::Pod, &meta, |_| Object::Pod(Arc::new(pod)));
    }

    fn add(&mut self, kind: Kind, meta: &ObjectMeta, object: impl FnOnce(()) -> Object) {
        let key = ObjectKey::new(kind, &meta.namespace, &meta.name);
        let origin = Origin {
            file: ASSUMED.into(),
            line: 0,
        };
        self.objects.entry(key.clone()).or_insert_with(|| Loaded {
            key,
            origin,
            object: object(()),
        });
    }

    fn note(&mut self, key: &ObjectKey, note: String) {
        self.assumed.entry(key.clone()).or_default().push(note);
    }
}

fn key_of(pod: &Pod) -> ObjectKey {
    ObjectKey::new(Kind::Pod, &pod.metadata.namespace, &pod.metadata.name)
}

/// What an object makes pods from, how many, and who owns it.
fn template(object: &Object) -> Option<(&PodTemplate, u32, &[OwnerReference])> {
    match object {
        Object::Deployment(it) | Object::StatefulSet(it) | Object::ReplicaSet(it) => Some((
            &it.spec.template,
            it.spec.replicas.unwrap_or(1),
            &it.metadata.owner_references,
        )),
        Object::DaemonSet(it) => Some((&it.spec.template, 1, &it.metadata.owner_references)),
        Object::Job(it) => Some((&it.spec.template, 1, &it.metadata.owner_references)),
        _ => None,
    }
}

/// Is the pod one of this workload: by who owns it, or because it has every label of the template?
fn owned(pod: &Pod, workload: &ObjectKey, template: &PodTemplate) -> bool {
    let by_owner = pod.metadata.owner_references.iter().any(|owner| {
        let set = owner.name.rsplit_once('-').map(|(set, _)| set);
        owner.name == workload.name || set == Some(&workload.name)
    });
    by_owner || selects(&template.metadata.labels, &pod.metadata.labels)
}

fn from_template(key: &ObjectKey, template: &PodTemplate) -> Pod {
    let mut pod = Pod {
        metadata: template.metadata.clone(),
        spec: template.spec.clone(),
        ..Pod::default()
    };
    pod.metadata.name = format!("{}-0", key.name);
    pod.metadata.namespace.clone_from(&key.namespace);
    pod.metadata.owner_references = vec![OwnerReference {
        kind: key.kind.as_str().to_owned(),
        name: key.name.clone(),
        controller: Some(true),
        ..OwnerReference::default()
    }];
    pod
}

fn wants_address(pod: &Pod) -> bool {
    let ended = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    pod.status.ips().is_empty() && !ended
}

fn wants_cluster_ip(service: &Service) -> bool {
    let headless = service.spec.cluster_ip.as_deref() == Some("None");
    !headless && !split::is_external(service) && cluster_ips(service).next().is_none()
}

/// A slice that was made before its pod had an address.
fn fill_in(slice: &mut Arc<EndpointSlice>, addresses: &BTreeMap<PodRef, String>) {
    let is_empty = |endpoint: &SliceEndpoint| endpoint.addresses.is_empty();
    if !slice.endpoints.iter().any(is_empty) {
        return;
    }
    let slice = Arc::make_mut(slice);
    let own = slice.metadata.namespace.as_str();
    for endpoint in slice.endpoints.iter_mut().filter(|it| is_empty(it)) {
        let address = endpoint.target_ref.as_ref().and_then(|target| {
            let namespace = match target.namespace.as_str() {
                "" => own,
                namespace => namespace,
            };
            addresses.get(&PodRef::new(namespace, &target.name))
        });
        endpoint.addresses.extend(address.cloned());
    }
}

fn slice_of(service: &Service, pod: &Pod) -> EndpointSlice {
    let mut slice = EndpointSlice::default();
    slice.metadata.name = format!("{}-assumed", service.metadata.name);
    slice
        .metadata
        .namespace
        .clone_from(&service.metadata.namespace);
    slice.metadata.labels.insert(
        EndpointSlice::SERVICE_LABEL.to_owned(),
        service.metadata.name.clone(),
    );
    slice.address_type = "IPv4".to_owned();
    slice.endpoints = vec![SliceEndpoint {
        target_ref: Some(ObjectReference {
            kind: "Pod".to_owned(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
        }),
        ..SliceEndpoint::default()
    }];
    slice.ports = service
        .spec
        .ports
        .iter()
        .map(|port| EndpointPort {
            name: port.name.clone(),
            port: port_of(port.target_port.as_ref(), pod).or(Some(port.port)),
            protocol: port.protocol.clone(),
            app_protocol: None,
        })
        .collect();
    slice
}

fn port_of(target: Option<&IntOrString>, pod: &Pod) -> Option<u16> {
    pod::port(pod::app_containers(pod), target?)
}
