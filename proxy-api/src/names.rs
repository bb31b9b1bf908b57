//! Every name that two parts of Weft must spell alike: ports, users, settings, annotations, headers, identities.
//! They are spelled here and nowhere else.

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the controller lives in Kubernetes.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// Service account (and Service, and Deployment) of the controller.
pub const CONTROL_ACCOUNT: &str = "weft-control";
/// Service account whose rights are to see the traffic, and nothing else.
pub const VIEWER_ACCOUNT: &str = "weft-viewer";
/// Trust domain where nothing else is said.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// Ports of the proxy and the controller.
pub mod ports {
    /// Proxy: traffic the application sends, after redirection.
    pub const OUTBOUND: u16 = 4140;
    /// Proxy: traffic sent to the application, after redirection.
    pub const INBOUND: u16 = 4143;
    /// Proxy: health, metrics, configuration.
    pub const ADMIN: u16 = 4191;
    /// Controller: the control API (gRPC over TLS).
    pub const CONTROL: u16 = 8086;
    /// Controller: webhook.
    pub const WEBHOOK: u16 = 8443;
    /// Controller: aggregated API of traffic metrics.
    pub const METRICS_API: u16 = 8444;
    /// Controller: web pages.
    pub const WEB: u16 = 8084;
    /// Controller: health and metrics.
    pub const CONTROL_ADMIN: u16 = 8085;
}

/// Paths of the controller's webhook.
pub mod webhook_paths {
    /// Conversion of SMI objects between versions.
    pub const CONVERT: &str = "/convert";
    /// Injection of a pod that its own annotation or one of its namespace asks for.
    pub const INJECT: &str = "/inject";
    /// Injection of every pod that does not object: the namespace's label asks for it.
    pub const INJECT_NAMESPACE: &str = "/inject/namespace";
    /// Refusal of SMI objects and ServicePolicies that could not be honoured.
    pub const VALIDATE: &str = "/validate";
}

/// User and group the proxy runs as; the redirection leaves their packets alone.
pub const PROXY_UID: u32 = 2102;
/// Mark of the proxy's own packets, where a user id cannot tell them apart.
pub const PROXY_MARK: u32 = 0x539;

/// Settings of the proxy, read from the environment.
pub mod proxy_env {
    /// `namespace/name` of the pod the proxy serves.
    pub const WORKLOAD: &str = "WEFT_PROXY_WORKLOAD";
    /// `host:port` of the controller.
    pub const CONTROL_ADDR: &str = "WEFT_PROXY_CONTROL_ADDR";
    /// File with the token that proves which workload this is.
    pub const TOKEN_FILE: &str = "WEFT_PROXY_TOKEN_FILE";
    /// File with the roots (PEM) trusted for the first call to the controller.
    pub const TRUST_ANCHORS_FILE: &str = "WEFT_PROXY_TRUST_ANCHORS_FILE";
    /// The same roots as text (PEM), for an injected pod that has no file.
    pub const TRUST_ANCHORS: &str = "WEFT_PROXY_TRUST_ANCHORS";
    /// Trust domain of the mesh.
    pub const TRUST_DOMAIN: &str = "WEFT_PROXY_TRUST_DOMAIN";
    /// Address of the outbound listener.
    pub const OUTBOUND_ADDR: &str = "WEFT_PROXY_OUTBOUND_ADDR";
    /// Address of the inbound listener.
    pub const INBOUND_ADDR: &str = "WEFT_PROXY_INBOUND_ADDR";
    /// Address of the admin listener.
    pub const ADMIN_ADDR: &str = "WEFT_PROXY_ADMIN_ADDR";
    /// Worker threads.
    pub const WORKERS: &str = "WEFT_PROXY_WORKERS";
    /// Packet mark set on every connection the proxy opens.
    pub const MARK: &str = "WEFT_PROXY_MARK";
    /// Log filter.
    pub const LOG: &str = "WEFT_PROXY_LOG";
    /// `plain` or `json`.
    pub const LOG_FORMAT: &str = "WEFT_PROXY_LOG_FORMAT";
    /// `common` or `json`; empty: no access log.
    pub const ACCESS_LOG: &str = "WEFT_PROXY_ACCESS_LOG";
    /// Which requests get a line in the access log.
    pub const ACCESS_LOG_FILTER: &str = "WEFT_PROXY_ACCESS_LOG_FILTER";
    /// Whether the access log shows queries.
    pub const ACCESS_LOG_QUERY: &str = "WEFT_PROXY_ACCESS_LOG_QUERY";
    /// `host:port` of the collector of traces.
    pub const TRACE_COLLECTOR: &str = "WEFT_PROXY_TRACE_COLLECTOR";
    /// Share of the requests without trace that begin one.
    pub const TRACE_RATIO: &str = "WEFT_PROXY_TRACE_RATIO";
    /// Name of the service in traces.
    pub const TRACE_SERVICE: &str = "WEFT_PROXY_TRACE_SERVICE";
    /// Whether metrics are also said under Linkerd's names.
    pub const METRICS_ALIASES: &str = "WEFT_PROXY_METRICS_ALIASES";
    /// Zone of the node.
    pub const ZONE: &str = "WEFT_PROXY_ZONE";
    /// How long a drain may take.
    pub const SHUTDOWN_GRACE: &str = "WEFT_PROXY_SHUTDOWN_GRACE";
    /// Most connections at once.
    pub const MAX_CONNECTIONS: &str = "WEFT_PROXY_MAX_CONNECTIONS";
    /// Most connections to endpoints kept for later requests.
    pub const MAX_IDLE: &str = "WEFT_PROXY_MAX_IDLE";
    /// Whether `POST /shutdown` ends the proxy.
    pub const ADMIN_SHUTDOWN: &str = "WEFT_PROXY_ADMIN_SHUTDOWN";
    /// Where a new proxy takes the listeners over.
    pub const UPGRADE_SOCKET: &str = "WEFT_PROXY_UPGRADE_SOCKET";
    /// Whether connections of bytes between two proxies share a tunnel.
    pub const TUNNELS: &str = "WEFT_PROXY_TUNNELS";
    /// Ports never treated as HTTP, in either direction.
    pub const OPAQUE_PORTS: &str = "WEFT_PROXY_OPAQUE_PORTS";
    /// Listeners with a fixed original destination, for hosts without redirection.
    pub const FIXED_TARGETS: &str = "WEFT_PROXY_FIXED_TARGETS";
}

/// What an application is told on a host without namespaces, where it cannot have all addresses to itself.
pub mod app_env {
    /// Address to listen on, in place of all of them.
    pub const BIND: &str = "WEFT_BIND";
    /// File like `/etc/hosts` with the names of Services, to be asked first.
    pub const HOSTS_FILE: &str = "WEFT_HOSTS_FILE";
    /// Folder with the volumes of the pod, by name.
    pub const VOLUMES: &str = "WEFT_VOLUMES";
}

/// Settings of the controller, read from the environment where a flag is absent.
pub mod control_env {
    /// Folders with manifests.
    pub const DIR: &str = "WEFT_CONTROL_DIR";
    /// `true`: objects come from a Kubernetes API server.
    pub const KUBERNETES: &str = "WEFT_CONTROL_KUBERNETES";
    /// Namespace of the controller's own objects in Kubernetes.
    pub const NAMESPACE: &str = "WEFT_CONTROL_NAMESPACE";
    /// Folder for keys and what must survive a restart.
    pub const STATE: &str = "WEFT_CONTROL_STATE";
    /// `strict`, `permissive` or `audit`.
    pub const ACCESS: &str = "WEFT_CONTROL_ACCESS";
    /// `edges`, `routes` or `endpoints`.
    pub const METRICS: &str = "WEFT_CONTROL_METRICS";
    /// Address of the control API.
    pub const LISTEN: &str = "WEFT_CONTROL_LISTEN";
    /// Other controllers of the mesh, separated by commas.
    pub const PEERS: &str = "WEFT_CONTROL_PEERS";
    /// Address of health and metrics.
    pub const ADMIN_ADDR: &str = "WEFT_CONTROL_ADMIN_ADDR";
    /// Address of the webhook.
    pub const WEBHOOK_ADDR: &str = "WEFT_CONTROL_WEBHOOK_ADDR";
    /// Address of the aggregated API of traffic metrics.
    pub const METRICS_API_ADDR: &str = "WEFT_CONTROL_METRICS_API_ADDR";
    /// `true`: the group of routes under its old name counts as well.
    pub const LEGACY_SPEC_GROUP: &str = "WEFT_CONTROL_LEGACY_SPEC_GROUP";
    /// Trust domain of the mesh.
    pub const TRUST_DOMAIN: &str = "WEFT_CONTROL_TRUST_DOMAIN";
    /// Life of a workload certificate.
    pub const CERT_TTL: &str = "WEFT_CONTROL_CERT_TTL";
    /// Log filter.
    pub const LOG: &str = "WEFT_CONTROL_LOG";
}

/// Annotations and labels on pods, workloads, namespaces and services.
pub mod keys {
    /// `enabled` or `disabled`, on a pod template; on a namespace, as a label (or an annotation), for all its pods.
    pub const INJECT: &str = "weft.mesh/inject";
    /// Version of Weft that injected this pod.
    pub const INJECTED_AT_VERSION: &str = "weft.mesh/injected-at-version";
    /// What else than its own containers and volumes the injector wrote into a pod, so that it can be taken out again.
    pub const INJECTED_KEYS: &str = "weft.mesh/injected-keys";
    /// Inbound ports that bypass the proxy.
    pub const SKIP_INBOUND_PORTS: &str = "config.weft.mesh/skip-inbound-ports";
    /// Outbound ports that bypass the proxy.
    pub const SKIP_OUTBOUND_PORTS: &str = "config.weft.mesh/skip-outbound-ports";
    /// Destination networks that bypass the proxy.
    pub const SKIP_SUBNETS: &str = "config.weft.mesh/skip-subnets";
    /// Ports that are never treated as HTTP.
    pub const OPAQUE_PORTS: &str = "config.weft.mesh/opaque-ports";
    /// Log filter of the proxy.
    pub const PROXY_LOG_LEVEL: &str = "config.weft.mesh/proxy-log-level";
    /// Image of proxy and init.
    pub const PROXY_IMAGE: &str = "config.weft.mesh/proxy-image";
    /// CPU request of the proxy.
    pub const PROXY_CPU_REQUEST: &str = "config.weft.mesh/proxy-cpu-request";
    /// CPU limit of the proxy.
    pub const PROXY_CPU_LIMIT: &str = "config.weft.mesh/proxy-cpu-limit";
    /// Memory request of the proxy.
    pub const PROXY_MEMORY_REQUEST: &str = "config.weft.mesh/proxy-memory-request";
    /// Memory limit of the proxy.
    pub const PROXY_MEMORY_LIMIT: &str = "config.weft.mesh/proxy-memory-limit";
    /// `strict`, `permissive` or `audit`, on a namespace or a pod.
    pub const ACCESS: &str = "config.weft.mesh/access";
    /// `edges`, `routes` or `endpoints`, on a namespace or a pod: in how much detail metrics are said.
    pub const METRICS: &str = "config.weft.mesh/metrics";
    /// `full`, on an HTTPRouteGroup: its path patterns must fit whole paths, as OSM and Linkerd have it; else they fit a path's start.
    pub const PATH_MATCH: &str = "config.weft.mesh/path-match";
    /// On an SMI object read in an old version: what that version cannot show. Written by the conversion between versions.
    pub const SMI_PRESERVED: &str = "weft.mesh/smi-preserved";
    /// `enabled`, on a namespace or a pod: refusals tell the client which rule, identity and object decided (`weft-denied-by`).
    pub const EXPLAIN_DENIALS: &str = "config.weft.mesh/explain-denials";
}

/// Containers the injector adds, and what belongs to them.
pub mod inject {
    /// Name of the init container.
    pub const INIT_CONTAINER: &str = "weft-init";
    /// Name of the proxy container.
    pub const PROXY_CONTAINER: &str = "weft-proxy";
    /// Image of both, without its tag.
    pub const IMAGE: &str = "weft.mesh/weft";
    /// Volume with the projected token.
    pub const TOKEN_VOLUME: &str = "weft-identity-token";
    /// Small volume for the lock file of iptables, as the root file system is read-only.
    pub const RUN_VOLUME: &str = "weft-init-run";
    /// Where the volume is mounted.
    pub const TOKEN_DIR: &str = "/var/run/secrets/weft.mesh";
    /// File in the volume.
    pub const TOKEN_FILE: &str = "token";
    /// ConfigMap with the trust anchors, in every meshed namespace.
    pub const TRUST_CONFIG_MAP: &str = "weft-trust-anchors";
    /// Key in that ConfigMap.
    pub const TRUST_KEY: &str = "trust-anchors.pem";
    /// Audience a token must be made for.
    pub const TOKEN_AUDIENCE: &str = "weft.mesh/identity";
    /// Life of a projected token, seconds.
    pub const TOKEN_SECONDS: u64 = 3600;
}

/// Application protocols (ALPN, RFC 7301) spoken between two proxies.
pub mod alpn {
    /// HTTP/1.1, forwarded as it is.
    pub const HTTP1: &[u8] = b"weft-http/1";
    /// HTTP/2.
    pub const HTTP2: &[u8] = b"weft-h2";
    /// Bytes.
    pub const OPAQUE: &[u8] = b"weft-opaque";
    /// Several connections of bytes, as streams.
    pub const TUNNEL: &[u8] = b"weft-tunnel";
}

/// Header fields of Weft. All start with `weft-`, and are removed from anyone but an authenticated peer proxy.
pub mod headers {
    /// Prefix of every reserved name.
    pub const RESERVED_PREFIX: &str = "weft-";
    /// Code and name of an error that the proxy itself made, e.g. `E104 no-endpoints`.
    pub const ERROR: &str = "weft-error";
    /// Which rule, identity and object refused a request, and what would allow it; only where that is asked for.
    pub const DENIED_BY: &str = "weft-denied-by";
    /// SPIFFE id of the authenticated client, told to the application.
    pub const CLIENT_ID: &str = "weft-client-id";
    /// Time left for the request, milliseconds, told to the next proxy.
    pub const DEADLINE: &str = "weft-deadline-ms";
    /// Identity headers of other meshes, removed as well.
    pub const FOREIGN: &[&str] = &[
        "x-forwarded-client-cert",
        "l5d-client-id",
        "l5d-dst-canonical",
        "l5d-require-id",
    ];

    /// `weft-*` and the identity headers of other meshes. Many servers read `_` as `-`, so it is the same here. `name`
    /// is in lower case.
    pub fn is_reserved(name: &str) -> bool {
        let name = name.as_bytes();
        // Nearly every name is done with after one byte.
        if !matches!(name.first(), Some(b'w' | b'x' | b'l')) {
            return false;
        }
        starts_alike(name, RESERVED_PREFIX.as_bytes())
            || FOREIGN.iter().any(|foreign| {
                foreign.len() == name.len() && starts_alike(name, foreign.as_bytes())
            })
    }

    fn starts_alike(name: &[u8], prefix: &[u8]) -> bool {
        let alike = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
        name.len() >= prefix.len() && name.iter().zip(prefix).all(alike)
    }
}

/// Prefix of every metric.
pub const METRIC_PREFIX: &str = "weft_";
