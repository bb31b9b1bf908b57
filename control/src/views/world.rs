//! The world: every object, found by topics. A topic is what a view can ask for ("the Services of this namespace", "who
//! has this address") and at the same time what a change touches, so that a view can never miss a change.

mod reader;

pub use reader::Reader;

use super::Mesh;
use crate::manifest::k8s::{self, EndpointSlice, Labels};
use crate::manifest::{Kind, Loaded, Object, ObjectKey};
use crate::pod_ref::PodRef;
use crate::smi::access::Subject;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use weft_proxy_api::policy::Access;

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
#[derive(Debug, Clone)]
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

    /// The same world with another rule for traffic that no TrafficTarget allows.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.mesh.access = access;
        self
    }

    /// Pods whose proxies ever got a certificate, but those that are known to be gone.
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
        // In this order a shape that stays is never gone in between, and none of the pods it does not select is touched.
        self.count_shape(&loaded.object, touched);
        self.delete(&key, touched);
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

    /// The pod is gone: a later one of its name need not have a proxy. That it is gone touches all that this does.
    pub fn disenroll(&mut self, pod: &PodRef) {
        self.enrolled.remove(pod);
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

fn as_service(object: &Object) -> Option<&Arc<k8s::Service>> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}
