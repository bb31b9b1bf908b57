//! Pods as people see them.

use super::cluster::Entry;
use super::node::{Phase, PodState};
use super::wire::PodInfo;
use crate::manifest::Kind;
use weft_proxy_api::names::inject::PROXY_CONTAINER;

/// A pod for `get pods`.
pub(crate) fn info(entry: &Entry) -> PodInfo {
    let state = entry.state();
    let all = || {
        entry
            .pod
            .spec
            .init_containers
            .iter()
            .chain(&entry.pod.spec.containers)
    };
    PodInfo {
        namespace: entry.pod.metadata.namespace.clone(),
        name: entry.pod.metadata.name.clone(),
        owner: (entry.owner.kind != Kind::Pod)
            .then(|| format!("{} {}", entry.owner.kind, entry.owner.name)),
        status: status(&state, entry.deleting.is_some()),
        message: state.message.clone(),
        ready: state.ready() && entry.deleting.is_none(),
        finished: matches!(state.phase, Phase::Succeeded | Phase::Failed),
        deleting: entry.deleting.is_some(),
        ips: state.ips,
        labels: entry.pod.metadata.labels.clone(),
        service_account: entry.pod.spec.account().to_owned(),
        meshed: all().any(|c| c.name == PROXY_CONTAINER),
        age_seconds: entry.began.elapsed().as_secs(),
        containers: state.containers,
    }
}

/// One word, as `kubectl get pods` has it.
fn status(state: &PodState, deleting: bool) -> String {
    if deleting {
        return "Terminating".into();
    }
    match state.phase {
        Phase::Succeeded => return "Completed".into(),
        Phase::Failed => return "Error".into(),
        _ => {}
    }
    if state.home.is_none() {
        return if state.message.is_some() {
            "CreatePodError".into()
        } else {
            "Pending".into()
        };
    }
    if let Some(down) = state.containers.iter().find(|c| {
        c.restarts > 0 && c.state != "Running" && c.state != "Waiting"
            || c.reason
                .as_deref()
                .is_some_and(|r| r.starts_with("CreateContainerError"))
    }) {
        return if down.state == "Terminated" {
            "CrashLoopBackOff".into()
        } else {
            "CreateContainerError".into()
        };
    }
    if state.phase == Phase::Pending {
        let init: Vec<_> = state.containers.iter().filter(|c| c.init).collect();
        return format!(
            "Init:{}/{}",
            init.iter().filter(|c| c.started).count(),
            init.len()
        );
    }
    "Running".into()
}
