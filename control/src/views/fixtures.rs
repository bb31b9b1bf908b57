//! Small worlds for tests, written as manifests.
#![allow(clippy::unwrap_used)]

use super::world::World;
use super::{Mesh, ViewKey, compute};
use crate::manifest::{Severity, parse};
use crate::pod_ref::PodRef;
use crate::source::Event;
use std::collections::{BTreeSet, HashSet};
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::Access;
use weft_proxy_api::policy::inbound::{Caller, ConnectionVerdict, Inbound, Verdict};
use weft_proxy_api::policy::matching::RequestView;
use weft_proxy_api::policy::outbound::{Endpoint, Outbound, Service};
use weft_proxy_api::wire::Body;

pub(crate) fn strict() -> Mesh {
    Mesh {
        access: Access::Strict,
        ..Mesh::default()
    }
}

/// The objects of a manifest that has nothing wrong in it, as events.
pub(crate) fn events(manifest: &str) -> Vec<Event> {
    let (loaded, problems) = parse("test.yaml", manifest);
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{manifest}");
    loaded.into_iter().map(Event::Apply).collect()
}

/// A strict world with these objects.
pub(crate) fn world(manifests: &[&str]) -> World {
    let mut world = World::new(strict(), BTreeSet::new());
    for event in manifests.iter().flat_map(|manifest| events(manifest)) {
        if let Event::Apply(loaded) = event {
            world.apply(loaded, &mut HashSet::new());
        }
    }
    world
}

/// A meshed, ready pod `name` of the account `web` in `default`, label `app: <app>`, listening on 8080 (named `main`).
pub(crate) fn pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app: {app}}}
  annotations: {{weft.mesh/injected-at-version: \"1\"}}
spec:
  serviceAccountName: web
  containers:
  - name: app
    ports: [{{name: main, containerPort: 8080}}]
status:
  podIP: {ip}
---
"
    )
}

/// A Service of `default` with a port 80 that leads to the port `main`.
pub(crate) fn service(name: &str, app: &str, ip: &str) -> String {
    service_with(name, app, ip, "[{port: 80, targetPort: main}]")
}

pub(crate) fn service_with(name: &str, app: &str, ip: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {ip}, selector: {{app: {app}}}, ports: {ports}}}
---
"
    )
}

/// A TrafficTarget of `default` for the account `web`; `rules` is the list of rules.
pub(crate) fn target(name: &str, sources: &[&str], rules: &str) -> String {
    let source = |source: &&str| {
        let (namespace, name) = source.split_once('/').unwrap();
        format!("{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}")
    };
    let sources: Vec<String> = sources.iter().map(source).collect();
    format!(
        "apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {name}, namespace: default}}
spec:
  destination: {{kind: ServiceAccount, name: web}}
  sources: [{}]
  rules: {rules}
---
",
        sources.join(", ")
    )
}

/// An HTTPRouteGroup of `default`; `matches` is the list of matches.
pub(crate) fn group(name: &str, matches: &str) -> String {
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {{name: {name}, namespace: default}}
spec: {{matches: {matches}}}
---
"
    )
}

/// A TCPRoute of `default`.
pub(crate) fn tcp(name: &str, ports: &str) -> String {
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{name: {name}, namespace: default}}
spec: {{matches: {{ports: {ports}}}}}
---
"
    )
}

/// A UDPRoute of `default`.
pub(crate) fn udp(name: &str, ports: &str) -> String {
    tcp(name, ports).replace("TCPRoute", "UDPRoute")
}

/// An IdentityBinding of `default`.
pub(crate) fn binding(name: &str, schemes: &str) -> String {
    format!(
        "apiVersion: access.smi-spec.io/v1alpha4
kind: IdentityBinding
metadata: {{name: {name}, namespace: default}}
spec: {{schemes: {schemes}}}
---
"
    )
}

/// A TrafficSplit of `default`: `{service: …, backends: …, matches: …}`.
pub(crate) fn split(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {{name: {name}, namespace: default}}
spec: {spec}
---
"
    )
}

pub(crate) fn inbound(world: &World, pod: &str) -> Inbound {
    match compute(world, &ViewKey::Inbound(PodRef::new("default", pod))).0 {
        Body::Inbound(inbound) => inbound,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn outbound(world: &World, address: &str) -> Outbound {
    match compute(world, &ViewKey::Outbound(address.parse().unwrap())).0 {
        Body::Outbound(outbound) => outbound,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn routed(world: &World, address: &str) -> Service {
    match outbound(world, address) {
        Outbound::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn endpoints(world: &World, name: &str) -> Vec<Endpoint> {
    match compute(world, &ViewKey::Endpoints(name.to_owned())).0 {
        Body::Endpoints(endpoints) => endpoints,
        other => panic!("{other:?}"),
    }
}

/// May `caller` (`namespace/account`, empty: nobody proven) send this request (`GET /x`) to the pod's port?
pub(crate) fn may(world: &World, pod: &str, caller: &str, port: u16, request: &str) -> bool {
    may_from(world, pod, (caller, "10.9.9.9"), port, request)
}

/// As [`may`], calling from this address.
pub(crate) fn may_from(
    world: &World,
    pod: &str,
    (caller, address): (&str, &str),
    port: u16,
    request: &str,
) -> bool {
    let identity = identity(caller);
    let caller = Caller {
        identity: identity.as_ref(),
        address: address.parse().unwrap(),
    };
    let (method, path) = request.split_once(' ').unwrap();
    let headers = http::HeaderMap::new();
    let view = RequestView {
        method,
        path,
        host: "web",
        headers: &headers,
    };
    matches!(
        inbound(world, pod).judge_request(caller, port, &view),
        Verdict::Allow(_)
    )
}

/// May `caller` send bytes that are not HTTP?
pub(crate) fn may_connect(world: &World, pod: &str, caller: &str, port: u16) -> bool {
    let identity = identity(caller);
    let caller = Caller {
        identity: identity.as_ref(),
        address: "10.9.9.9".parse().unwrap(),
    };
    matches!(
        inbound(world, pod).judge_connection(caller, port),
        ConnectionVerdict::Allow(_)
    )
}

fn identity(caller: &str) -> Option<SpiffeId> {
    let (namespace, account) = caller.split_once('/')?;
    Some(SpiffeId::new("cluster.local", namespace, account).unwrap())
}

/// What is found in a world, object by object.
pub(crate) fn problems(world: &World) -> Vec<crate::manifest::Problem> {
    let of = |loaded: &crate::manifest::Loaded| crate::views::findings::of(world, &loaded.key).0;
    let found = world.objects().flat_map(of);
    found.map(|finding| finding.problem).collect()
}
