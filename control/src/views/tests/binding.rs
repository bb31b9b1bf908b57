//! Who an IdentityBinding is (D14), as a caller and as a destination.

use crate::views::access::allow_udp;
use crate::views::fixtures::*;
use crate::views::world::{Reader, World};
use weft_proxy_api::policy::inbound::Ports;

const TCP: &str = "[{kind: TCPRoute, name: any}]";

/// A target of v1alpha4 from a binding `callers`.
fn from_binding() -> String {
    target("t", &["default/callers"], TCP)
        .replace("v1alpha3", "v1alpha4")
        .replace(
            "kind: ServiceAccount, name: callers",
            "kind: IdentityBinding, name: callers",
        )
}

/// A target of v1alpha4 to a binding `called`.
fn to_binding() -> String {
    target("t", &["default/front"], TCP)
        .replace("v1alpha3", "v1alpha4")
        .replace(
            "kind: ServiceAccount, name: web",
            "kind: IdentityBinding, name: called",
        )
}

fn with(objects: &[String]) -> World {
    let pod = pod("web-1", "web", "10.0.0.1");
    let mut all = vec![pod, tcp("any", "[]")];
    all.extend(objects.iter().cloned());
    world(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn lets_in(world: &World, caller: &str, address: &str) -> bool {
    may_from(world, "web-1", (caller, address), 8080, "GET /")
}

#[test]
fn d14_a_caller_by_account() {
    let world = with(&[
        from_binding(),
        binding("callers", "{serviceAccount: front}"),
    ]);
    assert!(lets_in(&world, "default/front", "10.9.9.9"));
    assert!(
        !lets_in(&world, "other/front", "10.9.9.9"),
        "only of the binding's namespace"
    );
    assert!(
        !lets_in(&world, "default/callers", "10.9.9.9"),
        "its own name is nobody"
    );
}

#[test]
fn d14_a_caller_by_spiffe_id() {
    let ids = |id: &str| {
        with(&[
            from_binding(),
            binding("callers", &format!("{{spiffeIdentities: ['{id}']}}")),
        ])
    };
    for id in [
        "cluster.local/ns/default/sa/front",
        "spiffe://cluster.local/ns/default/sa/front",
    ] {
        assert!(lets_in(&ids(id), "default/front", "10.9.9.9"));
        assert!(!lets_in(&ids(id), "default/other", "10.9.9.9"));
    }
    let world = ids("cluster.local/ns/other/sa/front");
    assert!(
        !lets_in(&world, "other/front", "10.9.9.9"),
        "a binding says nothing about other namespaces"
    );
    assert!(!lets_in(
        &ids("far.domain/ns/default/sa/front"),
        "default/front",
        "10.9.9.9"
    ));
}

#[test]
fn d14_a_caller_by_label_needs_account_and_address() {
    let caller = pod("front-1", "front", "10.0.0.7")
        .replace("serviceAccountName: web", "serviceAccountName: front");
    let ended = caller
        .replace("front-1", "front-0")
        .replace("podIP: 10.0.0.7", "podIP: 10.0.0.6\n  phase: Succeeded");
    let by_label = binding("callers", "{podLabelSelector: {matchLabels: {app: front}}}");
    let world = with(&[from_binding(), by_label.clone(), caller.clone(), ended]);
    assert!(lets_in(&world, "default/front", "10.0.0.7"));
    assert!(
        !lets_in(&world, "default/front", "10.0.0.8"),
        "another pod of the account"
    );
    assert!(
        !lets_in(&world, "default/batch", "10.0.0.7"),
        "the address alone is no identity"
    );
    assert!(!lets_in(&world, "", "10.0.0.7"));
    assert!(
        !lets_in(&world, "default/front", "10.0.0.6"),
        "a pod that ended"
    );
    let elsewhere = caller.replace("namespace: default", "namespace: other");
    let world = with(&[from_binding(), by_label, elsewhere]);
    assert!(!lets_in(&world, "other/front", "10.0.0.7"));
}

#[test]
fn d14_schemes_add_up() {
    let schemes = "{serviceAccount: front, spiffeIdentities: [cluster.local/ns/default/sa/batch]}";
    let world = with(&[from_binding(), binding("callers", schemes)]);
    assert!(
        lets_in(&world, "default/front", "10.9.9.9")
            && lets_in(&world, "default/batch", "10.9.9.9")
    );
    assert!(!lets_in(&world, "default/web", "10.9.9.9"));
}

#[test]
fn d14_a_destination_by_each_scheme() {
    for schemes in [
        "{serviceAccount: web}",
        "{podLabelSelector: {matchLabels: {app: web}}}",
        "{spiffeIdentities: [cluster.local/ns/default/sa/web]}",
    ] {
        let world = with(&[to_binding(), binding("called", schemes)]);
        assert!(lets_in(&world, "default/front", "10.9.9.9"), "{schemes}");
        assert!(!lets_in(&world, "default/other", "10.9.9.9"), "{schemes}");
    }
    for schemes in [
        "{serviceAccount: other}",
        "{podLabelSelector: {matchLabels: {app: web, tier: x}}}",
        "{spiffeIdentities: [cluster.local/ns/other/sa/web]}",
    ] {
        let world = with(&[to_binding(), binding("called", schemes)]);
        assert!(!lets_in(&world, "default/front", "10.9.9.9"), "{schemes}");
    }
}

#[test]
fn d07_a_missing_binding_is_nobody() {
    for target in [from_binding(), to_binding()] {
        let world = with(&[target]);
        assert!(!lets_in(&world, "default/front", "10.9.9.9"));
    }
    let foreign = binding("callers", "{serviceAccount: front}")
        .replace("namespace: default", "namespace: other");
    assert!(!lets_in(
        &with(&[from_binding(), foreign]),
        "default/front",
        "10.9.9.9"
    ));
}

#[test]
fn d09_udp_routes_stand_alone_in_the_computed_policy() {
    let ports = |world: &World| {
        let reader = Reader::new(world);
        let pod = reader.pod("default", "web-1").unwrap();
        let allow = allow_udp(&reader, pod).into_iter();
        allow.map(|allow| allow.ports).collect::<Vec<_>>()
    };
    let both = "[{kind: UDPRoute, name: u}, {kind: TCPRoute, name: t}]";
    let dns = service_with(
        "dns",
        "web",
        "10.96.0.9",
        "[{port: 53, protocol: UDP, targetPort: 5353}, {port: 8302, targetPort: 1}]",
    );
    let world = with(&[
        udp("u", "[53, 8302]"),
        tcp("t", "[8300]"),
        dns,
        target("t", &["default/front"], both),
    ]);
    assert_eq!(ports(&world), [Ports::Only(vec![5353, 8302])]);
    assert!(may_connect(&world, "web-1", "default/front", 8300));
    assert!(!may_connect(&world, "web-1", "default/front", 8302));
    let missing = with(&[tcp("t", "[8300]"), target("t", &["default/front"], both)]);
    assert_eq!(ports(&missing), [] as [Ports; 0]);
}
