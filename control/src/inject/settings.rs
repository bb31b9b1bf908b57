//! What the injector is told: for all pods by flags, for one pod by annotations. Everything is checked here, and what is
//! checked consists of harmless characters only.

use super::values::{
    access, image, log_filter, metrics_tier, one_of, ports, printable, quantity, subnets, switch,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use weft_proxy_api::names::{self, keys};

/// How the injector works, for all pods.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tag of the image, and what the pod is said to be injected with.
    pub version: String,
    /// How the proxy container is run.
    pub sidecar: Sidecar,
    /// `host:port` of the controller.
    pub control_addr: String,
    /// Where the proxy takes the roots from.
    pub trust: Trust,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Add `prometheus.io/…` annotations where a pod has none.
    pub scrape: bool,
    /// What annotations could say, for pods that do not; see [`Settings::set`].
    pub defaults: Defaults,
}

/// Checked values of annotations.
#[derive(Debug, Clone, Default)]
pub struct Defaults(BTreeMap<&'static str, String>);

/// How the proxy container is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sidecar {
    /// As an init container that keeps running (Kubernetes 1.29 and later): jobs end, later init containers are meshed.
    #[default]
    Native,
    /// As the first ordinary container.
    Plain,
}

/// Where the proxy takes the roots from that it trusts at first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// From the ConfigMap that the controller keeps in every meshed namespace.
    #[default]
    ConfigMap,
    /// From a file that the image or a volume already has.
    File(String),
    /// From the manifest itself (PEM).
    Text(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: names::VERSION.to_owned(),
            sidecar: Sidecar::default(),
            control_addr: format!(
                "{}.{}.svc.cluster.local:{}",
                names::CONTROL_ACCOUNT,
                names::SYSTEM_NAMESPACE,
                names::ports::CONTROL
            ),
            trust: Trust::default(),
            trust_domain: names::DEFAULT_TRUST_DOMAIN.to_owned(),
            scrape: true,
            defaults: Defaults::default(),
        }
    }
}

impl Settings {
    /// Sets what an annotation could set, for all pods that do not say otherwise. The value is checked and is written
    /// into the pods as that annotation, because the controller reads it there.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let option = OPTIONS
            .iter()
            .find(|o| o.key == key)
            .ok_or_else(|| format!("unknown key {key}"))?;
        (option.check)(value).map_err(|e| format!("{key}: {e}"))?;
        self.defaults.0.insert(option.key, value.to_owned());
        Ok(())
    }

    /// Checks the settings that are not annotations.
    pub fn check(&self) -> Result<(), String> {
        one_of(
            "version",
            &self.version,
            |b| b.is_ascii_alphanumeric() || b"._-".contains(&b),
            128,
        )?;
        one_of(
            "control address",
            &self.control_addr,
            |b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b),
            512,
        )?;
        one_of(
            "trust domain",
            &self.trust_domain,
            |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b),
            255,
        )?;
        match &self.trust {
            Trust::File(path) => one_of(
                "trust anchors file",
                path,
                |b| b.is_ascii_graphic() && !b"\"'\\$".contains(&b),
                4096,
            ),
            Trust::Text(pem) => one_of(
                "trust anchors",
                pem,
                |b| b.is_ascii_graphic() && !b"\"'\\$".contains(&b) || b" \r\n".contains(&b),
                1 << 20,
            ),
            Trust::ConfigMap => Ok(()),
        }
    }
}

/// Settings of one pod: its annotations over the defaults, all of them checked.
#[derive(Debug, Default)]
pub struct Config {
    values: BTreeMap<&'static str, String>,
    /// Those of the values that came from flags and are written into the pod.
    pub from_flags: Vec<(&'static str, String)>,
}

impl Config {
    /// Reads the annotations of a pod. Every mistake is reported, with the name of its field.
    pub fn read(
        settings: &Settings,
        annotations: &Map<String, Value>,
    ) -> Result<Self, Vec<String>> {
        let mut config = Self::default();
        let mut mistakes = unknown(annotations);
        for option in OPTIONS {
            match annotations.get(option.key).map(text) {
                Some(Ok(value)) => match (option.check)(value) {
                    Ok(()) => drop(config.values.insert(option.key, value.to_owned())),
                    Err(e) => mistakes.push(format!("annotation {}: {e}", option.key)),
                },
                Some(Err(e)) => mistakes.push(format!("annotation {}: {e}", option.key)),
                None => config.take_default(settings, option.key),
            }
        }
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(mistakes)
        }
    }

    fn take_default(&mut self, settings: &Settings, key: &'static str) {
        if let Some(value) = settings.defaults.0.get(key) {
            self.from_flags.push((key, value.clone()));
            self.values.insert(key, value.clone());
        }
    }

    /// A value, without blanks.
    pub fn get(&self, key: &str) -> Option<String> {
        self.values
            .get(key)
            .map(|v| v.chars().filter(|c| !c.is_whitespace()).collect())
    }
}

/// Does the pod ask not to be injected?
pub fn disabled(annotations: &Map<String, Value>) -> Result<bool, String> {
    match annotations.get(keys::INJECT).map(text) {
        None | Some(Ok("enabled")) => Ok(false),
        Some(Ok("disabled")) => Ok(true),
        Some(Ok(_)) => Err(format!(
            "annotation {}: neither enabled nor disabled",
            keys::INJECT
        )),
        Some(Err(e)) => Err(format!("annotation {}: {e}", keys::INJECT)),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| "not a string: write it in quotes".to_owned())
}

fn unknown(annotations: &Map<String, Value>) -> Vec<String> {
    let ours = |key: &&String| key.starts_with("config.weft.mesh/");
    let known = |key: &&String| OPTIONS.iter().any(|o| o.key == key.as_str());
    annotations
        .keys()
        .filter(ours)
        .filter(|k| !known(k))
        .map(|k| format!("annotation {}: no such setting", printable(k)))
        .collect()
}

struct Setting {
    key: &'static str,
    check: fn(&str) -> Result<(), String>,
}

const OPTIONS: &[Setting] = &[
    Setting {
        key: keys::SKIP_INBOUND_PORTS,
        check: ports,
    },
    Setting {
        key: keys::SKIP_OUTBOUND_PORTS,
        check: ports,
    },
    Setting {
        key: keys::SKIP_SUBNETS,
        check: subnets,
    },
    Setting {
        key: keys::OPAQUE_PORTS,
        check: ports,
    },
    Setting {
        key: keys::PROXY_LOG_LEVEL,
        check: log_filter,
    },
    Setting {
        key: keys::PROXY_IMAGE,
        check: image,
    },
    Setting {
        key: keys::PROXY_CPU_REQUEST,
        check: quantity,
    },
    Setting {
        key: keys::PROXY_CPU_LIMIT,
        check: quantity,
    },
    Setting {
        key: keys::PROXY_MEMORY_REQUEST,
        check: quantity,
    },
    Setting {
        key: keys::PROXY_MEMORY_LIMIT,
        check: quantity,
    },
    Setting {
        key: keys::ACCESS,
        check: access,
    },
    Setting {
        key: keys::METRICS,
        check: metrics_tier,
    },
    Setting {
        key: keys::EXPLAIN_DENIALS,
        check: switch,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_field_and_all_are_reported() {
        let annotations = serde_json::json!({ keys::OPAQUE_PORTS: 3306, keys::ACCESS: "open", "config.weft.mesh/typo": "1" });
        let mistakes = annotations
            .as_object()
            .map(|a| Config::read(&Settings::default(), a).map(|_| ()))
            .unwrap_or(Ok(()));
        let expected = [
            "annotation config.weft.mesh/typo: no such setting",
            "annotation config.weft.mesh/opaque-ports: not a string: write it in quotes",
            "annotation config.weft.mesh/access: \"open\" is not one of strict, permissive, audit",
        ];
        assert_eq!(mistakes, Err(expected.map(str::to_owned).to_vec()));
    }
}
