//! The two changes that can be made to an object: the sidecar put in, the sidecar taken out.

use super::patch::{self, Patch};
use super::report::Outcome;
use super::settings::{Config, Settings};
use super::spans::Document;
use super::workload::{self, Decision, Object};
use super::{Change, Check, Plan, check, remove, splice, way};
use serde_json::Value;

/// Puts the sidecar in.
pub(super) struct Injection<'a> {
    /// How.
    pub(super) settings: &'a Settings,
}

impl Change for Injection<'_> {
    fn plan(&self, text: &str, document: &Document, value: &Value, object: &Object<'_>) -> Plan {
        let Some(template) = object.template else {
            return Plan::just(Outcome::Skipped(None));
        };
        let Some(whole) = object.value(value) else {
            return Plan::just(Outcome::Skipped(None));
        };
        let Some(pod) = object.pod(value).filter(|pod| pod["spec"].is_object()) else {
            return Plan::just(Outcome::Error(format!(
                "it has no {}spec",
                template.iter().map(|k| format!("{k}.")).collect::<String>()
            )));
        };
        match workload::decide(self.settings, pod) {
            Decision::Skip(why) => Plan::just(Outcome::Skipped(Some(why))),
            Decision::SkipWithWarning(why) => Plan {
                outcomes: vec![Outcome::Warning(why.clone()), Outcome::Skipped(Some(why))],
                ..Plan::default()
            },
            Decision::Refuse(mistakes) => Plan {
                outcomes: mistakes.into_iter().map(Outcome::Error).collect(),
                ..Plan::default()
            },
            Decision::Inject { config, scrape } => {
                let mut plan = self.splice(text, document, object, &config, scrape);
                plan.outcomes.extend(
                    workload::warnings(whole, template, pod)
                        .into_iter()
                        .map(Outcome::Warning),
                );
                plan
            }
        }
    }

    fn done(&self) -> Outcome {
        Outcome::Injected
    }
}

impl Injection<'_> {
    /// What uninjection must know: keys that were absent, annotations that came from flags, and those for Prometheus.
    pub(super) fn record(absent: Vec<String>, config: &Config, scrape: bool) -> String {
        let mut record = absent;
        record.extend(config.from_flags.iter().map(|(key, _)| (*key).to_owned()));
        record.extend(scrape.then(|| "prometheus".to_owned()));
        record.join(",")
    }

    fn splice(
        &self,
        text: &str,
        document: &Document,
        object: &Object<'_>,
        config: &Config,
        scrape: bool,
    ) -> Plan {
        let Some(way) = document.root.as_ref().and_then(|root| way(root, object)) else {
            return Plan::just(Outcome::Error(
                "it is put together with YAML aliases or merge keys; write it out".into(),
            ));
        };
        let absent = way.last().map(|(_, pod)| splice::record(text, pod));
        let record = Self::record(absent.unwrap_or_default(), config, scrape);
        let patch = patch::build(self.settings, config, scrape, &record);
        match splice::plan(text, document, &way, patch.clone()) {
            Ok(edits) => Plan {
                edits,
                check: Some(injected(patch)),
                outcomes: vec![],
            },
            Err(why) => Plan::just(Outcome::Error(why)),
        }
    }
}

fn injected(patch: Patch) -> Check {
    Box::new(move |before, _| check::apply(before, &patch))
}

/// Takes the sidecar out.
pub(super) struct Uninjection;

impl Change for Uninjection {
    fn plan(&self, text: &str, document: &Document, value: &Value, object: &Object<'_>) -> Plan {
        match object.pod(value) {
            None => return Plan::just(Outcome::Skipped(None)),
            Some(pod) if !workload::is_injected(pod) => {
                return Plan::just(Outcome::Skipped(Some("not injected".into())));
            }
            Some(_) => {}
        }
        let way = document.root.as_ref().and_then(|root| way(root, object));
        let Some((_, pod)) = way.and_then(|mut way| way.pop()) else {
            return Plan::just(Outcome::Error(
                "it is put together with YAML aliases; write it out".into(),
            ));
        };
        let record = remove::record(pod);
        match remove::plan(text, pod, &record) {
            Ok(edits) => Plan {
                edits,
                check: Some(uninjected(&record)),
                outcomes: vec![],
            },
            Err(why) => Plan::just(Outcome::Error(why)),
        }
    }

    fn done(&self) -> Outcome {
        Outcome::Uninjected
    }
}

/// Nothing of ours is left, and everything else is.
fn uninjected(record: &[&str]) -> Check {
    let record: Vec<String> = record.iter().map(|r| (*r).to_owned()).collect();
    Box::new(move |before, after| {
        let record: Vec<&str> = record.iter().map(String::as_str).collect();
        let clean = !workload::is_injected(after) && !workload::has_ours(after);
        check::without_ours(before, &record);
        check::without_ours(after, &record);
        clean.then_some(())
    })
}
