//! An installation as it is in a cluster.

use super::{CONFIG_KEY, CONFIG_MAP, Values};
use crate::kube::connect::{self, Settings};
use crate::smi::quantity::nanos;
use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::Client;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Questions under way at once.
const AT_ONCE: usize = 8;

/// A cluster.
pub struct Live {
    client: Client,
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is not there yet.
    New,
    /// These fields differ.
    Fields(Vec<String>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Fields(fields) => write!(f, "changes {}", fields.join(", ")),
        }
    }
}

impl Live {
    /// A client; nothing is asked yet.
    pub async fn open(settings: &Settings) -> Result<Self> {
        connect::client(settings)
            .await
            .map(|client| Self { client })
    }

    /// One of the same client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// What an API server answers to a GET; `None`: there is no such thing.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).body(Vec::new())?;
        match timeout(LIMIT, self.client.request::<Value>(request)).await {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(error)) => Err(error).context("the API server does not answer as it should"),
            Err(_) => bail!("the API server has not answered within {LIMIT:?}"),
        }
    }

    /// An object as it is there.
    pub async fn object(&self, object: &Value) -> Result<Option<Value>> {
        self.get(&path(object)).await
    }

    /// The values of the installation in a namespace.
    pub async fn values(&self, namespace: &str) -> Result<Values> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}");
        let map = self.get(&path).await?.with_context(|| {
            format!(
                "there is no installation in the namespace {namespace} (no ConfigMap {CONFIG_MAP})"
            )
        })?;
        let text = map["data"][CONFIG_KEY].as_str().unwrap_or("{}");
        let mut tree: Value = serde_json::from_str(text)
            .with_context(|| format!("{CONFIG_MAP}: {CONFIG_KEY} is not JSON"))?;
        // Helm writes there, too, what a chart around ours says for all charts in it.
        if let Some(values) = tree.as_object_mut() {
            values.remove("global");
        }
        let mut values = Values::default();
        if let Err(mistakes) = values.set_tree(&tree) {
            bail!("{CONFIG_MAP}: {}", mistakes.join("; "));
        }
        Ok(values)
    }

    /// Those of these objects that are there, in the same order.
    pub async fn present(&self, objects: Vec<Value>) -> Result<Vec<Value>> {
        let found = stream::iter(objects).map(|object| async move {
            let found = self.object(&object).await?;
            anyhow::Ok(found.is_some().then_some(object))
        });
        let found: Vec<Option<Value>> = found.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// What applying these objects would change, each with its name.
    pub async fn changes(&self, objects: &[Value]) -> Result<Vec<(String, Change)>> {
        let found = stream::iter(objects).map(|object| async move {
            let change = match self.object(object).await? {
                None => Some(Change::New),
                Some(live) => {
                    let mut fields = Vec::new();
                    differences("", object, &live, &mut fields);
                    (!fields.is_empty()).then_some(Change::Fields(fields))
                }
            };
            anyhow::Ok(change.map(|change| (title(object), change)))
        });
        let found: Vec<Option<_>> = found.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// `Deployment weft-system/weft-control`.
pub fn title(object: &Value) -> String {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match text(&metadata["namespace"]) {
        namespace if namespace.is_empty() => {
            format!("{} {}", text(&object["kind"]), text(&metadata["name"]))
        }
        namespace => {
            format!(
                "{} {namespace}/{}",
                text(&object["kind"]),
                text(&metadata["name"])
            )
        }
    }
}

/// Where an object of an installation is at the API server.
pub fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { "apis" } else { "api" };
    let metadata = &object["metadata"];
    let namespace = match text(&metadata["namespace"]) {
        namespace if namespace.is_empty() => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    let kind = text(&object["kind"]).to_lowercase();
    let plural = match kind.as_str() {
        kind if kind.ends_with('y') => format!("{}ies", &kind[..kind.len() - 1]),
        kind => format!("{kind}s"),
    };
    format!(
        "/{root}/{version}{namespace}/{plural}/{}",
        text(&metadata["name"])
    )
}

/// Fields that are wanted and different; what is there beside them is others' business.
fn differences(path: &str, wanted: &Value, live: &Value, found: &mut Vec<String>) {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (name, wanted) in wanted {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                let live = live.get(name).unwrap_or(&Value::Null);
                differences(&path, wanted, live, found);
            }
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (at, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                differences(&format!("{path}[{at}]"), wanted, live, found);
            }
        }
        // What is empty is left out by the API server.
        (wanted, Value::Null) if is_empty(wanted) => {}
        (Value::String(wanted), Value::String(live)) if is_same(path, wanted, live) => {}
        (wanted, live) if wanted != live => found.push(path.to_owned()),
        _ => {}
    }
}

/// An API server writes quantities in its own way: `0.5` becomes `500m`.
fn is_same(path: &str, wanted: &str, live: &str) -> bool {
    let is_quantity = path.contains(".resources.") || path.ends_with(".sizeLimit");
    let same = || nanos(wanted).is_ok_and(|it| nanos(live) == Ok(it));
    wanted == live || is_quantity && same()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_object_has_its_place() {
        let paths: Vec<String> = super::super::Install::default()
            .render()
            .iter()
            .map(path)
            .collect();
        for expected in [
            "/api/v1/namespaces/weft-system",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficsplits.split.smi-spec.io",
            "/api/v1/namespaces/weft-system/serviceaccounts/weft-control",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/weft-control",
            "/apis/policy/v1/namespaces/weft-system/poddisruptionbudgets/weft-control",
            "/apis/apps/v1/namespaces/weft-system/deployments/weft-control",
        ] {
            assert!(
                paths.iter().any(|path| path == expected),
                "{expected} in {paths:?}"
            );
        }
    }

    #[test]
    fn only_what_is_wanted_counts() {
        let wanted = json!({"a": 1, "b": {"c": [1, {"d": 2}]}, "e": {}, "f": [1]});
        let live = json!({"a": 1, "b": {"c": [1, {"d": 3, "x": 1}]}, "f": [1, 2], "status": {}});
        let mut found = Vec::new();
        differences("", &wanted, &live, &mut found);
        assert_eq!(found, ["b.c[1].d", "f"]);
        let of = |cpu: &str, memory: &str| {
            let requests = json!({"cpu": cpu, "memory": memory});
            json!({"spec": {"containers": [{"image": cpu, "resources": {"requests": requests}}]}})
        };
        let mut found = Vec::new();
        differences("", &of("0.5", "1Gi"), &of("500m", "1024Mi"), &mut found);
        assert_eq!(found, ["spec.containers[0].image"]);
        differences("", &of("1", "1Gi"), &of("1", "1G"), &mut found);
        assert_eq!(found[1..], ["spec.containers[0].resources.requests.memory"]);
    }
}
