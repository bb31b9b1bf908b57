//! The world: every object, found by topics. A topic is what a view can ask for ("the Services of this namespace", "who
//! has this address") and at the same time what a change touches, so that a view can never miss a change.

use super::Mesh;
use crate::manifest::k8s::{self, EndpointSlice, Labels, Namespace};
use crate::manifest::workload::Pod;
use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use crate::pod_ref::PodRef;
use crate::policy::ServicePolicy;
use crate::smi::access::{Subject, TrafficTarget};
use crate::smi::binding::IdentityBinding;
use crate::smi::routes::{TcpRoute, UdpRoute};
use crate::smi::specs::HttpRouteGroup;
use crate::smi::split::TrafficSplit;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What a view asks for, and what a change touches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One object.
    Object(ObjectKey),
    /// The Services of a namespace with exactly this selector.
    Selecting {
        /// Namespace.
        namespace: String,
        /// The selector.
        selector: Labels,
    },
    /// By which labels the Services of a namespace select.
    Shapes(String),
    /// The pods of a namespace with this label.
    Labelled {
        /// Namespace.
        namespace: String,
        /// Name of the label.
        key: String,
        /// Its value.
        value: String,
    },
    /// Services and pods with this address.
    Address(IpAddr),
    /// EndpointSlices of a Service.
    SlicesOf(String, String),
    /// TrafficSplits with this root Service.
    SplitsOf(String, String),
    /// TrafficTargets with this destination account.
    TargetsOf(String, String),
    /// TrafficTargets of a namespace whose destination is an IdentityBinding.
    TargetsByBinding(String),
    /// ServicePolicies of this Service.
    PoliciesOf(String, String),
}

/// The names of the labels in a selector. A namespace has few of these, however many Services it has; with them, what
/// selects a pod is looked up instead of comparing the pod with every Service.
type Shape = BTreeSet<String>;

/// All objects of the mesh.
#[derive(Debug)]
pub struct World {
    mesh: Mesh,
    enrolled: BTreeSet<PodRef>,
    objects: BTreeMap<ObjectKey, Loaded>,
    members: HashMap<Topic, BTreeSet<ObjectKey>>,
    /// For each namespace, how many Services have each shape.
    shapes: HashMap<String, BTreeMap<Shape, usize>>,
}

impl World {
    /// A world without objects.
    pub fn new(mesh: Mesh, enrolled: BTreeSet<PodRef>) -> Self {
        Self {
            mesh,
            enrolled,
            objects: BTreeMap::new(),
            members: HashMap::new(),
            shapes: HashMap::new(),
        }
    }

    /// What holds for the whole mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Pods whose proxies ever got a certificate.
    pub fn enrolled(&self) -> &BTreeSet<PodRef> {
        &self.enrolled
    }

    /// Every object, by key.
    pub fn objects(&self) -> impl Iterator<Item = &Loaded> {
        self.objects.values()
    }

    /// One object.
    pub fn object(&self, key: &ObjectKey) -> Option<&Loaded> {
        self.objects.get(key)
    }

    /// A new or different object; adds the topics this touches.
    pub fn apply(&mut self, loaded: Loaded, touched: &mut HashSet<Topic>) {
        let key = loaded.key.clone();
        if self
            .objects
            .get(&key)
            .is_some_and(|last| last.object == loaded.object)
        {
            self.objects.insert(key, loaded); // it may have moved in its file
            return;
        }
        self.delete(&key, touched);
        self.count_shape(&loaded.object, touched);
        for topic in topics(&loaded) {
            self.members
                .entry(topic.clone())
                .or_default()
                .insert(key.clone());
            touched.insert(topic);
        }
        self.objects.insert(key, loaded);
    }

    /// An object that is gone; adds the topics this touches.
    pub fn delete(&mut self, key: &ObjectKey, touched: &mut HashSet<Topic>) {
        let Some(loaded) = self.objects.remove(key) else {
            return;
        };
        for topic in topics(&loaded) {
            if let Some(members) = self.members.get_mut(&topic) {
                members.remove(key);
                if members.is_empty() {
                    self.members.remove(&topic);
                }
            }
            touched.insert(topic);
        }
        self.discount_shape(&loaded.object);
    }

    /// The pod's proxy has a certificate; returns the topics this touches.
    pub fn enroll(&mut self, pod: &PodRef) -> HashSet<Topic> {
        if !self.enrolled.insert(pod.clone()) {
            return HashSet::new();
        }
        let key = ObjectKey::new(Kind::Pod, &pod.namespace, &pod.name);
        self.objects
            .get(&key)
            .map(topics)
            .unwrap_or_default()
            .into_iter()
            .collect()
    }

    /// A shape that is new in its namespace is news for every pod of it.
    fn count_shape(&mut self, object: &Object, touched: &mut HashSet<Topic>) {
        let Some((namespace, shape)) = shape(object) else {
            return;
        };
        let shapes = self.shapes.entry(namespace.clone()).or_default();
        let count = shapes.entry(shape).or_default();
        *count += 1;
        if *count == 1 {
            touched.insert(Topic::Shapes(namespace));
        }
    }

    /// One that is gone is none: what it found is gone as well, and that was told.
    fn discount_shape(&mut self, object: &Object) {
        let Some((namespace, shape)) = shape(object) else {
            return;
        };
        let Some(shapes) = self.shapes.get_mut(&namespace) else {
            return;
        };
        if let Some(count) = shapes.get_mut(&shape) {
            *count -= 1;
            if *count == 0 {
                shapes.remove(&shape);
            }
        }
        if shapes.is_empty() {
            self.shapes.remove(&namespace);
        }
    }

    fn count(&self, topic: &Topic) -> usize {
        self.members.get(topic).map_or(0, BTreeSet::len)
    }

    fn members(&self, topic: &Topic) -> impl Iterator<Item = &Object> {
        let keys = self.members.get(topic).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key))
            .map(|loaded| &loaded.object)
    }
}

/// Under which topics an object is found.
fn topics(loaded: &Loaded) -> Vec<Topic> {
    let ObjectKey { namespace, .. } = &loaded.key;
    let mut topics = vec![Topic::Object(loaded.key.clone())];
    match &loaded.object {
        Object::Service(service) => {
            topics.push(selecting(namespace, service.spec.selector.clone()));
            topics.extend(cluster_ips(service).map(Topic::Address));
        }
        Object::Pod(pod) => {
            topics.extend(pod.status.ips().into_iter().map(Topic::Address));
            topics.extend(
                pod.metadata
                    .labels
                    .iter()
                    .map(|(key, value)| labelled(namespace, key, value)),
            );
        }
        Object::EndpointSlice(slice) => {
            let service = slice.metadata.labels.get(EndpointSlice::SERVICE_LABEL);
            topics
                .extend(service.map(|service| Topic::SlicesOf(namespace.clone(), service.clone())));
        }
        Object::TrafficSplit(split) => {
            topics.push(Topic::SplitsOf(namespace.clone(), split.service.clone()));
        }
        Object::ServicePolicy(policy) => {
            topics.push(Topic::PoliciesOf(namespace.clone(), policy.service.clone()));
        }
        Object::TrafficTarget(target) => {
            topics.push(match &target.destination.subject {
                Subject::ServiceAccount { name, .. } => {
                    Topic::TargetsOf(namespace.clone(), name.clone())
                }
                Subject::IdentityBinding { .. } => Topic::TargetsByBinding(namespace.clone()),
            });
        }
        _ => {}
    }
    topics
}

fn shape(object: &Object) -> Option<(String, Shape)> {
    let service = as_service(object).filter(|service| !service.spec.selector.is_empty())?;
    let shape = service.spec.selector.keys().cloned().collect();
    Some((service.metadata.namespace.clone(), shape))
}

fn selecting(namespace: &str, selector: Labels) -> Topic {
    Topic::Selecting {
        namespace: namespace.to_owned(),
        selector,
    }
}

fn labelled(namespace: &str, key: &str, value: &str) -> Topic {
    Topic::Labelled {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// The addresses of a Service; none if it is headless.
pub fn cluster_ips(service: &k8s::Service) -> impl Iterator<Item = IpAddr> {
    let texts = service
        .spec
        .cluster_ip
        .iter()
        .chain(&service.spec.cluster_ips);
    texts
        .filter_map(|text| text.parse().ok())
        .collect::<BTreeSet<_>>()
        .into_iter()
}

/// Does a selector choose these labels? An empty one chooses nothing.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

/// The world as one view sees it: every question is noted.
#[derive(Debug)]
pub struct Reader<'a> {
    world: &'a World,
    asked: RefCell<HashSet<Topic>>,
}

impl<'a> Reader<'a> {
    /// A reader that has asked nothing yet.
    pub fn new(world: &'a World) -> Self {
        Self {
            world,
            asked: RefCell::default(),
        }
    }

    /// What was asked.
    pub fn into_topics(self) -> HashSet<Topic> {
        self.asked.into_inner()
    }

    /// What holds for the whole mesh.
    pub fn mesh(&self) -> &'a Mesh {
        &self.world.mesh
    }

    /// A Namespace.
    pub fn namespace(&self, name: &str) -> Option<&'a Arc<Namespace>> {
        match self.object(Kind::Namespace, "", name)? {
            Object::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&'a Arc<Pod>> {
        self.object(Kind::Pod, namespace, name).and_then(as_pod)
    }

    /// Has the pod's proxy ever got a certificate? Enrolling touches what the pod is found under.
    pub fn is_enrolled(&self, pod: &Pod) -> bool {
        self.world
            .enrolled
            .contains(&PodRef::new(&pod.metadata.namespace, &pod.metadata.name))
    }

    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&'a Arc<k8s::Service>> {
        self.object(Kind::Service, namespace, name)
            .and_then(as_service)
    }

    /// The Services that select a pod, by name.
    pub fn services_of(&self, pod: &Pod) -> Vec<&'a Arc<k8s::Service>> {
        let namespace = &pod.metadata.namespace;
        self.ask(Topic::Shapes(namespace.clone()));
        let shapes = self.world.shapes.get(namespace);
        let mut services: Vec<_> = shapes
            .into_iter()
            .flat_map(|shapes| shapes.keys())
            .filter_map(|shape| part(&pod.metadata.labels, shape))
            .flat_map(|selector| self.list(selecting(namespace, selector)))
            .filter_map(as_service)
            .collect();
        services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        services
    }

    /// The pods a Service selects, by name. The rarest label of the selector narrows the search, the others are compared:
    /// a pod that comes to be selected touches every one of its labels, whichever was asked for.
    pub fn pods_of(&self, service: &k8s::Service) -> Vec<&'a Arc<Pod>> {
        self.pods_with(&service.metadata.namespace, &service.spec.selector)
    }

    /// The pods of a namespace with all these labels, by name; none if there are no labels.
    pub fn pods_with(&self, namespace: &str, labels: &Labels) -> Vec<&'a Arc<Pod>> {
        let topics = labels
            .iter()
            .map(|(key, value)| labelled(namespace, key, value));
        let Some(rarest) = topics.min_by_key(|topic| self.world.count(topic)) else {
            return vec![];
        };
        self.list(rarest)
            .filter_map(as_pod)
            .filter(|pod| selects(labels, &pod.metadata.labels))
            .collect()
    }

    /// The Services with this address, by name.
    pub fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = &'a Arc<k8s::Service>> {
        self.list(Topic::Address(ip)).filter_map(as_service)
    }

    /// The pods with this address, by name.
    pub fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.list(Topic::Address(ip)).filter_map(as_pod)
    }

    /// The Endpoints object of a Service.
    pub fn endpoints(&self, namespace: &str, service: &str) -> Option<&'a Arc<k8s::Endpoints>> {
        match self.object(Kind::Endpoints, namespace, service)? {
            Object::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        }
    }

    /// The EndpointSlices of a Service, by name.
    pub fn slices(&self, namespace: &str, service: &str) -> Vec<&'a Arc<EndpointSlice>> {
        let slices = self.list(Topic::SlicesOf(namespace.to_owned(), service.to_owned()));
        let as_slice = |object: &'a Object| match object {
            Object::EndpointSlice(slice) => Some(slice),
            _ => None,
        };
        slices.filter_map(as_slice).collect()
    }

    /// The TrafficSplits with this root Service, by name.
    pub fn splits(&self, namespace: &str, root: &str) -> Vec<&'a Arc<TrafficSplit>> {
        let splits = self.list(Topic::SplitsOf(namespace.to_owned(), root.to_owned()));
        let as_split = |object: &'a Object| match object {
            Object::TrafficSplit(split) => Some(split),
            _ => None,
        };
        splits.filter_map(as_split).collect()
    }

    /// The TrafficTargets with this destination account, by name.
    pub fn targets(&self, namespace: &str, account: &str) -> Vec<&'a Arc<TrafficTarget>> {
        self.list(Topic::TargetsOf(namespace.to_owned(), account.to_owned()))
            .filter_map(as_target)
            .collect()
    }

    /// The TrafficTargets of a namespace whose destination is an IdentityBinding, by name.
    pub fn targets_by_binding(&self, namespace: &str) -> Vec<&'a Arc<TrafficTarget>> {
        self.list(Topic::TargetsByBinding(namespace.to_owned()))
            .filter_map(as_target)
            .collect()
    }

    /// An IdentityBinding.
    pub fn binding(&self, namespace: &str, name: &str) -> Option<&'a Arc<IdentityBinding>> {
        match self.object(Kind::IdentityBinding, namespace, name)? {
            Object::IdentityBinding(binding) => Some(binding),
            _ => None,
        }
    }

    /// The ServicePolicies of a Service, by name.
    pub fn policies(&self, namespace: &str, service: &str) -> Vec<&'a Arc<ServicePolicy>> {
        let policies = self.list(Topic::PoliciesOf(namespace.to_owned(), service.to_owned()));
        let as_policy = |object: &'a Object| match object {
            Object::ServicePolicy(policy) => Some(policy),
            _ => None,
        };
        policies.filter_map(as_policy).collect()
    }

    /// An HTTPRouteGroup.
    pub fn group(&self, namespace: &str, name: &str) -> Option<&'a Arc<HttpRouteGroup>> {
        match self.object(Kind::HttpRouteGroup, namespace, name)? {
            Object::HttpRouteGroup(group) => Some(group),
            _ => None,
        }
    }

    /// A TCPRoute.
    pub fn tcp_route(&self, namespace: &str, name: &str) -> Option<&'a Arc<TcpRoute>> {
        match self.object(Kind::TcpRoute, namespace, name)? {
            Object::TcpRoute(route) => Some(route),
            _ => None,
        }
    }

    /// A UDPRoute.
    pub fn udp_route(&self, namespace: &str, name: &str) -> Option<&'a Arc<UdpRoute>> {
        match self.object(Kind::UdpRoute, namespace, name)? {
            Object::UdpRoute(route) => Some(route),
            _ => None,
        }
    }

    fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        self.list(Topic::Object(ObjectKey::new(kind, namespace, name)))
            .next()
    }

    fn list(&self, topic: Topic) -> impl Iterator<Item = &'a Object> + use<'a> {
        let world = self.world;
        let members: Vec<&'a Object> = world.members(&topic).collect();
        self.ask(topic);
        members.into_iter()
    }

    fn ask(&self, topic: Topic) {
        self.asked.borrow_mut().insert(topic);
    }
}

/// The labels with these names, if all are there.
fn part(labels: &Labels, shape: &Shape) -> Option<Labels> {
    let label = |name: &String| Some((name.clone(), labels.get(name)?.clone()));
    shape.iter().map(label).collect()
}

fn as_pod(object: &Object) -> Option<&Arc<Pod>> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

fn as_target(object: &Object) -> Option<&Arc<TrafficTarget>> {
    match object {
        Object::TrafficTarget(target) => Some(target),
        _ => None,
    }
}

fn as_service(object: &Object) -> Option<&Arc<k8s::Service>> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}
