//! What is put into one pod, as values: annotations, containers, volumes. How it gets into the text is `splice`'s business.

use super::settings::{Config, Settings, Sidecar, Trust};
use crate::smi::quantity::nanos;
use serde_json::{Map, Value, json};
use weft_proxy_api::names::{self, inject as ours, keys, ports, proxy_env as env};

/// What is put into one pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patch {
    /// In front of the annotations.
    pub annotations: Map<String, Value>,
    /// In front of the init containers.
    pub init_containers: Vec<Value>,
    /// In front of the containers.
    pub containers: Vec<Value>,
    /// In front of the volumes.
    pub volumes: Vec<Value>,
}

/// Annotations for Prometheus, where the pod has none of its own.
pub(super) const SCRAPE: [&str; 3] = [
    "prometheus.io/scrape",
    "prometheus.io/port",
    "prometheus.io/path",
];

/// Makes the patch. `record` is what uninjection must know.
pub(super) fn build(settings: &Settings, config: &Config, scrape: bool, record: &str) -> Patch {
    let image = image(settings, config);
    let init = init_container(&image, config);
    let proxy = proxy_container(&image, settings, config);
    let (init_containers, containers) = match settings.sidecar {
        Sidecar::Native => (vec![init, proxy], vec![]),
        Sidecar::Plain => (vec![init], vec![proxy]),
    };
    let annotations = annotations(settings, config, scrape, record);
    Patch {
        annotations,
        init_containers,
        containers,
        volumes: volumes(),
    }
}

fn annotations(
    settings: &Settings,
    config: &Config,
    scrape: bool,
    record: &str,
) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |key: &str, value: &str| all.insert(key.to_owned(), value.into());
    add(keys::INJECTED_AT_VERSION, &settings.version);
    if !record.is_empty() {
        add(keys::INJECTED_KEYS, record);
    }
    for (key, value) in &config.from_flags {
        add(key, value);
    }
    if scrape {
        let port = ports::ADMIN.to_string();
        SCRAPE
            .iter()
            .zip(["true", &port, "/metrics"])
            .for_each(|(key, value)| drop(add(key, value)));
    }
    all
}

/// The image of the pod or of everybody, with our version where it has no tag.
fn image(settings: &Settings, config: &Config) -> String {
    let image = config
        .get(keys::PROXY_IMAGE)
        .unwrap_or_else(|| ours::IMAGE.to_owned());
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        image
    } else {
        format!("{image}:{}", settings.version)
    }
}

fn init_container(image: &str, config: &Config) -> Value {
    json!({
        "name": ours::INIT_CONTAINER,
        "image": image,
        "command": ["weft-init"],
        "args": init_args(config),
        "resources": {
            "requests": { "cpu": "10m", "memory": "10Mi" },
            "limits": { "memory": "64Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "runAsGroup": 0,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        // iptables keeps its lock file there, and the root file system is read-only.
        "volumeMounts": [{ "name": ours::RUN_VOLUME, "mountPath": "/run" }],
    })
}

fn init_args(config: &Config) -> Vec<String> {
    let mut args: Vec<String> = vec![];
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    add("--proxy-uid", names::PROXY_UID.to_string());
    add("--inbound-port", ports::INBOUND.to_string());
    add("--outbound-port", ports::OUTBOUND.to_string());
    // The kubelet's probes and Prometheus reach the admin port directly.
    let admin = ports::ADMIN.to_string();
    let inbound = config
        .get(keys::SKIP_INBOUND_PORTS)
        .filter(|list| !list.is_empty());
    add(
        "--skip-inbound-ports",
        inbound.map_or(admin.clone(), |list| format!("{admin},{list}")),
    );
    for (flag, key) in [
        ("--skip-outbound-ports", keys::SKIP_OUTBOUND_PORTS),
        ("--skip-subnets", keys::SKIP_SUBNETS),
    ] {
        if let Some(list) = config.get(key).filter(|list| !list.is_empty()) {
            add(flag, list);
        }
    }
    args
}

fn proxy_container(image: &str, settings: &Settings, config: &Config) -> Value {
    let mut container = json!({
        "name": ours::PROXY_CONTAINER,
        "image": image,
        "command": ["weft-proxy"],
        "env": environment(settings, config),
        "ports": [
            { "name": "weft-inbound", "containerPort": ports::INBOUND },
            { "name": "weft-admin", "containerPort": ports::ADMIN },
        ],
        // Containers after a native sidecar start once this succeeds: with an identity and a policy.
        "startupProbe": { "httpGet": { "path": "/ready", "port": ports::ADMIN }, "periodSeconds": 1, "failureThreshold": 120 },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": ports::ADMIN }, "periodSeconds": 10, "timeoutSeconds": 2 },
        "livenessProbe": { "httpGet": { "path": "/live", "port": ports::ADMIN }, "periodSeconds": 10, "timeoutSeconds": 2 },
        "resources": resources(config),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": names::PROXY_UID,
            "runAsGroup": names::PROXY_UID,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{ "name": ours::TOKEN_VOLUME, "mountPath": ours::TOKEN_DIR, "readOnly": true }],
    });
    if settings.sidecar == Sidecar::Native {
        container["restartPolicy"] = "Always".into();
    }
    container
}

fn environment(settings: &Settings, config: &Config) -> Vec<Value> {
    let given = |name: &str, value: &str| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut all = vec![
        field("WEFT_POD_NAMESPACE", "metadata.namespace"),
        field("WEFT_POD_NAME", "metadata.name"),
        given(env::WORKLOAD, "$(WEFT_POD_NAMESPACE)/$(WEFT_POD_NAME)"),
        given(env::CONTROL_ADDR, &settings.control_addr),
        trust_anchors(&settings.trust),
        given(env::TRUST_DOMAIN, &settings.trust_domain),
        given(
            env::TOKEN_FILE,
            &format!("{}/{}", ours::TOKEN_DIR, ours::TOKEN_FILE),
        ),
        given(
            env::OUTBOUND_ADDR,
            &format!("127.0.0.1:{0},[::1]:{0}", ports::OUTBOUND),
        ),
        given(env::INBOUND_ADDR, &format!("[::]:{}", ports::INBOUND)),
        // The kubelet and Prometheus come from other hosts.
        given(env::ADMIN_ADDR, &format!("[::]:{}", ports::ADMIN)),
        given(
            env::LOG,
            &config
                .get(keys::PROXY_LOG_LEVEL)
                .unwrap_or_else(|| "info".to_owned()),
        ),
    ];
    let opaque = config
        .get(keys::OPAQUE_PORTS)
        .filter(|list| !list.is_empty());
    all.extend(opaque.map(|list| given(env::OPAQUE_PORTS, &list)));
    all
}

pub(super) fn trust_anchors(trust: &Trust) -> Value {
    match trust {
        Trust::ConfigMap => {
            let key = json!({ "name": ours::TRUST_CONFIG_MAP, "key": ours::TRUST_KEY });
            json!({ "name": env::TRUST_ANCHORS, "valueFrom": { "configMapKeyRef": key } })
        }
        Trust::File(path) => json!({ "name": env::TRUST_ANCHORS_FILE, "value": path }),
        Trust::Text(pem) => json!({ "name": env::TRUST_ANCHORS, "value": pem }),
    }
}

/// Requests always, so that the scheduler knows, and none of ours above a limit, which no pod may have; a CPU limit only where
/// asked for, as it makes every request slower.
fn resources(config: &Config) -> Value {
    let mut resources = json!({});
    for (name, default, request, limit) in [
        ("cpu", "10m", keys::PROXY_CPU_REQUEST, keys::PROXY_CPU_LIMIT),
        (
            "memory",
            "16Mi",
            keys::PROXY_MEMORY_REQUEST,
            keys::PROXY_MEMORY_LIMIT,
        ),
    ] {
        let limit = config.get(limit);
        let ours = || match &limit {
            Some(limit) if is_less(limit, default) => limit.clone(),
            _ => default.to_owned(),
        };
        resources["requests"][name] = config.get(request).unwrap_or_else(ours).into();
        if let Some(limit) = limit {
            resources["limits"][name] = limit.into();
        }
    }
    resources
}

fn is_less(one: &str, other: &str) -> bool {
    matches!((nanos(one), nanos(other)), (Ok(one), Ok(other)) if one < other)
}

fn volumes() -> Vec<Value> {
    let token = json!({ "audience": ours::TOKEN_AUDIENCE, "expirationSeconds": ours::TOKEN_SECONDS, "path": ours::TOKEN_FILE });
    vec![
        json!({ "name": ours::TOKEN_VOLUME, "projected": { "sources": [{ "serviceAccountToken": token }] } }),
        json!({ "name": ours::RUN_VOLUME, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
    ]
}
