//! What can be chosen about an installation: one table of keys, and values that were checked against it.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use weft_proxy_api::names::{self, inject};

/// A value that can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its key: `proxy.cpuRequest`.
    pub key: &'static str,
    /// What may be said.
    pub form: Form,
    /// What holds where nothing is said; [`Row::default`] reads it.
    default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number from, to.
    Count(u32, u32),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text of these characters (a set of a regular expression), not empty.
    Text(&'static str),
}

const IMAGE: Form = Form::Text("a-zA-Z0-9._/:@-");
const NAME: Form = Form::Text("a-z0-9.-");
const QUANTITY: Form = Form::Text("0-9a-zA-Z.");
const TIME: Form = Form::Text("0-9smhd");
const FILTER: Form = Form::Text("a-zA-Z0-9_=,:.-");
const POLICY: Form = Form::Word(&["Fail", "Ignore"]);

/// Every value, in the order in which they are shown.
pub const ROWS: &[Row] = &[
    row("image", IMAGE, "", "Image of all programs."),
    row(
        "imagePullPolicy",
        Form::Word(&["Always", "IfNotPresent", "Never"]),
        "IfNotPresent",
        "When the image is pulled.",
    ),
    row(
        "replicas",
        Form::Count(1, 16),
        "2",
        "Replicas of the controller; all of them serve.",
    ),
    row(
        "access",
        Form::Word(&["strict", "permissive", "audit"]),
        "permissive",
        "What happens to traffic that no TrafficTarget allows.",
    ),
    row(
        "trustDomain",
        NAME,
        names::DEFAULT_TRUST_DOMAIN,
        "First part of every identity.",
    ),
    row(
        "clusterDomain",
        NAME,
        "cluster.local",
        "DNS domain of the cluster, in which proxies look for the controller.",
    ),
    row(
        "metrics",
        Form::Word(&["edges", "routes", "endpoints"]),
        "routes",
        "In how much detail proxies say their metrics; the annotation config.weft.mesh/metrics of a namespace or a pod says otherwise.",
    ),
    row("certTtl", TIME, "24h", "Life of a workload's certificate."),
    row("logLevel", FILTER, "info", "Log filter of the controller."),
    row(
        "crds",
        Form::Flag,
        "true",
        "Install the CustomResourceDefinitions of SMI and ServicePolicy.",
    ),
    row(
        "legacySpecGroup",
        Form::Flag,
        "false",
        "HTTPRouteGroup and TCPRoute of spec.smi-spec.io/v1alpha1, as the first releases of SMI called it, count as those of specs.smi-spec.io.",
    ),
    row(
        "metricsApi",
        Form::Flag,
        "true",
        "The aggregated API metrics.smi-spec.io, for `kubectl get --raw` and dashboards.",
    ),
    row(
        "podMonitor",
        Form::Flag,
        "false",
        "A PodMonitor (monitoring.coreos.com) for controller and proxies.",
    ),
    row(
        "controller.cpuRequest",
        QUANTITY,
        "100m",
        "CPU request of the controller.",
    ),
    row(
        "controller.memoryRequest",
        QUANTITY,
        "64Mi",
        "Memory request of the controller.",
    ),
    row(
        "controller.memoryLimit",
        QUANTITY,
        "1Gi",
        "Memory limit of the controller.",
    ),
    row(
        "controller.spread",
        Form::Word(&["ScheduleAnyway", "DoNotSchedule"]),
        "ScheduleAnyway",
        "What if replicas of the controller do not fit on different nodes.",
    ),
    row(
        "proxy.sidecar",
        Form::Word(&["native", "plain"]),
        "native",
        "How injected proxies are run: native needs Kubernetes 1.29.",
    ),
    row(
        "proxy.cpuRequest",
        QUANTITY,
        "10m",
        "CPU request of injected proxies.",
    ),
    row(
        "proxy.memoryRequest",
        QUANTITY,
        "16Mi",
        "Memory request of injected proxies.",
    ),
    row(
        "proxy.logLevel",
        FILTER,
        "info",
        "Log filter of injected proxies.",
    ),
    row(
        "webhook.failurePolicy",
        POLICY,
        "Fail",
        "What becomes of a pod that asks to be injected, by its annotation or its namespace's label, while no controller answers.",
    ),
    row(
        "webhook.validationPolicy",
        POLICY,
        "Ignore",
        "What becomes of an SMI object or ServicePolicy while no controller answers.",
    ),
    row(
        "webhook.timeoutSeconds",
        Form::Count(1, 30),
        "10",
        "How long the API server waits for the webhook.",
    ),
    row(
        "webhook.caTtl",
        TIME,
        "365d",
        "Life of the authority that signs the webhook's certificates.",
    ),
];

/// What `--ha` chooses.
pub const HA: &[(&str, &str)] = &[
    ("replicas", "3"),
    ("controller.spread", "DoNotSchedule"),
    ("controller.memoryRequest", "256Mi"),
];

const fn row(key: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Row {
    Row {
        key,
        form,
        default,
        meaning,
    }
}

impl Row {
    /// The row of a key.
    pub fn find(key: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.key == key)
    }

    /// What holds where nothing is said.
    pub fn default(&self) -> Value {
        let text = match self.key {
            "image" => format!("{}:{}", inject::IMAGE, names::VERSION),
            _ => self.default.to_owned(),
        };
        self.read(&text).unwrap_or(Value::Null)
    }

    /// A text as a value.
    fn read(&self, text: &str) -> Result<Value, String> {
        match self.form {
            Form::Flag => match text {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err("is neither true nor false".into()),
            },
            Form::Count(from, to) => {
                let wrong = || format!("is not a whole number from {from} to {to}");
                let number: u32 = text.parse().map_err(|_| wrong())?;
                let fits = (from..=to).contains(&number);
                fits.then(|| number.into()).ok_or_else(wrong)
            }
            Form::Word(words) => match words.contains(&text) {
                true => Ok(text.into()),
                false => Err(format!("is not one of {}", words.join(", "))),
            },
            Form::Text(set) => {
                let is_in = |letter: char| letter.is_ascii() && in_set(set, letter);
                match !text.is_empty() && text.len() <= 512 && text.chars().all(is_in) {
                    true => Ok(text.into()),
                    false => Err(format!("is not made of the characters {set}")),
                }
            }
        }
    }
}

/// Is a letter in a set such as `a-z.`?
fn in_set(set: &str, letter: char) -> bool {
    let mut letters = set.chars().peekable();
    while let Some(from) = letters.next() {
        let mut ahead = letters.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) => {
                letters = ahead;
                to
            }
            _ => from,
        };
        if (from..=to).contains(&letter) {
            return true;
        }
    }
    false
}

/// What was chosen; the rest holds by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// Chooses a value.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let row = Row::find(key).ok_or_else(|| unknown(key))?;
        let value = row
            .read(text)
            .map_err(|mistake| format!("{key}: {text:?} {mistake}"))?;
        self.0.insert(row.key, value);
        Ok(())
    }

    /// Chooses `KEY=VALUE`.
    pub fn set_pair(&mut self, pair: &str) -> Result<(), String> {
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
        self.set(key, text)
    }

    /// Chooses everything that a tree says: `{"proxy": {"cpuRequest": "10m"}}`. Every mistake is reported.
    pub fn set_tree(&mut self, tree: &Value) -> Result<(), Vec<String>> {
        let mut mistakes = Vec::new();
        match tree {
            Value::Null => {}
            Value::Object(map) => self.set_map("", map, &mut mistakes),
            _ => mistakes.push("the values are not a map".to_owned()),
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(mistakes),
        }
    }

    fn set_map(&mut self, prefix: &str, map: &Map<String, Value>, mistakes: &mut Vec<String>) {
        for (name, value) in map {
            let key = format!("{prefix}{name}");
            match value {
                Value::Object(inner) if Row::find(&key).is_none() => {
                    self.set_map(&format!("{key}."), inner, mistakes);
                }
                Value::String(text) => mistakes.extend(self.set(&key, text).err()),
                other => mistakes.extend(self.set(&key, &other.to_string()).err()),
            }
        }
    }

    /// A value; chosen, or by default.
    pub fn get(&self, key: &str) -> Value {
        let chosen = self.0.get(key).cloned();
        chosen.unwrap_or_else(|| Row::find(key).map_or(Value::Null, Row::default))
    }

    /// Keys whose values differ, with both.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, Value, Value)> {
        let both = ROWS
            .iter()
            .map(|row| (row.key, self.get(row.key), other.get(row.key)));
        both.filter(|(_, from, to)| from != to).collect()
    }

    /// What was chosen, as the tree that [`Values::set_tree`] takes.
    pub fn chosen(&self) -> Value {
        tree(self.0.iter().map(|(key, value)| (*key, value.clone())))
    }
}

/// The tree in a file of values (YAML or JSON).
pub fn read_file(text: &str) -> Result<Value, String> {
    let budget = serde_saphyr::budget! { max_depth: 20, max_nodes: 10_000, max_events: 50_000 };
    let options = serde_saphyr::options! { budget: budget };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or("unreadable").to_owned()
    })
}

/// Keys with dots as a tree.
pub fn tree<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut tree = Value::Object(Map::new());
    for (key, value) in values {
        match key.split_once('.') {
            Some((outer, inner)) => tree[outer][inner] = value,
            None => tree[key] = value,
        }
    }
    tree
}

fn unknown(key: &str) -> String {
    let short: String = key.chars().take(80).collect();
    let near = ROWS
        .iter()
        .map(|row| (distance(row.key, &short), row.key))
        .min();
    match near {
        Some((distance, near)) if distance <= 3.max(short.len() / 3) => {
            format!("there is no value {short:?}; did you mean {near}?")
        }
        _ => format!("there is no value {short:?}; meshctl install --values-help lists them"),
    }
}

/// How many letters have to be changed (Levenshtein), whatever their case.
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let other: Vec<char> = other.chars().collect();
    let mut line: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.chars().enumerate() {
        let mut above_left = line[0];
        line[0] = row + 1;
        for (column, b) in other.iter().enumerate() {
            let replaced = above_left + usize::from(a != *b);
            above_left = line[column + 1];
            line[column + 1] = replaced.min(above_left + 1).min(line[column] + 1);
        }
    }
    line[other.len()]
}

/// The values as a table of Markdown.
pub fn table() -> String {
    let mut text = String::from("| value | default | meaning |\n|---|---|---|\n");
    for row in ROWS {
        let default = match row.default() {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let words = match row.form {
            Form::Word(words) => format!(" One of {}.", words.join(", ")),
            _ => String::new(),
        };
        let line = format!("| `{}` | `{default}` | {}{words} |\n", row.key, row.meaning);
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_default_and_preset_is_a_value() {
        for row in ROWS {
            assert_ne!(row.default(), Value::Null, "{}", row.key);
        }
        let mut values = Values::default();
        for (key, value) in HA {
            values.set(key, value).unwrap();
        }
        assert_eq!(values.get("replicas"), 3);
    }

    #[test]
    fn mistakes_name_their_key_and_near_misses_are_suggested() {
        let table = [
            (
                "replica=3",
                "there is no value \"replica\"; did you mean replicas?",
            ),
            ("proxy.cpurequest=1", "did you mean proxy.cpuRequest?"),
            ("colour=red", "--values-help"),
            (
                "replicas=0",
                "replicas: \"0\" is not a whole number from 1 to 16",
            ),
            ("crds=yes", "crds: \"yes\" is neither true nor false"),
            (
                "access=open",
                "access: \"open\" is not one of strict, permissive, audit",
            ),
            ("image=a b", "image: \"a b\" is not made of the characters"),
            (
                "image={{x}}",
                "image: \"{{x}}\" is not made of the characters",
            ),
            ("replicas", "\"replicas\" is not KEY=VALUE"),
        ];
        for (pair, part) in table {
            let mistake = Values::default().set_pair(pair).unwrap_err();
            assert!(mistake.contains(part), "{mistake}");
        }
    }

    #[test]
    fn what_was_chosen_survives_as_a_tree() {
        let mut values = Values::default();
        for pair in ["replicas=5", "proxy.cpuRequest=20m", "podMonitor=true"] {
            values.set_pair(pair).unwrap();
        }
        let tree = values.chosen();
        assert_eq!(
            tree,
            json!({"podMonitor": true, "proxy": {"cpuRequest": "20m"}, "replicas": 5})
        );
        let mut again = Values::default();
        again.set_tree(&tree).unwrap();
        assert_eq!(again, values);
        let wrong = json!({"replicas": [1], "proxy": {"x": 1}, "access": {"a": 1}});
        assert_eq!(again.set_tree(&wrong).unwrap_err().len(), 3);
    }
}
