//! What the injector is told: for all pods by flags, for one pod by annotations. Everything is checked here, and what is
//! checked consists of harmless characters only.

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
            control_addr: format!("{}.{}.svc.cluster.local:{}", names::CONTROL_ACCOUNT, names::SYSTEM_NAMESPACE, names::ports::CONTROL),
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
        let option = OPTIONS.iter().find(|o| o.key == key).ok_or_else(|| format!("unknown key {key}"))?;
        (option.check)(value).map_err(|e| format!("{key}: {e}"))?;
        self.defaults.0.insert(option.key, value.to_owned());
        Ok(())
    }

    /// Checks the settings that are not annotations.
    pub fn check(&self) -> Result<(), String> {
        one_of("version", &self.version, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b), 128)?;
        one_of("control address", &self.control_addr, |b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b), 512)?;
        one_of("trust domain", &self.trust_domain, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b), 255)?;
        match &self.trust {
            Trust::File(path) => one_of("trust anchors file", path, |b| b.is_ascii_graphic() && !b"\"'\\$".contains(&b), 4096),
            Trust::Text(pem) => one_of("trust anchors", pem, |b| b.is_ascii_graphic() && !b"\"'\\$".contains(&b) || b" \r\n".contains(&b), 1 << 20),
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
    pub fn read(settings: &Settings, annotations: &Map<String, Value>) -> Result<Self, Vec<String>> {
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
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn take_default(&mut self, settings: &Settings, key: &'static str) {
        if let Some(value) = settings.defaults.0.get(key) {
            self.from_flags.push((key, value.clone()));
            self.values.insert(key, value.clone());
        }
    }

    /// A value, without blanks.
    pub fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|v| v.chars().filter(|c| !c.is_whitespace()).collect())
    }
}

/// Does the pod ask not to be injected?
pub fn disabled(annotations: &Map<String, Value>) -> Result<bool, String> {
    match annotations.get(keys::INJECT).map(text) {
        None | Some(Ok("enabled")) => Ok(false),
        Some(Ok("disabled")) => Ok(true),
        Some(Ok(_)) => Err(format!("annotation {}: neither enabled nor disabled", keys::INJECT)),
        Some(Err(e)) => Err(format!("annotation {}: {e}", keys::INJECT)),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "not a string: write it in quotes".to_owned())
}

fn unknown(annotations: &Map<String, Value>) -> Vec<String> {
    let ours = |key: &&String| key.starts_with("config.weft.mesh/");
    let known = |key: &&String| OPTIONS.iter().any(|o| o.key == key.as_str());
    annotations.keys().filter(ours).filter(|k| !known(k)).map(|k| format!("annotation {}: no such setting", printable(k))).collect()
}

/// A text as it may be shown: short and on one line.
pub fn printable(text: &str) -> String {
    let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() { short + "…" } else { short }
}

struct Setting {
    key: &'static str,
    check: fn(&str) -> Result<(), String>,
}

const OPTIONS: &[Setting] = &[
    Setting { key: keys::SKIP_INBOUND_PORTS, check: ports },
    Setting { key: keys::SKIP_OUTBOUND_PORTS, check: ports },
    Setting { key: keys::SKIP_SUBNETS, check: subnets },
    Setting { key: keys::OPAQUE_PORTS, check: ports },
    Setting { key: keys::PROXY_LOG_LEVEL, check: log_filter },
    Setting { key: keys::PROXY_IMAGE, check: image },
    Setting { key: keys::PROXY_CPU_REQUEST, check: quantity },
    Setting { key: keys::PROXY_CPU_LIMIT, check: quantity },
    Setting { key: keys::PROXY_MEMORY_REQUEST, check: quantity },
    Setting { key: keys::PROXY_MEMORY_LIMIT, check: quantity },
    Setting { key: keys::ACCESS, check: access },
];

fn ports(text: &str) -> Result<(), String> {
    limit(text, 4096)?;
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).try_for_each(port_range)
}

fn port_range(part: &str) -> Result<(), String> {
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 && text.trim().bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!("{:?} is not a port (1-65535) or a range of ports", printable(part))),
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (port(first)?, port(last)?) {
        (first, last) if first > last => Err(format!("the range {part} runs backwards")),
        _ => Ok(()),
    }
}

fn subnets(text: &str) -> Result<(), String> {
    limit(text, 4096)?;
    let check = |part: &str| match part.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{:?} is not a network such as 10.0.0.0/8 or fd00::/8", printable(part))),
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).try_for_each(check)
}

fn log_filter(text: &str) -> Result<(), String> {
    one_of("log filter", text, |b| b.is_ascii_alphanumeric() || b"_=,:.-".contains(&b), 256)
}

fn image(text: &str) -> Result<(), String> {
    one_of("image", text, |b| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b), 512)
}

fn access(text: &str) -> Result<(), String> {
    match text {
        "strict" | "permissive" | "audit" => Ok(()),
        _ => Err(format!("{:?} is not one of strict, permissive, audit", printable(text))),
    }
}

/// The part of Kubernetes' quantities that people write: 100m, 0.5, 64Mi, 1G.
fn quantity(text: &str) -> Result<(), String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit());
    let units = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    match digits(whole) && digits(fraction) && units.contains(&unit) {
        true => Ok(()),
        false => Err(format!("{:?} is not a quantity such as 100m, 0.5 or 64Mi", printable(text))),
    }
}

fn one_of(what: &str, text: &str, allowed: fn(u8) -> bool, longest: usize) -> Result<(), String> {
    limit(text, longest)?;
    match text.bytes().all(allowed) && !text.is_empty() {
        true => Ok(()),
        false => Err(format!("{:?} is not a valid {what}", printable(text))),
    }
}

fn limit(text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest { Err(format!("longer than {longest} characters")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let good: &[(fn(&str) -> Result<(), String>, &str)] = &[
            (ports, ""), (ports, "80"), (ports, "22, 9000-9100,1"), (subnets, "10.0.0.0/8,fd00::/8"), (log_filter, "info,weft=debug"),
            (image, "registry.io:5000/weft@sha256:ab"), (quantity, "100m"), (quantity, "0.5"), (quantity, "64Mi"), (access, "audit"),
        ];
        let bad: &[(fn(&str) -> Result<(), String>, &str)] = &[
            (ports, "0"), (ports, "65536"), (ports, "9-8"), (ports, "80;81"), (ports, "+80"), (ports, "-1"), (ports, "1-2-3"), (subnets, "10.0.0.0"),
            (subnets, "10.0.0.0/33"), (log_filter, "info\nevil: 1"), (log_filter, ""), (image, "a b"), (image, "a\": x"), (quantity, "1e3"),
            (quantity, "-1"), (quantity, "1.2.3"), (quantity, "Mi"), (quantity, "1 Mi"), (quantity, ""), (access, "Strict"),
        ];
        assert_eq!(good.iter().filter(|(check, text)| check(text).is_err()).map(|(_, t)| t).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(bad.iter().filter(|(check, text)| check(text).is_ok()).map(|(_, t)| t).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn mistakes_name_their_field_and_all_are_reported() {
        let annotations = serde_json::json!({ keys::OPAQUE_PORTS: 3306, keys::ACCESS: "open", "config.weft.mesh/typo": "1" });
        let mistakes = annotations.as_object().map(|a| Config::read(&Settings::default(), a).map(|_| ())).unwrap_or(Ok(()));
        let expected = [
            "annotation config.weft.mesh/typo: no such setting",
            "annotation config.weft.mesh/opaque-ports: not a string: write it in quotes",
            "annotation config.weft.mesh/access: \"open\" is not one of strict, permissive, audit",
        ];
        assert_eq!(mistakes, Err(expected.map(str::to_owned).to_vec()));
    }
}
