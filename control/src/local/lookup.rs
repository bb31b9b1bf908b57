//! What people name, found: kinds, pods, containers, log files.

use anyhow::{Context, Result, bail};

use super::cluster::{Cluster, Entry};
use super::node::Home;
use crate::manifest::{self, Kind};
use weft_proxy_api::names::inject::PROXY_CONTAINER;

/// A pod by name, or one of a workload's by `deploy/NAME`.
pub(crate) fn find<'a>(cluster: &'a Cluster, namespace: &str, name: &str) -> Result<&'a Entry> {
    if let Some((kind, owner)) = name.split_once('/') {
        let kind = kind_named(kind)?;
        let mut of = cluster.pods.values().filter(|e| {
            e.owner.kind == kind && e.owner.namespace == namespace && e.owner.name == owner
        });
        let mut all: Vec<_> = of.by_ref().collect();
        all.sort_by_key(|entry| {
            (
                entry.deleting.is_some(),
                !entry.handle.state.borrow().ready(),
            )
        });
        return all
            .first()
            .copied()
            .with_context(|| format!("{kind} {namespace}/{owner} has no pod"));
    }
    cluster
        .pods
        .get(&(namespace.to_owned(), name.to_owned()))
        .with_context(|| format!("there is no pod {namespace}/{name}"))
}

pub(crate) fn home(entry: &Entry) -> Result<Home> {
    entry
        .handle
        .state
        .borrow()
        .home
        .context("the pod has not started yet")
}

pub(crate) fn container_of<'a>(
    entry: &'a Entry,
    name: Option<&str>,
) -> Result<(usize, &'a manifest::workload::Container)> {
    let spec = &entry.pod.spec;
    let mut all = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .enumerate();
    let found = match name {
        Some(name) => all.find(|(_, c)| c.name == name),
        None => {
            let apps: Vec<_> = all.skip(spec.init_containers.len()).collect();
            let app = apps
                .iter()
                .find(|(_, c)| c.name != PROXY_CONTAINER)
                .copied();
            app.or(apps.first().copied())
        }
    };
    found.with_context(|| {
        let names: Vec<_> = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .map(|c| c.name.as_str())
            .collect();
        format!(
            "pod {} has no container {} (it has {})",
            entry.pod.metadata.name,
            name.unwrap_or(""),
            names.join(", ")
        )
    })
}

pub(crate) fn log_file(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
) -> Result<std::path::PathBuf> {
    let logs = cluster.node.options.state.join("logs");
    if pod == "weft-control" && cluster.node.options.control {
        return Ok(logs.join("weft-control.log"));
    }
    let entry = find(cluster, namespace, pod)?;
    let (_, container) = container_of(entry, container)?;
    cluster.node.log_file(&entry.pod.metadata, &container.name)
}

/// A kind as people type it.
pub(crate) fn kind_named(text: &str) -> Result<Kind> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Kind::Pod,
        "deployment" | "deployments" | "deploy" => Kind::Deployment,
        "statefulset" | "statefulsets" | "sts" => Kind::StatefulSet,
        "daemonset" | "daemonsets" | "ds" => Kind::DaemonSet,
        "replicaset" | "replicasets" | "rs" => Kind::ReplicaSet,
        "job" | "jobs" => Kind::Job,
        "cronjob" | "cronjobs" | "cj" => Kind::CronJob,
        "service" | "services" | "svc" => Kind::Service,
        "endpoints" | "ep" => Kind::Endpoints,
        "endpointslice" | "endpointslices" => Kind::EndpointSlice,
        "serviceaccount" | "serviceaccounts" | "sa" => Kind::ServiceAccount,
        "configmap" | "configmaps" | "cm" => Kind::ConfigMap,
        "namespace" | "namespaces" | "ns" => Kind::Namespace,
        "trafficsplit" | "trafficsplits" | "ts" => Kind::TrafficSplit,
        "traffictarget" | "traffictargets" | "tt" => Kind::TrafficTarget,
        "httproutegroup" | "httproutegroups" | "htr" => Kind::HttpRouteGroup,
        "tcproute" | "tcproutes" | "tr" => Kind::TcpRoute,
        "udproute" | "udproutes" | "ur" => Kind::UdpRoute,
        "identitybinding" | "identitybindings" | "ib" => Kind::IdentityBinding,
        "servicepolicy" | "servicepolicies" | "sp" => Kind::ServicePolicy,
        _ => bail!("{text} is not a kind known here"),
    })
}
