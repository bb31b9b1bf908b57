//! An installation in Kubernetes, as objects: one typed source for `meshctl install`, `upgrade`, `uninstall` and the Helm
//! chart. Pure.
//!
//! * [`values`]: what can be chosen; [`objects`]: what is made of it, in the order in which it has to be applied.
//! * [`text`]: as YAML; [`chart`]: as a chart; [`removal`]: everything that has to go again;
//!   [`live`]: what is there.

pub mod chart;
pub mod live;
pub mod objects;
pub mod removal;
pub mod text;
pub mod values;

mod metrics;
mod rbac;
mod webhooks;
mod workload;

#[cfg(test)]
mod tests;

use serde_json::Value;
pub use values::Values;
use weft_proxy_api::names;

/// The ConfigMap in which the values of an installation are kept, for upgrades.
pub const CONFIG_MAP: &str = "weft-config";
/// Its key.
pub const CONFIG_KEY: &str = "values.json";

/// An installation to be rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct Install {
    /// Where the controller lives.
    pub namespace: String,
    /// What was chosen.
    pub values: Values,
}

impl Default for Install {
    fn default() -> Self {
        Self {
            namespace: names::SYSTEM_NAMESPACE.to_owned(),
            values: Values::default(),
        }
    }
}

impl Install {
    /// All objects, in the order in which they have to be applied.
    pub fn render(&self) -> Vec<Value> {
        objects::all(self)
            .into_iter()
            .filter(|part| part.when.iter().all(|key| self.values.get(key) == true))
            .map(|part| part.object)
            .collect()
    }
}

/// Where an object takes its values from: from what was chosen, or from a chart's own language.
pub(crate) trait Source {
    /// A value of the table.
    fn value(&self, key: &'static str) -> Value;
    /// The same within a text.
    fn text(&self, key: &'static str) -> String {
        match self.value(key) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }
    /// Where the controller lives.
    fn namespace(&self) -> String;
    /// What was chosen, as JSON.
    fn chosen(&self) -> String;
}

impl Source for Install {
    fn value(&self, key: &'static str) -> Value {
        self.values.get(key)
    }

    fn namespace(&self) -> String {
        self.namespace.clone()
    }

    fn chosen(&self) -> String {
        self.values.chosen().to_string()
    }
}
