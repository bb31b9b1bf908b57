//! What the node tells the controller: Pods with their addresses and conditions, Services with theirs, as files that
//! appear whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use super::node::{Phase, PodState};
use crate::manifest::k8s::Service;
use crate::manifest::workload::{Pod, PodCondition, PodIp, PodStatus};

/// A folder of objects, one in each file; only what changed is written.
pub(crate) struct Folder {
    dir: PathBuf,
    written: BTreeMap<String, String>,
}

impl Folder {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            written: BTreeMap::new(),
        }
    }

    /// Make the folder hold exactly these files.
    pub(crate) fn sync(&mut self, wanted: BTreeMap<String, String>) -> Result<()> {
        for name in self
            .written
            .keys()
            .filter(|name| !wanted.contains_key(*name))
        {
            let _ = fs::remove_file(self.dir.join(name));
        }
        for (name, text) in &wanted {
            if self.written.get(name) != Some(text) {
                let mut aside = tempfile::Builder::new()
                    .prefix(".new-")
                    .tempfile_in(&self.dir)?;
                aside.write_all(text.as_bytes())?;
                aside.persist(self.dir.join(name))?;
            }
        }
        self.written = wanted;
        Ok(())
    }
}

/// File name and text of a pod.
pub(crate) fn pod(
    pod: &Pod,
    state: &PodState,
    deleting: Option<jiff::Timestamp>,
) -> (String, String) {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = deleting;
    pod.status = PodStatus {
        pod_ip: state.ips.first().map(ToString::to_string),
        pod_ips: state
            .ips
            .iter()
            .map(|ip| PodIp { ip: ip.to_string() })
            .collect(),
        phase: Some(state.phase.name().into()),
        conditions: conditions(state),
    };
    (
        format!("pod.{}.{}.yaml", pod.metadata.namespace, pod.metadata.name),
        text("Pod", &pod),
    )
}

fn conditions(state: &PodState) -> Vec<PodCondition> {
    let condition = |name: &str, holds: bool| PodCondition {
        type_: name.into(),
        status: if holds { "True" } else { "False" }.into(),
    };
    let running = state.phase == Phase::Running;
    let ready = state.ready();
    vec![
        condition("Initialized", running),
        condition("ContainersReady", ready),
        condition("Ready", ready),
    ]
}

/// File name and text of a Service.
pub(crate) fn service(service: &Service) -> (String, String) {
    (
        format!(
            "service.{}.{}.yaml",
            service.metadata.namespace, service.metadata.name
        ),
        text("Service", service),
    )
}

/// JSON is YAML, and needs no quoting rules.
fn text(kind: &str, object: &impl Serialize) -> String {
    let mut all = Map::from_iter([
        ("apiVersion".to_owned(), Value::from("v1")),
        ("kind".to_owned(), Value::from(kind)),
    ]);
    if let Ok(Value::Object(fields)) = serde_json::to_value(object) {
        all.extend(fields);
    }
    let mut text = serde_json::to_string_pretty(&all).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_wanted_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().into());
        let files = |names: &[&str]| {
            names
                .iter()
                .map(|n| ((*n).to_owned(), format!("text of {n}")))
                .collect()
        };
        folder.sync(files(&["a.yaml", "b.yaml"])).unwrap();
        folder.sync(files(&["b.yaml", "c.yaml"])).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["b.yaml", "c.yaml"]);
    }

    #[test]
    fn a_pod_says_address_and_readiness() {
        let mut wanted = Pod::default();
        wanted.metadata.name = "web".into();
        wanted.metadata.namespace = "shop".into();
        let state = PodState {
            ips: vec!["10.42.1.1".parse().unwrap()],
            phase: Phase::Running,
            ..PodState::default()
        };
        let (name, text) = pod(&wanted, &state, None);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(name, "pod.shop.web.yaml");
        assert_eq!(value["status"]["podIP"], "10.42.1.1");
        assert_eq!(
            value["status"]["conditions"][2],
            serde_json::json!({"type": "Ready", "status": "True"})
        );
        assert!(value["metadata"].get("deletionTimestamp").is_none());
    }
}
