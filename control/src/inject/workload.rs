//! Which objects of a document make pods, where their pod template is, and whether a pod may be injected at all.

use super::settings::{self, Config, Settings};
use super::spans::{Document, Node};
use super::values::printable;
use super::{patch, report};
use serde_json::{Map, Value};
use weft_proxy_api::names::{PROXY_UID, inject as ours, keys, ports};

/// An object of a document.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// The object in the text.
    pub node: &'a Node,
    /// From the document's root to it: indexes of lists within lists.
    pub items: Vec<usize>,
    /// `deployment "web"`.
    pub title: String,
    /// Its kind has pods: keys from the object to what has `metadata` and `spec` of a pod.
    pub template: Option<&'static [&'static str]>,
}

/// All objects of a document, those of lists one by one.
pub(super) fn objects(document: &Document) -> Vec<Object<'_>> {
    let mut found = vec![];
    if let Some(root) = document.root.as_ref().filter(|root| !root.is_null()) {
        collect(root, vec![], &mut found);
    }
    found
}

fn collect<'a>(node: &'a Node, items: Vec<usize>, found: &mut Vec<Object<'a>>) {
    let text = |key| node.get(key).and_then(Node::as_str);
    let kind = text("kind").unwrap_or("document");
    if let Some(list) = node
        .get("items")
        .filter(|_| kind.ends_with("List") && items.len() < 4)
    {
        for (index, item) in list.items().iter().enumerate() {
            collect(item, items.iter().copied().chain([index]).collect(), found);
        }
        return;
    }
    let metadata = node.get("metadata");
    let name = ["name", "generateName"]
        .iter()
        .find_map(|key| metadata?.get(key)?.as_str());
    let template = template(text("apiVersion").unwrap_or_default(), kind);
    found.push(Object {
        node,
        items,
        title: report::title(kind, name),
        template,
    });
}

/// Where the kind keeps its pod template.
fn template(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController") => Some(&["spec", "template"]),
        ("apps" | "extensions", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => {
            Some(&["spec", "template"])
        }
        ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        ("argoproj.io", "Rollout") => Some(&["spec", "template"]),
        _ => None,
    }
}

impl Object<'_> {
    /// The object in the document's value.
    pub(super) fn value<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        let item = |value: &'v Value, index: &usize| value.get("items")?.get(*index);
        self.items.iter().try_fold(document, item)
    }

    /// Its pod or pod template in the document's value.
    pub(super) fn pod<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        let mut keys = self.template?.iter();
        keys.try_fold(self.value(document)?, |value, key| value.get(key))
    }

    /// The same, to be changed.
    pub(super) fn pod_mut<'v>(&self, document: &'v mut Value) -> Option<&'v mut Value> {
        let item = |value: &'v mut Value, index: &usize| value.get_mut("items")?.get_mut(*index);
        let object = self.items.iter().try_fold(document, item)?;
        self.template?
            .iter()
            .try_fold(object, |value, key| value.get_mut(key))
    }
}

/// The annotations of an object or template, as far as it has any.
pub(super) fn annotations(of: &Value) -> Map<String, Value> {
    of.pointer("/metadata/annotations")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// May this pod be injected, and how?
pub(super) enum Decision {
    /// Yes, with these settings; `scrape`: it gets annotations for Prometheus.
    Inject {
        /// Settings of this pod.
        config: Config,
        /// With annotations for Prometheus?
        scrape: bool,
    },
    /// No, and that is fine.
    Skip(String),
    /// No, and somebody should know.
    SkipWithWarning(String),
    /// No: these things are wrong.
    Refuse(Vec<String>),
}

/// Decides about a pod by its `metadata` and `spec`.
pub(super) fn decide(settings: &Settings, pod: &Value) -> Decision {
    let annotations = annotations(pod);
    match settings::disabled(&annotations) {
        Ok(true) => return Decision::Skip(format!("annotation {} says so", keys::INJECT)),
        Ok(false) => {}
        Err(mistake) => return Decision::Refuse(vec![mistake]),
    }
    if is_injected(pod) {
        return Decision::Skip("already injected".to_owned());
    }
    if let Some(decision) = by_spec(pod) {
        return decision;
    }
    match Config::read(settings, &annotations) {
        Ok(config) => {
            let scrape = settings.scrape
                && !annotations
                    .keys()
                    .any(|key| key.starts_with("prometheus.io/"));
            Decision::Inject { config, scrape }
        }
        Err(mistakes) => Decision::Refuse(mistakes),
    }
}

fn by_spec(pod: &Value) -> Option<Decision> {
    let spec = &pod["spec"];
    if containers(spec, "containers").next().is_none() {
        return Some(Decision::Skip("it has no containers".to_owned()));
    }
    if spec["hostNetwork"] == true {
        return Some(Decision::Skip(
            "it has the network of its host (hostNetwork: true)".to_owned(),
        ));
    }
    let os = [
        &spec["os"]["name"],
        &spec["nodeSelector"]["kubernetes.io/os"],
    ];
    if os.iter().any(|os| *os == "windows") {
        return Some(Decision::Skip("it runs on Windows".to_owned()));
    }
    if let Some(name) = all_containers(spec)
        .filter_map(|c| c["name"].as_str())
        .find(|name| is_our_container(name))
    {
        return Some(Decision::Skip(format!(
            "it has a container {name:?}, put in by hand"
        )));
    }
    if let Some(name) = all_containers(spec).find_map(foreign_sidecar) {
        return Some(Decision::SkipWithWarning(format!(
            "it has another sidecar already, container {name:?}"
        )));
    }
    let mistakes: Vec<_> = mistakes(spec).collect();
    (!mistakes.is_empty()).then_some(Decision::Refuse(mistakes))
}

fn foreign_sidecar(container: &Value) -> Option<&str> {
    let known = [
        "linkerd-proxy",
        "linkerd-init",
        "istio-proxy",
        "istio-init",
        "envoy",
        "envoy-sidecar",
        "kuma-sidecar",
        "kuma-init",
        "consul-dataplane",
        "osm-init",
    ];
    container["name"]
        .as_str()
        .filter(|name| known.contains(name))
}

/// What would not work, or would open a way around the mesh.
fn mistakes(spec: &Value) -> impl Iterator<Item = String> {
    let uid = |context: &Value| context["securityContext"]["runAsUser"] == PROXY_UID;
    let reserved = "the user of the proxy, whose traffic bypasses the mesh";
    let pod = uid(spec).then(|| format!("the pod runs as user {PROXY_UID}, {reserved}"));
    let containers = all_containers(spec)
        .filter(move |c| uid(c))
        .map(move |c| format!("container {} runs as user {PROXY_UID}, {reserved}", name(c)));
    let volumes = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["name"].as_str().is_some_and(is_our_volume));
    pod.into_iter()
        .chain(containers)
        .chain(volumes.map(|v| format!("volume {} has the name of one of ours", name(v))))
        .collect::<Vec<_>>()
        .into_iter()
}

/// What works, but perhaps not as somebody expects.
pub(super) fn warnings(object: &Value, template: &[&str], pod: &Value) -> Vec<String> {
    let ours = |key: &&String| key.starts_with("config.weft.mesh/") || *key == keys::INJECT;
    let outer = if template.is_empty() {
        Map::new()
    } else {
        annotations(object)
    };
    let misplaced = outer.keys().filter(ours).map(|key| {
        format!(
            "annotation {} has no effect here: it belongs on the pod template",
            printable(key)
        )
    });
    let ports = all_containers(&pod["spec"]).flat_map(|c| {
        c["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(move |p| (c, p))
    });
    misplaced
        .chain(ports.filter_map(|(container, port)| port_warning(container, port)))
        .collect()
}

fn port_warning(container: &Value, port: &Value) -> Option<String> {
    let number = &port["containerPort"];
    if port["protocol"] == "UDP" {
        return Some(format!(
            "container {} listens on UDP port {number}: UDP bypasses the mesh",
            name(container)
        ));
    }
    let taken = [ports::INBOUND, ports::OUTBOUND, ports::ADMIN]
        .iter()
        .any(|p| number == p);
    taken.then(|| {
        format!(
            "container {} listens on port {number}, which the proxy needs",
            name(container)
        )
    })
}

/// Has the injector been here?
pub(crate) fn is_injected(pod: &Value) -> bool {
    annotations(pod).contains_key(keys::INJECTED_AT_VERSION)
}

/// Is any container of ours in it?
pub(super) fn has_ours(pod: &Value) -> bool {
    all_containers(&pod["spec"])
        .filter_map(|c| c["name"].as_str())
        .any(is_our_container)
}

/// Is it the name of a container that we add?
pub(super) fn is_our_container(name: &str) -> bool {
    [ours::INIT_CONTAINER, ours::PROXY_CONTAINER].contains(&name)
}

/// Is it the name of a volume that we add?
pub(super) fn is_our_volume(name: &str) -> bool {
    [ours::TOKEN_VOLUME, ours::RUN_VOLUME].contains(&name)
}

/// Lists that we add to, and how our items in them are known by their names.
pub(super) const LISTS: [(&str, IsOurs); 3] = [
    ("initContainers", is_our_container),
    ("containers", is_our_container),
    ("volumes", is_our_volume),
];
type IsOurs = fn(&str) -> bool;

/// Is it an annotation that we added, going by the record?
pub(super) fn is_our_annotation(key: &str, record: &[&str]) -> bool {
    let always = [keys::INJECTED_AT_VERSION, keys::INJECTED_KEYS].contains(&key);
    always
        || record.contains(&key)
        || (record.contains(&"prometheus") && patch::SCRAPE.contains(&key))
}

fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    containers(spec, "initContainers").chain(containers(spec, "containers"))
}

fn containers<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    spec[key].as_array().into_iter().flatten()
}

fn name(of: &Value) -> String {
    format!("\"{}\"", printable(of["name"].as_str().unwrap_or_default()))
}
