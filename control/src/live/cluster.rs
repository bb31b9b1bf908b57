//! How a change stands in a Kubernetes cluster: from the conditions that the controller writes, and from what each replica of it
//! says of its proxies.

use super::sync::{Behind, ObjectStanding, ProxiesStanding, Standing};
use crate::check::{Asked, proxies};
use crate::install::live::Live;
use crate::kube::Client;
use crate::kube::status::{ACCEPTED, PROGRAMMED};
use crate::manifest::{Kind, ObjectKey};
use crate::source::kube::kinds::Watched;
use crate::source::kube::ledger::{Condition, Entry, Ledger};
use crate::source::kube::once;
use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use weft_proxy_api::names::ports;

/// Reason of a condition: there is nobody who could lack something.
const NO_PROXIES: &str = "NoProxies";

/// Does the controller say of this object, in its status, how many proxies have it?
pub fn has_conditions(key: &ObjectKey) -> bool {
    Watched::of(&key.kind).is_some_and(|it| it.custom)
}

/// Everything that is written, whether the controller says that it is in force, and which proxies are behind.
///
/// Where `of_proxies`, it is an error if no replica of the controller can be asked; else conditions have to do.
pub async fn standing(
    asked: &Asked,
    client: &Client,
    key: Option<&ObjectKey>,
    of_proxies: bool,
) -> Result<Standing> {
    let ledger = Arc::new(Ledger::default());
    let events = once::read_into(client, &ledger, |watched| watched.custom).await?;
    drop(events);
    let entries = ledger.all();
    let relevant: Vec<_> = entries
        .iter()
        .filter(|(own, _)| key.is_none_or(|key| key == own))
        .collect();
    let is_judged = |(_, entry): &&(ObjectKey, Entry)| condition(entry, ACCEPTED).is_some();
    let up_to_date = relevant.iter().all(is_judged);
    let lacking = relevant.iter().filter_map(|(key, entry)| lacks(key, entry));
    let behind: Vec<Behind> = lacking.collect();
    let said = match proxies::ask(asked).await {
        Ok((statuses, _)) if statuses.is_empty() => Err(anyhow!(
            "no pod of the controller is in {}",
            asked.namespace
        )),
        said => said,
    };
    let (statuses, injected) = match said {
        Err(error) if of_proxies => {
            return Err(error.context("only the controllers can say what the proxies have"));
        }
        // The conditions are all there is.
        said => said.unwrap_or_default(),
    };
    let mut standing = of_replicas(&statuses, injected);
    standing.behind.extend(behind);
    let object = match key {
        None => None,
        Some(key) => Some(match has_conditions(key) {
            true => of_object(entries.iter().find(|(own, _)| own == key).map(|it| &it.1)),
            false => ObjectStanding {
                in_force: is_there(client, key).await?,
                ..ObjectStanding::default()
            },
        }),
    };
    Ok(Standing {
        up_to_date,
        object,
        proxies: standing,
    })
}

/// What only the controllers know of an object ([`super::Live`] says the same of one): its proxy, or how many proxies have what
/// it became. Where they cannot be asked it says why, and how to ask one by oneself.
pub async fn told_of(asked: &Asked, key: &ObjectKey) -> Value {
    let why = match proxies::ask(asked).await {
        Ok((statuses, injected)) if !statuses.is_empty() => {
            return told_by(&statuses, injected, key);
        }
        Ok(_) => format!("no pod of the controller is in {}", asked.namespace),
        Err(error) => format!("{error:#}"),
    };
    let (namespace, port) = (&asked.namespace, ports::CONTROL_ADMIN);
    json!({
        "unknown": why,
        "hint": format!(
            "it takes the right to get pods/proxy in {namespace}; or kubectl -n {namespace} port-forward deploy/weft-control {port}, \
             and --control 127.0.0.1:{port} --token-file FILE in place of a kubeconfig"
        ),
    })
}

fn told_by(statuses: &[Value], injected: BTreeSet<String>, key: &ObjectKey) -> Value {
    let all = statuses.iter().filter_map(|it| it["proxies"].as_array());
    let is = |it: &&Value| it["namespace"] == *key.namespace && it["pod"] == *key.name;
    let own = all.flatten().find(is);
    match own.filter(|_| key.kind == Kind::Pod) {
        Some(proxy) => json!({
            "state": proxy["state"],
            "version": proxy["version"],
            "connectedSeconds": proxy["connectedSeconds"].as_f64().map(|it| it as u64),
            "subscriptions": proxy["subscriptions"],
            "lastRefusal": proxy["lastNack"],
        }),
        None => json!({ "proxies": of_replicas(statuses, injected) }),
    }
}

/// A native object has no conditions of ours: all that can be said is whether it is there.
async fn is_there(client: &Client, key: &ObjectKey) -> Result<bool> {
    let Some(watched) = Watched::of(&key.kind) else {
        anyhow::bail!("{key}: the mesh has nothing to do with objects of this kind");
    };
    let group = match watched.group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    let (plural, name) = (watched.plural, &key.name);
    let path = match key.kind {
        Kind::Namespace => format!("{group}/{plural}/{name}"),
        _ => format!("{group}/namespaces/{}/{plural}/{name}", key.namespace),
    };
    Ok(Live::new(client.clone()).get(&path).await?.is_some())
}

fn condition<'a>(entry: &'a Entry, type_: &str) -> Option<&'a Condition> {
    let mut all = entry.conditions.iter();
    all.find(|it| it.type_ == type_ && it.observed_generation == entry.generation)
}

/// What the controller does not yet say of the current generation of an object.
fn lacks(key: &ObjectKey, entry: &Entry) -> Option<Behind> {
    let is_rejected = condition(entry, ACCEPTED).is_some_and(|it| it.status == "False");
    let programmed = condition(entry, PROGRAMMED);
    let done = programmed.is_some_and(|it| it.status == "True" || it.reason == NO_PROXIES);
    // What is rejected changes nothing.
    let why = match programmed {
        _ if done || is_rejected => return None,
        Some(it) => format!("Programmed is {}: {}", it.status, it.message),
        None => format!(
            "the controller has not judged generation {}",
            entry.generation
        ),
    };
    let pod = key.to_string();
    Some(Behind { pod, why })
}

fn of_object(entry: Option<&Entry>) -> ObjectStanding {
    let Some(entry) = entry else {
        return ObjectStanding::default();
    };
    let accepted = condition(entry, ACCEPTED);
    let rejected = accepted.filter(|it| it.status == "False");
    ObjectStanding {
        in_force: accepted.is_some_and(|it| it.status == "True"),
        rejected: rejected.map(|it| it.message.clone()).into_iter().collect(),
    }
}

/// What the replicas say together; pods that no replica hears of are behind, if there is a replica.
fn of_replicas(statuses: &[Value], mut missing: BTreeSet<String>) -> ProxiesStanding {
    let mut standing = ProxiesStanding::default();
    let all = statuses.iter().flat_map(|it| it["proxies"].as_array());
    for proxy in all.flatten() {
        let text = |field: &str| proxy[field].as_str().unwrap_or_default();
        let pod = format!("{}/{}", text("namespace"), text("pod"));
        missing.remove(&pod);
        standing.connected += 1;
        if text("state") == "SYNCED" {
            standing.synced += 1;
        } else {
            let why = format!("is STALE {}", text("lastNack"));
            standing.behind.push(Behind { pod, why });
        }
    }
    if !statuses.is_empty() {
        let why = "no controller hears of it".to_owned();
        let missing = missing.into_iter().map(|pod| Behind {
            pod,
            why: why.clone(),
        });
        standing.behind.extend(missing);
    }
    standing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::time::Instant;

    fn entry(generation: i64, conditions: Value) -> Entry {
        let ledger = Ledger::default();
        let key = ObjectKey::new(Kind::TrafficSplit, "a", "b");
        let object =
            json!({"metadata": {"generation": generation}, "status": {"conditions": conditions}});
        ledger.note(
            Watched::of(&key.kind).unwrap(),
            &key,
            &object,
            Instant::now(),
        );
        ledger.all().remove(0).1
    }

    fn said(type_: &str, status: &str, generation: i64) -> Value {
        json!({
            "type": type_, "status": status, "observedGeneration": generation, "reason": "R", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn only_what_is_said_of_the_current_generation_counts() {
        let key = ObjectKey::new(Kind::TrafficSplit, "a", "b");
        let both =
            |status: &str, at| json!([said(ACCEPTED, "True", at), said(PROGRAMMED, status, at)]);
        assert_eq!(lacks(&key, &entry(2, both("True", 2))), None);
        assert!(of_object(Some(&entry(2, both("True", 2)))).in_force);
        let old = entry(3, both("True", 2));
        assert!(lacks(&key, &old).unwrap().why.contains("generation 3"));
        assert!(!of_object(Some(&old)).in_force);
        let pending = lacks(&key, &entry(2, both("False", 2))).unwrap();
        assert_eq!(pending.why, "Programmed is False: m");
        let rejected = entry(1, json!([said(ACCEPTED, "False", 1)]));
        assert_eq!(lacks(&key, &rejected), None);
        assert_eq!(of_object(Some(&rejected)).rejected, ["m"]);
        assert_eq!(of_object(None), ObjectStanding::default());
    }

    #[test]
    fn an_object_is_told_with_its_proxy_or_with_all() {
        let proxy = json!({"namespace": "a", "pod": "p", "state": "SYNCED", "version": "1", "connectedSeconds": 2.5, "subscriptions": 3});
        let statuses = [json!({"proxies": []}), json!({"proxies": [proxy]})];
        let told = |kind: Kind, name: &str| {
            let key = ObjectKey::new(kind, "a", name);
            told_by(&statuses, ["a/p", "a/q"].map(str::to_owned).into(), &key)
        };
        let own = told(Kind::Pod, "p");
        assert_eq!(
            (&own["state"], &own["connectedSeconds"]),
            (&json!("SYNCED"), &json!(2))
        );
        for (kind, name) in [(Kind::Pod, "q"), (Kind::Service, "p")] {
            let all = told(kind, name);
            assert_eq!(all["proxies"]["synced"], 1, "{all}");
            assert_eq!(all["proxies"]["behind"][0]["pod"], "a/q", "{all}");
        }
    }

    #[test]
    fn replicas_are_added_up() {
        let proxy = |name: &str, state: &str| json!({"namespace": "a", "pod": name, "state": state, "lastNack": "no"});
        let statuses = [
            json!({"proxies": [proxy("p", "SYNCED")]}),
            json!({"proxies": [proxy("q", "STALE")]}),
        ];
        let injected = || ["a/p", "a/q", "a/r"].map(str::to_owned).into();
        let standing = of_replicas(&statuses, injected());
        assert_eq!((standing.connected, standing.synced), (2, 1));
        let behind: Vec<_> = standing.behind.iter().map(|it| it.pod.as_str()).collect();
        assert_eq!(behind, ["a/q", "a/r"]);
        assert_eq!(of_replicas(&[], injected()), ProxiesStanding::default());
    }
}
