#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::workload::{Container, Workload};
use std::sync::Arc;

fn want(style: Style, replicas: u32) -> Desired {
    Desired {
        key: ObjectKey::new(Kind::Deployment, "default", "web"),
        style,
        replicas,
        template: PodTemplate::default(),
        hash: "new".into(),
    }
}

/// `n1` = new and ready, `n0` = new and not ready, `o1`, `o0` the same of old ones; `x` in front: being deleted.
fn pods(text: &str) -> Vec<Actual> {
    text.split_whitespace()
        .enumerate()
        .map(|(place, word)| {
            let deleting = word.starts_with('x');
            let word = word.trim_start_matches('x');
            Actual {
                name: format!("p-{place}"),
                hash: if word.starts_with('n') {
                    "new".into()
                } else {
                    "old".into()
                },
                ready: word.ends_with('1'),
                finished: false,
                deleting,
            }
        })
        .collect()
}

fn shown(actions: &[Action]) -> String {
    let word = |action: &Action| match action {
        Action::Create(None) => "+".to_owned(),
        Action::Create(Some(number)) => format!("+{number}"),
        Action::Delete(name) => format!("-{}", name.trim_start_matches("p-")),
    };
    actions.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn rolling_never_has_less_than_wanted() {
    for (replicas, there, next) in [
        (2, "", "+ +"),
        (2, "n1 n1", ""),
        (2, "o1 o1", "+"),
        (2, "o1 o1 n0", ""),
        (2, "o1 o1 n1", "-0"),
        (2, "xo1 o1 n1", "+"),
        (2, "xo1 o1 n1 n0", ""),
        (2, "xo1 o1 n1 n1", "-1"),
        (2, "o0 o1", "+ -0"),
        (1, "o1", "+"),
        (1, "o1 n1", "-0"),
        (1, "n1 n1", "-0"),
        (1, "n1 n0", "-1"),
        (0, "n1 o1", "-1 -0"),
        (3, "n1", "+ +"),
    ] {
        assert_eq!(
            shown(&plan(&want(Style::Surge, replicas), &pods(there))),
            next,
            "{replicas}: {there}"
        );
    }
}

#[test]
fn recreating_empties_first() {
    for (there, next) in [
        ("o1 o1", "-0 -1"),
        ("xo1 o1", "-1"),
        ("xo1 xo1", ""),
        ("", "+ +"),
        ("n1", "+"),
    ] {
        assert_eq!(
            shown(&plan(&want(Style::Recreate, 2), &pods(there))),
            next,
            "{there}"
        );
    }
}

#[test]
fn numbered_pods_one_after_another() {
    for (there, next) in [
        ("", "+0"),
        ("n0", ""),
        ("n1", "+1"),
        ("n1 n1", ""),
        ("o1 o1", "-1"),
        ("o1 n0", ""),
        ("o1 n1", "-0"),
        ("o1 xo1", ""),
        ("n1 n1 n1", "-2"),
    ] {
        assert_eq!(
            shown(&plan(&want(Style::Ordinal, 2), &pods(there))),
            next,
            "{there}"
        );
    }
}

#[test]
fn once_is_once() {
    assert_eq!(shown(&plan(&want(Style::Once, 1), &[])), "+");
    let mut done = pods("n0");
    done[0].finished = true;
    assert_eq!(plan(&want(Style::Once, 1), &done), []);
}

#[test]
fn pods_are_named_and_owned_as_in_kubernetes() {
    let mut workload = Workload::default();
    workload
        .spec
        .template
        .metadata
        .labels
        .insert("app".into(), "web".into());
    let key = ObjectKey::new(Kind::Deployment, "shop", "web");
    let first = desired(&key, &Object::Deployment(Arc::new(workload.clone())), 0).unwrap();
    let pod = make(&first, None, &mut || 7);
    let set = format!("web-{}", first.hash);
    assert!(
        pod.metadata.name.starts_with(&format!("{set}-"))
            && pod.metadata.name.len() == set.len() + 6
    );
    assert_eq!(
        (
            pod.metadata.owner_references[0].kind.as_str(),
            &pod.metadata.owner_references[0].name
        ),
        ("ReplicaSet", &set)
    );
    assert_eq!(pod.metadata.labels["pod-template-hash"], first.hash);

    let again = desired(&key, &Object::Deployment(Arc::new(workload.clone())), 1).unwrap();
    assert_ne!(again.hash, first.hash, "a restart makes another hash");
    workload.spec.template.spec.containers.push(Container {
        name: "app".into(),
        ..Container::default()
    });
    let changed = desired(&key, &Object::Deployment(Arc::new(workload.clone())), 0).unwrap();
    assert_ne!(changed.hash, first.hash);
    workload.spec.replicas = Some(9);
    let scaled = desired(&key, &Object::Deployment(Arc::new(workload)), 0).unwrap();
    assert_eq!(scaled.hash, changed.hash, "scaling replaces nobody");

    let key = ObjectKey::new(Kind::StatefulSet, "shop", "db");
    let set = desired(&key, &Object::StatefulSet(Arc::default()), 0).unwrap();
    assert_eq!(make(&set, Some(2), &mut || 1).metadata.name, "db-2");
}
