//! The API server, and whether there is room for a mesh.

use super::Asked;
use super::report::{Section, Verdict};
use crate::install::live::{path, title};
use crate::install::{CONFIG_MAP, Install};
use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Oldest version with everything that is asked for.
const OLDEST: u64 = 30;
/// Clocks that differ by more than this are worth a look, by the second certificates do not count, seconds.
const SKEW: [i64; 2] = [10, 50];
/// Parts of the names of other meshes' webhooks.
const MESHES: [&str; 7] = [
    "linkerd",
    "istio",
    "sidecar-injector",
    "consul",
    "kuma",
    "osm-",
    "traefik-mesh",
];

pub(super) async fn api(asked: &Asked) -> Section {
    let mut section = Section::new("kubernetes-api");
    let version = asked.get("/version").await;
    let reached = match &version {
        Ok(_) => Verdict::fine(),
        Err(error) => Verdict::failure(format!("{error:#}")),
    };
    section.add("api-reachable", "the API server answers", reached);
    if let Ok(version) = version {
        let version = version.unwrap_or_default();
        section.add(
            "api-version",
            "its version has what is needed",
            recent(&version),
        );
        let skew = match asked.date().await {
            Ok(date) => skew(date.as_deref(), Timestamp::now()),
            Err(error) => Verdict::warning(format!("{error:#}")),
        };
        section.add("clock", "its clock and ours agree", skew);
    }
    section
}

fn recent(version: &Value) -> Verdict {
    let minor = version["minor"].as_str().unwrap_or_default();
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u64>() {
        Ok(minor) if version["major"] == "1" && minor < OLDEST => {
            Verdict::failure(format!("it is Kubernetes 1.{minor}, older than 1.{OLDEST}"))
        }
        Ok(_) => Verdict::fine(),
        Err(_) => Verdict::warning(format!("it calls itself {version}")),
    }
}

/// The time that a `Date` tells.
pub(super) fn time_of(date: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}

fn skew(date: Option<&str>, now: Timestamp) -> Verdict {
    let Some(theirs) = date.and_then(time_of) else {
        return Verdict::warning("it does not tell the time");
    };
    let seconds = (now.as_second() - theirs.as_second()).abs();
    let message = format!("the clocks differ by {seconds} s");
    match seconds {
        _ if seconds > SKEW[1] => Verdict::failure(message),
        _ if seconds > SKEW[0] => Verdict::warning(message),
        _ => Verdict::fine(),
    }
}

pub(super) async fn room(asked: &Asked) -> Section {
    let mut section = Section::new("pre-install");
    let install = Install {
        namespace: asked.namespace.clone(),
        ..Install::default()
    };
    let objects = install.render();
    let denied = denied(asked, &objects).await;
    let verdict = denied.map(|denied| {
        Verdict::unless(denied, || {
            Verdict::failure("the user of this kubeconfig may not")
        })
    });
    section.add("permissions", "everything may be made", verdict.into());
    let others = other_meshes(asked).await.map(|others| {
        Verdict::unless(others, || {
            Verdict::warning("another mesh injects pods here")
        })
    });
    section.add("other-meshes", "no other mesh injects pods", others.into());
    let foreign = foreign(asked, &objects).await.map(|foreign| {
        Verdict::unless(foreign, || {
            Verdict::warning("somebody else has defined these kinds")
        })
    });
    section.add(
        "definitions-of-others",
        "nobody else has defined the kinds of SMI",
        foreign.into(),
    );
    let config = format!(
        "/api/v1/namespaces/{}/configmaps/{CONFIG_MAP}",
        asked.namespace
    );
    let installed = asked.get(&config).await.map(|found| match found {
        None => Verdict::fine(),
        Some(_) => Verdict::warning(format!("it is installed in {} already", asked.namespace)),
    });
    section.add(
        "not-installed",
        "the mesh is not installed yet",
        installed.into(),
    );
    section
}

/// What of an installation the user may not create or change.
async fn denied(asked: &Asked, objects: &[Value]) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut denied = Vec::new();
    for object in objects {
        for verb in ["create", "patch"] {
            let attributes = attributes(object, verb);
            if !seen.insert(attributes.to_string()) {
                continue;
            }
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            });
            let url = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let answer = asked.post(url, &review).await;
            let answer = answer.context("it does not say what the user may do")?;
            if answer["status"]["allowed"] != true {
                let (resource, group) = (&attributes["resource"], &attributes["group"]);
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                denied.push(
                    format!("{verb} {} {}", text(resource), text(group))
                        .trim_end()
                        .to_owned(),
                );
            }
        }
    }
    Ok(denied)
}

fn attributes(object: &Value, verb: &str) -> Value {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let path = path(object);
    let resource = path.rsplit('/').nth(1).unwrap_or_default();
    let mut attributes = json!({"verb": verb, "group": group, "resource": resource});
    if let Some(namespace) = object["metadata"].get("namespace") {
        attributes["namespace"] = namespace.clone();
    }
    attributes
}

async fn other_meshes(asked: &Asked) -> Result<Vec<String>> {
    let url = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let list = asked.get(url).await?.unwrap_or_default();
    let names = list["items"].as_array().into_iter().flatten();
    let names = names.filter_map(|object| object["metadata"]["name"].as_str());
    let foreign = names.filter(|name| MESHES.iter().any(|mesh| name.contains(mesh)));
    Ok(foreign.map(str::to_owned).collect())
}

async fn foreign(asked: &Asked, objects: &[Value]) -> Result<Vec<String>> {
    let mut foreign = Vec::new();
    for object in objects
        .iter()
        .filter(|it| it["kind"] == "CustomResourceDefinition")
    {
        let found = asked.live.object(object).await?;
        let ours =
            |found: &Value| found["metadata"]["labels"]["app.kubernetes.io/part-of"] == "weft";
        if found.is_some_and(|found| !ours(&found)) {
            foreign.push(title(object));
        }
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Outcome;

    fn outcome(verdict: Verdict) -> Outcome {
        let mut section = Section::new("x");
        section.add("clock", "x", verdict);
        section.checks[0].outcome
    }

    #[test]
    fn versions() {
        let table = [
            ("1", "33", Outcome::Fine),
            ("1", "30+", Outcome::Fine),
            ("1", "29", Outcome::Failure),
            ("2", "0", Outcome::Fine),
            ("1", "", Outcome::Warning),
        ];
        for (major, minor, expected) in table {
            let version = json!({"major": major, "minor": minor});
            assert_eq!(outcome(recent(&version)), expected, "{major}.{minor}");
        }
    }

    #[test]
    fn clocks() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let table = [
            (Some("Sat, 21 Nov 2026 11:59:55 GMT"), Outcome::Fine),
            (Some("Sat, 21 Nov 2026 12:00:30 GMT"), Outcome::Warning),
            (Some("Sat, 21 Nov 2026 11:00:00 GMT"), Outcome::Failure),
            (Some("yesterday"), Outcome::Warning),
            (None, Outcome::Warning),
        ];
        for (date, expected) in table {
            assert_eq!(outcome(skew(date, now)), expected, "{date:?}");
        }
    }

    #[test]
    fn what_is_asked_about_an_object() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}});
        let expected =
            json!({"verb": "create", "group": "apps", "resource": "deployments", "namespace": "n"});
        assert_eq!(attributes(&object, "create"), expected);
    }
}
