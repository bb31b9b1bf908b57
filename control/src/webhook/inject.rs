//! Injection, asked by an API server. Pure. Nothing outside the pod is changed, so a dry run needs no care, and a pod that
//! was injected is left alone but for whom it trusts, so a second call changes nothing.

use super::review::{Request, Response};
use crate::inject::{Settings, Verdict, is_injected, pod};
use crate::manifest::k8s::Labels;
use serde_json::Value;
use weft_proxy_api::names::keys;

/// Namespaces whose pods are never injected, beside the controller's own: the cluster stands on them.
pub const EXCLUDED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Annotations of namespaces with this prefix hold for all their pods.
const CONFIG_PREFIX: &str = "config.weft.mesh/";
/// Read from the namespace itself by the controller, so that a change counts for pods that exist.
const LIVE: [&str; 2] = [keys::ACCESS, keys::EXPLAIN_DENIALS];

/// Why the API server asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The label of the namespace enables all its pods; the API server has checked that.
    ByLabel,
    /// An annotation of the pod or of its namespace might.
    ByAnnotation,
}

/// What a namespace says about its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
}

/// Is a namespace one whose pods are left alone?
pub fn is_excluded(namespace: &str, own: &str) -> bool {
    namespace == own || EXCLUDED.contains(&namespace)
}

/// The answer about a pod.
pub fn answer(
    request: &Request,
    namespace: &Namespace,
    asked: Asked,
    settings: &Settings,
) -> Response {
    let is_new_pod = request.operation == "CREATE"
        && request.sub_resource.is_empty()
        && (
            request.resource.group.as_str(),
            request.resource.resource.as_str(),
        ) == ("", "pods");
    // One that was injected by hand has been asked for already, and may lack what only we know.
    let object = &request.object;
    if !is_new_pod || !(is_injected(object) || is_enabled(object, namespace, asked)) {
        return Response::allowed();
    }
    let settings = match of_namespace(settings, namespace) {
        Ok(settings) => settings,
        Err(mistake) => {
            let message = format!("namespace {}: annotation {mistake}", request.namespace);
            return Response::refused(message.clone(), vec![(String::new(), message)]);
        }
    };
    match pod(&request.object, &settings) {
        Verdict::Inject {
            operations,
            warnings,
        } => Response::patched(operations).warn(warnings.into_iter().map(told)),
        Verdict::Leave { why, warn } => {
            let warning = warn.then(|| told(format!("not injected: {why}")));
            Response::allowed().warn(warning)
        }
        Verdict::Refuse(mistakes) => {
            let causes = mistakes.iter().map(|it| (field(it), it.clone())).collect();
            Response::refused(
                format!("the pod cannot be injected: {}", mistakes.join("; ")),
                causes,
            )
        }
    }
}

fn told(text: String) -> String {
    format!("weft: {text}")
}

/// The field that a mistake is about, as far as it is an annotation.
fn field(mistake: &str) -> String {
    let key = mistake
        .strip_prefix("annotation ")
        .and_then(|rest| rest.split_once(": "));
    key.map_or_else(
        || "spec".to_owned(),
        |(key, _)| format!("metadata.annotations[{key}]"),
    )
}

/// The pod's own annotation decides; without one, its namespace. A word that is neither is left to the injector to refuse.
fn is_enabled(pod: &Value, namespace: &Namespace, asked: Asked) -> bool {
    let annotation = pod
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(keys::INJECT));
    match annotation {
        Some(word) => word != "disabled",
        None => {
            let said = |map: &Labels| map.get(keys::INJECT).map(String::as_str) == Some("enabled");
            asked == Asked::ByLabel || said(&namespace.labels) || said(&namespace.annotations)
        }
    }
}

/// The settings with what the namespace says for its pods.
fn of_namespace(settings: &Settings, namespace: &Namespace) -> Result<Settings, String> {
    let mut settings = settings.clone();
    for (key, value) in &namespace.annotations {
        if key.starts_with(CONFIG_PREFIX) && !LIVE.contains(&key.as_str()) {
            settings.set(key, value)?;
        }
    }
    Ok(settings)
}
