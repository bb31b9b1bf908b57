//! What the controllers know of the proxies: from `/status` of each, pure; in a cluster through the API server.

use super::Asked;
use super::report::{Section, Verdict};
use crate::traffic::Report;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weft_proxy_api::names::{self, CONTROL_ACCOUNT, keys, ports};

/// A policy that is older than this is worth a look, seconds.
const STALE: f64 = 10.0;

/// Checks of the controller's own answer.
pub fn controller(status: &Value) -> Section {
    let mut section = Section::new("weft-control");
    let answers = match &status["ready"] {
        Value::Bool(true) => Verdict::fine(),
        _ => Verdict::failure("it has not read everything yet"),
    };
    section.add("controller-answers", "the controller is ready", answers);
    let same = match status["version"].as_str() {
        Some(names::VERSION) => Verdict::fine(),
        other => Verdict::warning(format!(
            "it is {}, and meshctl is {}",
            other.unwrap_or("unknown"),
            names::VERSION
        )),
    };
    section.add("same-version", "it is of the version of this meshctl", same);
    section.add(
        "objects-in-force",
        "all objects are in force",
        problems(status),
    );
    section
}

/// The same, and whether the others of the mesh answer: each knows only its own proxies.
pub fn controllers(status: &Value, traffic: &Report) -> Section {
    let mut section = controller(status);
    if let Some(controllers) = &traffic.controllers {
        let silent = controllers.silent.iter();
        let silent = silent.map(|it| format!("{}: {}", it.controller, it.why));
        let verdict = Verdict::unless(silent.collect(), || {
            let (answered, known) = (controllers.answered, controllers.known);
            Verdict::failure(format!(
                "{answered} of {known} answered; what the proxies of the others do is not known"
            ))
        });
        section.add("controllers-answer", "every controller answers", verdict);
    }
    section
}

/// Checks of the proxies of every controller that answered.
pub fn everywhere(traffic: &Report) -> Section {
    let pods = traffic.pods.iter();
    let told = pods.clone().filter_map(|pod| {
        let proxy = pod.proxy.as_ref()?;
        Some(json!({
            "namespace": pod.facts.namespace,
            "pod": pod.facts.name,
            "state": if proxy.synced { "SYNCED" } else { "STALE" },
            "staleSeconds": proxy.stale_seconds,
            "version": proxy.version,
            "lastNack": proxy.last_nack,
        }))
    });
    let status = json!({"proxies": told.collect::<Vec<_>>()});
    let expected = pods.filter(|pod| pod.facts.meshed && pod.facts.ready);
    let expected = expected.map(|pod| format!("{}/{}", pod.facts.namespace, pod.facts.name));
    proxies(&[status], &expected.collect())
}

fn problems(status: &Value) -> Verdict {
    let problems = status["problems"].as_array().into_iter().flatten();
    let wrong = problems.filter(|problem| problem["severity"] == "error");
    let lines = wrong.map(|problem| {
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        let line = [text("object"), text("field"), text("message")];
        let line: Vec<&str> = line.into_iter().filter(|part| !part.is_empty()).collect();
        line.join(": ")
    });
    Verdict::unless(lines.collect(), || Verdict::warning("some are not"))
}

/// Checks of the proxies: what the controllers say, and the injected pods there are, `namespace/name`.
pub fn proxies(statuses: &[Value], injected: &BTreeSet<String>) -> Section {
    let mut section = Section::new("weft-proxies");
    let all: Vec<&Value> = statuses
        .iter()
        .flat_map(|status| status["proxies"].as_array().into_iter().flatten())
        .collect();
    let name = |proxy: &Value| {
        let text = |field: &str| proxy[field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text("namespace"), text("pod"))
    };
    let connected: BTreeSet<String> = all.iter().map(|proxy| name(proxy)).collect();
    let missing = injected.difference(&connected).cloned().collect();
    let verdict = Verdict::unless(missing, || Verdict::failure("no controller hears of these"));
    section.add(
        "proxies-connected",
        "every injected pod is connected",
        verdict,
    );
    let is_stale = |proxy: &&&Value| {
        proxy["state"] != "SYNCED" && proxy["staleSeconds"].as_f64().unwrap_or(0.0) > STALE
    };
    let stale = all.iter().filter(is_stale).map(|proxy| {
        let reason = proxy["lastNack"].as_str().map(|it| format!(": {it}"));
        format!("{}{}", name(proxy), reason.unwrap_or_default())
    });
    let verdict = Verdict::unless(stale.collect(), || {
        Verdict::failure("these have not taken over what was sent")
    });
    section.add(
        "proxies-synced",
        "every proxy holds the current policy",
        verdict,
    );
    let other = all
        .iter()
        .filter(|proxy| proxy["version"] != names::VERSION);
    let other = other.map(|proxy| {
        let version = proxy["version"].as_str().unwrap_or("unknown");
        format!("{}: {version}", name(proxy))
    });
    let verdict = Verdict::unless(other.collect(), || {
        Verdict::warning(format!("meshctl is {}", names::VERSION))
    });
    section.add(
        "proxies-version",
        "every proxy is of the same version",
        verdict,
    );
    section
}

/// The proxies of a cluster; every replica of the controller knows its own.
pub(super) async fn in_cluster(asked: &Asked) -> Section {
    match ask(asked).await {
        Ok((statuses, injected)) => proxies(&statuses, &injected),
        Err(error) => {
            let mut section = Section::new("weft-proxies");
            let verdict = Verdict::failure(format!("{error:#}"));
            section.add(
                "proxies-connected",
                "every injected pod is connected",
                verdict,
            );
            section
        }
    }
}

/// What each replica of the controller says of itself and its proxies, and the injected pods that run.
pub(crate) async fn ask(asked: &Asked) -> Result<(Vec<Value>, BTreeSet<String>)> {
    let namespace = &asked.namespace;
    // A pod that was evicted stays for a long time, and has nothing to say.
    let selector = format!(
        "app.kubernetes.io%2Fcomponent%3D{CONTROL_ACCOUNT}&fieldSelector=status.phase%3DRunning"
    );
    let url = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
    let controllers = asked.get(&url).await?.unwrap_or_default();
    let mut statuses = Vec::new();
    for pod in controllers["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let port = ports::CONTROL_ADMIN;
        let url = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/status");
        let status = asked.get(&url).await;
        statuses.extend(status.with_context(|| format!("pod {name} of the controller"))?);
    }
    let pods = asked
        .get("/api/v1/pods?fieldSelector=status.phase%3DRunning")
        .await?;
    let pods = pods.unwrap_or_default();
    let injected = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| {
            let annotations = &pod["metadata"]["annotations"];
            annotations.get(keys::INJECTED_AT_VERSION).is_some()
        });
    let injected = injected.map(|pod| {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        format!("{}/{}", text("namespace"), text("name"))
    });
    Ok((statuses, injected.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Outcome;
    use crate::peers::{Controllers, Silent};
    use crate::traffic::report::{PodReport, ProxyReport};

    #[test]
    fn what_a_controller_says_of_itself() {
        let good =
            json!({"ready": true, "version": names::VERSION, "problems": [{"severity": "info"}]});
        let outcomes = |status: &Value| -> Vec<Outcome> {
            controller(status)
                .checks
                .iter()
                .map(|check| check.outcome)
                .collect()
        };
        assert_eq!(outcomes(&good), [Outcome::Fine; 3]);
        let bad = json!({"problems": [{"severity": "error", "object": "TrafficSplit a/b", "field": "spec", "message": "no"}]});
        assert_eq!(
            outcomes(&bad),
            [Outcome::Failure, Outcome::Warning, Outcome::Warning]
        );
        assert_eq!(
            controller(&bad).checks[2].objects,
            ["TrafficSplit a/b: spec: no"]
        );
    }

    #[test]
    fn who_is_silent_is_named_and_who_is_ready_is_expected() {
        let pod = |name: &str, meshed: bool, proxy: Option<ProxyReport>| {
            let mut pod = PodReport {
                proxy,
                ..PodReport::default()
            };
            (pod.facts.namespace, pod.facts.name) = ("a".into(), name.into());
            (pod.facts.meshed, pod.facts.ready) = (meshed, true);
            pod
        };
        let connected = ProxyReport {
            synced: true,
            version: names::VERSION.into(),
            ..ProxyReport::default()
        };
        let mut traffic = Report {
            pods: vec![
                pod("p", true, Some(connected)),
                pod("q", true, None),
                pod("unmeshed", false, None),
            ],
            ..Report::default()
        };
        assert_eq!(everywhere(&traffic).checks[0].objects, ["a/q"]);
        let status = json!({"ready": true, "version": names::VERSION});
        assert_eq!(controllers(&status, &traffic).checks.len(), 3, "it is one");
        traffic.controllers = Some(Controllers {
            known: 2,
            answered: 1,
            silent: vec![Silent {
                controller: "10.0.0.2:8086".into(),
                why: "no answer".into(),
            }],
        });
        let checks = controllers(&status, &traffic).checks;
        assert_eq!(checks[3].outcome, Outcome::Failure);
        assert_eq!(checks[3].objects, ["10.0.0.2:8086: no answer"]);
    }

    #[test]
    fn proxies_that_are_missing_stale_or_old_are_named() {
        let proxy = |name: &str, version: &str, stale: Option<f64>| {
            json!({
                "namespace": "a", "pod": name, "version": version, "staleSeconds": stale,
                "state": if stale.is_some() { "STALE" } else { "SYNCED" }, "lastNack": "why",
            })
        };
        let one =
            json!({"proxies": [proxy("p", names::VERSION, None), proxy("q", "0.0.1", Some(2.0))]});
        let two = json!({"proxies": [proxy("r", names::VERSION, Some(60.0))]});
        let injected = ["a/p", "a/q", "a/r", "a/s"].map(str::to_owned).into();
        let section = proxies(&[one, two], &injected);
        let objects: Vec<_> = section
            .checks
            .iter()
            .map(|check| check.objects.concat())
            .collect();
        assert_eq!(objects, ["a/s", "a/r: why", "a/q: 0.0.1"]);
        let none = proxies(&[], &BTreeSet::new());
        assert!(
            none.checks
                .iter()
                .all(|check| check.outcome == Outcome::Fine)
        );
    }
}
