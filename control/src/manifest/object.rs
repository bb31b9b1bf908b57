//! One tree to one object: which kind it is, and its checked form.

use super::de::from_node;
use super::k8s::ObjectMeta;
use super::report::{Field, Report, check_name, is_label};
use super::yaml::{Node, Value, short};
use super::{Kind, Object, ObjectKey};
use crate::policy;
use crate::smi::{self, Groups};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What became of one tree.
pub(super) struct Outcome {
    /// Its name, as far as it could be read.
    pub key: Option<ObjectKey>,
    /// The object, if nothing forbids it.
    pub object: Option<Object>,
    /// What is wrong with it.
    pub report: Report,
    /// A kind the mesh has nothing to do with.
    pub ignored: bool,
}

/// How a kind is recognised: group and version, name, and whether it lives in a namespace.
const KNOWN: &[(&str, &str, Kind)] = &[
    ("v1", "Namespace", Kind::Namespace),
    ("v1", "ServiceAccount", Kind::ServiceAccount),
    ("v1", "ConfigMap", Kind::ConfigMap),
    ("v1", "Service", Kind::Service),
    ("v1", "Endpoints", Kind::Endpoints),
    ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
    ("v1", "Pod", Kind::Pod),
    ("apps/v1", "Deployment", Kind::Deployment),
    ("apps/v1", "StatefulSet", Kind::StatefulSet),
    ("apps/v1", "DaemonSet", Kind::DaemonSet),
    ("apps/v1", "ReplicaSet", Kind::ReplicaSet),
    ("batch/v1", "Job", Kind::Job),
    ("batch/v1", "CronJob", Kind::CronJob),
];

/// The object a tree describes. `api_version` and `kind` stand in where a list's item omits them.
pub(super) fn build(
    node: &Node,
    api_version: Option<&str>,
    kind: Option<&str>,
    groups: Groups,
) -> Outcome {
    let mut report = Report::default();
    let (key, object) = match read(node, (api_version, kind), groups, &mut report) {
        Some((key, object)) => (Some(key), object),
        None => (None, None),
    };
    let ignored = matches!(object, Some(Object::Other { .. }));
    Outcome {
        key,
        object: object.filter(|_| !report.failed()),
        report,
        ignored,
    }
}

type Read = Option<(ObjectKey, Option<Object>)>;

fn read(
    node: &Node,
    (api_version, kind): (Option<&str>, Option<&str>),
    groups: Groups,
    report: &mut Report,
) -> Read {
    let root = Field::root(node);
    if !matches!(node.value, Value::Map(_)) {
        report.error(
            &root,
            format!(
                "a manifest must be a map with apiVersion and kind, not {}",
                node.value.describe()
            ),
        );
        return None;
    }
    let api_version = text_or(&root.get("apiVersion"), api_version, report);
    let kind = text_or(&root.get("kind"), kind, report);
    let (api_version, kind) = (api_version?, kind?);
    if let Some((_, _, known)) = KNOWN
        .iter()
        .find(|(version, name, _)| (*version, *name) == (api_version, kind))
    {
        return read_kubernetes(node, known.clone(), report);
    }
    if let Some((group, version)) = api_version.split_once('/')
        && group == policy::GROUP
    {
        return read_own(node, version, kind, report);
    }
    match smi::lookup(api_version, kind, groups) {
        smi::Lookup::Known(version, known) => read_smi(node, version, known, report),
        smi::Lookup::Unsupported {
            field,
            message,
            kind,
        } => {
            report.error(&root.get(field), message);
            Some((key_of(&root, kind?, report)?, None))
        }
        smi::Lookup::NotSmi => Some(read_other(&root, api_version, kind, report)),
    }
}

fn text_or<'a>(
    field: &Field<'a>,
    otherwise: Option<&'a str>,
    report: &mut Report,
) -> Option<&'a str> {
    match otherwise {
        Some(otherwise) if !field.is_present() => Some(otherwise),
        _ => field.text(report),
    }
}

fn read_other(
    root: &Field<'_>,
    api_version: &str,
    kind: &str,
    report: &mut Report,
) -> (ObjectKey, Option<Object>) {
    let cut = |text: &str| -> String { text.chars().take(253).collect() };
    let text = |name: &str| match root.get("metadata").get(name).value() {
        Some(Value::Text(text)) => cut(text),
        _ => String::new(),
    };
    if let Some((version, ..)) = KNOWN
        .iter()
        .find(|(version, name, _)| *name == kind && same_group(version, api_version))
    {
        let version =
            format!("this version is not read and the object is ignored; write {version}");
        report.warn(&root.get("apiVersion"), version);
    }
    let group = api_version
        .rsplit_once('/')
        .map_or(String::new(), |(group, _)| format!("{}/", cut(group)));
    let key = ObjectKey::new(
        Kind::Other(format!("{group}{}", cut(kind)).into()),
        text("namespace"),
        text("name"),
    );
    (
        key,
        Some(Object::Other {
            api_version: cut(api_version),
            kind: cut(kind),
        }),
    )
}

/// `extensions` is where several kinds lived before they moved to groups of their own.
fn same_group(known: &str, written: &str) -> bool {
    let group = |version: &str| {
        version
            .rsplit_once('/')
            .map_or(String::new(), |(group, _)| group.to_owned())
    };
    group(known) == group(written) || group(written) == "extensions"
}

/// Name and namespace, checked.
fn key_of(root: &Field<'_>, kind: Kind, report: &mut Report) -> Option<ObjectKey> {
    let metadata = root.get("metadata");
    let name = metadata.get("name").name(report)?;
    // Names that become part of a host name must be labels.
    if matches!(kind, Kind::Service | Kind::Namespace) && !(is_label(name) && name.len() <= 63) {
        report.error(
            &metadata.get("name"),
            format!(
                "{} is not a DNS label of at most 63 characters",
                short(name)
            ),
        );
        return None;
    }
    let namespace = match kind {
        Kind::Namespace => "",
        _ => namespace_of(&metadata.get("namespace"), report)?,
    };
    Some(ObjectKey::new(kind, namespace, name))
}

fn namespace_of<'a>(field: &Field<'a>, report: &mut Report) -> Option<&'a str> {
    match field.text_if_any(report)? {
        None | Some("") => Some("default"),
        Some(namespace) if is_label(namespace) && namespace.len() <= 63 => Some(namespace),
        Some(namespace) => {
            let why = check_name(namespace)
                .err()
                .unwrap_or_else(|| format!("{} is not a DNS label", short(namespace)));
            report.error(field, why);
            None
        }
    }
}

fn read_kubernetes(node: &Node, kind: Kind, report: &mut Report) -> Read {
    let root = Field::root(node);
    let key = key_of(&root, kind, report)?;
    let object = match key.kind {
        Kind::Namespace => typed(node, &key, report, Object::Namespace, |it| &mut it.metadata),
        Kind::ServiceAccount => typed(node, &key, report, Object::ServiceAccount, |it| {
            &mut it.metadata
        }),
        Kind::ConfigMap => typed(node, &key, report, Object::ConfigMap, |it| &mut it.metadata),
        Kind::Service => typed(node, &key, report, Object::Service, |it| &mut it.metadata),
        Kind::Endpoints => typed(node, &key, report, Object::Endpoints, |it| &mut it.metadata),
        Kind::EndpointSlice => typed(node, &key, report, Object::EndpointSlice, |it| {
            &mut it.metadata
        }),
        Kind::Pod => typed(node, &key, report, Object::Pod, |it| &mut it.metadata),
        Kind::Deployment => typed(node, &key, report, Object::Deployment, |it| {
            &mut it.metadata
        }),
        Kind::StatefulSet => typed(node, &key, report, Object::StatefulSet, |it| {
            &mut it.metadata
        }),
        Kind::DaemonSet => typed(node, &key, report, Object::DaemonSet, |it| &mut it.metadata),
        Kind::ReplicaSet => typed(node, &key, report, Object::ReplicaSet, |it| {
            &mut it.metadata
        }),
        Kind::Job => typed(node, &key, report, Object::Job, |it| &mut it.metadata),
        Kind::CronJob => typed(node, &key, report, Object::CronJob, |it| &mut it.metadata),
        _ => None,
    };
    Some((key, object))
}

fn typed<T: DeserializeOwned>(
    node: &Node,
    key: &ObjectKey,
    report: &mut Report,
    wrap: impl FnOnce(Arc<T>) -> Object,
    metadata: impl FnOnce(&mut T) -> &mut ObjectMeta,
) -> Option<Object> {
    match from_node::<T>(node) {
        Ok(mut object) => {
            let metadata = metadata(&mut object);
            metadata.namespace.clone_from(&key.namespace);
            Some(wrap(Arc::new(object)))
        }
        Err(mismatch) => {
            let place = Field::at(mismatch.path, mismatch.line);
            report.error(&place, mismatch.message);
            None
        }
    }
}

fn read_smi(node: &Node, version: smi::Version, kind: Kind, report: &mut Report) -> Read {
    let root = Field::root(node);
    let key = key_of(&root, kind, report)?;
    let Some(metadata) = metadata(node, &key, report) else {
        return Some((key, None));
    };
    let object = smi::read(&root, metadata, version, &key.kind, report);
    Some((key, object))
}

/// A kind of Weft's own group: there is one, in one version.
fn read_own(node: &Node, version: &str, kind: &str, report: &mut Report) -> Read {
    let root = Field::root(node);
    if kind != policy::KIND {
        let message = format!(
            "{} is not a kind of {}; there is {}",
            short(kind),
            policy::GROUP,
            policy::KIND
        );
        report.error(&root.get("kind"), message);
        return None;
    }
    let key = key_of(&root, Kind::ServicePolicy, report)?;
    if version != policy::VERSION {
        let message = format!(
            "{} is not a supported version; supported: {}/{}",
            short(version),
            policy::GROUP,
            policy::VERSION
        );
        report.error(&root.get("apiVersion"), message);
        return Some((key, None));
    }
    let read =
        metadata(node, &key, report).and_then(|metadata| policy::read(&root, metadata, report));
    Some((key, read.map(Arc::new).map(Object::ServicePolicy)))
}

fn metadata(node: &Node, key: &ObjectKey, report: &mut Report) -> Option<ObjectMeta> {
    match from_node::<ObjectMeta>(node.get("metadata")?) {
        Ok(metadata) => Some(ObjectMeta {
            namespace: key.namespace.clone(),
            ..metadata
        }),
        Err(mismatch) => {
            report.error(
                &Field::at(format!("metadata.{}", mismatch.path), mismatch.line),
                mismatch.message,
            );
            None
        }
    }
}
