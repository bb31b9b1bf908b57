//! Manifests: text in, checked objects out, each with the place it was written at.
//!
//! ```text
//! text ──yaml──▶ documents (trees with lines) ──object──▶ k8s kinds | smi kinds | Other
//! ```
//!
//! Nothing here fails as a whole: a document that cannot be read is a [`Problem`], the others are still objects.

mod container;
pub mod de;
mod json;
pub mod k8s;
mod object;
mod read;
pub mod report;
mod volume;
pub mod workload;
pub mod yaml;

use crate::policy::{self, ServicePolicy};
use crate::smi::Groups;
use crate::smi::access::TrafficTarget;
use crate::smi::binding::IdentityBinding;
use crate::smi::routes::{TcpRoute, UdpRoute};
use crate::smi::specs::HttpRouteGroup;
use crate::smi::split::TrafficSplit;
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Largest file that is read, bytes.
pub const MAX_FILE: usize = 8 << 20;

/// Where an object or a field was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as it was named by who read it.
    pub file: Arc<str>,
    /// Line, from 1; 0: the file as a whole.
    pub line: u32,
}

/// Kinds that the mesh knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespace.
    Namespace,
    /// ServiceAccount.
    ServiceAccount,
    /// ConfigMap.
    ConfigMap,
    /// Service.
    Service,
    /// Endpoints.
    Endpoints,
    /// EndpointSlice.
    EndpointSlice,
    /// Pod.
    Pod,
    /// Deployment.
    Deployment,
    /// StatefulSet.
    StatefulSet,
    /// DaemonSet.
    DaemonSet,
    /// ReplicaSet.
    ReplicaSet,
    /// Job.
    Job,
    /// CronJob.
    CronJob,
    /// TrafficSplit.
    TrafficSplit,
    /// TrafficTarget.
    TrafficTarget,
    /// IdentityBinding.
    IdentityBinding,
    /// HTTPRouteGroup.
    HttpRouteGroup,
    /// TCPRoute.
    TcpRoute,
    /// UDPRoute.
    UdpRoute,
    /// ServicePolicy.
    ServicePolicy,
    /// Any other: `group/Kind` (or `Kind` of the core group).
    Other(Arc<str>),
}

/// The name of an object, unique in the mesh. Shown as `TrafficSplit default/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An object. Behind `Arc`, because it goes to several places.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Namespace.
    Namespace(Arc<k8s::Namespace>),
    /// ServiceAccount.
    ServiceAccount(Arc<k8s::ServiceAccount>),
    /// ConfigMap.
    ConfigMap(Arc<k8s::ConfigMap>),
    /// Service.
    Service(Arc<k8s::Service>),
    /// Endpoints.
    Endpoints(Arc<k8s::Endpoints>),
    /// EndpointSlice.
    EndpointSlice(Arc<k8s::EndpointSlice>),
    /// Pod.
    Pod(Arc<workload::Pod>),
    /// Deployment.
    Deployment(Arc<workload::Workload>),
    /// StatefulSet.
    StatefulSet(Arc<workload::Workload>),
    /// DaemonSet.
    DaemonSet(Arc<workload::Workload>),
    /// ReplicaSet.
    ReplicaSet(Arc<workload::Workload>),
    /// Job.
    Job(Arc<workload::Job>),
    /// CronJob.
    CronJob(Arc<workload::CronJob>),
    /// TrafficSplit.
    TrafficSplit(Arc<TrafficSplit>),
    /// TrafficTarget.
    TrafficTarget(Arc<TrafficTarget>),
    /// IdentityBinding.
    IdentityBinding(Arc<IdentityBinding>),
    /// HTTPRouteGroup.
    HttpRouteGroup(Arc<HttpRouteGroup>),
    /// TCPRoute.
    TcpRoute(Arc<TcpRoute>),
    /// UDPRoute.
    UdpRoute(Arc<UdpRoute>),
    /// ServicePolicy.
    ServicePolicy(Arc<ServicePolicy>),
    /// A kind the mesh has nothing to do with.
    Other {
        /// E.g. `rbac.authorization.k8s.io/v1`.
        api_version: String,
        /// E.g. `Role`.
        kind: String,
    },
}

/// An object and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Its name.
    pub key: ObjectKey,
    /// Where it was written.
    pub origin: Origin,
    /// The object.
    pub object: Object,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Info,
    /// Applied, but probably not what was meant.
    Warning,
    /// Not applied.
    Error,
}

/// Something wrong in a manifest. Shown as one line: `file:line: object: field: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Which object, e.g. `TrafficSplit default/web`; `None`: not even that could be read.
    pub object: Option<String>,
    /// Which field, e.g. `spec.backends[1].weight`.
    pub field: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
    /// How bad.
    pub severity: Severity,
}

/// All that a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The objects, each key once, in the order of the file.
    pub loaded: Vec<Loaded>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Objects that are in the file but could not be accepted: what was valid before stays in force.
    pub broken: BTreeSet<ObjectKey>,
    /// Some part could not even be read: nothing of what was valid before may be taken for deleted.
    pub unreadable: bool,
}

/// The objects of a file (YAML or JSON, any number of documents), and what is wrong with it.
pub fn parse(file: &str, text: &str) -> (Vec<Loaded>, Vec<Problem>) {
    let parsed = parse_file(file, text);
    (parsed.loaded, parsed.problems)
}

/// As [`parse`], and what must be kept of an older state of the file.
pub fn parse_file(file: &str, text: &str) -> Parsed {
    parse_file_of(Groups::Current, file, text)
}

/// The same, where the old name of a group may count as well.
pub fn parse_file_of(groups: Groups, file: &str, text: &str) -> Parsed {
    read::file(file, text, groups)
}

/// One object as an API server sends it, which says by itself which names of groups count; `file` is what problems and origins
/// call it.
pub fn parse_json(file: &str, object: serde_json::Value) -> Parsed {
    read::tree(file, &json::tree(object), Groups::Legacy)
}

impl fmt::Display for Origin {
    /// `file:line`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl Kind {
    /// As it is written in a manifest.
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::ConfigMap => "ConfigMap",
            Kind::Service => "Service",
            Kind::Endpoints => "Endpoints",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Pod => "Pod",
            Kind::Deployment => "Deployment",
            Kind::StatefulSet => "StatefulSet",
            Kind::DaemonSet => "DaemonSet",
            Kind::ReplicaSet => "ReplicaSet",
            Kind::Job => "Job",
            Kind::CronJob => "CronJob",
            Kind::TrafficSplit => "TrafficSplit",
            Kind::TrafficTarget => "TrafficTarget",
            Kind::IdentityBinding => "IdentityBinding",
            Kind::HttpRouteGroup => "HTTPRouteGroup",
            Kind::TcpRoute => "TCPRoute",
            Kind::UdpRoute => "UDPRoute",
            Kind::ServicePolicy => policy::KIND,
            Kind::Other(name) => name.rsplit('/').next().unwrap_or(name),
        }
    }
}

impl Object {
    /// Metadata of an object of SMI, or of a ServicePolicy.
    pub fn metadata(&self) -> Option<&k8s::ObjectMeta> {
        Some(match self {
            Self::TrafficSplit(it) => &it.metadata,
            Self::TrafficTarget(it) => &it.metadata,
            Self::IdentityBinding(it) => &it.metadata,
            Self::HttpRouteGroup(it) => &it.metadata,
            Self::TcpRoute(it) => &it.metadata,
            Self::UdpRoute(it) => &it.metadata,
            Self::ServicePolicy(it) => &it.metadata,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectKey {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name);
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        write!(line, "{}: {}: ", self.origin, self.severity)?;
        if let Some(object) = &self.object {
            write!(line, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(line, "{field}: ")?;
        }
        line.write_str(&self.message)
    }
}

/// Keeps what somebody wrote into a name or a value from looking like a line of ours, or from steering a terminal.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| match letter {
            '\n' => self.0.write_char(' '),
            letter if letter.is_control() => write!(self.0, "{}", letter.escape_default()),
            letter => self.0.write_char(letter),
        })
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
