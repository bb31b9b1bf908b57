//! What canary tools write, in the versions and in the order they write it, through the source of folders into the views:
//! each step is in force as written, and every object reads back as its tool wrote it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::smi::convert::convert;
use crate::source::folders::{Content, Folders};
use crate::views::fixtures::*;
use serde_json::{Value, json};

/// A folder, and the index it feeds.
struct Mesh {
    folders: Folders,
    index: Index,
}

impl Mesh {
    fn new() -> Self {
        Self {
            folders: Folders::default(),
            index: Index::new(strict(), []),
        }
    }

    fn write(&mut self, file: &str, text: &str) {
        self.folders.set(0, file, Content::Text(text));
        self.index.apply(self.folders.events());
    }

    /// Writes an object as its tool does; and an API server that stores it reads it back unchanged.
    fn apply(&mut self, object: &Value) {
        let written = object["apiVersion"].as_str().unwrap();
        let group = written.split('/').next().unwrap();
        let stored = convert(object.clone(), &format!("{group}/v1alpha4")).unwrap();
        assert_eq!(convert(stored.clone(), written).unwrap(), *object);
        self.write("split.yaml", &stored.to_string());
        let of_stored = self.shares();
        self.write("split.yaml", &object.to_string());
        assert_eq!(self.shares(), of_stored);
    }

    /// `backend=weight …` of the first Service's route.
    fn shares(&self) -> String {
        let service = self.index.read(|world| routed(world, "10.96.0.1:80"));
        let backends = service.routes.iter().flat_map(|route| &route.backends);
        let shown = backends.map(|it| format!("{}={}", it.name.name, it.weight));
        shown.collect::<Vec<_>>().join(" ")
    }
}

/// A split; in v1alpha1 with quantities as Go clients write them.
fn split_of(version: &str, root: &str, backends: &[(&str, u64)]) -> Value {
    let weight = |weight: u64| match (version, weight) {
        ("v1alpha1", 1000) => json!("1e3"),
        ("v1alpha1", weight) => json!(weight.to_string()),
        _ => json!(weight),
    };
    let backends: Vec<Value> = backends
        .iter()
        .map(|(service, share)| json!({"service": service, "weight": weight(*share)}))
        .collect();
    json!({
        "apiVersion": format!("split.smi-spec.io/{version}"),
        "kind": "TrafficSplit",
        "metadata": {
            "name": "podinfo",
            "namespace": "default",
            "uid": "6f7d",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 3,
            "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled"},
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "uid": "1", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"service": root, "backends": backends},
    })
}

#[test]
fn flagger_shifts_promotes_and_rolls_back() {
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let mut mesh = Mesh::new();
        let step = |canary, primary| {
            split_of(
                version,
                "podinfo",
                &[("podinfo-canary", canary), ("podinfo-primary", primary)],
            )
        };
        // The apex and the split come in any order; the canary has no endpoints at first.
        mesh.write(
            "apex.yaml",
            &service("podinfo", "podinfo-primary", "10.96.0.1"),
        );
        mesh.apply(&step(0, 100));
        assert_eq!(mesh.shares(), "", "no backend exists yet");
        mesh.write(
            "primary.yaml",
            &service("podinfo-primary", "podinfo-primary", "10.96.0.2"),
        );
        assert_eq!(mesh.shares(), "podinfo-primary=100");
        mesh.write(
            "canary.yaml",
            &service("podinfo-canary", "podinfo", "10.96.0.3"),
        );
        for (canary, primary) in [
            (0, 100),
            (5, 95),
            (50, 50),
            (100, 0),
            (0, 100),
            (0, 1000),
            (5, 95),
            (0, 100),
        ] {
            mesh.apply(&step(canary, primary));
            let expected = format!("podinfo-canary={canary} podinfo-primary={primary}");
            assert_eq!(mesh.shares(), expected, "{version}");
        }
        // A version that has never been: the split stays as it is.
        let mut newer = step(7, 93);
        newer["apiVersion"] = json!("split.smi-spec.io/v1alpha5");
        mesh.write("split.yaml", &newer.to_string());
        assert_eq!(mesh.shares(), "podinfo-canary=0 podinfo-primary=100");
    }
}

#[test]
fn argo_rollouts_has_the_stable_service_as_root_and_backend() {
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let mut mesh = Mesh::new();
        let step =
            |canary, stable| split_of(version, "stable", &[("canary", canary), ("stable", stable)]);
        mesh.write(
            "services.yaml",
            &(service("stable", "a", "10.96.0.1") + &service("canary", "b", "10.96.0.2")),
        );
        for (canary, stable) in [(0, 100), (20, 80), (100, 0), (0, 100)] {
            mesh.apply(&step(canary, stable));
            assert_eq!(mesh.shares(), format!("canary={canary} stable={stable}"));
        }
        // An experiment adds a backend of its own, and takes it away again.
        mesh.write("experiment.yaml", &service("experiment", "c", "10.96.0.4"));
        mesh.apply(&split_of(
            version,
            "stable",
            &[("canary", 10), ("experiment", 5), ("stable", 85)],
        ));
        assert_eq!(mesh.shares(), "canary=10 experiment=5 stable=85");
        mesh.apply(&step(10, 90));
        assert_eq!(mesh.shares(), "canary=10 stable=90");
    }
}

#[test]
fn linkerd_failover_moves_all_weight_when_the_primary_is_gone() {
    let mut mesh = Mesh::new();
    let step = |primary, first, second| {
        let mut split = split_of(
            "v1alpha2",
            "web",
            &[("web", primary), ("east", first), ("west", second)],
        );
        split["metadata"]["labels"] =
            json!({"failover.linkerd.io/controlled-by": "linkerd-failover"});
        split["metadata"]["annotations"] = json!({"failover.linkerd.io/primary-service": "web"});
        split
    };
    let services = [
        ("web", "10.96.0.1"),
        ("east", "10.96.0.2"),
        ("west", "10.96.0.3"),
    ];
    let services = services.map(|(name, ip)| service(name, name, ip)).concat();
    mesh.write("services.yaml", &services);
    for (weights, expected) in [
        ((1, 0, 0), "web=1 east=0 west=0"),
        ((0, 1, 1), "web=0 east=1 west=1"),
        ((0, 0, 1), "web=0 east=0 west=1"),
        ((0, 0, 0), "web=0 east=0 west=0"),
        ((1, 0, 0), "web=1 east=0 west=0"),
    ] {
        mesh.apply(&step(weights.0, weights.1, weights.2));
        assert_eq!(mesh.shares(), expected);
    }
}
