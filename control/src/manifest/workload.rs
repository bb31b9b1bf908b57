//! Pods, and the kinds that make pods.

pub use super::container::*;
use super::k8s::{IntOrString, Labels, ObjectMeta};
pub use super::volume::*;
use serde::{Deserialize, Serialize};

/// A Pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    pub status: PodStatus,
}

/// What a workload makes its pods from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Metadata of the pods; name and namespace are empty.
    pub metadata: ObjectMeta,
    /// Spec of the pods.
    pub spec: PodSpec,
}

/// `spec` of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its identity; empty: `default`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Containers.
    pub containers: Vec<Container>,
    /// Containers that run before; those with `restartPolicy: Always` keep running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// It has the network of its node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// `Always` where absent, `OnFailure`, `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// How long it may take to stop; 30 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u64>,
    /// Node it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Host name; absent: the pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Names and addresses for its hosts file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// User and group of its containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

impl PodSpec {
    /// The service account it runs as.
    pub fn account(&self) -> &str {
        if self.service_account_name.is_empty() {
            "default"
        } else {
            &self.service_account_name
        }
    }
}

/// `spec.hostAliases[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Names.
    pub hostnames: Vec<String>,
}

/// `status` of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// All its addresses; the first is `pod_ip`.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<PodIp>,
    /// Conditions; the one of type `Ready` decides about traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

impl PodStatus {
    /// Every address, each once; what is not an address is left out.
    pub fn ips(&self) -> Vec<std::net::IpAddr> {
        let all = self
            .pod_ip
            .iter()
            .chain(self.pod_ips.iter().map(|ip| &ip.ip));
        let mut ips: Vec<std::net::IpAddr> = Vec::new();
        for ip in all.filter_map(|text| text.parse().ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        ips
    }

    /// Is it ready? No `Ready` condition at all counts as ready, for pods that were written by hand.
    pub fn is_ready(&self) -> bool {
        let finished = matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ready = self
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        !finished && ready.is_none_or(|condition| condition.status == "True")
    }
}

/// `status.podIPs[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// Address.
    pub ip: String,
}

/// `status.conditions[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// E.g. `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
}

/// Deployment, StatefulSet, DaemonSet, ReplicaSet: kinds that keep pods of a template running.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: WorkloadSpec,
}

/// `spec` of a [`Workload`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// How many; 1 where absent (a DaemonSet has none).
    pub replicas: Option<u32>,
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// What a pod is made from.
    pub template: PodTemplate,
    /// How pods are replaced (`strategy` of a Deployment).
    pub strategy: Option<Strategy>,
    /// How pods are replaced (`updateStrategy` of a StatefulSet or DaemonSet).
    pub update_strategy: Option<Strategy>,
    /// The headless Service of a StatefulSet.
    pub service_name: Option<String>,
    /// How long a new pod must be ready to count.
    pub min_ready_seconds: Option<u32>,
}

/// A selector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there.
    pub match_labels: Labels,
}

/// How pods are replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// `RollingUpdate` where absent, `Recreate`, `OnDelete`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Details of `RollingUpdate`.
    pub rolling_update: Option<RollingUpdate>,
}

/// Details of a rolling update.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// How many may be missing: a number or `25%`.
    pub max_unavailable: Option<IntOrString>,
    /// How many may be extra: a number or `25%`.
    pub max_surge: Option<IntOrString>,
}

/// A Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: JobSpec,
}

/// `spec` of a Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    /// What a pod is made from.
    pub template: PodTemplate,
    /// Pods at once.
    pub parallelism: Option<u32>,
    /// Pods that must succeed.
    pub completions: Option<u32>,
    /// Tries.
    pub backoff_limit: Option<u32>,
}

/// A CronJob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJob {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: CronJobSpec,
}

/// `spec` of a CronJob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    /// When.
    pub schedule: String,
    /// What is run.
    pub job_template: JobTemplate,
    /// Not now.
    pub suspend: Option<bool>,
}

/// `spec.jobTemplate` of a CronJob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobTemplate {
    /// Metadata of the jobs.
    pub metadata: ObjectMeta,
    /// Spec of the jobs.
    pub spec: JobSpec,
}
