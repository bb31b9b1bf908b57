//! What is known about a Service, in sentences for people.

use super::{SLOW, Why, inbound, node, outbound};
use crate::traffic::edges::Node;
use crate::traffic::report::{PodReport, Report};
use crate::traffic::rows::{self, Kind, Query, Resource};
use std::collections::{BTreeMap, BTreeSet};

/// Success below this is worth a sentence.
const WELL: f64 = 0.995;
/// More requests arriving than were sent, by this much, are retries.
const AMPLIFIED: f64 = 1.1;
/// Fewer requests say nothing about amplification.
const ENOUGH: u64 = 50;

/// In the order in which one would ask: how much, how quick, what fails, and what else is unusual.
pub(super) fn sentences(report: &Report, why: &Why, pods: &[&PodReport]) -> Vec<String> {
    let mut said = vec![load(why)];
    said.extend(latency(why));
    said.extend(failures(why));
    said.extend(denials(pods));
    said.extend(amplification(report, pods));
    said.extend(breakers(report, why));
    said.extend(split(report, why));
    said.extend(staleness(pods));
    said
}

fn ms(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn load(why: &Why) -> String {
    let (name, sum) = (&why.service, &why.sum);
    if sum.counts.requests == 0 {
        let connections = sum.counts.connections;
        return match connections {
            0 => format!("{name} got no requests in this time."),
            n => format!("{name} got {n} connections that carry bytes, and no requests."),
        };
    }
    let total: f64 = why.callers.iter().map(|at| at.sum.rps).sum();
    let callers: Vec<String> = why
        .callers
        .iter()
        .take(3)
        .map(|at| {
            format!(
                "{} ({})",
                at.name,
                percent(at.sum.rps / total.max(f64::MIN_POSITIVE))
            )
        })
        .collect();
    let callers = match callers.is_empty() {
        true => String::new(),
        false => format!(", sent by {}", callers.join(", ")),
    };
    let success = sum.success_rate.unwrap_or(1.0);
    format!(
        "{name} gets {:.1} requests a second{callers}; {} succeed.",
        sum.rps,
        percent(success)
    )
}

fn latency(why: &Why) -> Vec<String> {
    let Some(p95) = why.sum.latency_p95 else {
        return vec![];
    };
    let name = &why.service;
    if p95 < SLOW {
        return vec![format!(
            "It is quick: 95 in 100 answers take at most {}.",
            ms(p95)
        )];
    }
    let slow = format!("It is slow: 95 in 100 answers take up to {}.", ms(p95));
    let Some(last) = why.chain.last() else {
        let own = match why.dependencies.first().and_then(|at| at.sum.latency_p95) {
            Some(dependency) => format!(
                "Its dependencies answer within {}: the time is spent in {name} itself.",
                ms(dependency)
            ),
            None => format!("It calls nothing by HTTP: the time is spent in {name} itself."),
        };
        return vec![slow, own];
    };
    let steps: Vec<String> = why
        .chain
        .iter()
        .map(|at| {
            let (caller, dependency) = (&at.caller.workload, &at.dependency.workload);
            format!("{caller} waits {} for {dependency}", ms(at.latency_p95))
        })
        .collect();
    let called = match last.service.as_str() {
        "" => String::new(),
        service => format!(" of the service {service}"),
    };
    let route = match last.route.as_str() {
        "" => String::new(),
        route => format!(", on the route {route}"),
    };
    let cause = format!(
        "The slow dependency is {}{called}, called by {}{route}: it takes {}.",
        last.dependency.workload,
        last.caller.workload,
        ms(last.latency_p95)
    );
    vec![slow, format!("{}.", steps.join("; ")), cause]
}

fn failures(why: &Why) -> Vec<String> {
    let mut said = Vec::new();
    if why.sum.success_rate.is_some_and(|rate| rate < WELL) {
        let mut codes: Vec<_> = why.sum.counts.answers.iter().collect();
        codes.retain(|(code, _)| {
            let text = code.to_string();
            text.starts_with('5') || text.starts_with("grpc-") && text != "grpc-0"
        });
        codes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let codes: Vec<String> = codes
            .iter()
            .take(3)
            .map(|(code, count)| format!("{count} × {code}"))
            .collect();
        let routes = why.routes.iter().filter(|at| at.sum.counts.failure > 0);
        let worst = routes.max_by_key(|at| at.sum.counts.failure);
        let route = worst.map_or_else(String::new, |at| format!(", most on the route {}", at.name));
        let failure = why.sum.counts.failure;
        said.push(format!(
            "{failure} answers failed ({}){route}.",
            codes.join(", ")
        ));
    }
    for at in &why.dependencies {
        if at.sum.success_rate.is_some_and(|rate| rate < WELL) {
            let failed = 1.0 - at.sum.success_rate.unwrap_or(1.0);
            said.push(format!(
                "{} of what it sends to {} fails ({} requests).",
                percent(failed),
                at.name,
                at.sum.counts.failure
            ));
        }
    }
    said
}

fn denials(pods: &[&PodReport]) -> Vec<String> {
    let mut denied: BTreeMap<(String, String), u64> = BTreeMap::new();
    for pod in pods {
        for edge in inbound(pod) {
            let caller = match edge.key.peer_workload.as_str() {
                "" => "callers without identity".to_owned(),
                account => format!("{account} of {}", edge.key.peer_namespace),
            };
            for (reason, count) in &edge.counts.denied_by {
                let known = denied.entry((caller.clone(), reason.clone())).or_default();
                *known = u64::saturating_add(*known, *count);
            }
        }
    }
    let said = denied.into_iter();
    said.map(|((caller, reason), count)| {
        format!(
            "{caller} was denied {count} times ({}).",
            reason.replace('_', " ")
        )
    })
    .collect()
}

/// As the other end calls it.
fn account(pod: &PodReport) -> String {
    format!("sa/{}", pod.facts.service_account)
}

/// More requests arriving at a dependency than were sent there are retries.
fn amplification(report: &Report, pods: &[&PodReport]) -> Vec<String> {
    let callers: BTreeSet<Node> = pods.iter().map(|pod| node(pod)).collect();
    let mut said = Vec::new();
    for caller in callers {
        let own: Vec<&&PodReport> = pods.iter().filter(|pod| node(pod) == caller).collect();
        let accounts: BTreeSet<String> = own.iter().map(|pod| account(pod)).collect();
        // The other end knows callers by account: of several workloads with one account it cannot be told who tried again.
        let is_another = |pod: &PodReport| {
            pod.facts.namespace == caller.namespace
                && node(pod) != caller
                && accounts.contains(&account(pod))
        };
        if report.pods.iter().any(is_another) {
            continue;
        }
        let mut sent: BTreeMap<Node, u64> = BTreeMap::new();
        for edge in own.iter().flat_map(|pod| outbound(pod)) {
            let peer = Node {
                namespace: edge.key.peer_namespace.clone(),
                workload: edge.key.peer_workload.clone(),
            };
            let known = sent.entry(peer).or_default();
            *known = known.saturating_add(edge.counts.requests);
        }
        for (peer, sent) in sent.into_iter().filter(|(_, sent)| *sent >= ENOUGH) {
            let arrived = report
                .pods
                .iter()
                .filter(|pod| node(pod) == peer)
                .flat_map(inbound)
                .filter(|edge| {
                    edge.key.peer_namespace == caller.namespace
                        && accounts.contains(&edge.key.peer_workload)
                })
                .map(|edge| edge.counts.requests)
                .fold(0, u64::saturating_add);
            let factor = arrived as f64 / sent as f64;
            if factor >= AMPLIFIED {
                said.push(format!(
                    "{} sent {sent} requests to {}, where {arrived} arrived: retries make it {factor:.1} times as many.",
                    caller.workload, peer.workload
                ));
            }
        }
    }
    said
}

fn breakers(report: &Report, why: &Why) -> Vec<String> {
    let mut out: BTreeMap<&str, (u32, u32, usize)> = BTreeMap::new();
    let own = format!("{}/{}:", why.namespace, why.service);
    for pod in &report.pods {
        let is_own =
            pod.facts.namespace == why.namespace && pod.facts.services.contains(&why.service);
        for (name, at) in &pod.backends {
            if at.ejected > 0 && (is_own || name.starts_with(&own)) {
                let worst = out.entry(name).or_default();
                let (ejected, known) = (worst.0.max(at.ejected), worst.1.max(at.endpoints));
                *worst = (ejected, known, worst.2 + 1);
            }
        }
    }
    let said = out.into_iter();
    said.map(|(name, (ejected, known, proxies))| {
        let proxies = match proxies {
            1 => "one proxy".to_owned(),
            n => format!("{n} proxies"),
        };
        format!(
            "Of {name}, {ejected} of {known} endpoints are set aside by the breakers of {proxies}."
        )
    })
    .collect()
}

fn split(report: &Report, why: &Why) -> Vec<String> {
    let query = Query {
        resource: Resource {
            kind: Kind::Split,
            name: None,
        },
        namespace: Some(why.namespace.clone()),
        ..Query::all(Kind::Split)
    };
    let rows = rows::stat(report, &query).unwrap_or_default();
    let mut by_split: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let Some(share) = row.share.filter(|share| share.apex == why.service) else {
            continue;
        };
        let seen = share
            .observed
            .map_or("none seen".into(), |at| format!("{} seen", percent(at)));
        let success = row.sum.success_rate;
        let success = success.map_or(String::new(), |at| format!(", {} succeed", percent(at)));
        let wanted = percent(share.wanted);
        let text = format!("{} {wanted} wanted, {seen}{success}", share.leaf);
        by_split.entry(row.name).or_default().push(text);
    }
    let said = by_split.into_iter();
    said.map(|(name, shares)| format!("The split {name} shares it: {}.", shares.join("; ")))
        .collect()
}

fn staleness(pods: &[&PodReport]) -> Vec<String> {
    let lacking = pods.iter().filter(|pod| pod.facts.meshed);
    let stale = lacking.filter(|pod| pod.proxy.as_ref().is_none_or(|proxy| !proxy.synced));
    let names: Vec<&str> = stale.map(|pod| pod.facts.name.as_str()).collect();
    match names.is_empty() {
        true => vec![],
        false => vec![format!(
            "The proxies of {} do not have the newest configuration.",
            names.join(", ")
        )],
    }
}
