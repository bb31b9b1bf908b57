//! From workloads to pods: which pods there should be, and what to do next about those there are. Pure.

use std::hash::{Hash, Hasher};

use crate::manifest::k8s::{ObjectMeta, OwnerReference};
use crate::manifest::workload::{Pod, PodTemplate};
use crate::manifest::{Kind, Object, ObjectKey};

/// How pods of a workload are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Any name; a new one first, then an old one less.
    Surge,
    /// Any name; all old ones end first.
    Recreate,
    /// Numbered names; one at a time, the same name again.
    Ordinal,
    /// Runs once.
    Once,
    /// The pod itself.
    Bare,
}

/// What should be there for one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    pub(crate) key: ObjectKey,
    pub(crate) style: Style,
    pub(crate) replicas: u32,
    pub(crate) template: PodTemplate,
    /// Of the template; other pods are outdated.
    pub(crate) hash: String,
}

/// A pod that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actual {
    pub(crate) name: String,
    pub(crate) hash: String,
    pub(crate) ready: bool,
    pub(crate) finished: bool,
    pub(crate) deleting: bool,
}

/// What to do now. More follows when it has taken effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a pod; the number for those that have one.
    Create(Option<u32>),
    /// End this pod.
    Delete(String),
}

/// Most pods of one workload on one machine.
const MAX_REPLICAS: u32 = 500;

/// What an object wants, if it is one that makes pods. `stamp` changes with every restart asked for.
pub(crate) fn desired(key: &ObjectKey, object: &Object, stamp: u64) -> Option<Desired> {
    let (style, replicas, template) = match object {
        Object::Deployment(w) => {
            let recreate =
                w.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
            (
                if recreate {
                    Style::Recreate
                } else {
                    Style::Surge
                },
                w.spec.replicas.unwrap_or(1),
                w.spec.template.clone(),
            )
        }
        Object::ReplicaSet(w) => (
            Style::Surge,
            w.spec.replicas.unwrap_or(1),
            w.spec.template.clone(),
        ),
        Object::StatefulSet(w) => (
            Style::Ordinal,
            w.spec.replicas.unwrap_or(1),
            w.spec.template.clone(),
        ),
        Object::DaemonSet(w) => (Style::Surge, 1, w.spec.template.clone()),
        Object::Job(j) => (
            Style::Once,
            j.spec.completions.unwrap_or(1),
            j.spec.template.clone(),
        ),
        Object::Pod(p) => (
            Style::Bare,
            1,
            PodTemplate {
                metadata: p.metadata.clone(),
                spec: p.spec.clone(),
            },
        ),
        _ => return None,
    };
    let hash = hash(&template, stamp);
    Some(Desired {
        key: key.clone(),
        style,
        replicas: replicas.min(MAX_REPLICAS),
        template,
        hash,
    })
}

/// What to do next. `pods` are the workload's own.
pub(crate) fn plan(desired: &Desired, pods: &[Actual]) -> Vec<Action> {
    match desired.style {
        Style::Surge => surge(desired, pods),
        Style::Recreate => recreate(desired, pods),
        Style::Ordinal => ordinal(desired, pods),
        Style::Once => {
            let missing = (desired.replicas as usize).saturating_sub(pods.len());
            vec![Action::Create(None); missing]
        }
        Style::Bare => match pods {
            [] => vec![Action::Create(None)],
            [pod] if pod.hash != desired.hash && !pod.deleting => {
                vec![Action::Delete(pod.name.clone())]
            }
            _ => vec![],
        },
    }
}

/// One more than wanted, never one less: first a new pod, and when it is ready an old one goes.
fn surge(desired: &Desired, pods: &[Actual]) -> Vec<Action> {
    let wanted = desired.replicas as usize;
    let live = || pods.iter().filter(|pod| !pod.deleting);
    let (new, old): (Vec<_>, Vec<_>) = live().partition(|pod| pod.hash == desired.hash);
    let mut actions = Vec::new();
    let room = if old.is_empty() { wanted } else { wanted + 1 };
    let missing = wanted
        .saturating_sub(new.len())
        .min(room.saturating_sub(new.len() + old.len()));
    actions.extend(vec![Action::Create(None); missing]);
    let mut ready = live().filter(|pod| pod.ready).count();
    for pod in unready_first(&old) {
        if pod.ready {
            if ready <= wanted {
                break;
            }
            ready -= 1;
        }
        actions.push(Action::Delete(pod.name.clone()));
    }
    for pod in unready_first(&new)
        .into_iter()
        .take(new.len().saturating_sub(wanted))
    {
        actions.push(Action::Delete(pod.name.clone()));
    }
    actions
}

fn unready_first<'a>(pods: &[&'a Actual]) -> Vec<&'a Actual> {
    let mut pods = pods.to_vec();
    pods.sort_by_key(|pod| (pod.ready, pod.name.clone()));
    pods
}

fn recreate(desired: &Desired, pods: &[Actual]) -> Vec<Action> {
    let old: Vec<_> = pods.iter().filter(|pod| pod.hash != desired.hash).collect();
    if old.is_empty() {
        return surge(desired, pods);
    }
    old.iter()
        .filter(|pod| !pod.deleting)
        .map(|pod| Action::Delete(pod.name.clone()))
        .collect()
}

fn ordinal(desired: &Desired, pods: &[Actual]) -> Vec<Action> {
    let number = |pod: &Actual| {
        pod.name
            .rsplit('-')
            .next()
            .and_then(|n| n.parse::<u32>().ok())
    };
    let at = |wanted: u32| pods.iter().find(|pod| number(pod) == Some(wanted));
    let surplus: Vec<_> = pods
        .iter()
        .filter(|pod| !pod.deleting && number(pod).is_none_or(|n| n >= desired.replicas))
        .map(|pod| Action::Delete(pod.name.clone()))
        .collect();
    if !surplus.is_empty() {
        return surplus;
    }
    // Upwards when filling, each after the one before it is ready.
    for wanted in 0..desired.replicas {
        match at(wanted) {
            None => return vec![Action::Create(Some(wanted))],
            Some(pod) if pod.hash == desired.hash && !pod.ready => return vec![],
            Some(pod) if pod.deleting => return vec![],
            Some(_) => {}
        }
    }
    // Downwards when replacing.
    let outdated = (0..desired.replicas)
        .rev()
        .filter_map(at)
        .find(|pod| pod.hash != desired.hash);
    outdated
        .map(|pod| vec![Action::Delete(pod.name.clone())])
        .unwrap_or_default()
}

/// A pod made from a template, named and owned as Kubernetes does it.
pub(crate) fn make(desired: &Desired, number: Option<u32>, random: &mut dyn FnMut() -> u64) -> Pod {
    let Desired {
        key,
        template,
        hash,
        ..
    } = desired;
    let mut pod = Pod {
        metadata: template.metadata.clone(),
        spec: template.spec.clone(),
        ..Pod::default()
    };
    let tail = word(random(), 5);
    let set = format!("{}-{hash}", cut(&key.name, 52));
    let (name, owner) = match (&key.kind, number) {
        (Kind::Pod, _) => (key.name.clone(), None),
        (Kind::Deployment, _) => (
            format!("{set}-{tail}"),
            Some(("apps/v1", "ReplicaSet", set.clone())),
        ),
        (Kind::StatefulSet, number) => (
            format!("{}-{}", key.name, number.unwrap_or(0)),
            Some(("apps/v1", "StatefulSet", key.name.clone())),
        ),
        (Kind::Job, _) => (
            format!("{}-{tail}", cut(&key.name, 57)),
            Some(("batch/v1", "Job", key.name.clone())),
        ),
        (kind, _) => (
            format!("{}-{tail}", cut(&key.name, 57)),
            Some(("apps/v1", kind.as_str(), key.name.clone())),
        ),
    };
    let meta: &mut ObjectMeta = &mut pod.metadata;
    if key.kind == Kind::Deployment {
        meta.labels.insert("pod-template-hash".into(), hash.clone());
    }
    if key.kind == Kind::StatefulSet {
        meta.labels
            .insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
        meta.labels.insert(
            "apps.kubernetes.io/pod-index".into(),
            number.unwrap_or(0).to_string(),
        );
    }
    meta.owner_references = owner
        .map(|(api_version, kind, name)| OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            uid: uid(&format!("{kind}/{}/{name}", key.namespace)),
            name,
            controller: Some(true),
        })
        .into_iter()
        .collect();
    meta.name = name;
    meta.namespace = key.namespace.clone();
    meta.uid = Some(format!(
        "{:08x}-0000-4000-8000-{:012x}",
        random() as u32,
        random() & 0xffff_ffff_ffff
    ));
    pod
}

fn cut(name: &str, longest: usize) -> &str {
    name.get(..longest)
        .unwrap_or(name)
        .trim_end_matches(['-', '.'])
}

/// The same text, the same id: owners are not objects here.
fn uid(of: &str) -> String {
    let number = digest(&of);
    format!(
        "{:08x}-0000-4000-8000-{:012x}",
        number >> 32,
        number & 0xffff_ffff_ffff
    )
}

fn hash(template: &PodTemplate, stamp: u64) -> String {
    let text = serde_json::to_string(template).unwrap_or_default();
    word(digest(&(text, stamp)), 9)
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Letters and digits that make no words, as Kubernetes uses them.
fn word(mut number: u64, length: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length)
        .map(|_| {
            let letter = LETTERS[(number % LETTERS.len() as u64) as usize];
            number /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
