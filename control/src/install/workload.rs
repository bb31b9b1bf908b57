//! The controller itself: Deployment, Services, and what watches over them.

use super::Source;
use super::objects::{LEGACY, labels, metadata};
use serde_json::{Value, json};
use weft_proxy_api::names::{CONTROL_ACCOUNT, PROXY_UID, control_env as env, keys, ports};

/// Name of the Service by which replicas find each other.
const PEERS: &str = "weft-control-peers";

/// What tells the controller's pods from others.
fn selector() -> Value {
    json!({"app.kubernetes.io/name": "weft", "app.kubernetes.io/component": CONTROL_ACCOUNT})
}

pub(super) fn objects(source: &impl Source) -> Vec<Value> {
    vec![
        service(source),
        peers(source),
        budget(source),
        deployment(source),
    ]
}

fn service(source: &impl Source) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(source, CONTROL_ACCOUNT),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(),
            "ports": [
                port("grpc", ports::CONTROL),
                port("https-webhook", ports::WEBHOOK),
                port("https-metrics", ports::METRICS_API),
            ],
        },
    })
}

/// Where replicas find each other: a name with the address of each, not one address for all.
fn peers(source: &impl Source) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(source, PEERS),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": selector(),
            "ports": [{"name": "grpc", "port": ports::CONTROL, "targetPort": "grpc", "protocol": "TCP"}],
        },
    })
}

fn budget(source: &impl Source) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata(source, CONTROL_ACCOUNT),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
    })
}

fn deployment(source: &impl Source) -> Value {
    let mut pod_labels = labels();
    pod_labels["app.kubernetes.io/component"] = CONTROL_ACCOUNT.into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(source, CONTROL_ACCOUNT),
        "spec": {
            "replicas": source.value("replicas"),
            // One more before one less: proxies always find a controller.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector()},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": {keys::INJECT: "disabled"}},
                "spec": pod(source),
            },
        },
    })
}

fn pod(source: &impl Source) -> Value {
    json!({
        "serviceAccountName": CONTROL_ACCOUNT,
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": source.value("controller.spread"),
            "labelSelector": {"matchLabels": selector()},
        }],
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": PROXY_UID, "runAsGroup": PROXY_UID, "fsGroup": PROXY_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(source)],
        // Keys pass through it while the controller runs: in memory, never on a disk.
        "volumes": [{"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    })
}

fn container(source: &impl Source) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "admin"},
            "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    let port =
        |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    json!({
        "name": CONTROL_ACCOUNT,
        "image": source.value("image"),
        "imagePullPolicy": source.value("imagePullPolicy"),
        "command": [CONTROL_ACCOUNT],
        "args": arguments(source),
        "env": environment(source),
        "ports": [
            port("grpc", ports::CONTROL),
            port("https-webhook", ports::WEBHOOK),
            port("https-metrics", ports::METRICS_API),
            port("admin", ports::CONTROL_ADMIN),
        ],
        "startupProbe": probe("/ready", 1, 120),
        "readinessProbe": probe("/ready", 5, 2),
        "livenessProbe": probe("/live", 10, 6),
        "resources": {
            "requests": {"cpu": source.value("controller.cpuRequest"), "memory": source.value("controller.memoryRequest")},
            "limits": {"memory": source.value("controller.memoryLimit")},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "state", "mountPath": "/tmp"}],
    })
}

/// What injected pods get; the rest is in the environment.
fn arguments(source: &impl Source) -> Vec<String> {
    let default = |key: &str, value: String| format!("--inject-default={key}={value}");
    let host = host(source, CONTROL_ACCOUNT);
    vec![
        format!("--inject-sidecar={}", source.text("proxy.sidecar")),
        format!("--inject-control-addr={host}:{}", ports::CONTROL),
        format!("--webhook-ca-ttl={}", source.text("webhook.caTtl")),
        default(keys::PROXY_IMAGE, source.text("image")),
        default(keys::PROXY_CPU_REQUEST, source.text("proxy.cpuRequest")),
        default(
            keys::PROXY_MEMORY_REQUEST,
            source.text("proxy.memoryRequest"),
        ),
        default(keys::PROXY_LOG_LEVEL, source.text("proxy.logLevel")),
    ]
}

/// Full name of a Service beside the controller.
fn host(source: &impl Source, service: &str) -> String {
    let (namespace, domain) = (source.namespace(), source.text("clusterDomain"));
    format!("{service}.{namespace}.svc.{domain}")
}

fn environment(source: &impl Source) -> Vec<Value> {
    let fixed = |name: &str, value: String| json!({"name": name, "value": value});
    let any = |port: u16| format!("[::]:{port}");
    vec![
        fixed(env::KUBERNETES, "true".into()),
        json!({"name": env::NAMESPACE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
        fixed(env::ACCESS, source.text("access")),
        fixed(env::TRUST_DOMAIN, source.text("trustDomain")),
        fixed(env::METRICS, source.text("metrics")),
        fixed(env::LEGACY_SPEC_GROUP, source.text(LEGACY)),
        fixed(env::CERT_TTL, source.text("certTtl")),
        fixed(env::LOG, source.text("logLevel")),
        fixed(
            env::PEERS,
            format!("{}:{}", host(source, PEERS), ports::CONTROL),
        ),
        fixed(env::WEBHOOK_ADDR, any(ports::WEBHOOK)),
        fixed(env::METRICS_API_ADDR, any(ports::METRICS_API)),
        // Probes and Prometheus come from other hosts; what it shows of the traffic needs a token.
        fixed(env::ADMIN_ADDR, any(ports::CONTROL_ADMIN)),
    ]
}

/// For Prometheus operators.
pub(super) fn monitors(source: &impl Source) -> Vec<Value> {
    let monitor = |name: &str, selector: Value, endpoint: Value| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
            "metadata": metadata(source, name),
            "spec": {"namespaceSelector": {"any": true}, "selector": selector, "podMetricsEndpoints": [endpoint]},
        })
    };
    let admin = |port: &str, relabelings: Value| json!({"port": port, "path": "/metrics", "interval": "15s", "relabelings": relabelings});
    // What the dashboards ask for; the operator would put the namespace in front.
    let job = |name: &str| json!({"targetLabel": "job", "replacement": name});
    let meshed = json!({"action": "keep", "sourceLabels": ["__meta_kubernetes_pod_container_name"], "regex": "weft-proxy"});
    vec![
        monitor(
            CONTROL_ACCOUNT,
            json!({"matchLabels": selector()}),
            admin("admin", json!([job(CONTROL_ACCOUNT)])),
        ),
        monitor(
            "weft-proxy",
            json!({}),
            admin("weft-admin", json!([meshed, job("weft-proxy")])),
        ),
    ]
}
