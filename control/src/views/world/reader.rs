//! What a view may ask of the world, noting every question.

use super::{Shape, Topic, World, as_service, labelled, selecting, selects};
use crate::manifest::k8s::{self, EndpointSlice, Labels, Namespace};
use crate::manifest::workload::Pod;
use crate::manifest::{Kind, Object, ObjectKey};
use crate::pod_ref::PodRef;
use crate::policy::ServicePolicy;
use crate::smi::access::TrafficTarget;
use crate::smi::binding::IdentityBinding;
use crate::smi::routes::{TcpRoute, UdpRoute};
use crate::smi::specs::HttpRouteGroup;
use crate::smi::split::TrafficSplit;
use crate::views::Mesh;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

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
